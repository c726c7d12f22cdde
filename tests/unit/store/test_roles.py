"""Least privilege: what no role may do, whatever its process was talked into."""

from __future__ import annotations

import stat
from typing import Any

import asyncpg
import pytest

from quash.errors import QuashError
from quash.runtime.state import State
from quash.store import roles
from quash.store.database import connect, connect_once, target
from quash.store.migrate import migrate
from quash.store.passwords import password_file, read_password
from quash.store.roles import RIGHTS, ROLES

APPEND_ONLY = {
    "act": "at",
    "revocation": "reason",
    "blocked_key": "reason",
    "kill_switch": "stopped",
    "signing_log": "at",
    "crl_demand": "at",
    "signer_switch": "at",
    "ledger": "hash",
    "ledger_checkpoint": "line",
    "proposal": "payload",
    "approval": "person",
    "operator_certificate": "der",
    "blocked_key_note": "note",
    "compromise_challenge": "expires_at",
    "key_evidence": "proof",
    "revocation_case": "summary",
    "case_certificate": "act_id",
    "case_sighting": "seen_at",
    "case_event": "text",
    "sighting": "seen_at",
    "case_file": "name",
    "system_event": "kind",
    "report": "body",
    "report_challenge": "at",
    "report_case": "at",
    "report_done": "at",
    "notice": "body",
    "notice_attempt": "detail",
    "mass_job_certificate": "serial",
    "mass_job_bucket": "certificates",
    "mass_job_exempt": "exemption_id",
    "exemption": "why",
    "exemption_end": "why",
    "configuration_seen": "host",
}
CHANGES = ("update {0} set {1} = {1}", "delete from {0}", "truncate {0} cascade")

DENIED = [
    (roles.FOLLOWER, "select * from certificate"),
    (roles.FOLLOWER, "select * from revocation"),
    (roles.FOLLOWER, "select * from outbox"),
    (roles.FOLLOWER, "select * from reader_position"),
    (roles.FOLLOWER, "insert into feed (written_at, lane, kind, payload) values (1, 0, 'heartbeat', '')"),
    (roles.FOLLOWER, "delete from feed"),
    (roles.FOLLOWER, "select feed_drop_partition(0, 1)"),
    (roles.PRESIGNER, "select * from certificate_order"),
    (roles.PRESIGNER, "select * from operator"),
    (roles.PRESIGNER, "select * from signing_log"),
    (roles.PRESIGNER, "update feed set payload = ''"),
    (roles.PRESIGNER, "delete from feed"),
    (roles.PRESIGNER, "update certificate set state = 'issued'"),
    (roles.PRESIGNER, "insert into revocation (issuer_id) values (1)"),
    (roles.PRESIGNER, "insert into certificate (issuer_id) values (1)"),
    (roles.PRESIGNER, "create table t ()"),
    (roles.PRESIGNER, "insert into ocsp_signer (issuer_id) values (1)"),
    (roles.PRESIGNER, "insert into signer_request (issuer_id, state) values (1, 'done')"),
    (roles.PRESIGNER, "insert into signer_switch (issuer_id) values (1)"),
    (roles.PRESIGNER, "select signer_refuse(1, 'x', 1)"),
    (roles.ADMIN, "insert into signer_request (issuer_id) values (1)"),
    (roles.ADMIN, "update ocsp_signer set state = 'active'"),
    (roles.CA_SIGNER, "insert into ocsp_signer (issuer_id) values (1)"),
    (roles.CA_SIGNER, "insert into signer_request (issuer_id) values (1)"),
    (roles.CA_SIGNER, "insert into outbox (kind) values ('signer')"),
    (roles.CA_SIGNER, "insert into certificate (issuer_id) values (1)"),
    (roles.CA_SIGNER, "update certificate set tbs = ''"),
    (roles.CA_SIGNER, "insert into lint_result (order_id) values (gen_random_uuid())"),
    (roles.CA_SIGNER, "select * from lint_result"),
    (roles.CA_SIGNER, "insert into kill_switch (stopped) values (false)"),
    (roles.CA_SIGNER, "select * from feed"),
    (roles.CA_SIGNER, "select * from operator"),
    (roles.ISSUING, "insert into blocked_key (spki_sha256) values ('')"),
    (roles.ISSUING, "insert into lint_result (serial) values ('')"),
    (roles.ISSUING, "insert into signing_log (at) values (1)"),
    (roles.ISSUING, "update certificate set spki_sha256 = null"),
    (roles.ISSUING, "update certificate set not_after = 0"),
    (roles.ISSUING, "delete from certificate"),
    (roles.ISSUING, "insert into feed (written_at) values (1)"),
    (roles.ISSUING, "insert into kill_switch (stopped) values (false)"),
    (roles.ADMIN, "insert into certificate (issuer_id) values (1)"),
    (roles.ADMIN, "update certificate set state = 'issued'"),
    (roles.ADMIN, "insert into feed (written_at) values (1)"),
    (roles.ADMIN, "insert into signing_log (at) values (1)"),
    (roles.ADMIN, "insert into operator (name) values ('x')"),
    (roles.ADMIN, "update operator set role = 'officer'"),
    (roles.ADMIN, "insert into act (tx, at, actor, action, subject) values ('3', 1, 'a', 'b', '{}')"),
    (roles.JOBS, "insert into certificate (issuer_id) values (1)"),
    (roles.ADMIN, "insert into ledger (position) values (1)"),
    (roles.CRL_BUILDER, "insert into system_event (at) values (1)"),
    (roles.PRESIGNER, "insert into system_event (at) values (1)"),
    (roles.INTAKE, "select * from report"),
    (roles.INTAKE, "select * from report_challenge"),
    (roles.INTAKE, "select * from certificate"),
    (roles.INTAKE, "insert into act (at) values (1)"),
    (roles.INTAKE, "insert into revocation_case (trigger) values ('br-3')"),
    (roles.INTAKE, "insert into report_case (report_id) values (1)"),
    (roles.INTAKE, "insert into revocation (issuer_id) values (1)"),
    (roles.LEDGER, "insert into act (at) values (1)"),
    (roles.LEDGER, "select * from certificate"),
    (roles.CRL_BUILDER, "insert into revocation (issuer_id) values (1)"),
    (roles.CRL_BUILDER, "update crl set number = 1"),
    (roles.CRL_BUILDER, "delete from crl"),
    (roles.CRL_BUILDER, "insert into crl_scope (issuer_id) values (1)"),
    (roles.CRL_BUILDER, "insert into feed (written_at) values (1)"),
]


