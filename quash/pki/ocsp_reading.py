"""OCSP responses as a stranger reads and verifies them: by pyca alone, with nothing of what assembled them.

Whatever we sign is read by this before it goes out, and what comes back from a responder is believed after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from quash.errors import Kind, QuashError
from quash.pki import der
from quash.pki.certid import CertId, CertIdHash, issuer_hashes, key_identifier
from quash.pki.certificate import read_certificate
from quash.pki.ocsp_response import GOOD, Status
from quash.pki.reasons import Reason


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """A response as a stranger reads it. All but `outer` are None when that is not `successful`.

    `outer`: `successful` or a name in ERRORS (or another of RFC 6960 in lower case). Times: Unix seconds.
    """

    outer: str
    cert_id: CertId | None = None
    status: Status | None = None
    produced_at: int | None = None
    this_update: int | None = None
    next_update: int | None = None


def parse_response(data: bytes) -> ParsedResponse:
    """Reads a DER OCSPResponse with one SingleResponse, independently of the template: by pyca. Verifies nothing.

    Raises `ocsp.malformed_response`, also for what we never say: several SingleResponses, status unknown, no
    nextUpdate.
    """
    return _parsed(_load(data))


def _parsed(response: ocsp.OCSPResponse) -> ParsedResponse:
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return ParsedResponse(response.response_status.name.lower())
    try:
        return ParsedResponse(
            "successful",
            _parsed_cert_id(response),
            _parsed_status(response),
            _seconds(response.produced_at_utc),
            _seconds(response.this_update_utc),
            _seconds(response.next_update_utc),
        )
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _malformed(str(error)) from None


def _load(data: bytes) -> ocsp.OCSPResponse:
    try:
        return ocsp.load_der_ocsp_response(data)
    except ValueError as error:
        raise _malformed(str(error)) from None


def _malformed(what: str) -> QuashError:
    return QuashError("ocsp.malformed_response", f"the OCSP response cannot be read: {what}")


def _seconds(moment: datetime | None) -> int:
    if moment is None:
        raise ValueError("a time is missing")
    return int(moment.timestamp())


def _parsed_cert_id(response: ocsp.OCSPResponse) -> CertId:
    return CertId(
        CertIdHash(response.hash_algorithm.name),
        response.issuer_name_hash,
        response.issuer_key_hash,
        der.integer_content(response.serial_number),
    )


def _parsed_status(response: ocsp.OCSPResponse) -> Status:
    if response.certificate_status is ocsp.OCSPCertStatus.GOOD:
        return GOOD
    if response.certificate_status is not ocsp.OCSPCertStatus.REVOKED:
        raise ValueError("status unknown")
    reason = response.revocation_reason
    number = Reason[_pyca_name(reason)] if reason is not None else Reason.unspecified
    return Status(int(number), _seconds(response.revocation_time_utc))


def _pyca_name(reason: x509.ReasonFlags) -> str:
    return {"ca_compromise": "cACompromise", "aa_compromise": "aACompromise", "remove_from_crl": "removeFromCRL"}.get(
        reason.name, str(reason.value)
    )


def verify_response(data: bytes, issuer_certificate: bytes) -> ParsedResponse:
    """Reads a response and verifies it as a client of RFC 6960 3.2 does, by pyca alone.

    It knows no clock: compare the times yourself. The signer is the issuer or in certs, issued directly by the issuer
    for OCSP signing (A13, A14), and valid over the whole answer (A5); the CertID names this issuer. An Ed25519 signer
    is trusted below an Ed25519 key alone, which only a CA of a private PKI has (A18).
    Raises `ocsp.malformed_response`, `ocsp.not_successful`, `ocsp.not_trusted`.
    """
    response = _load(data)
    parsed = _parsed(response)
    if parsed.cert_id is None or parsed.this_update is None or parsed.next_update is None:
        raise QuashError("ocsp.not_successful", f"the responder answered {parsed.outer}", Kind.UNAVAILABLE)
    expected = _issuer_hashes(issuer_certificate, parsed.cert_id.hash)
    if (parsed.cert_id.name_hash, parsed.cert_id.key_hash) != expected:
        raise _not_trusted("it is about a certificate of another issuer")
    signer = _signer(response, issuer_certificate)
    _verify_signature(response, signer)
    if not (
        _seconds(signer.not_valid_before_utc) <= parsed.this_update
        and parsed.next_update <= _seconds(signer.not_valid_after_utc)
    ):
        raise _not_trusted("the signer's certificate does not cover its times (A5)")
    return parsed


def _not_trusted(what: str) -> QuashError:
    return QuashError("ocsp.not_trusted", f"the OCSP response cannot be trusted: {what}", Kind.REFUSED)


def _signer(response: ocsp.OCSPResponse, issuer: bytes) -> x509.Certificate:
    """The certificate that the ResponderID names: the issuer's, or one that the issuer made for signing responses."""
    for octets in (issuer, *(each.public_bytes(Encoding.DER) for each in response.certificates)):
        if _key_identifier(octets) != response.responder_key_hash:
            continue
        if octets != issuer:
            _check_delegation(octets, issuer)
        return _certificate(octets)
    raise _not_trusted("no certificate in it belongs to its ResponderID (A19)")


