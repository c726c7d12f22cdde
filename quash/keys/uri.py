"""Key references: `pem:relative/path.pem` and RFC 7512 `pkcs11:` URIs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, unquote_to_bytes

from quash.errors import QuashError

# RFC 7512 section 2.3, as far as a private key needs it. `type` may say only what we look for anyway.
_PATH = frozenset({"token", "serial", "object", "id", "type", "manufacturer", "model"})
_QUERY = frozenset({"module-path", "pin-source"})


@dataclass(frozen=True, slots=True)
class TokenKey:
    """Where a key lies on a token. What is None is not compared."""

    module: str
    token: str | None
    serial: str | None
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
    path, _, query = ref.removeprefix("pkcs11:").partition("?")
    where = _attributes(path, ";", _PATH, ref)
    how = _attributes(query, "&", _QUERY, ref)
    if "module-path" not in how:
        raise QuashError("key.bad_reference", "a pkcs11: reference needs ?module-path=/path/of/the/library.so")
    if not where.keys() & {"object", "id"}:
        raise QuashError("key.bad_reference", "a pkcs11: reference needs object= or id= to name one key")
    if unquote(where.get("type", "private")) != "private":
        raise QuashError("key.bad_reference", "a pkcs11: reference names a private key; leave type= out")
    pin = unquote(how.get("pin-source", "")).removeprefix("file://").removeprefix("file:")
    return TokenKey(
        module=unquote(how["module-path"]),
        token=_text(where, "token"),
        serial=_text(where, "serial"),
        label=_text(where, "object"),
        id=unquote_to_bytes(where["id"]) if "id" in where else None,
        pin_source=Path(pin) if pin else None,
    )


def renamed_uri(ref: str, label: str) -> str:
    """The reference of the key called `label` on the same token; raises `key.bad_reference`."""
    parse_pkcs11_uri(ref)
    path, _, query = ref.removeprefix("pkcs11:").partition("?")
    kept = [part for part in path.split(";") if part.partition("=")[0] not in {"object", "id"}]
    return f"pkcs11:{';'.join([*filter(None, kept), f'object={quote(label)}'])}?{query}"


def _attributes(text: str, separator: str, allowed: frozenset[str], ref: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, text.split(separator)):
        name, equals, value = part.partition("=")
        if not equals or name not in allowed or name in found:
            # The value is left out of the message: it may be a PIN.
            raise QuashError(
                "key.bad_reference", f"{ref.partition('?')[0]}: {name!r} is unknown, repeated or not allowed here"
            )
        found[name] = value
    return found


def _text(attributes: dict[str, str], name: str) -> str | None:
    return unquote(attributes[name]) if name in attributes else None
