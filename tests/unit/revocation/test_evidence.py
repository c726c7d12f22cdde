"""Proofs of compromise (C14): the honest ones verify, and each kind of fake is refused with its own code."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from issuer.revocation.evidence import MAX_OCTETS, from_csr, from_jws, from_private_key, verify_kept_proof
from quash.errors import QuashError
from quash.pki import der
from quash.store.key_evidence import Evidence
from tests.support import proofs
from tests.support.proofs import b64, csr, pem

RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
OTHER_N = OTHER_RSA.public_key().public_numbers().n
EC = ec.generate_private_key(ec.SECP256R1())
OTHER_EC = ec.generate_private_key(ec.SECP256R1())
PARTS = ("n", "e", "d", "p", "q", "dp", "dq", "qi")
HUGE = (1 << 44497) - 1  # a prime: whoever asks the library whether it is one waits for minutes
CHALLENGE = "quash-compromise-" + "0a" * 20


def spki(key: Any) -> bytes:
    spki_der: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return spki_der


def armour(label: str, body: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(body).decode()}-----END {label}-----\n"


def rsa_with(**changes: int) -> str:
    """An RSA key in PKCS#1 whose parts were exchanged."""
    numbers = RSA.private_numbers()
    parts = {
        "version": 0,
        "n": numbers.public_numbers.n,
        "e": 65537,
        "d": numbers.d,
        "p": numbers.p,
        "q": numbers.q,
        "dp": numbers.dmp1,
        "dq": numbers.dmq1,
        "qi": numbers.iqmp,
    } | changes
    return armour("RSA PRIVATE KEY", der.tlv(der.SEQUENCE, *(der.integer(each) for each in parts.values())))


def three_primes() -> str:
    """Numbers that fit each other, but one of the two primes is a product."""
    one, two = RSA.private_numbers(), OTHER_RSA.private_numbers()
    p, q = one.p * two.p, one.q
    d = pow(65537, -1, (p - 1) * (q - 1))
    return rsa_with(n=p * q, d=d, p=p, dp=d % (p - 1), dq=d % (q - 1), qi=pow(q, -1, p))


def ec_with_public_of_another() -> str:
    """SEC 1: the private number of one key and the public point of another."""
    body = EC.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    point, other = (
        key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint) for key in (EC, OTHER_EC)
    )
    assert point in body
    return armour("EC PRIVATE KEY", body.replace(point, other))


def jws(key: Any = EC, alg: str = "ES256", payload: Any = None, **header: Any) -> dict[str, str]:
    return proofs.jws(key, alg, {"challenge": CHALLENGE} if payload is None else payload, **header)


def damaged_csr() -> str:
    body = bytearray(base64.b64decode("".join(csr(RSA, CHALLENGE).splitlines()[1:-1])))
    body[-5] ^= 1
    return armour("CERTIFICATE REQUEST", bytes(body))


def sha1_csr() -> str:
    """A request that says it is signed with SHA-1: what it is signed with no longer matters."""
    body = base64.b64decode("".join(csr(RSA, CHALLENGE).splitlines()[1:-1]))
    sha256, sha1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    return armour("CERTIFICATE REQUEST", body.replace(sha256, sha1))


HONEST: dict[str, tuple[Callable[[], Evidence], Any]] = {
    "rsa, PKCS#8": (lambda: from_private_key(pem(RSA)), RSA),
    "rsa, PKCS#1": (lambda: from_private_key(pem(RSA, PrivateFormat.TraditionalOpenSSL)), RSA),
    "ec, PKCS#8": (lambda: from_private_key(pem(EC)), EC),
    "ec, SEC 1": (lambda: from_private_key(pem(EC, PrivateFormat.TraditionalOpenSSL)), EC),
    "rsa, request": (lambda: from_csr(csr(RSA, CHALLENGE)), RSA),
    "ec, request": (lambda: from_csr(csr(EC, CHALLENGE, digest=hashes.SHA384())), EC),
    "rsa, JWS": (lambda: from_jws(jws(RSA, "RS256"), spki(RSA)), RSA),
    "ec, JWS": (lambda: from_jws(jws(typ="JWT", kid="x"), spki(EC)), EC),
}


