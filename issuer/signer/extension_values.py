"""Readers of the values of extensions. They raise `der.*` at what is malformed."""

from __future__ import annotations

from quash.pki import der


def read_octets(value: bytes) -> bytes:
    """Of an OCTET STRING."""
    start, end = der.only(value, der.OCTET_STRING)
    return value[start:end]


def read_policies(value: bytes) -> list[str]:
    """OIDs of CertificatePolicies; qualifiers are not looked at."""
    found = []
    for _, _, start, end in der.children(value, *der.only(value, der.SEQUENCE)):
        begin, stop = der.expect(value, start, der.OID, end)
        found.append(der.read_oid(value[begin:stop]))
    return found


def read_purposes(value: bytes) -> list[str]:
    """OIDs of ExtKeyUsage."""
    return [der.read_oid(value[start:end]) for _, _, start, end in der.children(value, *der.only(value, der.SEQUENCE))]


def read_path_length(value: bytes) -> int | None:
    """Of BasicConstraints; 0 for what is no CA."""
    fields = [(tag, value[start:end]) for tag, _, start, end in der.children(value, *der.only(value, der.SEQUENCE))]
    if fields[:1] != [(der.BOOLEAN, b"\xff")]:
        return 0
    return der.read_integer(fields[1][1]) if len(fields) > 1 else None
