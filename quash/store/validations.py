"""Identifiers that were validated for an applicant: the newest row of each holds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from quash.store.database import Connection


@dataclass(frozen=True, slots=True)
class Validation:
    """One officer's word. `kind`: dns, email, organization, person; `method`: the rules' number; Unix seconds."""

    applicant: str
    kind: str
    value: str
    method: str
    validated_at: int
    recorded_at: int
    withdrawn: bool
    act_id: int


_COLUMNS = "applicant, kind, value, method, validated_at, recorded_at, withdrawn, act_id"


async def add(conn: Connection, row: Validation) -> None:
    """Adds a row, which from now on holds for its identifier."""
    await conn.execute(
        f"insert into validated_identifier ({_COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8)",
        row.applicant,
        row.kind,
        row.value,
        row.method,
        row.validated_at,
        row.recorded_at,
        row.withdrawn,
        row.act_id,
    )


async def current(
    conn: Connection, applicant: str, identifiers: Collection[tuple[str, str]] | None = None
) -> list[Validation]:
    """What holds for an applicant, of these (kind, value) or of all; what was withdrawn is not among it."""
    kinds = values = None
    if identifiers is not None:
        kinds, values = [kind for kind, _ in identifiers], [value for _, value in identifiers]
    rows = await conn.fetch(
        f"select * from (select distinct on (kind, value) {_COLUMNS} from validated_identifier where applicant = $1"
        " and ($2::text[] is null or (kind, value) in (select * from unnest($2::text[], $3::text[])))"
        " order by kind, value, id desc) newest where not withdrawn order by kind, value",
        applicant,
        kinds,
        values,
    )
    return [Validation(**row) for row in rows]


async def of_organizations(conn: Connection, applicant: str, organizations: Collection[str]) -> list[Validation]:
    """What holds for an applicant of these (`C/O`) and of their persons, whatever else the rows say of them."""
    rows = await conn.fetch(
        f"select * from (select distinct on (kind, value) {_COLUMNS} from validated_identifier where applicant = $1"
        " and kind in ('organization', 'person') and exists (select from unnest($2::text[]) as named"
        " where value = named or starts_with(value, named || '/'))"
        " order by kind, value, id desc) newest where not withdrawn order by kind, value",
        applicant,
        list(organizations),
    )
    return [Validation(**row) for row in rows]
