"""Statuses in, signed records out: one delegated signer with its key.

Pure but for the key: no clock, no database. What all records of one status and one moment share (nearly all of a batch)
is made once; for each record two serials are set in and two signatures appended, so that a batch costs little more than
its signatures. Of what it made, a sample is read as a stranger would before anything leaves: a token that signs
wrongly, or a template that says something else, must not fill caches with answers that nobody accepts. Of a batch of
few, as news are, each is read: what a node refuses would not be signed again before its refresh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from quash.cache.layout import Record, batch_of, decode_record, encode_head, encode_item_head
from quash.errors import Kind, QuashError
from quash.keys import KeyHandle
from quash.pki.algorithms import verify
from quash.pki.certid import CertId, CertIdHash
from quash.pki.certificate import read_certificate
from quash.pki.ocsp_reading import verify_response
from quash.pki.ocsp_response import ResponseTemplate, Status
from quash.store.ocsp_signers import OcspSigner
from quash.store.statuses import CertificateStatus
from responder.presign.agreement import TOLERANCE

CHECK_EVERY = 1024
SMALL = 32
"""Batches of so many at most are checked whole."""

HASHES = (CertIdHash.SHA1, CertIdHash.SHA256)
"""Both CertIDs of each certificate (A20), in the order of a record's signatures."""

_TRIAL = b"quash: can this key sign?"


@dataclass(frozen=True, slots=True)
class Batch:
    """Signed records: how many, and all of them as the payload of a feed row (`quash.cache.layout`).

    Encoded where they were signed, so that no process after that looks at each.
    """

    count: int
    payload: bytes


Asked = tuple[CertIdHash, CertificateStatus]
"""By which CertID hash a certificate was asked about, and what is to be said of it."""


class ForOne(NamedTuple):
    """What one asker's response has beside statuses: seconds until nextUpdate, and the asker's nonce (A27)."""

    validity: int
    nonce: bytes | None


@dataclass(slots=True, eq=False)
class _Shape:
    """Of the records of one status and moment, with serials of one size: before and after the serial, by hash.

    `head`: the record's own. `item_head`: that of a batch's item, once the size of a signature is known.
    """

    issuer_id: int
    serial_size: int
    sha1_before: bytes
    sha1_after: bytes
    sha256_before: bytes
    sha256_after: bytes
    head: bytes
    item_head: bytes = b""


class _Sample:
    """Which records of a batch are checked, by `numbers`.

    All of a small one. Of a larger one every `CHECK_EVERY`th, the first of each reason and size of serial, and of every
    so many records one more moment of revocation. A check costs what five records do; all may cost one in a hundred.
    """

    def __init__(self, size: int) -> None:
        self.numbers = set(range(0, size, 1 if size <= SMALL else CHECK_EVERY))
        self._kinds: set[tuple[int, int | None]] = set()
        self._more = size // CHECK_EVERY

    def begins(self, number: int, status: CertificateStatus) -> None:
        """The record of this number is the first of its shape."""
        kind = len(status.serial), status.reason
        if kind not in self._kinds:
            self._kinds.add(kind)
            self.numbers.add(number)
        elif self._more > 0:
            self._more -= 1
            self.numbers.add(number)


