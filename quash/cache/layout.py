"""The one module that knows bytes: of records in the cache file, and of the feed's payloads.

A record holds what varies between the pre-signed responses of one signer (the template holds the rest): 17 octets and
two raw signatures, 145 octets with P-256. Its first octets are format, version and thisUpdate, big-endian, so that the
*byte-wise greater of two records is the one to keep*: greatest (version, thisUpdate) first, and any tie is broken the
same way on every node. That makes a cache the maximum of what it was given, in any order and with any repetition.

Every encoding begins with a format octet. Decoders raise QuashError("cache.bad_layout") on anything they did not write,
and "cache.newer_format" on a format that they do not know yet: whoever reads the feed waits there until its software
knows it, since what is passed over is never read again.

Rows of issuers and signers have two formats. Format 2 may have more fields than the reader knows, which it passes
over: so a later release can add some. The presigner writes format 1 until every node reads both
(`presign.feed_format`). A new format of records would come first in their byte-wise order: the writer of the cache must
then compare what follows it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from quash.errors import Kind, QuashError

FORMAT = 1
EXTENSIBLE = 2
ROW_FORMATS = (FORMAT, EXTENSIBLE)
NEWER_FORMAT = "cache.newer_format"
_BATCH_HEAD = bytes([FORMAT])
_MAX_FORMAT = 15  # what is above was never meant as a format

# format, version, thisUpdate, validity << 4 | reason, revocation time, signer
_RECORD = struct.Struct(">BHIIIH")
_ORDER = struct.Struct(">HI")
_BATCH_ITEM = struct.Struct(">HBH")  # issuer, length of serial, length of record
_ISSUER_ID = struct.Struct(">H")
_FIELD = struct.Struct(">I")
_HEARTBEAT = struct.Struct(">BQ")

_GOOD = 15  # in place of a reason; CRLReason ends at 10
_MAX_TIME = 2**32 - 1  # 2106-02-07
_MAX_VALIDITY = 2**28 - 1  # 8.5 years
_MAX_ID = 2**15 - 1  # smallint identities
MAX_SERIAL = 64  # octets; as in the schema


class Record(NamedTuple):
    """One certificate's status and the signatures of its two responses.

    `version` 0 is good and each revocation or upgrade adds one (B25); `reason` is None for good and 0 for unspecified;
    times are Unix seconds, `revoked_at` is 0 for good. `signatures` are raw (r||s for ECDSA), of equal length, over
    the response data that names the certificate by SHA-1 CertID and by SHA-256 CertID, in that order (A20). A tuple,
    because one is made for every answer.
    """

    version: int
    reason: int | None
    revoked_at: int
    this_update: int
    next_update: int
    signer_id: int
    signatures: tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class TemplateRow:
    """One OCSP signer: `algorithm` is a name of quash.pki.algorithms, `certificate` DER."""

    signer_id: int
    issuer_id: int
    algorithm: str
    certificate: bytes


@dataclass(frozen=True, slots=True)
class IssuerRow:
    """One issuer as nodes need it.

    `subject`, `spki` and `certificate` are DER; `ocsp_path` has no slashes around it (G45); `max_age` is what HTTP
    caches may keep an answer (A36) and `max_validity` the longest nextUpdate - thisUpdate that a node accepts, seconds.
    """

    issuer_id: int
    name: str
    subject: bytes
    spki: bytes
    certificate: bytes
    ocsp_path: str
    max_age: int
    max_validity: int


def encode_record(record: Record) -> bytes:
    """Raises QuashError("cache.bad_layout") for values that the layout cannot hold."""
    first, second = record.signatures
    if not len(first) == len(second) > 0:
        raise _bad("the signatures of a record are of different lengths, or there are none")
    return encode_head(record) + first + second


def encode_head(record: Record) -> bytes:
    """What stands before the two signatures: a signer makes it once for all records of the same status and times.

    Raises QuashError("cache.bad_layout") for values that the layout cannot hold.
    """
    validity = record.next_update - record.this_update
    good = record.reason is None
    fits = (
        0 <= record.version <= _MAX_ID
        and (good or 0 <= record.reason < _GOOD)  # type: ignore[operator]
        and 0 <= record.revoked_at <= _MAX_TIME
        and not (good and record.revoked_at)
        and 0 <= record.this_update <= _MAX_TIME
        and 0 < validity <= _MAX_VALIDITY
        and 0 <= record.signer_id <= _MAX_ID
    )
    if not fits:
        raise _bad("a record holds a value outside the layout's range")
    reason = _GOOD if record.reason is None else record.reason
    return _RECORD.pack(
        FORMAT, record.version, record.this_update, validity << 4 | reason, record.revoked_at, record.signer_id
    )


def decode_record(data: bytes) -> Record:
    """The inverse of `encode_record`; raises QuashError("cache.bad_layout")."""
    signatures, odd = divmod(len(data) - _RECORD.size, 2)
    if signatures <= 0 or odd or data[0] != FORMAT:
        raise _bad("a record has the wrong length or format")
    _, version, this_update, validity_and_reason, revoked_at, signer_id = _RECORD.unpack_from(data)
    reason = validity_and_reason & 15
    middle = _RECORD.size + signatures
    return Record(
        version,
        None if reason == _GOOD else reason,
        revoked_at,
        this_update,
        this_update + (validity_and_reason >> 4),
        signer_id,
        (data[_RECORD.size : middle], data[middle:]),
    )


def record_shape(data: bytes) -> tuple[bytes, int]:
    """All of a record but its signatures, and its size: records of one shape differ in their signatures alone."""
    return data[: _RECORD.size], len(data)


def record_order(data: bytes) -> tuple[int, int]:
    """(version, thisUpdate): what decides which of two records counts. Byte-wise comparison agrees with it."""
    version, this_update = _ORDER.unpack_from(data, 1)
    return version, this_update


def record_key(issuer_id: int, serial: bytes) -> bytes:
    """The cache's key: serials of one issuer lie side by side."""
    return _ISSUER_ID.pack(issuer_id) + serial


