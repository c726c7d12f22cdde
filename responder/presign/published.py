"""The look at published CRLs before anything is signed: does the database still know what the world was told?

A database restored from a backup, or a failover that lost commits, would have us sign `good` for what is revoked (C16).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import islice
from pathlib import Path

from quash.errors import Kind, QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, verify
from quash.pki.crl import Crl, read_crl, read_entry
from quash.pki.serials import format_serial
from quash.store import crls, statuses
from quash.store.crls import Scope
from quash.store.database import Connection
from quash.store.issuers import Issuer
from quash.store.statuses import Published
from responder.presign.crl_origin import CrlOrigin

_BATCH = 10_000
NAMED = 20
"""Of what is missing; the rest is counted."""
_ALGORITHMS = {algorithm.identifier: algorithm for algorithm in SIGNATURE_ALGORITHMS.values()}


async def check_published(
    conn: Connection, folder: Path, issuers: Sequence[Issuer], origin: CrlOrigin | None = None
) -> int:
    """Raises `presign.revocations_lost` unless the database holds every entry of every published CRL, as it is there.

    Read are all `.crl` in the folder; what a scope of the database has published elsewhere, or since the nextUpdate of
    what lies in the folder, is fetched from `origin`.
    The error counts what is missing and names the first `NAMED`. Returns the number of entries. What is none of our
    CRLs raises too (`crl.malformed`, `presign.foreign_crl`): it could be a damaged one. So does what the origin does
    not hand out (`presign.crls_unreachable`): it could be the one that tells.
    """
    entries, lost = 0, list[str]()
    async for name, issuer, crl in _published(conn, folder, issuers, origin):
        for batch in _batches(Published(*read_entry(entry)) for entry in crl.entries):
            for serial in await statuses.lost(conn, issuer.id, batch):
                lost.append(f"{issuer.name} {format_serial(serial)} ({name})")
        entries += len(crl.entries)
    if lost:
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        error = QuashError(
            "presign.revocations_lost",
            f"published CRLs show {len(lost)} revocations that the database does not, or later or for less (a restored"
            f" backup or a lost failover?), bring them back first: {', '.join(lost[:NAMED])}{more}",
            Kind.CONFLICT,
        )
        if origin is not None:
            origin.refused(error)
        raise error
    if origin is not None:
        origin.believed()
    return entries


async def _published(
    conn: Connection, folder: Path, issuers: Sequence[Issuer], origin: CrlOrigin | None
) -> AsyncIterator[tuple[str, Issuer, Crl]]:
    """Each CRL with its name, one at a time: one may have 50 MB."""
    here, now = dict[str, int](), int(origin.now if origin is not None else 0)
    for path in sorted(folder.rglob("*.crl")):
        name, octets = str(path.relative_to(folder)), await asyncio.to_thread(path.read_bytes)
        crl = await asyncio.to_thread(_read, octets, str(path))
        yield name, await asyncio.to_thread(_issuer_of, crl, issuers, str(path)), crl
        here[name] = crl.next_update
        if origin is not None and crl.next_update < now:  # better than none, where the origin is away
            origin.stand_in(name, octets)
    if origin is None:
        return
    origin.begin()
    for scope, known in await crls.places(conn, now):
        if here.get(scope.path, 0) >= now or (body := await origin.get(scope.path, known=known)) is None:
            continue
        try:
            issuer, crl = await asyncio.to_thread(_of_scope, body, scope, issuers, origin.url(scope.path))
        except QuashError as error:
            origin.refused(error)
            raise
        origin.keep(scope.path, body, crl.next_update)
        yield scope.path, issuer, crl


def _of_scope(body: bytes, scope: Scope, issuers: Sequence[Issuer], url: str) -> tuple[Issuer, Crl]:
    """What was fetched, as the scope's CRL."""
    crl = _read(body, url)
    issuer = _issuer_of(crl, issuers, url)
    if issuer.id != scope.issuer_id or not _is_of(crl, scope):
        raise _foreign(url)
    return issuer, crl


def _is_of(crl: Crl, scope: Scope) -> bool:
    """Another scope's would pass for this one's: what tells a shard's apart is the URL that its IDP names (B15).

    That of an issuer may be one of before it had shards, without an IDP.
    """
    named = scope.shard is None or crl.idp_urls
    return bool(named) and all(each.endswith(f"/{scope.path}") for each in crl.idp_urls)


def _read(body: bytes, where: str) -> Crl:
    try:
        return read_crl(body)
    except QuashError as error:
        raise QuashError(error.code, f"{where}: {error.message}; restore or remove it", Kind.CONFLICT) from error


def _issuer_of(crl: Crl, issuers: Iterable[Issuer], where: str) -> Issuer:
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
    raise _foreign(where)


def _foreign(where: str) -> QuashError:
    return QuashError(
        "presign.foreign_crl",
        f"{where} is not the CRL of an issuer of ours that belongs there: restore or remove it",
        Kind.CONFLICT,
    )


def _batches(entries: Iterable[Published]) -> Iterable[list[Published]]:
    rest = iter(entries)
    while batch := list(islice(rest, _BATCH)):
        yield batch
