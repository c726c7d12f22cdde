"""OCSP responses: assembled from parts that one signer's responses share, and read back as a stranger would.

Shape (RFC 6960 4.2.1, profiled by RFC 9919 3.2): one SingleResponse (A22), ResponderID byKey (A19), producedAt =
thisUpdate (A30, A35), nextUpdate always (A5), no extension of either kind (A23, A24), the signer's certificate in
certs. A template precomputes everything but serial, times, reason and signature, so that signing millions of records,
and answering from them, joins octets and parses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from quash.errors import Kind, QuashError
from quash.pki import der
from quash.pki.algorithms import SignatureAlgorithm
from quash.pki.certid import CertId, CertIdHash, issuer_hashes, key_identifier
from quash.pki.certificate import read_certificate
from quash.pki.der import time_text
from quash.pki.ocsp_request import nonce_extensions
from quash.pki.reasons import ALLOWED_REASONS, Reason

ERRORS: Mapping[str, bytes] = MappingProxyType(
    {  # A11: unsigned, without responseBytes
        "malformed_request": bytes.fromhex("30030a0101"),
        "internal_error": bytes.fromhex("30030a0102"),
        "try_later": bytes.fromhex("30030a0103"),
        "unauthorized": bytes.fromhex("30030a0106"),
    }
)
OID_BASIC = der.oid("1.3.6.1.5.5.7.48.1.1")
_SUCCESSFUL = bytes.fromhex("0a0100")
_BY_KEY, _NEXT_UPDATE, _RESPONSE_BYTES, _CERTS, _RESPONSE_EXTENSIONS = 0xA2, 0xA0, 0xA0, 0xA0, 0xA1


class Status(NamedTuple):
    """Of one certificate. `reason` None: good; 0: revoked without a reason in the response (A25). Unix seconds."""

    reason: int | None
    revoked_at: int


GOOD = Status(None, 0)

Single = tuple[CertIdHash, bytes, Status]
"""What one SingleResponse says: by which CertID hash, of which serial, what."""

_GOOD_STATUS = bytes.fromhex("8000180f")  # each ends with the header of thisUpdate
_REVOKED: dict[int, tuple[bytes, bytes]] = {  # reason -> what stands before and after revocationTime
    0: (bytes.fromhex("a111180f"), bytes.fromhex("180f")),
    **{
        int(reason): (bytes.fromhex("a116180f"), bytes.fromhex("a0030a01") + bytes((reason,)) + bytes.fromhex("180f"))
        for reason in sorted(ALLOWED_REASONS - {Reason.unspecified})
    },
}
_GOOD_SHAPE, _REVOKED_SHAPE, _REASON_SHAPE = 0, 1, 2
_STATUS_SIZES = (2, 19, 24)  # octets of certStatus, by shape
_TIME_SIZE, _NEXT_UPDATE_SIZE = 17, 19
_NEXT_UPDATE_HEADER = bytes.fromhex("a011180f")


class _Frame(NamedTuple):
    """What stands before producedAt's digits, and between them and the serial."""

    head: bytes
    middle: bytes


