"""Key references: `pem:relative/path.pem` and RFC 7512 `pkcs11:` URIs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote_to_bytes

from quash.errors import QuashError

# RFC 7512 section 2.3. `type` may say only what we look for anyway.
_TOKEN = frozenset(
    {"token", "serial", "manufacturer", "model", "slot-id", "slot-description", "slot-manufacturer"}
    | {"library-manufacturer", "library-description", "library-version"}
)
_OBJECT = frozenset({"object", "id", "type"})
_QUERY = frozenset({"module-path", "pin-source"})
_CHARACTERS = re.compile(r"(?:[A-Za-z0-9._~:\[\]@!$'()*+,=;&/?|-]|%[0-9A-Fa-f]{2})*")


@dataclass(frozen=True, slots=True)
class TokenKey:
    """Where a key lies. `token`: (attribute, value) of its token: all must fit. What is None is not compared."""

    module: str
    token: tuple[tuple[str, str], ...]
    label: str | None
    id: bytes | None
    pin_source: Path | None


def pem_path(ref: str, keys_dir: Path) -> Path:
    """The file of a `pem:` reference; it must lie below `keys_dir` (`key.bad_reference`)."""
    relative = PurePosixPath(ref.removeprefix("pem:"))
    if relative.is_absolute() or ".." in relative.parts or not relative.name:
        raise QuashError("key.bad_reference", f"{ref}: a pem: reference is a path below the keys folder, without '..'")
    return keys_dir / relative


def parse_pkcs11_uri(ref: str) -> TokenKey:
    """Reads a `pkcs11:` URI; raises `key.bad_reference`. A PIN inside the URI is refused: references end up in logs."""
    where, how = _parts(ref)
    if "module-path" not in how:
        raise _bad("a pkcs11: reference needs ?module-path=/path/of/the/library.so")
    if not where.keys() & {"object", "id"}:
        raise _bad("a pkcs11: reference needs object= or id= to name one key")
    if where.get("type", b"private") != b"private":
        raise _bad("a pkcs11: reference names a private key; leave type= out")
    return TokenKey(
        module=_text(how["module-path"]),
        token=tuple((name, _text(value)) for name, value in sorted(where.items()) if name in _TOKEN),
        label=_text(where["object"]) if "object" in where else None,
        id=where.get("id"),
        pin_source=_pin_file(_text(how["pin-source"])) if "pin-source" in how else None,
    )


def renamed_uri(ref: str, label: str) -> str:
    """The reference of the key called `label` on the token of `ref`, which need not name a key.

    Raises `key.bad_reference`.
    """
    path, _, query = ref.removeprefix("pkcs11:").partition("?")
    kept = [part for part in path.split(";") if part.partition("=")[0] not in _OBJECT]
    renamed = f"pkcs11:{';'.join([*filter(None, kept), 'object=' + quote(label, safe='')])}?{query}"
    parse_pkcs11_uri(renamed)
    return renamed


def shares_token(ref: str, other: str) -> bool:
    """Whether two references may mean one token: the same library, and no attribute of the token tells them apart.

    Raises `key.bad_reference`.
    """
    if not (ref.startswith("pkcs11:") and other.startswith("pkcs11:")):
        return False
    one, two = (parse_pkcs11_uri(renamed_uri(each, "any")) for each in (ref, other))
    mine, theirs = dict(one.token), dict(two.token)
    apart = any(mine[name] != theirs[name] for name in mine.keys() & theirs.keys())
    return _file(one.module) == _file(two.module) and not apart


def _file(module: str) -> Path:
    """Debian has a library under two paths, one of them a link."""
    return Path(module).resolve()


def describe(where: TokenKey) -> str:
    """A key and its token, for messages."""
    name = where.label if where.label is not None else (where.id or b"").hex()
    token = " ".join(value for attribute, value in where.token if attribute in {"token", "serial"})
    return f"key {name} on token {token or '(any)'}"


def _parts(ref: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
    path, _, query = ref.removeprefix("pkcs11:").partition("?")
    return _attributes(path, ";", _TOKEN | _OBJECT, path), _attributes(query, "&", _QUERY, path)


def _attributes(text: str, separator: str, allowed: frozenset[str], path: str) -> dict[str, bytes]:
    """`path` alone is told in errors: the query, and any value, may be a PIN."""
    if not _CHARACTERS.fullmatch(text):
        raise _bad(f"pkcs11:{path}: a character must be percent-encoded, or is so wrongly (RFC 7512)")
    found: dict[str, bytes] = {}
    for part in filter(None, text.split(separator)):
        name, equals, value = part.partition("=")
        if not equals or name not in allowed or name in found:
            raise _bad(f"pkcs11:{path}: {name!r} is unknown, repeated or not allowed here")
        found[name] = unquote_to_bytes(value)
    return found


def _pin_file(source: str) -> Path:
    path = Path(source.removeprefix("file://").removeprefix("file:"))
    if not path.is_absolute():  # RFC 7512 allows commands too; we do not
        raise _bad("pin-source= is file:/path/of/a/file with the PIN in its first line")
    return path


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _bad("a pkcs11: reference has an attribute that is not UTF-8") from None


def _bad(message: str) -> QuashError:
    return QuashError("key.bad_reference", message)
