"""The look at published CRLs before anything is signed: does the database still know what the world was told?

A database restored from a backup, or a failover that lost commits, would have us sign `good` for what is revoked (C16).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from quash.errors import Kind, QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, verify
from quash.pki.crl import Crl, read_crl, read_entry
from quash.pki.serials import format_serial
from quash.store import statuses
from quash.store.database import Connection
from quash.store.issuers import Issuer

_BATCH = 10_000
NAMED = 20
"""Of what is missing; the rest is counted."""
_ALGORITHMS = {algorithm.identifier: algorithm for algorithm in SIGNATURE_ALGORITHMS.values()}


async def check_published(conn: Connection, folder: Path, issuers: Sequence[Issuer]) -> int:
    """Raises `presign.revocations_lost` unless the database holds every entry of every `.crl` in the folder revoked.

    The error counts what is missing and names the first `NAMED`. Returns the number of entries. A file that is none of
    our CRLs raises too (`crl.malformed`, `presign.foreign_crl`): it could be a damaged one.
    """
    entries, lost = 0, list[str]()
    for path in sorted(folder.rglob("*.crl")):
        crl = await asyncio.to_thread(_read, path)
        issuer = await asyncio.to_thread(_issuer_of, crl, issuers, path)
        serials = (read_entry(entry)[0] for entry in crl.entries)
        for batch in _batches(serials):
            for serial in await statuses.not_revoked(conn, issuer.id, batch):
                lost.append(f"{issuer.name} {format_serial(serial)} ({path.relative_to(folder)})")
        entries += len(crl.entries)
    if lost:
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        raise QuashError(
            "presign.revocations_lost",
            f"published CRLs show {len(lost)} revocations that the database does not (a restored backup or a lost"
            f" failover?), bring them back first: {', '.join(lost[:NAMED])}{more}",
            Kind.CONFLICT,
        )
    return entries


def _read(path: Path) -> Crl:
    try:
        return read_crl(path.read_bytes())
    except QuashError as error:
        raise QuashError(error.code, f"{path}: {error.message}; restore or remove it", Kind.CONFLICT) from error


def _issuer_of(crl: Crl, issuers: Iterable[Issuer], path: Path) -> Issuer:
    """The issuer whose name and key made this CRL: several may share a name, after a change of keys."""
    if algorithm := _ALGORITHMS.get(crl.algorithm):
        for issuer in issuers:
            if issuer.subject != crl.issuer:
                continue
            try:
                verify(issuer.spki, algorithm, algorithm.decode(crl.signature), crl.tbs)
            except QuashError:
                continue
            return issuer
    raise QuashError(
        "presign.foreign_crl", f"{path} carries no signature of our issuers: restore or remove it", Kind.CONFLICT
    )


def _batches(serials: Iterable[bytes]) -> Iterable[list[bytes]]:
    rest = iter(serials)
    while batch := list(islice(rest, _BATCH)):
        yield batch