class ResponseTemplate:
    """Everything that the responses of one signer for one issuer have in common.

    `issuer_subject`: DER Name. `issuer_spki`, `signer_certificate`: DER. The signer is the issuer itself or delegated
    by it (A13); either way its certificate goes into certs. `algorithm`: what the signer's key signs with. `tail`: the
    octets that all its responses end with.
    """

    def __init__(
        self, *, issuer_subject: bytes, issuer_spki: bytes, signer_certificate: bytes, algorithm: SignatureAlgorithm
    ) -> None:
        self.algorithm = algorithm
        self.issuer = {h: issuer_hashes(issuer_subject, issuer_spki, h) for h in CertIdHash}
        self._responder_id = der.tlv(
            _BY_KEY, der.tlv(der.OCTET_STRING, key_identifier(read_certificate(signer_certificate).spki))
        )
        self.tail = der.tlv(_CERTS, der.tlv(der.SEQUENCE, signer_certificate))
        self._certid_heads = {
            h: b"".join(
                (
                    h.identifier,
                    der.tlv(der.OCTET_STRING, named.name_hash),
                    der.tlv(der.OCTET_STRING, named.key_hash),
                    bytes((der.INTEGER,)),
                )
            )
            for h, named in self.issuer.items()
        }
        self._frames: dict[tuple[bool, int, int], _Frame] = {}
        self._outer: dict[tuple[int, int], tuple[bytes, bytes]] = {}

    def tbs(self, h: CertIdHash, serial: bytes, status: Status, this_update: int, next_update: int) -> bytes:
        """DER ResponseData: what the signer signs. Times in Unix seconds, nextUpdate inclusive."""
        reason, revoked_at = status
        if reason is None:
            key, before, revoked, after = (h is CertIdHash.SHA1, len(serial), _GOOD_SHAPE), _GOOD_STATUS, b"", b""
        else:
            try:
                before, after = _REVOKED[reason]
            except KeyError:
                raise QuashError("ocsp.reason_not_allowed", f"reason {reason} may not be published (B11)") from None
            shape = _REASON_SHAPE if reason else _REVOKED_SHAPE
            key, revoked = (h is CertIdHash.SHA1, len(serial), shape), time_text(revoked_at)
        frame = self._frames.get(key) or self._frame(h, key)
        produced = time_text(this_update)
        return b"".join(
            (
                frame.head, produced, frame.middle, serial, before, revoked, after,
                produced, _NEXT_UPDATE_HEADER, time_text(next_update),
            )
        )  # fmt: skip

    def around_serial(
        self, h: CertIdHash, serial_size: int, status: Status, this_update: int, next_update: int
    ) -> tuple[bytes, bytes]:
        """What `tbs` has before and after the serial: the same for all serials of this size, so made once for many."""
        whole = self.tbs(h, bytes(serial_size), status, this_update, next_update)
        shape = _GOOD_SHAPE if status.reason is None else _REASON_SHAPE if status.reason else _REVOKED_SHAPE
        begin = len(whole) - _STATUS_SIZES[shape] - _TIME_SIZE - _NEXT_UPDATE_SIZE - serial_size
        return whole[:begin], whole[begin + serial_size :]

    def response(  # noqa: PLR0917 - the values of `tbs` in its order, and a call for each answer
        self,
        h: CertIdHash,
        serial: bytes,
        status: Status,
        this_update: int,
        next_update: int,
        raw_signature: bytes,
    ) -> bytes:
        """DER OCSPResponse from the same values and the raw signature over their `tbs`."""
        return self.enclose(self.tbs(h, serial, status, this_update, next_update), raw_signature)

    def enclose(self, tbs: bytes, raw_signature: bytes) -> bytes:
        """DER OCSPResponse from DER ResponseData and the raw signature over it."""
        signature = self.algorithm.encode(raw_signature)
        sizes = (len(tbs), len(signature))
        head, middle = self._outer.get(sizes) or self._envelope(*sizes)
        return b"".join((head, tbs, middle, signature, self.tail))

    def tbs_of_many(self, singles: Sequence[Single], this_update: int, next_update: int, nonce: bytes | None) -> bytes:
        """As `tbs`, for one asker: about several certificates of the issuer (A22), with its nonce (A27)."""
        data = b"".join(self._single(*single, this_update, next_update) for single in singles)
        extensions = nonce_extensions(_RESPONSE_EXTENSIONS, nonce) if nonce is not None else b""
        produced_at = der.generalized_time(this_update)
        return der.tlv(der.SEQUENCE, self._responder_id, produced_at, der.tlv(der.SEQUENCE, data), extensions)

    def _single(self, h: CertIdHash, serial: bytes, status: Status, this_update: int, next_update: int) -> bytes:
        """The SingleResponse of a `tbs`: its fields are responderID, producedAt and responses."""
        tbs = self.tbs(h, serial, status, this_update, next_update)
        *_, (_, _, start, end) = der.children(tbs, *der.only(tbs, der.SEQUENCE))
        return tbs[start:end]

    def _frame(self, h: CertIdHash, key: tuple[bool, int, int]) -> _Frame:
        _, serial_size, shape = key
        certid_head = self._certid_heads[h] + der.length(serial_size)
        certid_size = len(certid_head) + serial_size
        single_size = (
            1 + len(der.length(certid_size)) + certid_size + _STATUS_SIZES[shape] + _TIME_SIZE + _NEXT_UPDATE_SIZE
        )
        single = bytes((der.SEQUENCE,)) + der.length(single_size)
        responses_size = len(single) + single_size
        responses = bytes((der.SEQUENCE,)) + der.length(responses_size)
        data_size = len(self._responder_id) + _TIME_SIZE + len(responses) + responses_size
        frame = _Frame(
            b"".join((bytes((der.SEQUENCE,)), der.length(data_size), self._responder_id, b"\x18\x0f")),
            b"".join((responses, single, bytes((der.SEQUENCE,)), der.length(certid_size), certid_head)),
        )
        self._frames[key] = frame
        return frame

    def _envelope(self, tbs_size: int, signature_size: int) -> tuple[bytes, bytes]:
        """What stands before the tbs, and between it and the signature."""
        middle = b"".join((self.algorithm.identifier, bytes((der.BIT_STRING,)), der.length(signature_size + 1), b"\0"))
        size = tbs_size + len(middle) + signature_size + len(self.tail)
        head = b""
        for tag, before in (
            (der.SEQUENCE, b""),  # BasicOCSPResponse
            (der.OCTET_STRING, OID_BASIC),
            (der.SEQUENCE, b""),  # ResponseBytes
            (_RESPONSE_BYTES, _SUCCESSFUL),
            (der.SEQUENCE, b""),
        ):
            head = before + bytes((tag,)) + der.length(size + len(head)) + head
        self._outer[tbs_size, signature_size] = head, middle
        return head, middle


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