def split_key(key: bytes) -> tuple[int, bytes]:
    """The inverse of `record_key`: (issuer_id, serial)."""
    if len(key) <= _ISSUER_ID.size:
        raise _bad("a key is too short")
    return _ISSUER_ID.unpack_from(key)[0], key[_ISSUER_ID.size :]


def encode_batch(items: Iterable[tuple[int, bytes, bytes]]) -> bytes:
    """The payload of a feed row of kind `records`: (issuer_id, serial, encoded record) each, all of one format."""
    parts: list[bytes] = []
    for issuer_id, serial, record in items:
        parts += (encode_item_head(issuer_id, len(serial), len(record)), serial, record)
    return batch_of(parts)


def encode_item_head(issuer_id: int, serial_size: int, record_size: int) -> bytes:
    """What stands before serial and record in a batch: a signer makes it once for all records of the same sizes."""
    if not 0 < serial_size <= MAX_SERIAL or not 0 <= issuer_id <= _MAX_ID:
        raise _bad("a serial or issuer id is outside the layout's range")
    return _BATCH_ITEM.pack(issuer_id, serial_size, record_size)


def batch_of(parts: Iterable[bytes]) -> bytes:
    """A batch of these octets: of each item its head, its serial and its record, the latter two in any pieces."""
    return b"".join((_BATCH_HEAD, *parts))


def join_batches(batches: Sequence[bytes]) -> bytes:
    """One batch of all items of some, in their order."""
    return batches[0] if len(batches) == 1 else batch_of(each[len(_BATCH_HEAD) :] for each in batches)


