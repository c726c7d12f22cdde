"""Takes lists of known-bad keys over: SPKI hashes are blocked whole, of badkeys' lists those that certificates have.

A list is approved by two officers, by its hash, before it is taken over at the machine that has it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from issuer.checks.blocklist import Blocklist
from quash.errors import Kind, QuashError
from quash.pki.certificate import read_certificate
from quash.store import acts, blocked_keys, proposals
from quash.store.database import Connection

IMPORT: Final = "key.import"
KINDS: Final = ("spki", "badkeys")
_BATCH: Final = 10_000
_PAGE: Final = 1000
_HEX: Final = re.compile(rb"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Taken:
    """`entries` of the list, of which `blocked` are new; `act_id` tells of it."""

    entries: int
    blocked: int
    act_id: int


def describe(path: Path, kind: str) -> dict[str, Any]:
    """What two officers approve: the kind, the file's SHA-256 and its number of entries. Raises `blocklist.*`."""
    if kind not in KINDS:
        raise QuashError("blocklist.kind", f"a list is of kind {' or '.join(KINDS)}")
    entries = len(Blocklist(path, kind)) if kind == "badkeys" else sum(1 for _ in read_hashes(path))
    return {"kind": kind, "sha256": _file_digest(path), "entries": entries}


async def take_over(conn: Connection, path: Path, proposal_id: int, now: int) -> Taken:
    """Blocks what an approved list names; the job runner's sweep revokes what certificates have.

    Raises `proposal.unknown`, `proposal.not_approved`, `blocklist.changed`, `blocklist.*`. Again changes nothing more.
    """
    proposal = await proposals.get(conn, proposal_id)
    if proposal is None or proposal.action != IMPORT:
        raise QuashError("proposal.unknown", "no proposal of a list has this number", Kind.NOT_FOUND)
    if proposal.approved_at is None:
        raise QuashError("proposal.not_approved", "a second officer must approve it first: quash approve", Kind.REFUSED)
    asked = proposal.payload
    if _file_digest(path) != asked["sha256"]:
        raise QuashError("blocklist.changed", f"{path} is not the file that was approved", Kind.REFUSED)
    subject = {"proposal": proposal_id, **asked}
    act_id = await acts.record(conn, at=now, actor="import", action=IMPORT, subject=subject)
    hashes = read_hashes(path) if asked["kind"] == "spki" else iter(await _matches(conn, path, now))
    blocked = 0
    for some in _batches(hashes):
        blocked += await blocked_keys.block_many(
            conn, some, reason=f"list: {asked['source']}", added_at=now, act_id=act_id
        )
    return Taken(asked["entries"], blocked, act_id)


def read_hashes(path: Path) -> Iterator[bytes]:
    """SHA-256 values of SPKIs: one a line in hexadecimal (# begins a comment). Raises `blocklist.unreadable`."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                text = line.split(b"#", 1)[0].strip()
                if not text:
                    continue
                if not _HEX.fullmatch(text):
                    raise QuashError("blocklist.unreadable", f"{path}, line {number}: no SHA-256 in hexadecimal")
                yield bytes.fromhex(text.decode("ascii"))
    except OSError as error:
        raise QuashError("blocklist.unreadable", f"cannot read {path}: {error.strerror}") from None


def _batches(hashes: Iterator[bytes]) -> Iterator[list[bytes]]:
    """At most so many at a time as one statement takes."""
    some: list[bytes] = []
    for each in hashes:
        some.append(each)
        if len(some) == _BATCH:
            yield some
            some = []
    if some:
        yield some


async def _matches(conn: Connection, path: Path, now: int) -> list[bytes]:
    """The keys of unexpired certificates that a badkeys list has: its entries are no hashes of SPKIs."""
    bad, after, found = Blocklist(path, "badkeys"), b"", []
    while page := await blocked_keys.certified_keys(conn, now, after, _PAGE):
        found += [key for key, der in page if _is_in(bad, read_certificate(der).spki)]
        after = page[-1][0]
    return found


def _is_in(bad: Blocklist, spki: bytes) -> bool:
    """badkeys lists keys of two kinds alone; an imported certificate may have another one."""
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) and spki in bad


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise QuashError("blocklist.unreadable", f"cannot read {path}: {error.strerror}") from None
