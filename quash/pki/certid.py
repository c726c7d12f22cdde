"""CertID: the four values by which OCSP names a certificate (RFC 6960 4.1.1)."""

from __future__ import annotations

import hashlib
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from quash.pki import der


class CertIdHash(Enum):
    """The hash algorithms that we answer for (A20); a value is the hashlib name."""

    SHA1 = "sha1"
    SHA256 = "sha256"

    @property
    def identifier(self) -> bytes:
        """DER AlgorithmIdentifier with NULL parameters, as every deployed client sends it."""
        return _IDENTIFIERS[self]

    @property
    def size(self) -> int:
        """Octets of a hash."""
        return _SIZES[self]


_IDENTIFIERS = {
    CertIdHash.SHA1: bytes.fromhex("300906052b0e03021a0500"),
    CertIdHash.SHA256: bytes.fromhex("300d06096086480165030402010500"),
}
_SIZES = {CertIdHash.SHA1: 20, CertIdHash.SHA256: 32}


class IssuerHashes(NamedTuple):
    """Hash of the issuer's DER Name and of its public key's BIT STRING value."""

    name_hash: bytes
    key_hash: bytes


class CertId(NamedTuple):
    """`serial` is the content octets of the DER INTEGER. A tuple, because one is made for every OCSP request."""

    hash: CertIdHash
    name_hash: bytes
    key_hash: bytes
    serial: bytes


def public_key_bits(spki: bytes) -> bytes:
    """The value of a SubjectPublicKeyInfo's BIT STRING, without tag, length and unused-bits octet (A19, A21)."""
    start, end = der.only(spki, der.SEQUENCE)
    _, after = der.expect(spki, start, der.SEQUENCE, end)
    begin, stop = der.expect(spki, after, der.BIT_STRING, end)
    if stop != end or stop - begin < 2 or spki[begin] != 0:
        raise der.malformed("a SubjectPublicKeyInfo whose key is empty or not whole octets")
    return spki[begin + 1 : stop]


@lru_cache(maxsize=256)  # few issuers, and certificates by the million
def issuer_hashes(subject: bytes, spki: bytes, algorithm: CertIdHash) -> IssuerHashes:
    """Hashes of an issuer's DER Name and DER SubjectPublicKeyInfo (A21)."""
    # SHA-1 names things here, it protects nothing; RFC 6960 and RFC 9919 require it for old clients (A20).
    name, key = (
        hashlib.new(algorithm.value, data, usedforsecurity=False).digest() for data in (subject, public_key_bits(spki))
    )
    return IssuerHashes(name, key)


def key_identifier(spki: bytes) -> bytes:
    """SHA-1 of the public key: byKey of a responder (A19), method 1 of RFC 5280 4.2.1.2."""
    return hashlib.sha1(public_key_bits(spki), usedforsecurity=False).digest()


def encode_certid(cert_id: CertId) -> bytes:
    """DER CertID."""
    return der.tlv(
        der.SEQUENCE,
        cert_id.hash.identifier,
        der.tlv(der.OCTET_STRING, cert_id.name_hash),
        der.tlv(der.OCTET_STRING, cert_id.key_hash),
        der.tlv(der.INTEGER, cert_id.serial),
    )
