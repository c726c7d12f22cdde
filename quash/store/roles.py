"""Who may do what in the database: one table, applied anew after every migration.

Each process logs in as its own role and has exactly the rights below; a right that is not listed does not exist.
`ALL` means every column; for INSERT every column but `tx`, which is the writing transaction and nobody's to choose
(a row with a forged `tx` would hide from every "new since" reader). No role may update or delete a revocation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import asyncpg

from quash.runtime.state import State
from quash.store.database import SCHEMA, Connection
from quash.store.passwords import ensure_password, scram_verifier

OWNER: Final = "quash_owner"
FOLLOWER: Final = "quash_follower"
PRESIGNER: Final = "quash_presigner"
CA_SIGNER: Final = "quash_ca_signer"
ISSUING: Final = "quash_issuing"
ADMIN: Final = "quash_admin"
JOBS: Final = "quash_jobs"
CRL_BUILDER: Final = "quash_crl_builder"
LEDGER: Final = "quash_ledger"
INTAKE: Final = "quash_intake"

ALL: Final = ("*",)
Columns = tuple[str, ...]
Rights = Mapping[str, Mapping[str, Columns]]  # table -> privilege -> columns

_READ = {"select": ALL}
_APPEND = {"insert": ALL}
_READ_APPEND = {**_READ, **_APPEND}
_LEASE = {"lease": {**_READ_APPEND, "update": ("fence",)}}
_POSITION = {"reader_position": {**_READ_APPEND, "update": ("system_id", "position", "updated_at")}}
_IDEMPOTENCY = {**_READ_APPEND, "update": ("status", "body"), "delete": ALL}
_HIERARCHY = {"issuer": _READ, "issuer_certificate": _READ}

# Flow 2, and what its operators look at.
_REVOKE: Rights = {
    **_HIERARCHY,
    "certificate": _READ,
    "revocation": _READ_APPEND,
    "blocked_key": _READ_APPEND,
    "blocked_key_note": _READ_APPEND,
    "kill_switch": _READ_APPEND,
    "act": _READ_APPEND,
    # Beside its own rows: how many the presigner has yet to take up.
    "outbox": {**_APPEND, "select": ("id", "tx", "lane", "kind", "issuer_id", "bucket")},
    "job": {**_READ_APPEND, "update": ("state", "total", "done", "updated_at")},
    "operator": _READ,
    "crl_scope": _READ,
    "crl": _READ,
    "crl_demand": _READ_APPEND,
    "signer_switch": _READ_APPEND,
    "signer_request": {"select": ("id", "issuer_id", "switch_id", "state", "code", "signer_id")},
    "ocsp_signer": _READ,
    **_LEASE,
    **_POSITION,
}

RIGHTS: Final[Mapping[str, Rights]] = {
    FOLLOWER: {"feed": _READ, "feed_floor": _READ},
    PRESIGNER: {
        **_HIERARCHY,
        "certificate": _READ,
        "revocation": _READ,
        "ocsp_signer": _READ,
        "crl_scope": _READ,  # which CRLs were published it compares with, before it signs
        "crl": {"select": ("issuer_id", "scope", "published_at")},
        "signer_request": {**_READ, "insert": ("issuer_id", "switch_id", "key_ref", "csr", "created_at")},
        "signer_switch": _READ,
        "proven_certificate": _READ_APPEND,
        "outbox": {**_READ, "delete": ALL},
        "bucket": {**_READ, "update": ("due_at", "passed_at", "pass_xmin", "signer_id")},
        "feed": _READ_APPEND,
        "feed_partition": _READ,
        "feed_floor": _READ,
        "measured_rate": {**_READ_APPEND, "update": ("per_second", "measured_at")},
        **_LEASE,
        **_POSITION,
    },
    CA_SIGNER: {
        **_HIERARCHY,
        "certificate": _READ,
        "blocked_key": _READ,
        "kill_switch": _READ,
        "crl_scope": _READ,
        "revocation": _READ,  # of its own issuers' certificates
        "signing_log": _READ_APPEND,
        "ocsp_signer": {**_READ, "update": ("state",)},
        "signer_request": _READ,
        # Of OCSP signers; those of orders are the issuing API's.
        "lint_result": {"insert": ("at", "document", "linter", "version", "findings", "refused", "serial")},
    },
    ISSUING: {
        **_HIERARCHY,
        "certificate": {**_READ_APPEND, "update": ("state", "tbs", "der")},
        "crl_scope": _READ,
        "certificate_order": {
            **_READ_APPEND,
            "update": ("state", "code", "detail", "issuer_id", "serial", "released_at", "updated_at"),
        },
        "blocked_key": _READ,
        "kill_switch": _READ,
        "operator": _READ,
        "outbox": {**_APPEND, "select": ("id",)},
        "act": _READ_APPEND,
        # Of orders alone: what is said of CAs and OCSP signers is not its to write.
        "lint_result": {
            **_READ,
            "insert": ("at", "order_id", "document", "linter", "version", "findings", "refused"),
        },
        "configuration_seen": _READ_APPEND,
        "final_submission": {**_READ_APPEND, "update": ("attempts", "next_at", "logged_at", "log_id")},
        "idempotent_request": _IDEMPOTENCY,
        "validated_identifier": _READ_APPEND,
        # A reservation that a crash left is revoked, so that its serial is answered (A8).
        "revocation": _READ_APPEND,
    },
    ADMIN: {
        **_REVOKE,
        "crl_disclosure": _READ_APPEND,
        "bucket": {"select": ("issuer_id", "bucket", "signer_id", "due_at", "passed_at")},
        "mass_job": {
            **_READ,
            "insert": (
                *("state", "selection", "reason", "revoked_at", "act_id", "created_at", "updated_at"),
                *("max_per_second", "finish_by"),
            ),
            "update": ("state", "start_act_id", "max_per_second", "finish_by", "next_at", "updated_at"),
        },
        "mass_job_certificate": _READ_APPEND,
        "mass_job_bucket": _READ,
        "mass_job_exempt": _READ,
        "exemption": _READ_APPEND,
        "exemption_end": _READ_APPEND,
        "measured_rate": _READ,
        "operator": {**_READ, "update": ("state",)},  # who is new is the operators' CA's to say
        "proposal": _READ_APPEND,
        "approval": _READ_APPEND,
        "compromise_challenge": _READ_APPEND,
        "revocation_case": _READ_APPEND,
        "case_certificate": _READ_APPEND,
        "case_sighting": _READ_APPEND,
        "case_event": _READ_APPEND,
        "case_file": _READ_APPEND,
        "key_evidence": _READ_APPEND,
        "report": _READ,
        "report_challenge": _READ,
        "report_case": _READ_APPEND,
        "report_done": _READ_APPEND,
        "notice": _READ_APPEND,
        "notice_attempt": _READ_APPEND,
        "certificate_order": {"select": ("id", "operator")},
        "idempotent_request": _IDEMPOTENCY,
        # The outside probe, and the proof of what it saw.
        "sighting": _READ_APPEND,
        "sighting_due": {**_READ_APPEND, "update": ("next_at",), "delete": ALL},
        "feed": _READ,
        "ledger": _READ,
        "ledger_checkpoint": _READ,
        "signing_log": _READ,
        "system_event": _READ,
    },
    JOBS: {
        **_REVOKE,
        "mass_job": {
            **_READ,
            "update": (
                *("state", "listed", "total", "sha256", "preview", "after_issuer", "after_rank", "after_serial"),
                *("done", "changed", "exempt", "per_second", "next_at", "updated_at"),
            ),
        },
        "mass_job_certificate": _READ_APPEND,
        "mass_job_bucket": _READ_APPEND,
        "mass_job_exempt": _READ_APPEND,
        "bucket": {"select": ("issuer_id", "bucket", "due_at", "passed_at")},
        "measured_rate": _READ,
        "exemption": _READ,
        "exemption_end": _READ,
        "certificate_order": {"select": ("id", "operator")},
        # What the sweep finds is a case.
        "revocation_case": _READ_APPEND,
        "case_certificate": _READ_APPEND,
        "case_sighting": _READ,
        "case_event": _READ,
    },
    CRL_BUILDER: {
        **_HIERARCHY,
        "certificate": _READ,
        "revocation": _READ,
        "crl_scope": _READ,
        "crl_demand": _READ,
        "crl_disclosure": _READ,
        "ocsp_signer": _READ,
        "crl": {**_READ_APPEND, "update": ("size", "sha256", "published_at")},
        **_LEASE,
        **_POSITION,
    },
    INTAKE: {"report": _APPEND, "report_challenge": _APPEND},
    LEDGER: {
        "act": _READ,
        "signing_log": _READ,
        "system_event": _READ,
        "ledger": _READ_APPEND,
        "ledger_checkpoint": _READ_APPEND,
        **_LEASE,
        **_POSITION,
    },
}

FUNCTIONS: Final[Mapping[str, Columns]] = {
    PRESIGNER: ("feed_add_partition", "feed_drop_partition"),
    CA_SIGNER: ("signer_reserve", "signer_finish", "signer_refuse"),
    # Whoever writes a certificate also fills the index of its names.
    ISSUING: ("certificate_names", "der_header", "obstacles_under_locks"),
    ADMIN: ("certificate_names", "der_header"),
    JOBS: ("certificate_names", "der_header"),
}
"""Functions, by the role that may call them."""

ROLES: Final = (OWNER, *RIGHTS)


async def create_roles(admin: Connection, state: State, database: str) -> None:
    """Makes the roles, sets their passwords to those of the state folder, and lets them alone into the database.

    `admin` may create roles and owns the database. Roles have no attribute but LOGIN and are members of nothing.
    """
    async with admin.transaction():
        await admin.execute("select pg_advisory_xact_lock(hashtext('quash roles'))")
        for role in ROLES:
            await _create_role(admin, role, scram_verifier(ensure_password(state, role)))
        name = quoted(database)
        await admin.execute(f"revoke all on database {name} from public")
        await admin.execute(f"grant connect, temporary, create on database {name} to {OWNER}")
        await admin.execute(f"grant connect on database {name} to {', '.join(RIGHTS)}")


async def _create_role(admin: Connection, role: str, verifier: str) -> None:
    exists = await admin.fetchval("select true from pg_roles where rolname = $1", role)
    verb = "alter" if exists else "create"
    await admin.execute(f"{verb} role {role} with login noinherit password '{verifier}'")


async def apply_rights(owner: Connection, wanted: Mapping[str, Rights] = RIGHTS) -> None:
    """Makes the rights in the database those of `wanted`, in one transaction; called after every migration."""
    async with owner.transaction():
        roles = ", ".join(RIGHTS)
        for what in ("tables", "sequences", "routines"):
            await owner.execute(f"revoke all on all {what} in schema {SCHEMA} from public, {roles}")
        await _revoke_columns(owner)
        await owner.execute(f"grant usage on schema {SCHEMA} to {roles}")
        for role, rights in wanted.items():
            for table, privileges in rights.items():
                for privilege, columns in privileges.items():
                    what = await _columns(owner, table, privilege, columns)
                    await owner.execute(f"grant {privilege}{what} on {table} to {role}")
            for function in FUNCTIONS.get(role, ()):
                await owner.execute(f"grant execute on function {function} to {role}")


async def _revoke_columns(owner: Connection) -> None:
    """Revoking a table's rights also revokes those on its columns, except where the table itself has none."""
    rows = await owner.fetch(
        "select distinct table_name, privilege_type, column_name, grantee from information_schema.column_privileges"
        " where table_schema = $1 and grantee = any($2)",
        SCHEMA,
        list(RIGHTS),
    )
    for row in rows:
        await owner.execute(
            f"revoke {row['privilege_type']} ({quoted(row['column_name'])})"
            f" on {quoted(row['table_name'])} from {row['grantee']}"
        )


async def _columns(owner: Connection, table: str, privilege: str, columns: Columns) -> str:
    if columns != ALL:
        return f" ({', '.join(columns)})"
    if privilege != "insert":
        return ""
    names = await owner.fetch(
        "select attname from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped"
        " and attname <> 'tx' order by attnum",
        table,
    )
    if not names:
        raise asyncpg.UndefinedTableError(table)
    return " (" + ", ".join(quoted(row["attname"]) for row in names) + ")"


def quoted(identifier: str) -> str:
    """An identifier as SQL takes it, whatever it holds."""
    return '"' + identifier.replace('"', '""') + '"'
