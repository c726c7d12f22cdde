"""Blocklist files of known-bad keys (D42, D45, G9): sorted records, mapped into memory, found by bisection.

A hundred million entries take some thirty comparisons, and only the pages that are touched are read. Two formats:
`spki`: 32 octets a record, the SHA-256 of the DER SPKI; `badkeys`: what the project badkeys publishes (Debian's weak
keys among them), 16 octets a record, 15 of the SHA-256 of the key's value and one that names the list.
"""

from __future__ import annotations

import hashlib
import heapq
import mmap
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

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
_HEX: Final = re.compile("[0-9A-Fa-f]{64}")
_PART: Final = 1_000_000
"""Digests that are sorted in memory at a time."""


class Blocklist:
    """One file, opened once. A new version is put in its place by rename; `current` takes it up."""

    def __init__(self, path: Path, kind: str) -> None:
        """`kind`: spki or badkeys. Raises `blocklist.unreadable`: a list that cannot be read must not look empty."""
        self._path, self._kind, self._format = path, kind, _FORMATS[kind]
        try:
            with path.open("rb") as file:
                self._stamp = _stamp(os.fstat(file.fileno()))
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise QuashError("blocklist.unreadable", f"{path}: {error}: put the list there", Kind.UNAVAILABLE) from None
        self._count, rest = divmod(len(self._data), self._format.record)
        if rest or not self._sample_is_sorted():
            raise QuashError("blocklist.unreadable", f"{path} is no sorted list of kind {kind}", Kind.UNAVAILABLE)

    def current(self) -> Blocklist:
        """This one, or another one of the file that is in its place by now. Raises `blocklist.unreadable`."""
        try:
            same = _stamp(self._path.stat()) == self._stamp
        except OSError:
            same = False
        return self if same else Blocklist(self._path, self._kind)

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


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def write_blocklist(path: Path, spkis: Iterable[bytes]) -> None:
    """Makes a list of kind `spki` from DER SPKIs, beside the old one and then in its place."""
    build(path, "spki", map(_spki_digest, spkis))


def build(path: Path, kind: str, digests: Iterable[bytes]) -> int:
    """Writes a list of keys' digests as `read_source` gives them, in its place when whole; returns how many keys.

    Raises `blocklist.empty`: a list of nothing is no list, and takes no other's place.
    """
    form, beside = _FORMATS[kind], path.with_name(path.name + ".new")
    pad, count, last = bytes(form.record - form.key), 0, b""
    with ExitStack() as runs, beside.open("wb") as out:
        runs.callback(beside.unlink, missing_ok=True)
        for digest in heapq.merge(*_sorted_runs(runs, digests, form.key, path.parent)):
            if digest != last:
                out.write(digest + pad)
                count, last = count + 1, digest
        if not count:
            raise QuashError("blocklist.empty", "there is no key in it: nothing was written")
        out.flush()
        os.fsync(out.fileno())
        beside.replace(path)
    return count


def read_source(source: IO[str], kind: str, advance: Callable[[int], None]) -> Iterator[bytes]:
    """Digests of the keys in a text: hexadecimal SHA-256 one a line, PEM of public keys and certificates; # comments.

    `advance`: told how many characters were read. Raises `blocklist.source`, which names the line.
    """
    form, block = _FORMATS[kind], list[str]()
    for number, line in enumerate(source, 1):
        advance(len(line))
        word = line.strip()
        if block or word.startswith("-----BEGIN"):
            block.append(word)
            if word.startswith("-----END"):
                yield form.digest(_spki("\n".join(block), number))
                block = []
        elif word and not word.startswith("#"):
            if not _HEX.fullmatch(word):
                raise _wrong(number)
            yield bytes.fromhex(word)[: form.key]
    if block:
        raise _wrong(number)


def _spki(pem: str, line: int) -> bytes:
    try:
        key = (
            x509.load_pem_x509_certificate(pem.encode()).public_key()
            if "CERTIFICATE-----" in pem
            else load_pem_public_key(pem.encode())
        )
    except ValueError:
        raise _wrong(line) from None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _wrong(line: int) -> QuashError:
    return QuashError("blocklist.source", f"line {line}: neither a SHA-256 in hexadecimal nor PEM of a public key")


def _sorted_runs(stack: ExitStack, digests: Iterable[bytes], size: int, folder: Path) -> list[Iterator[bytes]]:
    """Sorted, in parts that fit into memory, each in a file without a name."""
    runs, part = [], list[bytes]()
    for digest in digests:
        part.append(digest)
        if len(part) == _PART:
            runs.append(_spill(stack, part, size, folder))
            part = []
    return [*runs, iter(sorted(part))]


def _spill(stack: ExitStack, part: list[bytes], size: int, folder: Path) -> Iterator[bytes]:
    file = stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - the stack closes it
    file.writelines(sorted(part))
    file.seek(0)
    return iter(lambda: file.read(size), b"")
