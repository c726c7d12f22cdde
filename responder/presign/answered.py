"""The look at what OCSP answers before anything is signed: does the database know what this machine calls revoked?

CRLs come some seconds after OCSP, or not at all while their builder is down. What was revoked meanwhile, and lost by a
restored backup or a failover, only a node's cache still tells (A26, C16). Where this machine has none, there is nothing
to compare with; nodes elsewhere keep their own answers, since a record is a maximum.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from quash.cache.environment import Environment, open_for_reading
from quash.cache.layout import decode_record, record_order, split_key
from quash.errors import Kind, QuashError
from quash.pki.serials import format_serial
from quash.runtime.log import logger
from quash.store import statuses
from quash.store.database import Connection
from quash.store.issuers import Issuer
from quash.store.statuses import Published
from responder.presign.published import NAMED

_WHENEVER = 1 << 40
_SLICE = 20_000  # records of one read transaction: a longer one would pin old pages


async def check_answered(conn: Connection, cache: Path, issuers: Sequence[Issuer]) -> int:
    """Raises `presign.revocations_lost` unless the database holds all revoked that the cache in this folder answers so,
    as it does.

    Returns the number of those. A cache that is missing, damaged or not for us to read is logged, and nothing more.
    """
    try:
        environment = await asyncio.to_thread(open_for_reading, cache)
    except (QuashError, OSError) as error:
        logger().info("presign.cache_not_compared", detail=str(error))
        return 0
    names = {issuer.id: issuer.name for issuer in issuers}
    checked, lost, after = 0, list[str](), b""
    try:
        while True:
            revoked, after = await asyncio.to_thread(_slice, environment, after)
            for issuer_id, told in revoked.items():
                if issuer_id in names:
                    missing = await statuses.lost(conn, issuer_id, told)
                    lost += [f"{names[issuer_id]} {format_serial(serial)}" for serial in missing]
                    checked += len(told)
            if not after:
                break
    finally:
        environment.close()
    if lost:
        raise QuashError(
            "presign.revocations_lost",
            f"{cache} answers `revoked` for {len(lost)} certificates that the database does not, or later or for less"
            " (a restored backup or a lost failover?), bring them back first, or delete the cache:"
            f" {', '.join(lost[:NAMED])}",
            Kind.CONFLICT,
        )
    return checked


def _slice(environment: Environment, after: bytes) -> tuple[Mapping[int, list[Published]], bytes]:
    """(revocations by issuer, the last key) of the records that follow a key; an empty key: these were all."""
    found: dict[int, list[Published]] = {}
    last = b""
    with environment.env.begin(environment.records) as transaction, transaction.cursor() as cursor:
        if not cursor.set_range(after + b"\0"):
            return found, b""
        for key, data in islice(cursor, _SLICE):
            last = key
            if record_order(data)[0]:  # version 0 is good, and only that
                issuer_id, serial = split_key(key)
                found.setdefault(issuer_id, []).append(_told(serial, data))
    return found, last


def _told(serial: bytes, data: bytes) -> Published:
    """Of a damaged record, that it is revoked: the node's own check is whose business the rest is."""
    try:
        record = decode_record(data)
    except QuashError:
        return Published(serial, _WHENEVER, 0)
    return Published(serial, record.revoked_at, record.reason or 0)
