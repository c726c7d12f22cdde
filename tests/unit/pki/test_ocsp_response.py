"""OCSP responses: what the template assembles, as pyca, asn1crypto, openssl and pkilint read it; and the verifier."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from asn1crypto import ocsp as asn1_ocsp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from pkilint.bin import lint_ocsp_response

from quash.errors import Kind, QuashError
from quash.pki import der
from quash.pki.certid import CertId, CertIdHash
from quash.pki.ocsp_reading import ParsedResponse, parse_response, verify_response
from quash.pki.ocsp_request import build_request
from quash.pki.ocsp_response import ERRORS, GOOD, Status
from quash.pki.reasons import ALLOWED_REASONS, Reason
from tests.support.authority import NOW, Authority, authority, refuses_only, sign

NEXT = NOW + 48 * 3600 - 1  # A4
SERIAL = bytes.fromhex("5a" * 16)
STATUSES = [GOOD, *(Status(int(reason), NOW - 86_400) for reason in sorted(ALLOWED_REASONS))]
HASHES = {CertIdHash.SHA1: hashes.SHA1(), CertIdHash.SHA256: hashes.SHA256()}


def respond(
    ca: Authority,
    h: CertIdHash = CertIdHash.SHA256,
    serial: bytes = SERIAL,
    status: Status = GOOD,
    this_update: int = NOW,
    next_update: int = NEXT,
) -> bytes:
    """A signed response of this CA's OCSP signer."""
    template, values = ca.template, (h, serial, status, this_update, next_update)
    return template.response(*values, sign(ca.signer_key, ca.algorithm, template.tbs(*values)))


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@pytest.mark.parametrize("h", CertIdHash)
@pytest.mark.parametrize("status", STATUSES, ids=str)
def test_pyca_reads_what_was_meant(ca: Authority, h: CertIdHash, status: Status) -> None:
    """Every field, for every algorithm, hash, status, reason; no extension; the signer in certs (A18-A25, A29, A30)."""
    data = respond(ca, h, status=status)
    found = ocsp.load_der_ocsp_response(data)
    assert found.public_bytes(Encoding.DER) == data
    assert found.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
    assert found.signature_algorithm_oid == ca.certificate.signature_algorithm_oid
    assert found.responder_name is None
    assert found.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(ca.signer_key.public_key()).digest
    assert list(found.certificates) == [ca.signer]
    assert len(list(found.responses)) == 1
    assert not list(found.extensions)
    assert not list(found.single_extensions)
    assert found.produced_at_utc == found.this_update_utc == at(NOW)
    assert found.next_update_utc == at(NEXT)
    request = ocsp.OCSPRequestBuilder().add_certificate(ca.signer, ca.certificate, HASHES[h]).build()
    assert found.hash_algorithm.name == h.value
    assert (found.issuer_name_hash, found.issuer_key_hash) == (request.issuer_name_hash, request.issuer_key_hash)
    assert found.serial_number == int.from_bytes(SERIAL, "big")
    if status.reason is None:
        assert found.certificate_status is ocsp.OCSPCertStatus.GOOD
    else:
        assert found.certificate_status is ocsp.OCSPCertStatus.REVOKED
        assert found.revocation_time_utc == at(status.revoked_at)
        name = found.revocation_reason.value if found.revocation_reason else "unspecified"
        assert name == Reason(status.reason).name
        assert (found.revocation_reason is None) == (status.reason == 0)  # A25: 0 by omission
    verify_response(data, ca.der)


@given(
    kind=st.sampled_from(["ecdsa-p256-sha256", "ecdsa-p521-sha512", "rsa-sha256"]),
    h=st.sampled_from(CertIdHash),
    serial=st.integers(-(1 << 511), (1 << 511) - 1),
    status=st.one_of(
        st.just(GOOD), st.builds(Status, st.sampled_from(sorted(map(int, ALLOWED_REASONS))), st.integers(0, NOW * 3))
    ),
    this_update=st.integers(0, NOW * 4),
    seconds=st.integers(0, 10 * 86_400),
)
def test_asn1crypto_encodes_the_same(
    kind: str, h: CertIdHash, serial: int, status: Status, this_update: int, seconds: int
) -> None:
    """asn1crypto, given the same values, writes the same octets; any serial and any time, one template for all."""
    ca = authority(kind)
    content = der.integer_content(serial)
    tbs = TEMPLATES[kind].tbs(h, content, status, this_update, this_update + seconds)
    hashes_of = ocsp.OCSPRequestBuilder().add_certificate(ca.signer, ca.certificate, HASHES[h]).build()
    single = {
        "cert_id": {
            "hash_algorithm": {"algorithm": h.value, "parameters": asn1_ocsp.Null()},
            "issuer_name_hash": hashes_of.issuer_name_hash,
            "issuer_key_hash": hashes_of.issuer_key_hash,
            "serial_number": serial,
        },
        "cert_status": asn1_status(status),
        "this_update": at(this_update),
        "next_update": at(this_update + seconds),
    }
    expected = asn1_ocsp.ResponseData(
        {
            "responder_id": asn1_ocsp.ResponderId(
                "by_key", x509.SubjectKeyIdentifier.from_public_key(ca.signer_key.public_key()).digest
            ),
            "produced_at": at(this_update),
            "responses": [single],
        }
    )
    assert tbs == expected.dump()