@pytest.mark.parametrize(("role", "statement"), DENIED)
async def test_a_role_may_not(database: Any, role: str, statement: str) -> None:
    """The server itself refuses what a process has no business with."""
    conn = await database.connection(role)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await conn.execute(statement)


@pytest.mark.parametrize("role", ROLES)
async def test_nobody_changes_what_is_append_only(database: Any, role: str) -> None:
    """No role, the owner included, may update, delete or truncate a revocation or another append-only table."""
    conn = await database.connection(role)
    await _add_one_of_each(database.owner)
    for table, column in APPEND_ONLY.items():
        for change in CHANGES:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute(change.format(table, column))


async def _add_one_of_each(owner: Any) -> None:
    """A row in each append-only table: a change of no rows would prove nothing."""
    await owner.execute("""
        insert into act (at, actor, action, subject) values (1, 'a', 'b', '{}');
        insert into issuer
            (name, kind, subject, spki, signature_algorithm, ocsp_path, max_age, bucket_count, created_at)
            values ('a', 'root', '', '', 'x', 'a', 1, 1, 1);
        insert into certificate (issuer_id, serial, state, profile, not_after, bucket, created_at)
            values (1, '\\x01', 'issued', 'p', 1, 0, 1);
        insert into revocation (issuer_id, serial, version, reason, revoked_at, recorded_at, act_id)
            values (1, '\\x01', 1, 1, 1, 1, 1);
        insert into blocked_key (spki_sha256, reason, added_at, act_id)
            values (decode(repeat('00', 32), 'hex'), 'x', 1, 1);
        insert into kill_switch (stopped, at, act_id) values (true, 1, 1);
        insert into signing_log (at, kind, issuer_id, tbs_sha256) values (1, 'crl', 1, '');
        insert into crl_scope (issuer_id, scope, url, path, idp) values (1, 'full', 'u', 'p', false);
        insert into crl_demand (at, issuer_id, scope, act_id) values (1, 1, 'full', 1);
        insert into signer_switch (issuer_id, at, act_id) values (1, 1, 1);
        insert into ledger (position, source, source_id, chained_at, hash)
            values (1, 'act', 1, 1, decode(repeat('00', 32), 'hex'));
        insert into ledger_checkpoint (number, position, at, line) values (1, 1, 1, '');
        insert into operator (fingerprint, name, person, role, state, added_at)
            values (decode(repeat('00', 32), 'hex'), 'a', 'A', 'officer', 'active', 1);
        insert into proposal (at, expires_at, action, payload, sha256, operator, person, act_id)
            select 1, 2, 'a', '{}', fingerprint, fingerprint, person, 1 from operator;
        insert into approval (proposal_id, at, operator, person, act_id)
            select 1, 1, fingerprint, person, 1 from operator;
        insert into operator_certificate (proposal_id, fingerprint, der, at)
            select 1, fingerprint, '', 1 from operator;
        insert into blocked_key_note (spki_sha256, at, note, act_id) select spki_sha256, 1, 'n', 1 from blocked_key;
        insert into compromise_challenge (challenge, at, expires_at, act_id) values ('c', 1, 1, 1);
        insert into key_evidence (at, kind, spki, proof, sha256, act_id)
            select 1, 'csr', '', '', spki_sha256, 1 from blocked_key;
        insert into revocation_case (trigger, received_at, opened_at, reporter, summary, act_id)
            values ('br-3', 1, 1, 'r', 's', 1);
        insert into sighting (issuer_id, serial, version, kind, place, hash, seen_at, signed_at, sha256)
            select 1, '\\x01', 1, 'feed', '', '', 1, 1, spki_sha256 from blocked_key;
        insert into case_file (case_id, sha256, name, at, body, act_id) values (1, sha256('x'), 'n', 1, 'x', 1);
        insert into system_event (at, kind, subject) values (1, 'ocsp.pass', '{}');
        insert into report (reference, received_at, kind, source, contact, body)
            values (gen_random_uuid(), 1, 'problem', 's', 'c', '{}');
        insert into report_challenge (challenge, at, expires_at) values ('c', 1, 1);
        insert into report_case (report_id, case_id, at) values (1, 1, 1);
        insert into report_done (report_id, at) values (1, 1);
        insert into notice (at, template, channel, recipient, subject, body) values (1, 't', 'mail', 'r', 's', 'b');
        insert into notice_attempt (notice_id, at, sent, detail) values (1, 1, true, 'd');
        insert into case_certificate (case_id, issuer_id, serial, act_id) values (1, 1, '\\x01', 1);
        insert into case_sighting (case_id, issuer_id, serial, seen_at) values (1, 1, '\\x01', 1);
        insert into case_event (case_id, at, kind, text, act_id) values (1, 1, 'note', 't', 1);
        insert into mass_job (state, selection, reason, act_id, created_at, updated_at)
            values ('draft', '{}', 4, 1, 1, 1);
        insert into mass_job_certificate (job_id, issuer_id, rank, serial) values (1, 1, 0, '\\x01');
        insert into mass_job_bucket (job_id, issuer_id, rank, certificates, whole) values (1, 1, 0, 1, true);
    """)


