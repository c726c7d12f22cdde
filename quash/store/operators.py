"""Operators: who may ask the APIs for what. One row per client certificate; rows are disabled, never deleted (F9)."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

from quash.store.database import Connection

ROLES = ("viewer", "operator", "officer", "auditor")
"""Of the CA's own staff."""
RESELLER = "reseller"
"""The role of whoever orders for an account of its own, and sees nothing else (G42)."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A person with one client certificate; `fingerprint` is the SHA-256 of its DER. `account`: of resellers alone."""

    fingerprint: bytes
    name: str
    person: str
    role: str
    state: str
    account: str | None = None

    @property
    def active(self) -> bool:
        return self.state == "active"

    @property
    def actor(self) -> str:
        """How acts name this operator."""
        return f"operator:{self.name}"

    @property
    def identity(self) -> bytes:
        """The same with a renewed certificate, another one for whoever has the same name, or another role by then."""
        return hashlib.sha256(repr((self.name, person_key(self.person), self.role, self.account)).encode()).digest()

    @property
    def applicant(self) -> str:
        """For whom this operator orders, as orders and validations say it."""
        return self.actor if self.account is None else f"account:{self.account}"


def person_key(name: str) -> str:
    """What two spellings of one person's name have in common: case, width, ligatures and spaces tell nobody apart."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(folded.split())


def same_person(one: str, other: str) -> bool:
    """Whether two names are of one person, wherever two persons are needed (F9)."""
    return person_key(one) == person_key(other)


_COLUMNS = "fingerprint, name, person, role, state, account"


async def find(conn: Connection, fingerprint: bytes) -> Operator | None:
    """The operator of a client certificate, active or not."""
    row = await conn.fetchrow(
        f"select {_COLUMNS} from operator where fingerprint = $1",
        fingerprint,
    )
    return Operator(**row) if row else None


async def add(conn: Connection, operator: Operator, added_at: int) -> None:
    """Registers a client certificate; again with the same fingerprint changes nothing."""
    await conn.execute(
        "insert into operator (fingerprint, name, person, role, state, account, added_at)"
        " values ($1, $2, $3, $4, $5, $6, $7) on conflict (fingerprint) do nothing",
        operator.fingerprint,
        operator.name,
        operator.person,
        operator.role,
        operator.state,
        operator.account,
        added_at,
    )


async def is_behind(conn: Connection, actor: str, others: Collection[str]) -> bool:
    """Whether one person acts as `actor` and as one of `others`, with whatever certificates, disabled ones too.

    `account:acme` is everyone who ever ordered for it.
    """
    if actor in others:
        return True
    rows = await conn.fetch(
        "select 'operator:' || name as actor, 'account:' || account as account, person from operator"
        " where 'operator:' || name = $1 or 'operator:' || name = any($2) or 'account:' || account = any($2)",
        actor,
        list(others),
    )
    own = {person_key(row["person"]) for row in rows if row["actor"] == actor}
    return any(person_key(row["person"]) in own for row in rows if row["actor"] in others or row["account"] in others)


async def set_state(conn: Connection, fingerprint: bytes, state: str) -> bool:
    """Disables or enables a client certificate, effective with its next request; False: nobody has it."""
    done = await conn.fetchval(
        "update operator set state = $2 where fingerprint = $1 returning true", fingerprint, state
    )
    return bool(done)


async def everyone(conn: Connection) -> list[Operator]:
    """All operators by name, for the quarterly review of F9."""
    rows = await conn.fetch(f"select {_COLUMNS} from operator order by name, fingerprint")
    return [Operator(**row) for row in rows]
