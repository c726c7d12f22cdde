"""What the database itself demands of a revocation: a certificate, and an act that tells of it (F1, F3)."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

_REVOKE = (
    "insert into revocation (issuer_id, serial, version, reason, revoked_at, recorded_at, act_id)"
    " select $1::smallint, s, 1, 4, 5, 5, a from unnest($2::bytea[], $3::bigint[]) as k (s, a)"
)


@pytest.fixture
async def issuer(database: Any) -> int:
    """An issuer with certificates 1 and 2, and act 1."""
    await database.owner.execute("""
        insert into act (at, actor, action, subject) values (1, 'a', 'b', '{}');
        insert into issuer
            (name, kind, subject, spki, signature_algorithm, ocsp_path, max_age, bucket_count, created_at)
            values ('a', 'root', '', '', 'x', 'a', 1, 1, 1);
        insert into certificate (issuer_id, serial, state, profile, not_after, bucket, created_at)
            select 1, s, 'issued', 'p', 1, 0, 1 from unnest(array['\\x01', '\\x02']::bytea[]) s;
    """)
    return 1


async def test_no_revocation_without_certificate_or_act(database: Any, issuer: int) -> None:
    """One that lacks either takes its whole statement along."""
    for serials, acts, error in (
        ([b"\x01", b"\x03"], [1, 1], asyncpg.NotNullViolationError),
        ([b"\x01", b"\x02"], [1, 2], asyncpg.ForeignKeyViolationError),
    ):
        with pytest.raises(error):
            await database.owner.execute(_REVOKE, issuer, serials, acts)
    assert await database.owner.fetchval("select count(*) from revocation") == 0
    await database.owner.execute(_REVOKE, issuer, [b"\x01", b"\x02"], [1, 1])


async def test_certificates_are_kept(database: Any, issuer: int) -> None:
    """Not even the owner deletes one: revocations rely on it."""
    for statement in ("delete from certificate", "truncate certificate cascade"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.owner.execute(statement)
    assert await database.owner.fetchval("select count(*) from certificate where issuer_id = $1", issuer) == 2
