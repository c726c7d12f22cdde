"""Officers record what was validated for whom, and withdraw it (F1, F2), each in one transaction; orders need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from issuer.checks import bodies
from issuer.checks.names import check_mailbox, check_name
from issuer.checks.registries import Registries
from issuer.checks.validation import (
    REUSE,
    check_asked,
    check_method,
    check_validated,
    identifiers,
    organizations,
    proofs,
)
from issuer.profiles import LeafContent
from quash.errors import Kind, QuashError
from quash.pki import dated
from quash.pki.names import build_name
from quash.store import acts, operators, validations
from quash.store.database import Connection
from quash.store.validations import Validation

_CLOCK_STEP = 60


async def check(conn: Connection, applicant: str, content: LeafContent, now: int) -> None:
    """Raises `validation.required` unless all that a leaf would say was validated for whoever orders it."""
    wanted = identifiers(content)
    found = await validations.current(conn, applicant, proofs(wanted))
    if named := organizations(wanted):
        found += await validations.of_organizations(conn, applicant, named)
    check_validated(wanted, found, now)


async def record(
    conn: Connection,
    officer: str,
    applicant: str,
    identifier: Mapping[str, str],
    *,
    method: str,
    validated_at: int,
    now: int,
    mailbox: str | None = None,
    registries: Registries | None = None,
) -> Validation:
    """From now on the identifier counts as validated for the applicant. `identifier`: kind and value.

    `mailbox`: which one was asked, of a constructed e-mail; kept in the act.
    Raises `validation.own` (four eyes), `validation.method`, `.time`, `.mailbox`, `name.*`, `email.*`.
    """
    kind, value = identifier["kind"], identifier["value"]
    if await operators.is_behind(conn, officer, [applicant]):
        raise QuashError("validation.own", "another person records what you order for", Kind.FORBIDDEN)
    check_method(kind, method, now)
    if not now - dated.at(REUSE[kind], now) <= validated_at <= now + _CLOCK_STEP:
        raise QuashError("validation.time", "it was validated too long ago, or is yet to be (D21)", Kind.REFUSED)
    value = _normal(kind, value, registries)
    check_asked(method, value, mailbox)
    row = Validation(applicant, kind, value, method, validated_at, now, False, 0)
    return await _add(conn, officer, row, **({} if mailbox is None else {"mailbox": mailbox}))


async def withdraw(conn: Connection, officer: str, applicant: str, identifier: Mapping[str, str], now: int) -> None:
    """From now on the identifier must be validated again: every record that covers it is taken back.

    Raises `validation.unknown`, and for what is no organization or person `validation.<kind>`.
    """
    kind, value = identifier["kind"], identifier["value"]
    if kind in bodies.KINDS:
        said = bodies.read(kind, value)
        rows = await validations.of_organizations(
            conn, applicant, [bodies.write({key: said[key] for key in ("C", "O")})]
        )
        found = [row for row in rows if row.kind == kind and bodies.covers(kind, row.value, value)]
    else:
        found = await validations.current(conn, applicant, [(kind, value)])
    if not found:
        raise QuashError("validation.unknown", "nothing of this was validated for them", Kind.NOT_FOUND)
    async with conn.transaction():
        for row in found:
            await _add(conn, officer, replace(row, method="", recorded_at=now, withdrawn=True))


async def _add(conn: Connection, officer: str, row: Validation, **evidence: str) -> Validation:
    async with conn.transaction():
        act_id = await acts.record(
            conn,
            at=row.recorded_at,
            actor=officer,
            action="validation.withdraw" if row.withdrawn else "validation.record",
            subject={
                "applicant": row.applicant,
                "kind": row.kind,
                "value": row.value,
                "method": row.method,
                "validated_at": row.validated_at,
                **evidence,
            },
        )
        made = replace(row, act_id=act_id)
        await validations.add(conn, made)
        return made


def _normal(kind: str, value: str, registries: Registries | None) -> str:
    """The value as leaves have it, once it passed the checks that a leaf's would."""
    if kind == "dns":
        return check_name(value, registries)
    if kind == "email":
        return check_mailbox(value, registries)
    said = bodies.read(kind, value)
    build_name(said)
    return bodies.write(said)
