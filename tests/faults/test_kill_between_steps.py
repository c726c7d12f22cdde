"""kill -9 of one process between any two steps of flows 1 and 2, at moments that are held still for it."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from loadtest.system import System
from tests.support.clients import PROFILES, Key, Operator, RefusedError, make_csr, new_key
from tests.support.faults import VICTIMS, Records, assert_everything_holds, kill
from tests.support.standstills import ISSUING_STEPS, REVOKING_STEPS, Stage, Standstill

_ORDERS = """
select o.id, o.state, o.serial, i.name as issuer,
       (select count(*) from certificate c where c.order_id = o.id) as serials,
       (select array_agg(l.kind order by l.id) from signing_log l
         where l.issuer_id = o.issuer_id and l.serial = o.serial) as signatures
from certificate_order o left join issuer i on i.id = o.issuer_id
where o.csr = $1 order by o.created_at, o.state
"""
_REVOCATIONS = """
select version, reason from revocation r join issuer i on i.id = r.issuer_id where i.name = $1 and r.serial = $2
"""


def _cases(steps: dict[Standstill, tuple[str, ...]]) -> list[Any]:
    """Every victim at every standstill, most of them in the long tests alone."""
    return [
        pytest.param(
            *(standstill, victim),
            id=f"{standstill.__name__}-{victim}",
            marks=() if victim in soon else pytest.mark.long,
        )
        for standstill, soon in steps.items()
        for victim in VICTIMS
    ]


@pytest.mark.parametrize(("standstill", "victim"), _cases(ISSUING_STEPS))
async def test_an_order_is_resumed_and_answered(
    system: System, records: Records, standstill: Standstill, victim: str
) -> None:
    """Every order that was accepted ends with one serial, signed once, handed out, and `good` for both hashes."""
    system.wait_ready()
    csr = make_csr("tls-dv", new_key())
    der = csr.public_bytes(Encoding.DER)

    async def orders() -> list[Any]:
        return await records.fetch(_ORDERS, der)

    async def subject() -> Key | None:
        found = await orders()
        return (found[0]["issuer"], found[0]["serial"]) if found and found[0]["serial"] else None

    async with (
        Operator(system) as operator,
        Stage(system, records, lambda: operator.order("tls-dv", csr), subject, 0) as stage,
    ):
        await standstill(stage)
        standing = {order["id"] for order in await orders()}
        assert len(standing) == 1
        await kill(system, victim)
        await stage.resume()

        await stage.answer()
        handed_out = {order["id"]: await operator.fetch(str(order["id"])) for order in await orders()}
    assert standing <= handed_out.keys()
    for order in await orders():
        assert (order["state"], order["serials"]) == ("issued", 1)
        assert order["signatures"] == ["precertificate", "certificate"]
        assert (order["issuer"], order["serial"]) == handed_out[order["id"]]
    await assert_everything_holds(system, records, operator.told, handed_out.values())


@pytest.mark.parametrize(("standstill", "victim"), _cases(REVOKING_STEPS))
async def test_a_revocation_becomes_visible(
    system: System, records: Records, standstill: Standstill, victim: str
) -> None:
    """A compromised key's certificates, one by a job, end revoked once each, for OCSP and in CRLs; none returns."""
    system.wait_ready()
    key = new_key()
    async with Operator(system) as operator:
        certificates = [await operator.order(profile, make_csr(profile, key)) for profile in PROFILES * 2]

        async def subject() -> Key:
            return certificates[0]

        async with Stage(
            system, records, lambda: operator.revoke(certificates[0], "keyCompromise"), subject, 1
        ) as stage:
            await standstill(stage)
            await kill(system, victim)
            await stage.resume()

            await stage.answer()
        operator.told.revoked |= dict.fromkeys(certificates, "keyCompromise")
        await assert_everything_holds(system, records, operator.told, certificates)
        for certificate in certificates:
            (row,) = await records.fetch(_REVOCATIONS, *certificate)
            assert tuple(row) == (1, 1)
        with pytest.raises(RefusedError) as refusal:
            await operator.order("tls-dv", make_csr("tls-dv", key))
    assert refusal.value.problem["code"] == "key.blocked"