async def test_the_follower_reads_the_feed_and_nothing_else(database: Any) -> None:
    """Of every table there is, the follower may read the feed and where it begins."""
    follower = await database.connection(roles.FOLLOWER)
    tables = await database.owner.fetch(
        "select relname from pg_class where relnamespace = 'quash'::regnamespace and relkind in ('r', 'p', 'v')"
    )
    readable = set()
    for (table,) in tables:
        try:
            await follower.fetch(f'select * from "{table}"')
            readable.add(table)
        except asyncpg.InsufficientPrivilegeError:
            pass
    assert readable == {"feed", "feed_floor"}


async def test_rights_given_beside_the_table_are_taken_away_by_the_next_migration(database: Any, clock: Any) -> None:
    """`init` makes the rights those of the code: rights on tables, columns and functions that crept in go."""
    await database.owner.execute("""
        grant update on revocation to quash_admin;
        grant select (csr) on certificate_order to quash_presigner;
        grant execute on function feed_drop_partition to public;
    """)
    await migrate(await database.connection(), int(clock.now()))
    held = await database.owner.fetchrow("""
        select has_any_column_privilege('quash_admin', 'revocation', 'update'),
            has_any_column_privilege('quash_presigner', 'certificate_order', 'select'),
            has_function_privilege('quash_follower', 'feed_drop_partition(bigint, bigint)', 'execute'),
            has_function_privilege('quash_presigner', 'feed_drop_partition(bigint, bigint)', 'execute')
    """)
    assert tuple(held) == (False, False, False, True)


