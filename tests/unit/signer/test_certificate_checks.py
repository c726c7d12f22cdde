"""The checks as a whole: whatever bytes pass them mean what was reserved."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import example, given
from hypothesis import strategies as st

from issuer.signer import oids
from issuer.signer import tbs_writer as write
from issuer.signer.authority import Authority
from issuer.signer.certificate_checks import check_certificate
from issuer.signer.extension_rules import Expected
from issuer.signer.tbs import read_tbs_certificate
from issuer.signer.tbs_writer import Frame
from quash.errors import QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.pki.names import build_name
from quash.store.issuers import Issuer
from tests.support.issuing import DAY, private_key, spki_of
from tests.support.reserving import LEAF_KEY, alternative_names

NOW = 1_800_000_000
KEY_ID = b"\x5a" * 20
ALGORITHM = SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"]
URL = "http://crl.example.org/tls-dv/1.crl"
ISSUER = Issuer(
    id=1,
    name="tls-dv",
    kind="sub-ca",
    parent=None,
    subject=build_name({"C": "TN", "O": "Quash Test", "CN": "Quash Test tls-dv"}),
    spki=spki_of(private_key("tls-dv")),
    signature_algorithm=ALGORITHM.name,
    key_ref=None,
    ocsp_path="tls-dv",
    max_age=1800,
    bucket_count=16,
    shard_count=4,
    profiles=("tls-dv",),
    created_at=NOW,
)
AUTHORITY = Authority(
    ISSUER, ALGORITHM, KEY_ID, NOW + 1000 * DAY, purposes=frozenset({oids.SERVER_AUTH}), path_length=0
)
SERIAL = bytes(range(1, 17))
FRAME = Frame(SERIAL, ALGORITHM, ISSUER.subject, NOW, NOW + 199 * DAY - 1, b"\x30\x00", spki_of(private_key(LEAF_KEY)))
EXPECTED = Expected("tls-dv", SERIAL, hashlib.sha256(FRAME.spki).digest(), NOW, FRAME.not_after, URL)
TBS = write.write_tbs(
    FRAME,
    write.key_usage(write.DIGITAL_SIGNATURE),
    write.extended_key_usage(oids.SERVER_AUTH),
    write.basic_constraints(b"\x30\x00"),
    write.authority_key(KEY_ID),
    write.authority_access(ocsp="http://ocsp.example.org/tls-dv", ca_issuers="http://crl.example.org/tls-dv.cer"),
    alternative_names("www.example.org"),
    write.policy(oids.POLICY_DV),
    write.crl_distribution_point(URL),
)


def passes(tbs: bytes) -> bool:
    try:
        check_certificate(read_tbs_certificate(tbs), AUTHORITY, EXPECTED, NOW)
    except QuashError:
        return False
    return True


def assert_means_what_was_reserved(tbs: bytes) -> None:
    """Read by pyca: our serial, issuer, key and validity, a server certificate and no CA, revocable where we say."""
    made = x509.load_der_x509_certificate(write.write_certificate(tbs, ALGORITHM, b"\1" * 64))
    assert made.serial_number == int.from_bytes(SERIAL, "big")
    assert made.issuer.public_bytes() == ISSUER.subject
    assert made.public_key() == private_key(LEAF_KEY).public_key()
    assert made.not_valid_before_utc == datetime.fromtimestamp(NOW, UTC)
    assert made.not_valid_after_utc == datetime.fromtimestamp(FRAME.not_after, UTC)
    found = made.extensions
    assert not found.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = found.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert not usage.crl_sign
    assert list(found.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert found.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == KEY_ID
    (point,) = found.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name == [x509.UniformResourceIdentifier(URL)]
    (policy,) = found.get_extension_for_class(x509.CertificatePolicies).value
    assert policy.policy_identifier.dotted_string in (oids.POLICY_DV, oids.POLICY_OV)


def test_the_certificate_itself_passes() -> None:
    """The property below is not empty: the bytes that it changes pass as they are."""
    assert passes(TBS)
    assert_means_what_was_reserved(TBS)


@given(st.integers(0, len(TBS) - 1), st.integers(1, 255))
def test_a_changed_octet(offset: int, change: int) -> None:
    """Change any octet to any other: the certificate is refused, or still means what was reserved."""
    tbs = TBS[:offset] + bytes([TBS[offset] ^ change]) + TBS[offset + 1 :]
    if passes(tbs):
        assert_means_what_was_reserved(tbs)


def test_every_octet_and_bit() -> None:
    """The same for every single bit, so that no run misses one."""
    for offset in range(len(TBS)):
        for bit in range(8):
            tbs = TBS[:offset] + bytes([TBS[offset] ^ 1 << bit]) + TBS[offset + 1 :]
            if passes(tbs):
                assert_means_what_was_reserved(tbs)


@given(st.integers(0, len(TBS)), st.integers(0, 8), st.binary(max_size=8))
@example(len(TBS), 0, b"\0")
def test_octets_put_in_and_taken_out(offset: int, taken: int, put: bytes) -> None:
    """No length is taken on trust: what is longer or shorter than its headers say is refused."""
    tbs = TBS[:offset] + put + TBS[offset + taken :]
    if passes(tbs):
        assert_means_what_was_reserved(tbs)


@given(st.binary(max_size=300))
def test_noise(data: bytes) -> None:
    """Noise is refused with a code of ours and nothing else."""
    assert not passes(data)