@pytest.mark.parametrize("name", sorted(HONEST))
def test_an_honest_proof(name: str) -> None:
    """It names the key; of a private key nothing is kept but a signature that anybody can verify."""
    prove, key = HONEST[name]
    proof = prove()
    assert proof.spki == spki(key)
    assert (proof.challenge is None) == (proof.kind == "private-key")
    if proof.kind == "private-key":
        verify_kept_proof(proof)
        numbers = key.private_numbers()
        secret = numbers.private_value if isinstance(key, ec.EllipticCurvePrivateKey) else numbers.d
        assert secret.to_bytes((secret.bit_length() + 7) // 8, "big") not in proof.proof + proof.spki
        forged = Evidence("private-key", spki(OTHER_EC), proof.proof, proof.sha256, None)
        with pytest.raises(QuashError):
            verify_kept_proof(forged)


def public_pem(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


FAKES: dict[str, tuple[Callable[[], object], str]] = {
    "the public half": (lambda: from_private_key(public_pem(RSA)), "public_half"),
    "an encrypted key": (
        lambda: from_private_key(
            EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()
        ),
        "encrypted",
    ),
    "no key": (
        lambda: from_private_key(armour("PRIVATE KEY", b"\0" * 9)),
        "key_malformed",
    ),
    "no PEM": (lambda: from_private_key("the key is 12345"), "key_malformed"),
    "a cut key": (lambda: from_private_key(pem(EC)[:100] + "\n-----END PRIVATE KEY-----\n"), "key_malformed"),
    "another modulus": (
        lambda: from_private_key(rsa_with(n=OTHER_N)),
        "key_inconsistent",
    ),
    "another exponent": (lambda: from_private_key(rsa_with(d=RSA.private_numbers().d + 2)), "key_inconsistent"),
    "another prime": (lambda: from_private_key(rsa_with(p=OTHER_RSA.private_numbers().p)), "key_inconsistent"),
    "another public exponent": (lambda: from_private_key(rsa_with(e=3)), "key_inconsistent"),
    "numbers beyond the modulus": (lambda: from_private_key(rsa_with(d=HUGE, p=HUGE, dp=HUGE)), "key_inconsistent"),
    "a modulus as its own prime": (
        lambda: from_private_key(rsa_with(p=RSA.private_numbers().public_numbers.n, q=1, e=1, d=1)),
        "key_inconsistent",
    ),
    "a prime that is none": (lambda: from_private_key(three_primes()), "key_inconsistent"),
    "even numbers": (lambda: from_private_key(rsa_with(n=OTHER_N - 1)), "key_inconsistent"),
    "nothing but zeros": (lambda: from_private_key(rsa_with(**dict.fromkeys(PARTS, 0))), "key_inconsistent"),
    "a point of another key": (lambda: from_private_key(ec_with_public_of_another()), "key_inconsistent"),
    "a key of another kind": (lambda: from_private_key(pem(ed25519.Ed25519PrivateKey.generate())), "key_type"),
    "too much": (lambda: from_private_key("x" * (MAX_OCTETS + 1)), "too_large"),
    "no request": (
        lambda: from_csr(armour("CERTIFICATE REQUEST", b"\0" * 9)),
        "csr_malformed",
    ),
    "a certificate's names": (lambda: from_csr(csr(RSA, "www.example.org")), "no_challenge"),
    "no name": (lambda: from_csr(csr(RSA)), "no_challenge"),
    "the challenge and more": (lambda: from_csr(csr(RSA, CHALLENGE, "www.example.org")), "no_challenge"),
    "a challenge that looks right": (lambda: from_csr(csr(RSA, CHALLENGE.upper())), "no_challenge"),
    "a request changed": (lambda: from_csr(damaged_csr()), "csr_signature"),
    "a request with SHA-1": (lambda: from_csr(sha1_csr()), "csr_digest"),
    "a request of another kind": (lambda: from_csr(csr_ed25519()), "key_type"),
    "a JWS by another key": (lambda: from_jws(jws(OTHER_EC), spki(EC)), "jws_signature"),
    "a JWS that brings its key": (lambda: from_jws(jws(OTHER_EC, jwk={"kty": "EC"}), spki(EC)), "jws_signature"),
    "a JWS with alg none": (lambda: from_jws(jws(alg="none") | {"signature": ""}, spki(EC)), "jws_algorithm"),
    "a MAC with the public key": (lambda: from_jws(jws(spki(EC), "HS256"), spki(EC)), "jws_algorithm"),
    "the algorithm of another key": (lambda: from_jws(jws(EC, "RS256"), spki(EC)), "jws_algorithm"),
    "the curve of another key": (lambda: from_jws(jws(EC, "ES384"), spki(EC)), "jws_algorithm"),
    "a critical header": (lambda: from_jws(jws(crit=["b64"], b64=False), spki(EC)), "jws_header"),
    "a payload without challenge": (lambda: from_jws(jws(payload={"aud": "x"}), spki(EC)), "no_challenge"),
    "a payload changed": (
        lambda: from_jws(jws() | {"payload": b64({"challenge": CHALLENGE.replace("0a", "0b")})}, spki(EC)),
        "jws_signature",
    ),
    "no JSON": (lambda: from_jws(jws() | {"payload": b64(b"{")}, spki(EC)), "jws_malformed"),
    "standard base64": (lambda: from_jws(jws() | {"signature": "+/+/"}, spki(EC)), "jws_malformed"),
    "a part missing": (lambda: from_jws({"protected": "", "payload": ""}, spki(EC)), "jws_malformed"),
    "zeros": (lambda: from_jws(jws() | {"signature": b64(bytes(64))}, spki(EC)), "jws_signature"),
}


def csr_ed25519() -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CHALLENGE)])
    request = (
        x509.CertificateSigningRequestBuilder().subject_name(name).sign(ed25519.Ed25519PrivateKey.generate(), None)
    )
    return request.public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("name", sorted(FAKES))
def test_a_fake_is_refused(name: str) -> None:
    """Each with the code of its trick."""
    fake, code = FAKES[name]
    with pytest.raises(QuashError) as refused:
        fake()
    assert refused.value.code == f"evidence.{code}"


def test_enough_kinds_of_fakes_have_a_code_of_their_own() -> None:
    """Twelve at least."""
    assert len({code for _, code in FAKES.values()}) >= 12


def test_a_key_that_is_too_large_costs_nothing() -> None:
    """A modulus of 16,384 bits is refused before any arithmetic with it."""
    n = (1 << 16383) + 1
    public = rsa.RSAPublicNumbers(65537, n).public_key()
    big = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(QuashError) as refused:
        from_jws(jws(RSA, "RS256"), big)
    assert refused.value.code == "evidence.key_too_large"
    assert hashlib.sha256(big).digest()
