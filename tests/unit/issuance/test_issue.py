"""Flow 1 when nothing goes wrong, and what it leaves in the database."""

from __future__ import annotations

import hashlib

from cryptography import x509

from tests.support.issuing import World, make_csr, private_key, spki_of


async def test_an_order_ends_with_a_certificate_its_news_and_its_act(world: World) -> None:
    """One order: the certificate that the CA signer logged, one urgent outbox row, one act, no TBS left (T3)."""
    key = private_key("leaf")
    issuance = world.issuance()
    order = await issuance.submit("operator:ann", "tls-dv", make_csr(["www.example.org"], key=key))
    assert order.state == "pending"

    order = await issuance.finish(order.id, timeout=0)

    assert order.state == "issued"
    (row,) = await world.fetch("select * from certificate")
    (logged,) = await world.fetch("select * from signing_log")
    assert (row["state"], row["tbs"], row["serial"]) == ("issued", None, order.serial)
    assert row["der"] == logged["der"]
    assert row["spki_sha256"] == hashlib.sha256(spki_of(key)).digest()
    (news,) = await world.fetch("select * from outbox")
    assert (news["kind"], news["lane"], news["serial"]) == ("certificate", 0, order.serial)
    (act,) = await world.fetch("select * from act")
    assert (act["actor"], act["action"]) == ("operator:ann", "certificate.issue")
    issued = x509.load_der_x509_certificate(row["der"])
    issued.verify_directly_issued_by(x509.load_der_x509_certificate(await world.certificate_of("tls-dv")))


async def test_the_serial_is_committed_before_the_signer_is_asked(world: World) -> None:
    """No CA key signs bytes whose serial is not committed: at the moment of signing another session reads it (T1)."""
    seen = []

    async def sign(issuer_id: int, serial: bytes) -> bytes:
        seen.extend(await world.fetch("select state, tbs from certificate where serial = $1", serial))
        return await world.signer.sign_certificate(issuer_id, serial)

    issuance = world.issuance(sign=sign)
    order = await issuance.submit("operator:ann", "tls-dv", make_csr())
    assert (await issuance.finish(order.id, timeout=0)).state == "issued"
    assert [row["state"] for row in seen] == ["reserved"]
    assert seen[0]["tbs"] is not None