TEMPLATES = {kind: authority(kind).template for kind in ("ecdsa-p256-sha256", "ecdsa-p521-sha512", "rsa-sha256")}
ASN1_REASONS = {1: "key_compromise", 3: "affiliation_changed", 4: "superseded", 5: "cessation_of_operation"}


def asn1_status(status: Status) -> asn1_ocsp.CertStatus:
    """A status in asn1crypto's words."""
    if status.reason is None:
        return asn1_ocsp.CertStatus("good", asn1_ocsp.StatusGood())
    revoked: dict[str, object] = {"revocation_time": at(status.revoked_at)}
    if status.reason:
        revoked["revocation_reason"] = asn1_ocsp.CRLReason(ASN1_REASONS.get(status.reason, "privilege_withdrawn"))
    return asn1_ocsp.CertStatus("revoked", revoked)


def test_template_is_reused_across_shapes(p256: Authority) -> None:
    """One template gives, in any order of serial sizes, hashes and statuses, what a fresh one gives."""
    template = p256.template
    values = [
        (h, b"\x7f" * size, status, NOW, NEXT)
        for size in (1, 64, 16, 20, 1)
        for status in (Status(1, NOW), GOOD, Status(0, NOW))
        for h in CertIdHash
    ]
    assert [template.tbs(*each) for each in values] == [p256.template.tbs(*each) for each in values]
    raws = [b"\1" * 64, b"\xff" * 64, bytes(31) + b"\1" + b"\xff" * 32]
    for raw in raws * 2:
        assert template.response(*values[0], raw) == p256.template.response(*values[0], raw)


def test_signer_may_be_the_issuer(p256: Authority) -> None:
    """The issuer's own key may sign (A13): no delegation is needed."""
    ca = Authority(p256.algorithm, p256.key, p256.certificate, p256.key, p256.certificate)
    assert verify_response(respond(ca), ca.der).status == GOOD


@pytest.mark.parametrize("reason", [2, 6, 7, 8, 10, 11, -1, 256])
def test_reasons_outside_b11_are_never_written(p256: Authority, reason: int) -> None:
    """No configuration and no row of a database makes the template write another reason (A25, B11)."""
    with pytest.raises(QuashError, match=r"ocsp\.reason_not_allowed"):
        p256.template.tbs(CertIdHash.SHA1, SERIAL, Status(reason, NOW), NOW, NEXT)


@pytest.mark.parametrize(
    ("name", "octets"),
    [
        ("malformed_request", "30030a0101"),
        ("internal_error", "30030a0102"),
        ("try_later", "30030a0103"),
        ("unauthorized", "30030a0106"),
    ],
)
def test_errors_are_five_octets(name: str, octets: str) -> None:
    """Errors are unsigned and carry a status alone (A11); pyca knows them by the same names."""
    assert ERRORS[name].hex() == octets
    assert ocsp.load_der_ocsp_response(ERRORS[name]).response_status.name.lower() == name
    assert parse_response(ERRORS[name]) == ParsedResponse(name)
    with pytest.raises(QuashError, match=rf"ocsp\.not_successful.*{name}") as caught:
        verify_response(ERRORS[name], authority("ecdsa-p256-sha256").der)
    assert caught.value.kind is Kind.UNAVAILABLE


