"""CertIDs and the octets cut from certificates, against pyca."""

from __future__ import annotations

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from quash.errors import QuashError
from quash.pki import der
from quash.pki.certid import CertId, CertIdHash, encode_certid, issuer_hashes, key_identifier, public_key_bits
from quash.pki.certificate import read_certificate
from tests.support.authority import NOW, Authority, authority, refuses_only

HASHES = {CertIdHash.SHA1: hashes.SHA1(), CertIdHash.SHA256: hashes.SHA256()}


@pytest.mark.parametrize("h", CertIdHash)
def test_certid_is_pycas(ca: Authority, h: CertIdHash) -> None:
    """The CertID of a certificate is the one in pyca's request for it (A20, A21)."""
    request = ocsp.OCSPRequestBuilder().add_certificate(ca.signer, ca.certificate, HASHES[h]).build()
    found = issuer_hashes(ca.fields.subject, ca.fields.spki, h)
    assert found == (request.issuer_name_hash, request.issuer_key_hash)
    serial = der.integer_content(request.serial_number)
    assert encode_certid(CertId(h, *found, serial)) in request.public_bytes(Encoding.DER)


def test_key_identifier_is_pycas(ca: Authority) -> None:
    """byKey and our SKIs are SHA-1 of the public key's bits (A19)."""
    expected = x509.SubjectKeyIdentifier.from_public_key(ca.key.public_key()).digest
    assert key_identifier(ca.fields.spki) == expected


def test_public_key_bits_are_those_of_the_bit_string(p256: Authority) -> None:
    """For a curve these are the point: no tag, no length, no unused bits (A21)."""
    point = p256.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert public_key_bits(p256.fields.spki) == point


@pytest.mark.parametrize("spki", ["", "3000", "3007300003030401ff"[:18], "30053000030100", "30043000 0300"])
def test_odd_public_keys_are_refused(spki: str) -> None:
    """A key whose bits are absent, empty or not whole octets has no hash."""
    with pytest.raises(QuashError, match=r"der\.malformed"):
        public_key_bits(bytes.fromhex(spki))


def test_certificate_is_cut_as_pyca_reads_it(ca: Authority) -> None:
    """Names, key, serial and times of a certificate are those that pyca decodes."""
    for certificate in (ca.certificate, ca.signer):
        found = read_certificate(certificate.public_bytes(Encoding.DER))
        assert found.issuer == certificate.issuer.public_bytes()
        assert found.subject == certificate.subject.public_bytes()
        assert found.spki == certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert int.from_bytes(found.serial, "big") == certificate.serial_number
        assert found.not_before == NOW - 3600 == certificate.not_valid_before_utc.timestamp()
        assert found.not_after == certificate.not_valid_after_utc.timestamp()


@given(st.data())
def test_damaged_certificates_read_or_are_refused(data: st.DataObject) -> None:
    """A certificate cut short is refused; one with any octet changed is read or refused, never anything else."""
    der_octets = authority("ecdsa-p256-sha256").der
    cut = data.draw(st.integers(0, len(der_octets) - 1))
    with pytest.raises(QuashError, match=r"der\.malformed"):
        read_certificate(der_octets[:cut])
    changed = bytearray(der_octets)
    changed[cut] ^= data.draw(st.integers(1, 255))
    with refuses_only("der.malformed"):
        read_certificate(bytes(changed))


def test_validity_must_be_two_times() -> None:
    """A validity of one time is refused, not guessed."""
    der_octets = authority("ecdsa-p256-sha256").der
    at = der_octets.index(b"\x30\x1e\x17\x0d")
    # The two UTCTimes become one OCTET STRING of the same size.
    changed = der_octets[: at + 2] + b"\x17\x1c" + der_octets[at + 4 :]
    with pytest.raises(QuashError, match=r"der\.malformed"):
        read_certificate(changed)


def test_sha1_names_and_protects_nothing() -> None:
    """SHA-1 appears as a CertID hash alone (A20, G32); its digests are hashlib's."""
    subject, spki = authority("ecdsa-p256-sha256").fields[2:4]
    assert issuer_hashes(subject, spki, CertIdHash.SHA1).name_hash == hashlib.sha1(subject).digest()
    assert [(h.value, h.size) for h in CertIdHash] == [("sha1", 20), ("sha256", 32)]
