"""Operators: added, renewed and disabled by two officers (F6, F9, G20).

The operators' CA key stays offline after `init`: what was approved is signed where that key is (`quash operator sign`).
"""

from __future__ import annotations

import re
from typing import Any, Final

from asn1crypto import pem

from quash.errors import Kind, QuashError
from quash.pki.csr import proven_key
from quash.pki.rules import check_public_key
from quash.store import operators
from quash.store.database import Connection
from quash.store.operators import RESELLER, ROLES, Operator, person_key, same_person

ADD: Final = "operator.add"
DISABLE: Final = "operator.disable"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_FEWEST_OFFICERS: Final = 2  # persons: with fewer, nobody could approve anything

Payload = dict[str, Any]


async def check_addition(conn: Connection, payload: Payload) -> None:
    """`{name, person, role, csr, renews, account}`: raises `operator.*`, and what the key and its signature raise.

    The key is the operator's own, on hardware that does not give it out (G20).
    """
    name, person, role = payload["name"], payload["person"], payload["role"]
    if not _NAME.fullmatch(name):
        raise QuashError("operator.name", "a name has lower-case letters, digits, dots and hyphens")
    if role not in (*ROLES, RESELLER):
        raise QuashError("operator.role_unknown", f"a role is one of {', '.join((*ROLES, RESELLER))}")
    if (role == RESELLER) != (payload.get("account") is not None):
        raise QuashError("operator.account", f"a {RESELLER} has an account, and nobody else has one (G42)")
    if len(person.strip()) < 2 or not person.isprintable():
        raise QuashError("operator.person", "say which person this is")
    known = [each for each in await operators.everyone(conn) if each.name == name]
    if payload["renews"]:
        _check_renewal(known, person, role, payload.get("account"))
    elif known:
        raise QuashError("operator.exists", "an operator has this name: renew it, or choose another", Kind.CONFLICT)
    check_public_key(key_of(payload))


def key_of(payload: Payload) -> bytes:
    """The operator's own key (DER SPKI); raises what its request and its signature raise."""
    return proven_key(_request(payload["csr"]))


def _request(text: str) -> bytes:
    try:
        kind, _, der = pem.unarmor(text.encode("ascii"))
    except ValueError:
        kind, der = "", b""
    if kind != "CERTIFICATE REQUEST":
        raise QuashError("csr.malformed", "send a certification request in PEM")
    return bytes(der)


def _check_renewal(known: list[Operator], person: str, role: str, account: str | None) -> None:
    active = [each for each in known if each.active]
    if not active:
        raise QuashError("operator.unknown_name", "no active operator has this name: add it", Kind.NOT_FOUND)
    kept = [same_person(each.person, person) and (each.role, each.account) == (role, account) for each in active]
    if not all(kept):
        message = "a renewal keeps person, role and account: disable and add instead"
        raise QuashError("operator.changed", message, Kind.REFUSED)


async def approve_certificate(_conn: Connection, _payload: Payload, _now: int, _act_id: int) -> None:
    """Nothing more to do here: the approval lets the operators' CA sign."""


async def check_disabling(conn: Connection, payload: Payload) -> None:
    """`{name}`: raises `operator.unknown_name`, and `operator.last_officers` when too few persons would remain."""
    everyone = [each for each in await operators.everyone(conn) if each.active]
    if not any(each.name == payload["name"] for each in everyone):
        raise QuashError("operator.unknown_name", "no active operator has this name", Kind.NOT_FOUND)
    before, after = (
        {person_key(each.person) for each in everyone if each.role == "officer" and each.name != without}
        for without in (None, payload["name"])
    )
    if len(after) < min(len(before), _FEWEST_OFFICERS):
        raise QuashError("operator.last_officers", "two officers must remain: add another one first", Kind.REFUSED)


async def disable(conn: Connection, payload: Payload, _now: int, _act_id: int) -> None:
    """Every client certificate of the name is out with its next request (F9)."""
    for each in await operators.everyone(conn):
        if each.name == payload["name"]:
            await operators.set_state(conn, each.fingerprint, "disabled")
