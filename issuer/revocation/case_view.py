"""How a case is written over HTTP, its ETag, and changes that need it to be as it was shown (If-Match)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web

from issuer.api import PRECONDITION, timestamp
from issuer.revocation.cases import Standing, find_case, standing
from quash.errors import Kind, QuashError
from quash.store import cases
from quash.store.database import Connection, Pool, acquire


@asynccontextmanager
async def unchanged(pool: Pool, now: int, request: web.Request) -> AsyncIterator[Connection]:
    """A transaction on the case; raises `case.unknown`, and `precondition.failed` when `If-Match` names another."""
    wanted = tags(request.headers.get("If-Match", "*"))
    async with acquire(pool) as conn, conn.transaction():
        await cases.lock(conn, number(request))
        stands = shown(standing(await find_case(conn, number(request)), now))
        if "*" not in wanted and tag(stands) not in wanted:
            raise QuashError(PRECONDITION, "the case is not as you saw it: look at it again", Kind.CONFLICT)
        yield conn


def tag(case: Mapping[str, Any]) -> str:
    """Strong: of the octets."""
    return f'"{hashlib.sha256(orjson.dumps(case)).hexdigest()}"'


def tags(header: str) -> set[str]:
    return {tag.strip() for tag in header.split(",")}


def number(request: web.Request) -> int:
    return int(request.match_info["id"])


def shown(stands: Standing) -> dict[str, Any]:
    case = stands.case
    return {
        "id": case.id,
        "trigger": case.trigger,
        "rule": stands.trigger.rule,
        "reason": stands.trigger.reason.name,
        "reporter": case.reporter,
        "summary": case.summary,
        "received_at": timestamp(case.received_at),
        "opened_at": timestamp(case.opened_at),
        "picked_up_by": timestamp(stands.pick_up_by),
        "picked_up_at": timestamp(case.picked_up_at),
        "closed_at": timestamp(case.closed_at),
        "preliminary_report_by": timestamp(stands.report_by),
        "preliminary_report_at": timestamp(case.reported_at),
        "publish_by": timestamp(stands.publish_by),
        "state": stands.state,
        "late": stands.late,
        "certificates": case.total,
        "revoked": case.revoked,
        "visible": case.seen,
        "visible_at": timestamp(case.last_seen_at),
    }


def forecast(stands: Standing) -> dict[str, Any]:
    """Apart from the case, since it changes with the clock alone."""
    left = stands.case.total - stands.case.seen
    return {"at_risk": stands.at_risk, "expected_at": timestamp(stands.expected_at), "left": left}
