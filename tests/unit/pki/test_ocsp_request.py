"""OCSP requests: the short cut, the strict reader, and what other readers make of the same octets."""

from __future__ import annotations

import itertools

import pytest
from asn1crypto import algos, core
from asn1crypto import ocsp as asn1_ocsp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from quash.errors import QuashError
from quash.pki import der
from quash.pki.certid import CertId, CertIdHash, encode_certid
from quash.pki.ocsp_request import (
    _SHAPES,
    OcspRequest,
    build_request,
    parse_any_request,
    parse_plain_request,
    parse_request,
)
from tests.support.authority import Authority, refuses_only

NONCE_OID = "1.3.6.1.5.5.7.48.1.2"
SHA1_ID = CertId(CertIdHash.SHA1, b"\x11" * 20, b"\x22" * 20, b"\x33" * 16)
SHA256_ID = CertId(CertIdHash.SHA256, b"\x11" * 32, b"\x22" * 32, b"\x33" * 20)


@st.composite
def cert_ids(draw: st.DrawFn) -> CertId:
    """Any CertID, its serial positive, negative or zero, up to 64 octets."""
    h = draw(st.sampled_from(CertIdHash))
    name, key = draw(st.binary(min_size=h.size, max_size=h.size)), draw(st.binary(min_size=h.size, max_size=h.size))
    serial = draw(st.one_of(st.integers(0, (1 << 159) - 1), st.integers(-(1 << 511), (1 << 511) - 1)))
    return CertId(h, name, key, der.integer_content(serial))


NONCES = st.one_of(st.none(), st.binary(min_size=1, max_size=128), st.sampled_from([b"n" * 16, b"n" * 32]))


def request(*contents: bytes) -> bytes:
    """A request of these contents of tbsRequest."""
    return der.tlv(0x30, der.tlv(0x30, *contents))


def request_list(*requests: bytes) -> bytes:
    """requestList of these contents of Request."""
    return der.tlv(0x30, *(der.tlv(0x30, content) for content in requests))


def extensions(tag: int, *parts: bytes) -> bytes:
    """Explicitly tagged Extensions."""
    return der.tlv(tag, der.tlv(0x30, *parts))


def extension(oid: str, value: bytes, critical: bytes = b"") -> bytes:
    """One Extension."""
    return der.tlv(0x30, der.oid(oid), critical, der.tlv(4, value))


@given(cert_ids(), NONCES)
def test_requests_read_back(cert_id: CertId, nonce: bytes | None) -> None:
    """What build_request writes, both readers read; trailing octets make it malformed."""
    data = build_request(cert_id, nonce)
    assert parse_request(data) == parse_any_request(data) == OcspRequest((cert_id,), nonce)
    for changed in (data + b"\0", data[:-1]):
        with pytest.raises(QuashError, match=r"ocsp\.malformed_request"):
            parse_request(changed)


@given(cert_ids(), NONCES, st.data())
def test_short_cut_agrees_with_strict_reader(cert_id: CertId, nonce: bytes | None, data: st.DataObject) -> None:
    """On any change of any octet the short cut and the strict reader say the same: same values or the same refusal."""
    changed = bytearray(build_request(cert_id, nonce))
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, min(len(changed) - 1, 30)) | st.integers(0, len(changed) - 1))] ^= data.draw(
            st.integers(1, 255)
        )
    assert outcome(parse_request, bytes(changed)) == outcome(parse_any_request, bytes(changed))


def outcome(read: object, data: bytes) -> object:
    """What a reader returns, or its error's text."""
    try:
        return read(data)
    except QuashError as error:
        return str(error)


def test_every_shape_has_its_own_beginning() -> None:
    """No two shapes begin alike: 2 hashes, 21 serial sizes, 5 nonce sizes."""
    assert len(_SHAPES) == 210
    for h in CertIdHash:
        for serial, nonce in itertools.product(range(1, 22), (None, 8, 16, 20, 32)):
            cert_id = CertId(h, b"n" * h.size, b"k" * h.size, b"s" * serial)
            data = build_request(cert_id, b"o" * nonce if nonce else None)
            assert (_SHAPES[data[:19]].hash, _SHAPES[data[:19]].size) == (h, len(data))


@pytest.mark.parametrize(
    ("serial", "plain"),
    [
        ("7f", True),
        ("80", False),
        ("0080", True),
        ("00" + "ff" * 20, True),
        ("007f", False),
        ("00", False),
        ("0000", False),
    ],
)
def test_a_serial_with_a_leading_zero_is_plain_when_it_needs_it(serial: str, plain: bool) -> None:
    """Half of other CAs' serials have one; zero, negative and padded ones are left to the strict reader."""
    data = build_request(SHA256_ID._replace(serial=bytes.fromhex(serial)))
    assert (parse_plain_request(data) is not None) == plain
    if plain:
        assert parse_plain_request(data) == parse_any_request(data)


