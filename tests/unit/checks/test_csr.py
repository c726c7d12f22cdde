"""Requests as nobody's tool makes them: read in one way only, or refused, and never by a fault of ours."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)
from hypothesis import given
from hypothesis import strategies as st

from issuer.checks import csr
from issuer.checks.content import check_content
from issuer.checks.weak_keys import check_key
from quash.errors import QuashError
from quash.pki import der
from quash.runtime.profiles import shipped
from tests.support.issuing import private_key

KEY = private_key("odd-requests")
ECDSA = bytes.fromhex("300a06082a8648ce3d040302")
NO_NAME = bytes.fromhex("3000")
PKCS9, MICROSOFT = "1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14"


def spki(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]


def request(
    attributes: bytes, *, subject: bytes = NO_NAME, version: int = 0, public: bytes | None = None, more: bytes = b""
) -> bytes:
    """A CertificationRequest of these parts, signed."""
    public = spki(KEY.public_key()) if public is None else public
    info = der.tlv(
        der.SEQUENCE, der.tlv(der.INTEGER, bytes([version])), subject, public, der.tlv(0xA0, attributes), more
    )
    assert isinstance(KEY, ec.EllipticCurvePrivateKey)
    signature = KEY.sign(info, ec.ECDSA(hashes.SHA256()))
    return der.tlv(der.SEQUENCE, info, ECDSA, der.tlv(der.BIT_STRING, b"\0", signature))


def extension(oid: str, value: bytes) -> bytes:
    return der.tlv(der.SEQUENCE, der.oid(oid), der.tlv(der.OCTET_STRING, value))


def names(*general: bytes) -> bytes:
    return extension("2.5.29.17", der.tlv(der.SEQUENCE, *general))


def dns(value: bytes) -> bytes:
    return der.tlv(0x82, value)


def wanted(*extensions: bytes, by: str = PKCS9) -> bytes:
    """The attribute that asks for extensions."""
    return der.tlv(der.SEQUENCE, der.oid(by), der.tlv(der.SET, der.tlv(der.SEQUENCE, *extensions)))


def subject(*attributes: tuple[str, int, bytes]) -> bytes:
    return der.tlv(
        der.SEQUENCE,
        *(der.tlv(der.SET, der.tlv(der.SEQUENCE, der.oid(oid), der.tlv(tag, value))) for oid, tag, value in attributes),
    )


WWW = names(dns(b"www.example.org"))
EVIL = names(dns(b"evil.example.org"))
CN = "2.5.4.3"

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "another version": (lambda: request(wanted(WWW), version=1), "csr.malformed"),
    "a field behind the last": (lambda: request(wanted(WWW), more=b"\5\0"), "csr.malformed"),
    "an attribute that is none": (lambda: request(b"\5\0"), "csr.malformed"),
    "names asked for twice": (lambda: request(wanted(WWW) + wanted(EVIL)), "csr.malformed"),
    "names asked for twice, in two ways": (lambda: request(wanted(WWW) + wanted(EVIL, by=MICROSOFT)), "csr.malformed"),
    "two lists of names": (lambda: request(wanted(WWW, EVIL)), "csr.malformed"),
    "no name in the list": (lambda: request(wanted(names())), "san.missing"),
    "a name that is no ASCII": (lambda: request(wanted(names(dns(b"www.ex\xe4mple.org")))), "csr.malformed"),
    "a letter whose lower case is ASCII": (
        lambda: request(wanted(names(dns("www.\u212aexample.org".encode())))),
        "name.not_ascii",
    ),
    "a commonName with such a letter": (
        lambda: request(
            wanted(names(dns(b"k.example.org"))), subject=subject((CN, 0x0C, "\u212a.example.org".encode()))
        ),
        "name.cn_not_in_san",
    ),
    "a NUL": (lambda: request(wanted(names(dns(b"www.example.org\0")))), "name.not_ldh"),
    "a line end": (lambda: request(wanted(names(dns(b"www.example.org\n")))), "name.not_ldh"),
    "an empty name": (lambda: request(wanted(names(dns(b"")))), "name.empty"),
    "an X.400 address": (lambda: request(wanted(names(dns(b"www.example.org"), der.tlv(0xA3)))), "csr.malformed"),
    "three octets of address": (lambda: request(wanted(names(der.tlv(0x87, b"\1\2\3")))), "csr.malformed"),
    "a registered id": (lambda: request(wanted(names(der.tlv(0x88, b"\x2a\3")))), "san.type"),
    "UTF-8 that is none": (lambda: request(wanted(WWW), subject=subject((CN, 0x0C, b"\xff\xfe"))), "csr.malformed"),
    "a number for a name": (lambda: request(wanted(WWW), subject=subject((CN, 2, b"\1"))), "csr.malformed"),
    "bits for a name": (lambda: request(wanted(WWW), subject=subject((CN, 3, b"\0\1"))), "csr.malformed"),
    "another's key": (
        lambda: request(wanted(WWW), public=spki(private_key("another").public_key())),
        "csr.bad_signature",
    ),
    "a key for agreement": (
        lambda: request(wanted(WWW), public=spki(x25519.X25519PrivateKey.generate().public_key())),
        "key.type_not_allowed",
    ),
    "an Ed25519 key": (
        lambda: request(wanted(WWW), public=spki(ed25519.Ed25519PrivateKey.generate().public_key())),
        "key.type_not_allowed",
    ),
    "an RSA-PSS key": (
        lambda: request(
            wanted(WWW),
            public=spki(private_key("rsa-pss").public_key()).replace(
                bytes.fromhex("300d06092a864886f70d0101010500"), bytes.fromhex("300d06092a864886f70d01010a0500")
            ),
        ),
        "key.type_not_allowed",
    ),
    "a curve without a name": (
        lambda: request(
            wanted(WWW), public=spki(KEY.public_key()).replace(b"\x06\x08*\x86H\xce=\x03\x01\x07", b"\x05\x00")
        ),
        "key.type_not_allowed",
    ),
    "indefinite length": (lambda: b"\x30\x80" + request(wanted(WWW))[4:] + b"\0\0", "csr.malformed"),
    "a longer length than needed": (lambda: b"\x30\x83\0" + request(wanted(WWW))[2:], "csr.malformed"),
}


def read(data: bytes) -> tuple[str, ...]:
    """As orders are: the key first, then the request, then what it asks for."""
    check_key(csr.public_key(data))
    return check_content(shipped()["dv"], csr.read(data)).dns_names


@pytest.mark.parametrize("case", REFUSED)
def test_an_odd_request_is_refused_by_its_code(case: str) -> None:
    make, code = REFUSED[case]
    with pytest.raises(QuashError) as error:
        read(make())
    assert error.value.code == code


def test_so_many_odd_requests_are_known() -> None:
    """None of them is lost."""
    assert len(REFUSED) == 26


def test_what_a_request_wants_beyond_names_it_does_not_get() -> None:
    """D7, G25: a CA, any purpose, a precertificate: the profile says what a leaf is."""
    asked = (("2.5.29.19", "30030101ff"), ("2.5.29.37", "30060604551d2500"), ("1.3.6.1.4.1.11129.2.4.3", "0500"))
    odd = request(wanted(WWW, *(extension(oid, bytes.fromhex(value)) for oid, value in asked)))
    assert read(odd) == ("www.example.org",)
    assert read(request(wanted(WWW, by=MICROSOFT))) == ("www.example.org",)
    assert read(request(wanted(names(dns(b"WWW.Example.ORG"), dns(b"www.example.org"))))) == ("www.example.org",)


@given(at=st.integers(0, 10_000), octet=st.integers(0, 255))
def test_a_request_with_a_changed_octet_is_refused_or_says_the_same(at: int, octet: int) -> None:
    """Whatever octet changes, our own errors come, or nothing has changed that counts."""
    data = bytearray(request(wanted(WWW)))
    data[at % len(data)] = octet
    try:
        assert read(bytes(data)) == ("www.example.org",)
    except QuashError:
        return


PRIVATE = {
    "PKCS #8": lambda: KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    "SEC 1": lambda: KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
    "encrypted": lambda: KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
    "RSA": lambda: rsa.generate_private_key(65537, 2048).private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    ),
}


@pytest.mark.parametrize("form", PRIVATE)
def test_a_private_key_is_not_even_decoded(form: str) -> None:
    """D46: alone, or before a request in the same text."""
    pem = PRIVATE[form]().decode()
    for text in (pem, pem + base64.b64encode(request(wanted(WWW))).decode()):
        with pytest.raises(QuashError, match=r"csr\.private_key"):
            csr.decode(text)


def test_pkcs12_is_no_request() -> None:
    """G31: nobody orders with a key packed up; what cannot be read is not kept either (`Issuance.submit`)."""
    packed = pkcs12.serialize_key_and_certificates(b"me", KEY, None, None, BestAvailableEncryption(b"x"))  # type: ignore[arg-type]
    bare = KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    for octets in (packed, bare):
        with pytest.raises(QuashError, match=r"csr\.malformed"):
            csr.public_key(csr.decode(base64.b64encode(octets).decode()))
