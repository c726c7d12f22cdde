"""Reading a TBSCertificate strictly, as the CA signer must before it signs one: bytes in, facts out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from quash.errors import QuashError
from quash.pki import der

_VERSION_3 = bytes.fromhex("a003020102")
_CONTEXT_3 = 0xA3


@dataclass(frozen=True, slots=True)
class Extension:
    """`value` is what the extnValue's OCTET STRING holds."""

    critical: bool
    value: bytes


@dataclass(frozen=True, slots=True)
class TbsCertificate:
    """A TBSCertificate. `serial`: content octets; names, `algorithm`, `spki`: DER; times: Unix seconds, inclusive."""

    serial: bytes
    algorithm: bytes
    issuer: bytes
    not_before: int
    not_after: int
    subject: bytes
    spki: bytes
    extensions: Mapping[str, Extension]


def read_tbs_certificate(data: bytes) -> TbsCertificate:
    """Reads a TBSCertificate; raises `tbs.malformed` for anything but strict DER of version 3 without unique ids."""
    try:
        return _read(data)
    except (QuashError, ValueError, StopIteration) as error:
        raise QuashError("tbs.malformed", f"this is no TBSCertificate of version 3: {error}") from None


def tbs_of(certificate: bytes) -> bytes:
    """The octets under a certificate's signature, as they stand in it."""
    start, end = der.only(certificate, der.SEQUENCE)
    _, stop = der.expect(certificate, start, der.SEQUENCE, end)
    return certificate[start:stop]


def _read(data: bytes) -> TbsCertificate:
    start, end = der.only(data, der.SEQUENCE)
    if not data.startswith(_VERSION_3, start):
        raise der.malformed("version 3 belongs first")
    fields = list(der.children(data, start + len(_VERSION_3), end))
    expected = [der.INTEGER, *[der.SEQUENCE] * 5, _CONTEXT_3]
    if [tag for tag, *_ in fields] != expected:
        raise der.malformed("the fields of a certificate, and extensions, in their order")
    whole = [data[offset:stop] for _, offset, _, stop in fields]
    _, _, serial_start, serial_end = fields[0]
    der.check_integer(data[serial_start:serial_end])
    _, _, validity_start, validity_end = fields[3]
    not_before, not_after = _validity(data, validity_start, validity_end)
    _, _, wrapped_start, wrapped_end = fields[6]
    return TbsCertificate(
        serial=data[serial_start:serial_end],
        algorithm=whole[1],
        issuer=whole[2],
        not_before=not_before,
        not_after=not_after,
        subject=whole[4],
        spki=whole[5],
        extensions=_extensions(data[wrapped_start:wrapped_end]),
    )


def _validity(data: bytes, start: int, end: int) -> tuple[int, int]:
    times = [(tag, data[i:j]) for tag, _, i, j in der.children(data, start, end)]
    if len(times) != 2:
        raise der.malformed("a validity has two times")
    not_before, not_after = (der.read_time(tag, content) for tag, content in times)
    # B19: one encoding for each moment, so that two readers never disagree on the form.
    if data[start:end] != der.utc_or_generalized_time(not_before) + der.utc_or_generalized_time(not_after):
        raise der.malformed("UTCTime through 2049, GeneralizedTime from 2050")
    return not_before, not_after


def _extensions(data: bytes) -> dict[str, Extension]:
    start, end = der.only(data, der.SEQUENCE)
    found: dict[str, Extension] = {}
    for tag, _, begin, stop in der.children(data, start, end):
        if tag != der.SEQUENCE:
            raise der.malformed("extensions are sequences")
        oid, extension = _extension(data, der.children(data, begin, stop))
        if oid in found:
            raise der.malformed(f"extension {oid} stands twice")
        found[oid] = extension
    return found


def _extension(data: bytes, parts: Iterator[tuple[int, int, int, int]]) -> tuple[str, Extension]:
    fields = [(tag, data[begin:stop]) for tag, _, begin, stop in parts]
    tags = [tag for tag, _ in fields]
    if tags not in ([der.OID, der.OCTET_STRING], [der.OID, der.BOOLEAN, der.OCTET_STRING]):
        raise der.malformed("an extension is an OID, perhaps TRUE, and an OCTET STRING")
    critical = len(fields) == 3
    if critical and fields[1][1] != b"\xff":
        raise der.malformed("critical is TRUE or absent")
    return der.read_oid(fields[0][1]), Extension(critical, fields[-1][1])
