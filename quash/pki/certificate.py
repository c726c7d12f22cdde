"""The octets of a certificate that must reappear elsewhere byte for byte: names, key, serial (B1, B8, D13).

pyca decodes and would encode anew; this cuts.
"""

from __future__ import annotations

from typing import NamedTuple

from quash.pki import der


class CertificateFields(NamedTuple):
    """`serial`: content octets. `issuer`, `subject`: DER Names. `spki`: DER. Times: Unix seconds, inclusive."""

    serial: bytes
    issuer: bytes
    subject: bytes
    spki: bytes
    not_before: int
    not_after: int


def read_certificate(data: bytes) -> CertificateFields:
    """Reads the fixed part of a DER certificate (or precertificate). Raises `der.malformed`. Verifies nothing."""
    start, end = der.only(data, der.SEQUENCE)
    start, end = der.expect(data, start, der.SEQUENCE, end)
    tag, _, _, after = der.read_tlv(data, start, end)
    offset = after if tag == 0xA0 else start  # version is absent from v1
    serial, offset = der.expect(data, offset, der.INTEGER, end)
    der.check_integer(data[serial:offset])
    serial_octets = data[serial:offset]
    # Each name below is where that field ends, and so where the next begins.
    _, signature = der.expect(data, offset, der.SEQUENCE, end)
    _, issuer = der.expect(data, signature, der.SEQUENCE, end)
    begin, validity = der.expect(data, issuer, der.SEQUENCE, end)
    _, subject = der.expect(data, validity, der.SEQUENCE, end)
    _, spki = der.expect(data, subject, der.SEQUENCE, end)
    not_before, not_after = _validity(data, begin, validity)
    return CertificateFields(
        serial_octets, data[signature:issuer], data[validity:subject], data[subject:spki], not_before, not_after
    )


def _validity(data: bytes, start: int, end: int) -> tuple[int, int]:
    times = [der.read_time(tag, data[i:j]) for tag, _, i, j in der.children(data, start, end)]
    if len(times) != 2:
        raise der.malformed("a validity that is not two times")
    return times[0], times[1]
