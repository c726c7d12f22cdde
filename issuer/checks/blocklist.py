"""Blocklist files of known-bad keys (D42, D45, G9): sorted records, mapped into memory, found by bisection.

A hundred million entries take some thirty comparisons, and only the pages that are touched are read. Two formats:
`spki`: 32 octets a record, the SHA-256 of the DER SPKI; `badkeys`: what the project badkeys publishes (Debian's weak
keys among them), 16 octets a record, 15 of the SHA-256 of the key's value and one that names the list.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from quash.errors import Kind, QuashError


def _spki_digest(spki: bytes) -> bytes:
    return hashlib.sha256(spki).digest()


def _value_digest(spki: bytes) -> bytes:
    """badkeys' key value: modulus of an RSA key, x of an EC key, an Ed25519 key itself, without leading zeros."""
    key = load_der_public_key(spki)
    if isinstance(key, ed25519.Ed25519PublicKey):
        value = int.from_bytes(key.public_bytes_raw(), "big")
    else:
        assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)  # noqa: S101 - `check_public_key` was before
        numbers = key.public_numbers()
        value = numbers.n if isinstance(numbers, rsa.RSAPublicNumbers) else numbers.x
    return hashlib.sha256(value.to_bytes((value.bit_length() + 7) // 8, "big")).digest()[:15]


@dataclass(frozen=True, slots=True)
class _Format:
    record: int  # octets
    key: int  # octets of it that are compared
    digest: Callable[[bytes], bytes]


_FORMATS: Final[Mapping[str, _Format]] = MappingProxyType(
    {"spki": _Format(32, 32, _spki_digest), "badkeys": _Format(16, 15, _value_digest)}
)


class Blocklist:
    """One file, opened once. A new version is put in its place by rename, and read by the next process that starts."""

    def __init__(self, path: Path, kind: str) -> None:
        """`kind`: spki or badkeys. Raises `blocklist.unreadable`: a list that cannot be read must not look empty."""
        self._format = _FORMATS[kind]
        try:
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise QuashError("blocklist.unreadable", f"{path}: {error}: put the list there", Kind.UNAVAILABLE) from None
        self._count, rest = divmod(len(self._data), self._format.record)
        if rest or not self._sample_is_sorted():
            raise QuashError("blocklist.unreadable", f"{path} is no sorted list of kind {kind}", Kind.UNAVAILABLE)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, spki: bytes) -> bool:
        wanted, low, high = self._format.digest(spki), 0, self._count
        while low < high:
            middle = (low + high) // 2
            if self._at(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        return low < self._count and self._at(low) == wanted

    def _at(self, index: int) -> bytes:
        start = index * self._format.record
        return self._data[start : start + self._format.key]

    def _sample_is_sorted(self) -> bool:
        """A thousand records in a row of equal steps: enough to notice a file that nobody sorted, at no cost."""
        step = max(1, self._count // 1000)
        sample = [self._at(index) for index in range(0, self._count, step)]
        return sample == sorted(sample)


def write_blocklist(path: Path, spkis: Iterable[bytes]) -> None:
    """Makes a list of kind `spki` from DER SPKIs, beside the old one and then in its place."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(b"".join(sorted({_spki_digest(spki) for spki in spkis})))
    beside.replace(path)
