"""Verifies the ledger, as a stranger could: hashes, order, completeness, and that it still is what was signed.

Finds any change, removal, reorder or truncation up to the newest checkpoint that it is shown. Behind that checkpoint
whoever can rewrite all of the database can rewrite the chain: so checkpoints are frequent and kept elsewhere too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from issuer.audit.chain import GENESIS, Checkpoint, Entry, digest_of, is_checkpoint, parse_entry
from quash.errors import QuashError
from quash.pki.algorithms import algorithm_for_spki, verify
from quash.store import ledger
from quash.store.database import Connection

_PAGE: Final = 5000
_SHOWN: Final = 100


@dataclass
class Report:
    """What was found. `entries` and `checkpoints` were read; `head`: last position and hash; no fault: all is well.

    `covered`: up to this position the ledger is what was signed.
    """

    entries: int = 0
    checkpoints: int = 0
    covered: int = 0
    head: tuple[int, bytes] = (0, GENESIS)
    fault_count: int = 0
    faults: list[str] = field(default_factory=list)

    def fault(self, what: str) -> None:
        self.fault_count += 1
        if len(self.faults) < _SHOWN:
            self.faults.append(what)


class Verifier:
    """Takes all checkpoints first, then all entries in order, then `finish`."""

    def __init__(self, keys: Mapping[bytes, bytes]) -> None:
        self.report = Report()
        self._keys = keys
        self._signed: dict[int, list[Checkpoint]] = {}

    def checkpoints(self, lines: Iterable[bytes], where: str) -> None:
        """One list of checkpoints, from the first on; `where` it stands, for the report."""
        number, previous, position = 0, GENESIS, 0
        for index, line in enumerate(lines, 1):
            self.report.checkpoints += 1
            try:
                checkpoint = Checkpoint.parse(line)
                self._check_signature(checkpoint)
            except QuashError as error:
                self.report.fault(f"{where}, line {index}: {error}")
                number, previous = number + 1, digest_of(line)
                continue
            if checkpoint.number != number + 1 or checkpoint.previous != previous or checkpoint.position < position:
                self.report.fault(f"{where}, line {index}: checkpoint {checkpoint.number} does not follow the last")
            number, previous, position = checkpoint.number, digest_of(line), checkpoint.position
            self._signed.setdefault(checkpoint.position, []).append(checkpoint)

    def entry(self, entry: Entry | None, position: int, digest: bytes) -> None:
        """One link with its stored hash; `entry` is None when its row is gone."""
        at, previous = self.report.head
        if position != at + 1:
            self.report.fault(f"position {position} follows {at}: rows are missing, repeated or out of order")
        if entry is None:
            self.report.fault(f"position {position}: the row that was chained here is gone")
        elif entry.hash_after(previous) != digest:
            self.report.fault(f"position {position}: {entry.source} {entry.id} is not what was chained")
        for checkpoint in self._signed.pop(position, ()):
            if checkpoint.hash != digest:
                self.report.fault(f"position {position}: checkpoint {checkpoint.number} signs another hash")
            elif not self.report.fault_count:
                self.report.covered = position
        self.report.entries += 1
        self.report.head = (position, digest)

    def finish(self) -> Report:
        for position, checkpoints in sorted(self._signed.items()):
            numbers = ", ".join(str(each.number) for each in checkpoints)
            self.report.fault(f"position {position} is missing: checkpoint {numbers} signs it")
        return self.report

    def _check_signature(self, checkpoint: Checkpoint) -> None:
        spki = self._keys.get(checkpoint.key)
        if spki is None:
            raise QuashError("ledger.key_unknown", "it is signed by a key that was not given")
        verify(spki, algorithm_for_spki(spki), checkpoint.signature, checkpoint.signed)


async def verify_database(conn: Connection, verifier: Verifier, file: Path) -> Report:
    """The ledger in the database against its own checkpoints and those of the file."""
    verifier.checkpoints([row.line.encode() for row in await ledger.checkpoints(conn)], "database")
    verifier.checkpoints(_lines(file) if file.exists() else [], str(file))
    async for row in rows(conn):
        entry = None
        if row.content is not None:
            entry = Entry(row.position, row.source, row.source_id, row.chained_at, row.content)
        verifier.entry(entry, row.position, row.hash)
    return verifier.finish()


def verify_export(verifier: Verifier, export: Path, files: Sequence[Path]) -> Report:
    """An export, offline, against the checkpoints that it holds and those of more files."""
    verifier.checkpoints((line for line in _lines(export) if is_checkpoint(line)), str(export))
    for file in files:
        verifier.checkpoints(_lines(file), str(file))
    for index, line in enumerate(_lines(export), 1):
        if is_checkpoint(line):
            continue
        try:
            entry, digest = parse_entry(line)
        except QuashError as error:
            verifier.report.fault(f"{export}, line {index}: {error}")
            continue
        verifier.entry(entry, entry.position, digest)
    return verifier.finish()


async def rows(conn: Connection) -> AsyncIterator[ledger.Row]:
    """The whole ledger, page by page."""
    after = 0
    while page := await ledger.page(conn, after, _PAGE):
        for row in page:
            yield row
        after = page[-1].position


async def export_lines(conn: Connection) -> AsyncIterator[bytes]:
    """The ledger as JSON lines: its checkpoints, then its entries. Raises `ledger.row_missing`."""
    for row in await ledger.checkpoints(conn):
        yield row.line.encode()
    async for link in rows(conn):
        if link.content is None:
            raise QuashError("ledger.row_missing", f"position {link.position} has lost its row: see quash audit verify")
        yield Entry(link.position, link.source, link.source_id, link.chained_at, link.content).line(link.hash)


def read_keys(body: bytes) -> dict[bytes, bytes]:
    """The public keys of a PEM file, by the SHA-256 of their SPKI. Raises `ledger.no_key`."""
    end, found = b"-----END PUBLIC KEY-----", {}
    for part in body.split(end)[:-1]:
        try:
            key = load_pem_public_key(part.strip() + b"\n" + end + b"\n")
        except ValueError:
            raise QuashError(
                "ledger.no_key", "the file holds no public keys in PEM: see certs/ledger.pub.pem"
            ) from None
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        found[digest_of(spki)] = spki
    if not found:
        raise QuashError("ledger.no_key", "the file holds no public keys in PEM: see certs/ledger.pub.pem")
    return found


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            yield line[:-1] if line.endswith(b"\n") else line + b" (cut off)"
