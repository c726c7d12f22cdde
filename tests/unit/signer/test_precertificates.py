"""The CA signer and precertificates: one of each for a serial, and the second only as the match of the first."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509

from issuer.ct.sct import Sct, encode_list
from issuer.ct.tbs import plain, with_poison, with_scts
from issuer.signer import oids
from issuer.signer import tbs_writer as write
from issuer.signer.tbs import tbs_of
from quash.errors import QuashError
from tests.support.reserving import Desk, alternative_names

SCTS = encode_list([Sct(bytes(32), 1, b"", 4, 3, b"signature")])


async def _precertified(desk: Desk) -> tuple[int, bytes, bytes]:
    """Issuer id and serial of a row in state `precertificate`, and the TBS that was logged."""
    leaf = await desk.leaf()
    leaf.mangle = with_poison
    serial, issuer_id = await desk.reserve(leaf), desk.hierarchy["tls-dv"].id
    der = await desk.signer.sign_precertificate(issuer_id, serial)
    await desk.fetch("update certificate set state = 'precertificate', der = $1, tbs = null", der)
    return issuer_id, serial, leaf.tbs


async def _signed_with(desk: Desk, tbs: bytes, issuer_id: int, serial: bytes) -> bytes:
    await desk.fetch("update certificate set tbs = $1", tbs)
    return await desk.signer.sign_certificate(issuer_id, serial)


async def test_a_precertificate_and_its_certificate_are_signed_once_each(desk: Desk) -> None:
    """D18: both verify under the issuer, both are logged, and asked again both are the same octets."""
    issuer_id, serial, poisoned = await _precertified(desk)
    first = await desk.signer.sign_precertificate(issuer_id, serial)
    assert tbs_of(first) == poisoned
    final = await _signed_with(desk, with_scts(plain(poisoned), SCTS), issuer_id, serial)
    assert await desk.signer.sign_certificate(issuer_id, serial) == final
    issuer = x509.load_der_x509_certificate(await desk.certificate_of("tls-dv"))
    for der in (first, final):
        x509.load_der_x509_certificate(der).verify_directly_issued_by(issuer)
    kinds = await desk.fetch("select kind from signing_log order by id")
    assert [row["kind"] for row in kinds] == ["precertificate", "certificate"]


# What differs from the precertificate, the reservation's own columns apart, which other tests cover.
CHANGES = {
    "another name": {"names": alternative_names("www.example.net")},
    "one name more": {"names": alternative_names("www.example.org", "example.org")},
    "key usage's criticality": {"key_usage": write.extension(oids.KEY_USAGE, write.DIGITAL_SIGNATURE)},
    "no basic constraints": {"basic_constraints": b""},
    "SKI added": {"subject_key": write.subject_key(bytes(20))},
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_certificate_that_is_not_its_precertificate_s_is_not_signed(desk: Desk, change: str) -> None:
    """D19: the signer proves the match itself, whatever the issuing API reserved."""
    leaf = await desk.leaf()
    leaf.mangle = with_poison
    serial, issuer_id = await desk.reserve(leaf), desk.hierarchy["tls-dv"].id
    await desk.signer.sign_precertificate(issuer_id, serial)
    changed = replace(leaf, extensions={**leaf.extensions, **CHANGES[change]}, mangle=lambda tbs: with_scts(tbs, SCTS))
    await desk.fetch("update certificate set state = 'precertificate', tbs = null")
    with pytest.raises(QuashError) as error:
        await _signed_with(desk, changed.tbs, issuer_id, serial)
    assert error.value.code == ("tbs.extension" if "criticality" in change else "ct.mismatch")


async def test_each_form_is_signed_as_what_it_is_and_nothing_else(desk: Desk) -> None:
    """D18: no poison in a certificate, poison in a precertificate, no SCTs without one, and none left out after one."""
    issuer_id = desk.hierarchy["tls-dv"].id
    for mangle, sign in (
        (with_poison, desk.signer.sign_certificate),
        (bytes, desk.signer.sign_precertificate),
        (lambda tbs: with_scts(tbs, SCTS), desk.signer.sign_certificate),
        (lambda tbs: with_scts(tbs, SCTS), desk.signer.sign_precertificate),
    ):
        leaf = await desk.leaf()
        leaf.mangle = mangle
        serial = await desk.reserve(leaf)
        with pytest.raises(QuashError, match=r"tbs\.form"):
            await sign(issuer_id, serial)
    assert await desk.fetch("select from signing_log") == []


async def test_a_precertificate_is_completed_only_with_scts(desk: Desk) -> None:
    """E7: once a precertificate is signed, the same TBS without SCTs is no match; a poisoned one neither."""
    issuer_id, serial, poisoned = await _precertified(desk)
    for tbs, code in ((plain(poisoned), r"ct\.mismatch|ct\.malformed"), (poisoned, r"tbs\.form")):
        with pytest.raises(QuashError, match=code):
            await _signed_with(desk, tbs, issuer_id, serial)
    assert len(await desk.fetch("select from signing_log")) == 1
