"""What the ledger's hashes and checkpoints are made of; pure, and the same for who writes and who verifies.

hash(n) = SHA-256("quash ledger 1\\n" || hash(n-1) || canonical JSON of entry n); hash(0) is 32 zero octets.
A checkpoint is signed over "quash ledger checkpoint 1\\n" || its canonical JSON without the signature.
Canonical JSON: names sorted, no white space, ASCII. Lines are compared with it octet by octet, so every octet counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from quash.errors import QuashError

GENESIS: Final = bytes(32)
_ENTRY: Final = b"quash ledger 1\n"
_CHECKPOINT: Final = b"quash ledger checkpoint 1\n"
_ENTRY_NAMES: Final = {"position", "source", "id", "chained_at", "content", "hash"}
_CHECKPOINT_NAMES: Final = {"number", "position", "hash", "at", "previous", "key", "signature"}


def canonical(value: Mapping[str, Any]) -> bytes:
    """The one way to write a JSON object."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


@dataclass(frozen=True, slots=True)
class Entry:
    """The row `id` of the table `source`, what it says (`content`), and when it was chained (Unix seconds)."""

    position: int
    source: str
    id: int
    chained_at: int
    content: Mapping[str, Any]

    @property
    def canonical(self) -> bytes:
        """What is hashed behind the hash before."""
        return canonical(asdict(self))

    def hash_after(self, previous: bytes) -> bytes:
        return hashlib.sha256(_ENTRY + previous + self.canonical).digest()

    def line(self, digest: bytes) -> bytes:
        """The entry with its hash, as an export has it; ends without a line feed."""
        return canonical({**asdict(self), "hash": digest.hex()})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A statement that at `position` the hash was `hash`; `previous` is the SHA-256 of the last line, `key` of an SPKI.

    Numbers rise by one, positions never fall; the first has number 1 and 32 zero octets as `previous`.
    """

    number: int
    position: int
    hash: bytes
    at: int
    previous: bytes
    key: bytes
    signature: bytes = b""

    @property
    def signed(self) -> bytes:
        """The octets under the signature."""
        fields = self._fields()
        del fields["signature"]
        return _CHECKPOINT + canonical(fields)

    @property
    def line(self) -> bytes:
        return canonical(self._fields())

    def _fields(self) -> dict[str, Any]:
        return {k: v.hex() if isinstance(v, bytes) else v for k, v in asdict(self).items()}

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Raises `ledger.malformed`, also when the line is not written canonically."""
        fields = _read(line, _CHECKPOINT_NAMES)
        try:
            octets = {name: bytes.fromhex(fields[name]) for name in ("hash", "previous", "key", "signature")}
        except (TypeError, ValueError):
            raise _malformed() from None
        checkpoint = cls(**{**fields, **octets})
        if checkpoint.line != line or not all(_is_int(fields[name]) for name in ("number", "position", "at")):
            raise _malformed()
        return checkpoint


def digest_of(line: bytes) -> bytes:
    """What the next checkpoint calls `previous`."""
    return hashlib.sha256(line).digest()


def parse_entry(line: bytes) -> tuple[Entry, bytes]:
    """An exported entry and its hash. Raises `ledger.malformed`, also when the line is not written canonically."""
    fields = _read(line, _ENTRY_NAMES)
    try:
        digest = bytes.fromhex(fields.pop("hash"))
    except (TypeError, ValueError):
        raise _malformed() from None
    entry = Entry(**fields)
    if entry.line(digest) != line or not all(_is_int(fields[name]) for name in ("position", "id", "chained_at")):
        raise _malformed()
    return entry, digest


def is_checkpoint(line: bytes) -> bool:
    """Whether a line of an export is a checkpoint and not an entry; of a damaged one, a guess."""
    return b'"signature":' in line and b'"content":' not in line


def _read(line: bytes, names: set[str]) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise _malformed() from None
    if not isinstance(fields, dict) or set(fields) != names:
        raise _malformed()
    return fields


def _is_int(value: object) -> bool:
    return type(value) is int


def _malformed() -> QuashError:
    return QuashError("ledger.malformed", "this line is not as the ledger writes it: it was changed")
