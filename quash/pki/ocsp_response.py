"""OCSP responses, assembled from parts that one signer's responses share; `ocsp_reading` reads them as a stranger.

Shape (RFC 6960 4.2.1, profiled by RFC 9919 3.2): one SingleResponse (A22), ResponderID byKey (A19), producedAt =
thisUpdate (A30, A35), nextUpdate always (A5), no extension of either kind (A23, A24), the signer's certificate in
certs. A template precomputes everything but serial, times, reason and signature, so that signing millions of records,
and answering from them, joins octets and parses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from quash.errors import QuashError
from quash.pki import der
from quash.pki.algorithms import SignatureAlgorithm
from quash.pki.certid import CertIdHash, issuer_hashes, key_identifier
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