# One signer answers for millions of certificates: what does not depend on the answer is looked at once.


@lru_cache(maxsize=256)
def _certificate(octets: bytes) -> x509.Certificate:
    """With its public key, once that was asked for: to read one takes as long as to verify a signature by it."""
    return x509.load_der_x509_certificate(octets)


@lru_cache(maxsize=256)
def _key_identifier(certificate: bytes) -> bytes:
    return key_identifier(read_certificate(certificate).spki)


@lru_cache(maxsize=256)
def _issuer_hashes(certificate: bytes, algorithm: CertIdHash) -> tuple[bytes, bytes]:
    fields = read_certificate(certificate)
    return issuer_hashes(fields.subject, fields.spki, algorithm)


@lru_cache(maxsize=256)
def _check_delegation(signer: bytes, issuer: bytes) -> None:
    check_delegation(_certificate(signer), _certificate(issuer))


def check_delegation(signer: x509.Certificate, issuer: x509.Certificate) -> None:
    """Raises `ocsp.not_trusted` unless `issuer` itself made `signer`, for signing OCSP responses alone (A13-A15)."""
    try:
        signer.verify_directly_issued_by(issuer)
        usages = list(signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        signer.extensions.get_extension_for_class(x509.OCSPNoCheck)  # A15
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise _not_trusted("the issuer itself did not issue the signer's certificate (A13)") from None
    except x509.ExtensionNotFound as error:
        raise _not_trusted(f"the signer's certificate lacks {error.oid.dotted_string}") from None
    if usages != [ExtendedKeyUsageOID.OCSP_SIGNING]:
        raise _not_trusted("the signer's certificate is not for OCSP signing alone (A14)")
    if _is_ed25519(signer) and not _is_ed25519(issuer):
        raise _not_trusted("its signer's key is not one of A18")


def _is_ed25519(certificate: x509.Certificate) -> bool:
    return isinstance(certificate.public_key(), ed25519.Ed25519PublicKey)


def _verify_signature(response: ocsp.OCSPResponse, signer: x509.Certificate) -> None:
    key = signer.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(response.signature, response.tbs_response_bytes, padding.PKCS1v15(), _digest(response))
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(_digest(response)))
        elif (
            isinstance(key, ed25519.Ed25519PublicKey)
            and response.signature_algorithm_oid == SignatureAlgorithmOID.ED25519
        ):
            key.verify(response.signature, response.tbs_response_bytes)
        else:
            raise _not_trusted("its signer's key is not one of A18")
    except InvalidSignature:
        raise _not_trusted("its signature does not verify") from None


def _digest(response: ocsp.OCSPResponse) -> hashes.HashAlgorithm:
    """The hash under the signature; SHA-1 is none that we trust (A18)."""
    try:
        digest = response.signature_hash_algorithm
    except UnsupportedAlgorithm:
        digest = None
    if not isinstance(digest, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
        raise _not_trusted("its signature algorithm is not one of A18")
    return digest