def decode_batch(payload: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The inverse of `encode_batch`; raises QuashError("cache.bad_layout") where the payload stops making sense."""
    _check_format(payload)
    offset, end = 1, len(payload)
    while offset < end:
        if offset + _BATCH_ITEM.size > end:
            raise _bad("a batch is cut short")
        issuer_id, serial_length, record_length = _BATCH_ITEM.unpack_from(payload, offset)
        middle = offset + _BATCH_ITEM.size + serial_length
        serial = payload[offset + _BATCH_ITEM.size : middle]
        offset = middle + record_length
        if offset > end or not 0 < serial_length <= MAX_SERIAL:
            raise _bad("a batch is cut short or holds an impossible serial")
        yield issuer_id, serial, payload[middle:offset]


def encode_template(row: TemplateRow, form: int = FORMAT) -> bytes:
    """`form`: one of `ROW_FORMATS`."""
    return _pack_fields(form, row.signer_id, row.issuer_id, row.algorithm, row.certificate)


def decode_template(data: bytes) -> TemplateRow:
    signer_id, issuer_id, algorithm, certificate = _unpack_fields(data, 4)
    return TemplateRow(_int(signer_id), _int(issuer_id), _text(algorithm), certificate)


def encode_issuer(row: IssuerRow, form: int = FORMAT) -> bytes:
    """`form`: one of `ROW_FORMATS`."""
    return _pack_fields(
        form,
        row.issuer_id,
        row.name,
        row.subject,
        row.spki,
        row.certificate,
        row.ocsp_path,
        row.max_age,
        row.max_validity,
    )


def decode_issuer(data: bytes) -> IssuerRow:
    issuer_id, name, subject, spki, certificate, ocsp_path, max_age, max_validity = _unpack_fields(data, 8)
    return IssuerRow(
        _int(issuer_id),
        _text(name),
        subject,
        spki,
        certificate,
        _text(ocsp_path),
        _int(max_age),
        _int(max_validity),
    )


def encode_heartbeat(at: int) -> bytes:
    """`at`: when the presigner wrote it, Unix seconds."""
    return _HEARTBEAT.pack(FORMAT, at)


def decode_heartbeat(data: bytes) -> int:
    _check_format(data)
    if len(data) != _HEARTBEAT.size:
        raise _bad("a heartbeat has the wrong length")
    at: int = _HEARTBEAT.unpack(data)[1]
    return at


def _pack_fields(form: int, *fields: int | str | bytes) -> bytes:
    parts = [bytes([form])]
    for field in fields:
        if isinstance(field, int):
            value = field.to_bytes(8, "big")
        else:
            value = field.encode() if isinstance(field, str) else field
        parts += (_FIELD.pack(len(value)), value)
    return b"".join(parts)


def _unpack_fields(data: bytes, count: int) -> list[bytes]:
    _check_format(data, ROW_FORMATS)
    fields: list[bytes] = []
    offset = 1
    while offset + _FIELD.size <= len(data):
        start = offset + _FIELD.size
        offset = start + _FIELD.unpack_from(data, offset)[0]
        fields.append(data[start:offset])
    extra = len(fields) - count
    if offset != len(data) or extra < 0 or (extra and data[0] == FORMAT):
        raise _bad("a template or issuer row is cut short or too long")
    return fields[:count]


def _int(field: bytes) -> int:
    if len(field) != 8:
        raise _bad("a number has the wrong length")
    return int.from_bytes(field, "big")


def _text(field: bytes) -> str:
    try:
        return field.decode()
    except UnicodeDecodeError as error:
        raise _bad("a text field is not UTF-8") from error


def _check_format(data: bytes, known: tuple[int, ...] = (FORMAT,)) -> None:
    if not data or not 0 < data[0] <= _MAX_FORMAT:
        raise _bad("it begins with no format of ours: the bytes are damaged")
    if data[0] > known[-1]:
        raise QuashError(
            NEWER_FORMAT, f"format {data[0]} is of a later release: upgrade this node first", Kind.UNAVAILABLE
        )


def _bad(message: str) -> QuashError:
    return QuashError("cache.bad_layout", message, Kind.INTERNAL)