@pytest.mark.parametrize("h", CertIdHash)
@pytest.mark.parametrize("status", [GOOD, Status(0, NOW - 5), Status(1, NOW - 5)], ids=str)
def test_openssl_verifies_and_prints(ca: Authority, openssl: Callable[..., str], h: CertIdHash, status: Status) -> None:
    """`openssl ocsp` finds the status of the certificate asked for, and verifies the signer's chain."""
    template = ca.template
    cert_id = CertId(h, *template.issuer[h], SERIAL)
    pem = ca.certificate.public_bytes(Encoding.PEM)
    printed = openssl(
        "ocsp", "-reqin", build_request(cert_id), "-respin", respond(ca, h, status=status), "-issuer", pem,
        "-CAfile", pem, "-attime", str(NOW), "-resp_text", "-no_nonce", "-validity_period", "3153600000",
    )  # fmt: skip
    assert "Response verify OK" in printed
    assert "Response Type: Basic OCSP Response" in printed
    assert f"Responder Id: {template_key_hash(ca)}" in printed
    assert f"Hash Algorithm: {h.value}" in printed
    assert f"Serial Number: {SERIAL.hex().upper()}" in printed
    assert "This Update: Nov 21 12:00:00 2026 GMT" in printed
    assert "Next Update: Nov 23 11:59:59 2026 GMT" in printed
    assert ("Cert Status: good" in printed) == (status.reason is None)
    assert ("Revocation Time: Nov 21 11:59:55 2026 GMT" in printed) == (status.reason is not None)
    assert ("Revocation Reason: keyCompromise (0x1)" in printed) == (status.reason == 1)
    assert ("Revocation Reason" in printed) == bool(status.reason)


def template_key_hash(ca: Authority) -> str:
    """byKey as OpenSSL prints it."""
    return x509.SubjectKeyIdentifier.from_public_key(ca.signer_key.public_key()).digest.hex().upper()


@pytest.mark.parametrize("h", CertIdHash)
@pytest.mark.parametrize("status", STATUSES, ids=str)
def test_pkilint_finds_nothing(p256: Authority, pkilint: Callable[..., str], h: CertIdHash, status: Status) -> None:
    """pkilint reports nothing above notice on any status (A42)."""
    assert pkilint(lint_ocsp_response.main, respond(p256, h, status=status)) == ""


def test_pkilint_finds_nothing_on_any_algorithm(ca: Authority, pkilint: Callable[..., str]) -> None:
    """Nor on any signature algorithm (A18, A42)."""
    assert pkilint(lint_ocsp_response.main, respond(ca, status=Status(4, NOW - 5))) == ""


@pytest.mark.parametrize("h", CertIdHash)
def test_parsed_response_says_what_was_put_in(p256: Authority, h: CertIdHash) -> None:
    """parse_response gives back the values of the template, by pyca."""
    found = parse_response(respond(p256, h, b"\0\x80", Status(9, NOW - 9)))
    cert_id = CertId(h, *p256.template.issuer[h], b"\0\x80")
    assert found == ParsedResponse("successful", cert_id, Status(9, NOW - 9), NOW, NOW, NEXT)


def foreign(
    ca: Authority,
    *,
    certs: list[x509.Certificate] | None = None,
    digest: hashes.HashAlgorithm | None = HASHES[CertIdHash.SHA256],
    **changes: object,
) -> bytes:
    """A response by pyca's builder, with what we never say."""
    values: dict[str, object] = {
        "cert": ca.signer,
        "issuer": ca.certificate,
        "algorithm": hashes.SHA256(),
        "cert_status": ocsp.OCSPCertStatus.GOOD,
        "this_update": at(NOW),
        "next_update": at(NEXT),
        "revocation_time": None,
        "revocation_reason": None,
    }
    builder = ocsp.OCSPResponseBuilder().add_response(**values | changes)
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, ca.signer)
    builder = builder.certificates([ca.signer] if certs is None else certs) if certs != [] else builder
    return builder.sign(ca.signer_key, digest).public_bytes(Encoding.DER)


def test_responses_of_others_are_read(p256: Authority) -> None:
    """pyca's response is verified as our own; each reason of RFC 5280 is recognised, those that we refuse too."""
    assert verify_response(foreign(p256), p256.der).status == GOOD
    for flag in x509.ReasonFlags:
        data = foreign(
            p256, cert_status=ocsp.OCSPCertStatus.REVOKED, revocation_time=at(NOW - 1), revocation_reason=flag
        )
        assert verify_response(data, p256.der).status == Status(Reason[flag.value], NOW - 1)


@pytest.mark.parametrize(
    "changes",
    [{"cert_status": ocsp.OCSPCertStatus.UNKNOWN}, {"next_update": None}, {"algorithm": hashes.SHA384()}],
    ids=["unknown", "no nextUpdate", "another hash"],
)
def test_what_we_never_say_is_malformed(p256: Authority, changes: dict[str, object]) -> None:
    """A probe does not take unknown, no nextUpdate or another hash for an answer of ours (A5, A9, A20)."""
    with pytest.raises(QuashError, match=r"ocsp\.malformed_response"):
        parse_response(foreign(p256, **changes))