@pytest.mark.parametrize("h", [hashes.SHA1(), hashes.SHA256()])
@pytest.mark.parametrize("nonce", [None, b"n" * 16, b"n" * 32])
def test_pycas_requests_are_ours(ca: Authority, h: hashes.HashAlgorithm, nonce: bytes | None) -> None:
    """pyca's request for a certificate is octet for octet what we build, and reads to the same values."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(ca.signer, ca.certificate, h)
    built = (builder.add_extension(x509.OCSPNonce(nonce), critical=False) if nonce else builder).build()
    data = built.public_bytes(Encoding.DER)
    parsed = parse_request(data)
    (cert_id,) = parsed.cert_ids
    assert cert_id is not None
    assert (cert_id.name_hash, cert_id.key_hash) == (built.issuer_name_hash, built.issuer_key_hash)
    assert int.from_bytes(cert_id.serial, "big") == built.serial_number
    assert parsed.nonce == nonce
    assert build_request(cert_id, nonce) == data


def test_sizes_are_those_of_a32() -> None:
    """115 octets with SHA-256 and a serial of 20, 170 with a nonce of 32, 87 with SHA-1 (A32)."""
    assert len(build_request(SHA256_ID)) == 115
    assert len(build_request(SHA256_ID, b"n" * 32)) == 170
    assert len(build_request(SHA1_ID._replace(serial=b"\x33" * 20))) == 87


def test_several_certificates_are_all_read() -> None:
    """Each Request of a list is read, in order; one with a hash that we do not serve is None."""
    other = der.tlv(
        0x30,
        algos.DigestAlgorithm({"algorithm": "sha384"}).dump(),
        der.tlv(4, b"n" * 48),
        der.tlv(4, b"k" * 48),
        b"\2\1\1",
    )
    data = request(request_list(encode_certid(SHA1_ID), other, encode_certid(SHA256_ID)))
    assert parse_request(data) == OcspRequest((SHA1_ID, None, SHA256_ID), None)


def test_parameters_may_be_absent() -> None:
    """An AlgorithmIdentifier without parameters means the same as one with NULL (RFC 5754 2)."""
    for cert_id in (SHA1_ID, SHA256_ID):
        (start, _), written = der.only(encode_certid(cert_id), 0x30), encode_certid(cert_id)
        _, end = der.expect(written, start, 0x30)
        oid = written[start + 2 : end - 2]
        shorter = der.tlv(0x30, der.tlv(0x30, oid), written[end:])
        assert parse_request(request(request_list(shorter))) == OcspRequest((cert_id,), None)


def test_requestor_version_and_signature_are_passed_over() -> None:
    """requestorName is as if absent, the signature is ignored, v1 may be spelt out (A28)."""
    requestor = der.tlv(0xA1, asn1_ocsp.GeneralName("dns_name", "client.example").dump())
    signature = der.tlv(0xA0, der.tlv(0x30, bytes.fromhex("300a06082a8648ce3d040302"), b"\3\2\0\xff"))
    single = request_list(encode_certid(SHA256_ID))
    expected = OcspRequest((SHA256_ID,), None)
    assert parse_request(request(requestor, single)) == expected
    assert parse_request(request(b"\xa0\3\2\1\0", single)) == expected
    assert parse_request(request(b"\xa0\3\2\1\0", requestor, single)) == expected
    assert parse_request(der.tlv(0x30, der.tlv(0x30, single), signature)) == expected


@pytest.mark.parametrize("critical", [b"", b"\1\1\0"])
def test_unknown_extensions_are_ignored_unless_critical(critical: bytes) -> None:
    """Unknown extensions of a Request and of the whole are ignored, also beside a nonce (A28)."""
    unknown, nonce = extension("1.2.3.4", b"any", critical), extension(NONCE_OID, b"\4\2no")
    single = encode_certid(SHA1_ID) + extensions(0xA0, unknown)
    data = request(request_list(single), extensions(0xA2, unknown, nonce))
    assert parse_request(data) == OcspRequest((SHA1_ID,), b"no")


def test_critical_nonce_is_understood() -> None:
    """The nonce may be critical: we know what it is, and answer without it (A27)."""
    data = request(request_list(encode_certid(SHA1_ID)), extensions(0xA2, extension(NONCE_OID, b"\4\2no", b"\1\1\xff")))
    assert parse_request(data).nonce == b"no"


@pytest.mark.parametrize("size", [1, 15, 16, 32, 33, 128])
def test_nonces_up_to_128_octets_are_read(size: int) -> None:
    """1 to 128 octets are a nonce (A27)."""
    assert parse_request(build_request(SHA256_ID, b"n" * size)).nonce == b"n" * size


LIST = request_list(encode_certid(SHA1_ID))
NONCE = extension(NONCE_OID, b"\4\2no")
CERT_ID = encode_certid(SHA1_ID)
MALFORMED = {
    "empty": b"",
    "garbage": b"GET / HTTP/1.1",
    "one octet": b"\x30",
    "no certificate": request(der.tlv(0x30)),
    "no list": request(),
    "nonce of 0": build_request(SHA1_ID, b""),
    "nonce of 129": build_request(SHA1_ID, b"n" * 129),
    "nonce not wrapped": request(LIST, extensions(0xA2, extension(NONCE_OID, b"no"))),
    "nonce with a tail": request(LIST, extensions(0xA2, extension(NONCE_OID, b"\4\2noX"))),
    "two nonces": request(LIST, extensions(0xA2, NONCE, NONCE)),
    "critical unknown": request(LIST, extensions(0xA2, extension("1.2.3.4", b"", b"\1\1\xff"))),
    "critical unknown in Request": request(
        request_list(CERT_ID + extensions(0xA0, extension("1.2.3.4", b"", b"\1\1\xff")))
    ),
    "odd BOOLEAN": request(LIST, extensions(0xA2, extension(NONCE_OID, b"\4\2no", b"\1\1\1"))),
    "no extension": request(LIST, extensions(0xA2)),
    "two Extensions": request(LIST, der.tlv(0xA2, der.tlv(0x30, NONCE), der.tlv(0x30, NONCE))),
    "extension no SEQUENCE": request(LIST, extensions(0xA2, b"\4\0")),
    "extension with a tail": request(LIST, extensions(0xA2, der.tlv(0x30, der.oid(NONCE_OID), b"\4\4\4\2no\5\0"))),
    "extensions twice": request(LIST, extensions(0xA2, NONCE), extensions(0xA2, NONCE)),
    "version 2": request(b"\xa0\3\2\1\1", LIST),
    "tail in Request": request(request_list(CERT_ID + extensions(0xA0, NONCE) + b"\5\0")),
    "tail in CertID": request(request_list(der.tlv(0x30, CERT_ID[2:], b"\5\0"))),
    "Request no SEQUENCE": request(der.tlv(0x30, der.tlv(0x31, CERT_ID))),
    "after signature": der.tlv(0x30, der.tlv(0x30, LIST), der.tlv(0xA0, b"\x30\0"), b"\5\0"),
    "short name hash": request(request_list(encode_certid(SHA1_ID._replace(name_hash=b"n" * 19)))),
    "long key hash": request(request_list(encode_certid(SHA256_ID._replace(key_hash=b"k" * 33)))),
    "empty serial": request(request_list(encode_certid(SHA1_ID._replace(serial=b"")))),
    "padded serial": build_request(SHA1_ID._replace(serial=b"\0" + b"\x33" * 15)),
    "padded negative serial": build_request(SHA1_ID._replace(serial=b"\xff\x80")),
    "indefinite length": b"\x30\x80" + build_request(SHA1_ID)[2:] + b"\0\0",
    "long form of a short length": b"\x30\x81" + build_request(SHA1_ID)[1:],
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_requests_are_refused(what: str) -> None:
    """Whatever is not strict DER of the right shape is malformedRequest (A11, A27)."""
    with pytest.raises(QuashError, match=r"ocsp\.malformed_request"):
        parse_request(MALFORMED[what])


@given(st.binary(max_size=200))
def test_any_octets_read_or_are_malformed(data: bytes) -> None:
    """No octets make the reader do anything but return or refuse."""
    with refuses_only("ocsp.malformed_request"):
        parse_request(data)


@given(cert_ids(), NONCES, st.data())
def test_what_we_accept_others_read_alike(cert_id: CertId, nonce: bytes | None, data: st.DataObject) -> None:
    """A damaged request that we still accept is read to the same CertID by pyca and by asn1crypto."""
    changed = bytearray(build_request(cert_id, nonce))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    with refuses_only("ocsp.malformed_request"):
        (found,) = parse_request(bytes(changed)).cert_ids
        if found is None:
            return
        by_asn1 = asn1_ocsp.OCSPRequest.load(bytes(changed), strict=True)["tbs_request"]["request_list"][0]["req_cert"]
        assert by_asn1["issuer_name_hash"].native == found.name_hash
        assert by_asn1["issuer_key_hash"].native == found.key_hash
        assert by_asn1["serial_number"].contents == found.serial
        assert by_asn1["hash_algorithm"]["algorithm"].native == found.hash.value
        by_pyca = ocsp.load_der_ocsp_request(bytes(changed))
        assert by_pyca.issuer_key_hash == found.key_hash
        assert core.Integer(by_pyca.serial_number).contents == found.serial