async def test_the_catalogue_holds_exactly_the_rights_of_the_table(database: Any) -> None:
    """Column by column, no role has a right that `RIGHTS` does not list, and no role is a member of another."""
    for role, rights in RIGHTS.items():
        columns = await database.owner.fetch(
            """select c.relname, a.attname, p.privilege from pg_class c join pg_attribute a on a.attrelid = c.oid,
                unnest(array['select', 'insert', 'update', 'references']) as p (privilege)
            where c.relnamespace = 'quash'::regnamespace and c.relkind in ('r', 'p', 'v') and a.attnum > 0
                and has_column_privilege($1, c.oid, a.attnum, p.privilege)""",
            role,
        )
        for table, column, privilege in columns:
            listed = rights.get(table, {}).get(privilege, ())
            assert listed == roles.ALL or column in listed, (role, table, column, privilege)
            assert (privilege, column) != ("insert", "tx"), (role, table)
        others = await database.owner.fetch(
            """select c.relname, p.privilege
            from pg_class c, unnest(array['delete', 'truncate', 'trigger']) as p (privilege)
            where c.relnamespace = 'quash'::regnamespace and c.relkind in ('r', 'p', 'v')
                and has_table_privilege($1, c.oid, p.privilege)""",
            role,
        )
        assert all(privilege in rights.get(table, {}) for table, privilege in others), (role, others)
    assert (
        await database.owner.fetchval("select count(*) from pg_auth_members where member::regrole::text like 'quash%'")
        == 0
    )


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_has_no_attribute_but_login(database: Any, role: str) -> None:
    """No role is a superuser, makes roles or databases, replicates or passes row security."""
    row = await database.owner.fetchrow(
        "select rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolinherit, rolcanlogin"
        " from pg_roles where rolname = $1",
        role,
    )
    assert tuple(row) == (False, False, False, False, False, False, True)


async def test_one_role_cannot_log_in_as_another(database: Any, tmp_path: Any) -> None:
    """SCRAM holds over the Unix socket: neither another role's password, nor none, nor the wrong one opens it."""
    where = target(database.config, database.state)
    follower = read_password(database.state, roles.FOLLOWER)
    for password in (follower, "", "wrong", None):
        with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
            await asyncpg.connect(**where, user=roles.ADMIN, password=password, passfile=tmp_path / "none")
    conn = await asyncpg.connect(**where, user=roles.FOLLOWER, password=follower)
    assert await conn.fetchval("select current_user") == roles.FOLLOWER
    await conn.close()


async def test_a_role_cannot_become_another(database: Any) -> None:
    """SET ROLE is of no use to anybody."""
    conn = await database.connection(roles.FOLLOWER)
    for role in (roles.OWNER, roles.ADMIN, "postgres"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute(f"set role {role}")


async def test_the_superuser_needs_its_password_too(cluster: Any) -> None:
    """Every rule of pg_hba.conf asks for SCRAM, and there is none for TCP."""
    admin = await cluster.admin()
    try:
        rules = await admin.fetch("select type, auth_method from pg_hba_file_rules")
        assert {tuple(rule) for rule in rules} == {("local", "scram-sha-256")}
        assert await admin.fetchval("show listen_addresses") == ""
        verifiers = await admin.fetch("select rolpassword from pg_authid where rolcanlogin")
        assert all(row[0].startswith("SCRAM-SHA-256$4096:") for row in verifiers)
    finally:
        await admin.close()


@pytest.mark.parametrize("role", [*ROLES, "postgres"])
def test_a_password_file_is_its_owners_alone(cluster: Any, role: str) -> None:
    """0600, and long enough that nobody guesses it."""
    path = password_file(cluster.state, role)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text()) >= 43


async def test_a_machine_without_the_password_says_what_to_do(database: Any, tmp_path: Any) -> None:
    """`store.password_missing` names the file."""
    with pytest.raises(QuashError, match=r"quash_jobs\.password") as refused:
        await connect_once(database.config, State(tmp_path), roles.JOBS)
    assert refused.value.code == "store.password_missing"


async def test_a_wrong_password_is_refused_with_its_code(database: Any, tmp_path: Any) -> None:
    """`store.login_refused`, not a stack trace of the driver."""
    state = State(tmp_path)
    state.write_secret(password_file(state, roles.JOBS), b"wrong")
    with pytest.raises(QuashError) as refused:
        await connect(database.config, state, roles.JOBS)
    assert refused.value.code == "store.login_refused"