DAMAGE = respond(authority("ecdsa-p256-sha256"))
UNUSED_BITS = DAMAGE.index(ocsp.load_der_ocsp_response(DAMAGE).signature) - 1


@given(st.integers(0, UNUSED_BITS + 60).filter(lambda position: position != UNUSED_BITS), st.integers(1, 255))
def test_damaged_responses_are_refused(position: int, change: int) -> None:
    """No change of any octet up to the signature's end is verified: it is refused with one of three codes.

    But for the count of unused bits before the signature, which pyca lets be 1 to 7 where those bits are zero.
    """
    data = bytearray(DAMAGE)
    data[position] ^= change
    with pytest.raises(QuashError, match=r"ocsp\.(malformed_response|not_successful|not_trusted)"):
        verify_response(bytes(data), authority("ecdsa-p256-sha256").der)


@given(st.binary(max_size=100))
def test_any_octets_parse_or_are_malformed(data: bytes) -> None:
    """No octets make the reader do anything but return or refuse."""
    with refuses_only("ocsp.malformed_response"):
        parse_response(data)


def refused(data: bytes, issuer: bytes, words: str) -> None:
    """The verifier refuses, and says why."""
    with pytest.raises(QuashError, match=rf"ocsp\.not_trusted.*{words}") as caught:
        verify_response(data, issuer)
    assert caught.value.kind is Kind.REFUSED


def test_response_of_another_issuer_is_refused(p256: Authority) -> None:
    """Same name, other key: the CertID tells (A21)."""
    refused(respond(p256), authority("ecdsa-p256-sha256", 1).der, "another issuer")


def test_signer_of_another_issuer_is_refused(p256: Authority) -> None:
    """A signer must be issued by this very CA and key (A13), not by one of the same name."""
    other = authority("ecdsa-p256-sha256", 1)
    mixed = Authority(p256.algorithm, p256.key, p256.certificate, other.signer_key, other.signer)
    refused(respond(mixed), p256.der, "A13")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"usages": (ExtendedKeyUsageOID.SERVER_AUTH,)}, "A14"),
        ({"usages": (ExtendedKeyUsageOID.OCSP_SIGNING, ExtendedKeyUsageOID.SERVER_AUTH)}, "A14"),
        ({"usages": ()}, "lacks 2.5.29.37"),
        ({"nocheck": False}, "lacks 1.3.6.1.5.5.7.48.1.5"),
        ({"days": 1}, "A5"),
    ],
    ids=str,
)
def test_signers_with_faults_are_refused(p256: Authority, changes: dict[str, object], words: str) -> None:
    """Usage, nocheck and validity of the signer's certificate are checked (A5, A14, A15)."""
    refused(respond(p256.with_signer(**changes)), p256.der, words)


def test_signer_of_another_key_is_refused(p256: Authority) -> None:
    """The signature must be by the key in the certificate, for RSA and ECDSA alike."""
    for ca in (p256, authority("rsa-sha256")):
        template, values = ca.template, (CertIdHash.SHA1, SERIAL, GOOD, NOW, NEXT)
        raw = sign(ca.key, ca.algorithm, template.tbs(*values))
        refused(template.response(*values, raw), ca.der, "signature")


def test_absent_signer_is_refused(p256: Authority) -> None:
    """A response whose certs lack the signer cannot be trusted (A19)."""
    refused(foreign(p256, certs=[]), p256.der, "A19")


def test_ed25519_signers_are_refused(p256: Authority) -> None:
    """No response about a public CA's certificates may be signed with EdDSA (A18)."""
    key = ed25519.Ed25519PrivateKey.generate()
    ca = replace(p256, signer_key=key).with_signer()
    refused(foreign(ca, digest=None), p256.der, "A18")


def test_etag_is_stable(p256: Authority) -> None:
    """The same record gives the same octets, so the same strong ETag (A35)."""
    raw = sign(p256.signer_key, p256.algorithm, p256.template.tbs(CertIdHash.SHA1, SERIAL, GOOD, NOW, NEXT))
    answers = {p256.template.response(CertIdHash.SHA1, SERIAL, GOOD, NOW, NEXT, raw) for _ in range(3)}
    assert len({hashlib.sha256(answer).digest() for answer in answers}) == 1
