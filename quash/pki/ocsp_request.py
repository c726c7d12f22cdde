"""OCSP requests: octets in, CertIDs out (RFC 6960 4.1, RFC 9919 3.1, RFC 9654).

Nearly every request is one CertID with at most a nonce, at octet positions that its first octets fix: those are
compared and cut, nothing is parsed. All others go through the strict reader below. The two agree on every input (a
property test).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from quash.errors import QuashError
from quash.pki import der
from quash.pki.certid import CertId, CertIdHash, encode_certid

OID_NONCE = der.oid("1.3.6.1.5.5.7.48.1.2")
MAX_NONCE = 128  # A27

_VERSION, _REQUESTOR, _EXTENSIONS, _SIGNATURE = 0xA0, 0xA1, 0xA2, 0xA0
_SINGLE_EXTENSIONS = 0xA0


class OcspRequest(NamedTuple):
    """What a request asks. A CertID is None when its hash algorithm is not one that we serve."""

    cert_ids: tuple[CertId | None, ...]
    nonce: bytes | None


class _Shape(NamedTuple):
    """A request of one CertID with at most a nonce: its size, how to cut it, and what stands between the values."""

    hash: CertIdHash
    size: int
    cut: Callable[[bytes], tuple[bytes, ...]]
    between: tuple[bytes, bytes, bytes, bytes]  # before issuerNameHash, issuerKeyHash, serial and nonce


def _shape(algorithm: CertIdHash, serial_size: int, nonce_size: int) -> tuple[bytes, _Shape]:
    """The octets that such a request begins with, and its shape; measured on an example."""
    name, key, serial, nonce = b"\xf1", b"\xf2", b"\xf3", b"\xf4"  # none of these octets occurs elsewhere in it
    values = CertId(algorithm, name * algorithm.size, key * algorithm.size, serial * serial_size)
    example = build_request(values, nonce * nonce_size if nonce_size else None)
    sizes = (algorithm.size, algorithm.size, serial_size, nonce_size)
    begins = [*(example.index(octet) for octet in (name, key, serial)), len(example) - nonce_size]
    ends = [_FIRST, *(begin + size for begin, size in zip(begins[:3], sizes, strict=False))]
    widths = (f"{begin - end}s{size}s" for begin, end, size in zip(begins, ends, sizes, strict=True))
    cut = struct.Struct(f"{_FIRST}x{''.join(widths)}").unpack
    head, _, key_header, _, serial_header, _, nonce_header, _ = cut(example)
    between = (head, key_header, serial_header, nonce_header)
    return example[:_FIRST], _Shape(algorithm, len(example), cut, between)


def parse_request(data: bytes) -> OcspRequest:
    """Reads a DER OCSPRequest; `data` is all of it.

    A requestorName and the request's signature are passed over (A28), so are unknown extensions unless critical.
    Raises `ocsp.malformed_request` for anything that is not strict DER of the right shape, no certificate at all,
    trailing octets, and a nonce of 0 or more than 128 octets (A27).
    """
    return parse_plain_request(data) or parse_any_request(data)


def parse_plain_request(data: bytes) -> OcspRequest | None:
    """Reads a request of one CertID with at most a nonce of a usual size, by comparing octets; None: not one of those.

    What it reads, it reads as `parse_any_request` does.
    """
    shape = _SHAPES.get(data[:_FIRST])
    if shape is not None and len(data) == shape.size:
        head, name, key_header, key, serial_header, serial, nonce_header, nonce = shape.cut(data)
        if (
            (head, key_header, serial_header, nonce_header) == shape.between
            and (0 < serial[0] < 0x80 or (serial[0] == 0 and serial[1:2] >= b"\x80"))  # positive and minimal
        ):
            return OcspRequest((CertId(shape.hash, name, key, serial),), nonce or None)
    return None


def parse_any_request(data: bytes) -> OcspRequest:
    """As `parse_request`, without the short cut for plain requests."""
    try:
        start, end = der.only(data, der.SEQUENCE)
        tbs_start, tbs_end = der.expect(data, start, der.SEQUENCE, end)
        if tbs_end != end:  # optionalSignature: ignored (A28), but it must be one, and the last field
            _, signature_end = der.expect(data, tbs_end, _SIGNATURE, end)
            if signature_end != end:
                raise der.malformed("fields after the signature")
        return _tbs_request(data, tbs_start, tbs_end)
    except QuashError as error:
        raise QuashError("ocsp.malformed_request", f"the OCSP request cannot be read: {error.message}") from None


def _tbs_request(data: bytes, offset: int, end: int) -> OcspRequest:
    tag, _, start, stop = der.read_tlv(data, offset, end)
    if tag == _VERSION:
        if data[start:stop] != b"\2\1\0":  # v1; encoding a DEFAULT is BER, but unambiguous: some clients do
            raise der.malformed("an unknown version")
        offset = stop
        tag, _, start, stop = der.read_tlv(data, offset, end)
    if tag == _REQUESTOR:
        offset = stop
    start, stop = der.expect(data, offset, der.SEQUENCE, end)
    cert_ids = tuple(_request(data, tag, i, j) for tag, _, i, j in der.children(data, start, stop))
    if not cert_ids:
        raise der.malformed("no certificate is asked about")
    nonce = None
    if stop != end:
        start, stop = der.expect(data, stop, _EXTENSIONS, end)
        nonce = _extensions(data, start, stop)
    if stop != end:
        raise der.malformed("fields after the extensions")
    return OcspRequest(cert_ids, nonce)


def _request(data: bytes, tag: int, start: int, end: int) -> CertId | None:
    if tag != der.SEQUENCE:
        raise der.malformed("a Request that is no SEQUENCE")
    begin, stop = der.expect(data, start, der.SEQUENCE, end)
    cert_id = _cert_id(data, begin, stop)
    if stop != end:
        begin, stop = der.expect(data, stop, _SINGLE_EXTENSIONS, end)
        _extensions(data, begin, stop)
    if stop != end:
        raise der.malformed("fields after a Request")
    return cert_id


def _cert_id(data: bytes, start: int, end: int) -> CertId | None:
    _, algorithm_end = der.expect(data, start, der.SEQUENCE, end)
    name, name_end = der.expect(data, algorithm_end, der.OCTET_STRING, end)
    key, key_end = der.expect(data, name_end, der.OCTET_STRING, end)
    serial, serial_end = der.expect(data, key_end, der.INTEGER, end)
    if serial_end != end:
        raise der.malformed("fields after a CertID")
    der.check_integer(data[serial:serial_end])
    algorithm = _HASHES.get(data[start:algorithm_end])
    if algorithm is None:
        return None
    if name_end - name != algorithm.size or key_end - key != algorithm.size:
        raise der.malformed("a CertID whose hashes do not fit its algorithm")
    return CertId(algorithm, data[name:name_end], data[key:key_end], data[serial:serial_end])


def _extensions(data: bytes, start: int, end: int) -> bytes | None:
    """Reads Extensions; returns the nonce, if any. Unknown ones are ignored unless critical (A28)."""
    start, stop = der.expect(data, start, der.SEQUENCE, end)
    if stop != end or start == stop:
        raise der.malformed("an Extensions field that is empty or more than one")
    nonce, seen = None, set()
    for tag, _, begin, finish in der.children(data, start, stop):
        if tag != der.SEQUENCE:
            raise der.malformed("an Extension that is no SEQUENCE")
        oid, critical, value = _extension(data, begin, finish)
        if oid in seen:
            raise der.malformed("an extension given twice")
        seen.add(oid)
        if oid == OID_NONCE:
            nonce = _nonce(value)
        elif critical:
            raise der.malformed("a critical extension that is not understood")
    return nonce


def _extension(data: bytes, start: int, end: int) -> tuple[bytes, bool, bytes]:
    """(OID as TLV, critical, value) of one Extension."""
    oid, oid_end = der.expect(data, start, der.OID, end)
    der.read_oid(data[oid:oid_end])  # must be one, even if we then ignore the extension
    critical, offset = False, oid_end
    if data[offset : offset + 1] == b"\1":
        if data[offset : offset + 3] not in (b"\1\1\xff", b"\1\1\0"):
            raise der.malformed("a BOOLEAN that is neither TRUE nor FALSE")
        critical, offset = data[offset + 2] == 0xFF, offset + 3
    value, value_end = der.expect(data, offset, der.OCTET_STRING, end)
    if value_end != end:
        raise der.malformed("fields after an extension's value")
    return data[start:oid_end], critical, data[value:value_end]


def _nonce(value: bytes) -> bytes:
    start, end = der.only(value, der.OCTET_STRING)
    if not 0 < end - start <= MAX_NONCE:
        raise der.malformed(f"a nonce of {end - start} octets")
    return value[start:end]


def build_request(cert_id: CertId, nonce: bytes | None = None) -> bytes:
    """DER OCSPRequest for one certificate, as a client of RFC 9919 sends it."""
    request_list = der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, encode_certid(cert_id)))
    extensions = nonce_extensions(_EXTENSIONS, nonce) if nonce is not None else b""
    return der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, request_list, extensions))


def nonce_extensions(tag: int, nonce: bytes) -> bytes:
    """DER Extensions under a context tag, with nothing but a nonce (A27)."""
    value = der.tlv(der.OCTET_STRING, der.tlv(der.OCTET_STRING, nonce))
    return der.tlv(tag, der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, OID_NONCE, value)))


_HASHES = {algorithm.identifier: algorithm for algorithm in CertIdHash} | {
    # RFC 5754 2: SHA-2 parameters are absent, and receivers take both forms.
    bytes.fromhex("300706052b0e03021a"): CertIdHash.SHA1,
    bytes.fromhex("300b0609608648016503040201"): CertIdHash.SHA256,
}
_FIRST = 19  # octets: all five lengths and enough of the algorithm to tell shapes apart
_NONCE_SIZES = (0, 8, 16, 20, 32)  # none, and those that clients in use send
_SHAPES = dict(_shape(h, serial, nonce) for h in CertIdHash for serial in range(1, 22) for nonce in _NONCE_SIZES)