class RecordSigner:
    """Signs the records of one issuer with one delegated signer (A13).

    Owns `key`. Raises `presign.key_mismatch` when the key is not the signer certificate's.
    """

    def __init__(self, signer: OcspSigner, issuer_certificate: bytes, key: KeyHandle) -> None:
        if read_certificate(signer.certificate).spki != key.spki:
            raise QuashError(
                "presign.key_mismatch",
                f"the key of OCSP signer {signer.id} is not its certificate's: repair its key reference",
                Kind.UNAVAILABLE,
            )
        issuer = read_certificate(issuer_certificate)
        self.signer = signer
        self._issuer_certificate = issuer_certificate
        self.quick = key.quick
        self._key = key
        self._template = ResponseTemplate(
            issuer_subject=issuer.subject,
            issuer_spki=issuer.spki,
            signer_certificate=signer.certificate,
            algorithm=key.algorithm,
        )

    def sign(self, statuses: Sequence[CertificateStatus], as_of: int, validity: int) -> Batch:
        """Records of these statuses, which were read at `as_of`, in their order.

        thisUpdate is when the status was known (A30), though never before the revocation; nextUpdate is `validity`
        later or the end of the signer's certificate, whichever comes first (A5). Blocks while the key signs; raises
        `KeyUnavailable` and `presign.self_check_failed`.
        """
        shapes: dict[tuple[int, int, int, int | None, int], _Shape] = {}
        sample = _Sample(len(statuses))
        tbs: list[bytes] = []
        shaped: list[_Shape] = []
        for status in statuses:
            serial = status.serial
            key = (status.issuer_id, len(serial), status.version, status.reason, status.revoked_at)
            shape = shapes.get(key)
            if shape is None:
                shape = shapes[key] = self._shape(status, as_of, validity)
                sample.begins(len(shaped), status)
            tbs += (shape.sha1_before + serial + shape.sha1_after, shape.sha256_before + serial + shape.sha256_after)
            shaped.append(shape)
        signatures = self._key.sign_many(tbs)
        sizes = set(map(len, signatures))
        if len(sizes) > 1:
            raise _self_check_failed(statuses[0].serial, "the key's signatures are of different sizes")
        for shape in shapes.values():
            record_size = len(shape.head) + 2 * max(sizes)
            shape.item_head = encode_item_head(shape.issuer_id, shape.serial_size, record_size)
        parts: list[bytes] = []
        made = zip(statuses, shaped, signatures[::2], signatures[1::2], strict=True)
        for number, (status, shape, sha1, sha256) in enumerate(made):
            parts += (shape.item_head, status.serial, shape.head, sha1, sha256)
            if number in sample.numbers:
                self._check(status.serial, decode_record(shape.head + sha1 + sha256))
        return Batch(len(statuses), batch_of(parts))

    def sign_response(self, asked: Sequence[Asked], as_of: int, response: ForOne) -> bytes:
        """A response about several certificates of the issuer (A22), or with a nonce: times and errors as in `sign`."""
        this_update = max(_this_update(status, as_of) for _, status in asked)
        next_update = min(this_update + response.validity, self.signer.not_after)
        tbs = self._template.tbs_of_many(
            [(h, status.serial, Status(status.reason, status.revoked_at)) for h, status in asked],
            this_update,
            next_update,
            response.nonce,
        )
        raw_signature = self._key.sign(tbs)
        try:
            verify(self._key.spki, self._key.algorithm, raw_signature, tbs)
        except QuashError as error:
            raise _self_check_failed(asked[0][1].serial, str(error)) from error
        return self._template.enclose(tbs, raw_signature)

    def try_key(self) -> None:
        """Signs what is no answer: a token that went away while nobody signed is found before an answer needs it."""
        raw_signature = self._key.sign(_TRIAL)
        try:
            verify(self._key.spki, self._key.algorithm, raw_signature, _TRIAL)
        except QuashError as error:
            raise QuashError(
                "presign.self_check_failed",
                f"the key of OCSP signer {self.signer.id} makes wrong signatures: {error}",
                Kind.INTERNAL,
            ) from error

    def close(self) -> None:
        self._key.close()

    def _shape(self, status: CertificateStatus, as_of: int, validity: int) -> _Shape:
        this_update = _this_update(status, as_of)
        next_update = min(this_update + validity, self.signer.not_after)
        said = Status(status.reason, status.revoked_at)
        sha1, sha256 = (
            self._template.around_serial(h, len(status.serial), said, this_update, next_update) for h in HASHES
        )
        head = encode_head(
            Record(status.version, *said, this_update, next_update, self.signer.id, signatures=(b"", b""))
        )
        return _Shape(status.issuer_id, len(status.serial), *sha1, *sha256, head)

    def _check(self, serial: bytes, record: Record) -> None:
        """Assembles both responses as a node will, and reads them with code that shares nothing with the template."""
        status = Status(record.reason, record.revoked_at)
        for h, signature in zip(HASHES, record.signatures, strict=True):
            issuer = self._template.issuer[h]
            try:
                response = self._template.response(h, serial, status, record.this_update, record.next_update, signature)
                read = verify_response(response, self._issuer_certificate)
            except QuashError as error:
                raise _self_check_failed(serial, str(error)) from error
            wanted = (
                CertId(h, issuer.name_hash, issuer.key_hash, serial),
                status,
                record.this_update,
                record.next_update,
            )
            if (read.cert_id, read.status, read.this_update, read.next_update) != wanted:
                raise _self_check_failed(serial, "it reads differently from what was signed")


def _this_update(status: CertificateStatus, as_of: int) -> int:
    # Never before a revocation that another machine's clock dates a moment ahead (A30). One that a clock dated far
    # ahead, and which was set right since, must be told now all the same: nodes refuse answers of the future.
    return status.revoked_at if 0 < status.revoked_at - as_of <= TOLERANCE else as_of


def _self_check_failed(serial: bytes, what: str) -> QuashError:
    return QuashError(
        "presign.self_check_failed",
        f"a response for serial {serial.hex()} is not fit to serve, nothing of its batch goes out: {what}",
        Kind.INTERNAL,
    )
