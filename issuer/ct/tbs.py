"""One TBSCertificate in its three forms: precertificate (poison), final (SCT list), and what logs sign (neither).

Octets, not objects: the precertificate and the final certificate may differ in this one extension and in nothing else
(D18), and only the octets can prove it (D19). Poison and SCT list stand last, so that the others keep their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from quash.errors import Kind, QuashError
from quash.pki import der

POISON_OID: Final = "1.3.6.1.4.1.11129.2.4.3"
SCT_LIST_OID: Final = "1.3.6.1.4.1.11129.2.4.2"
_POISON: Final = der.tlv(
    der.SEQUENCE, der.oid(POISON_OID), b"\x01\x01\xff", der.tlv(der.OCTET_STRING, bytes.fromhex("0500"))
)
_EXTENSIONS: Final = 0xA3
_OIDS: Final = (der.oid(POISON_OID), der.oid(SCT_LIST_OID))


def with_poison(tbs: bytes) -> bytes:
    """The precertificate's TBS (D18) of a TBS that has neither poison nor SCT list."""
    return _add(tbs, _POISON)


def with_scts(tbs: bytes, sct_list: bytes) -> bytes:
    """The final TBS (E7) of a TBS that has neither; `sct_list` is a SignedCertificateTimestampList in TLS encoding."""
    value = der.tlv(der.OCTET_STRING, der.tlv(der.OCTET_STRING, sct_list))
    return _add(tbs, der.tlv(der.SEQUENCE, der.oid(SCT_LIST_OID), value))


def is_poisoned(tbs: bytes) -> bool:
    return any(each == _POISON for each in _split(tbs)[1])


def plain(tbs: bytes) -> bytes:
    """The TBS without poison and SCT list: what a log signs (RFC 6962 3.2). Raises `ct.malformed`."""
    head, extensions = _split(tbs)
    return _join(head, [each for each in extensions if _extension_oid(each) not in _OIDS])


def check_match(precertificate: bytes, final: bytes) -> None:
    """Raises `ct.mismatch` unless the two TBS differ only in poison against one SCT list, in the same place (D18, D19).

    Proven by building each from the other's rest: octet for octet, whatever a parser would make of them.
    """
    rest = plain(precertificate)
    if with_poison(rest) != precertificate or with_scts(rest, _last_value(final)) != final:
        raise QuashError(
            "ct.mismatch", "the certificate is not that of its precertificate: nothing is signed (D19)", Kind.REFUSED
        )


def _last_value(tbs: bytes) -> bytes:
    """What the OCTET STRING in the last extension's value holds, as an SCT list has it."""
    extension = _split(tbs)[1][-1]
    try:
        start, end = der.only(extension, der.SEQUENCE)
        *_, (_, _, begin, stop) = der.children(extension, start, end)
        value = extension[begin:stop]
        first, last = der.only(value, der.OCTET_STRING)
    except QuashError as error:
        raise _malformed(str(error)) from None
    return value[first:last]


def _add(tbs: bytes, extension: bytes) -> bytes:
    head, extensions = _split(tbs)
    if any(_extension_oid(each) in _OIDS for each in extensions):
        raise _malformed("it has poison or SCTs already")
    return _join(head, [*extensions, extension])


@lru_cache(maxsize=64)  # each step of flow 1 asks several times about the same octets
def _split(tbs: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """What stands before the extensions, and each extension (DER)."""
    try:
        start, end = der.only(tbs, der.SEQUENCE)
        *_, (tag, offset, begin, stop) = der.children(tbs, start, end)
        if tag != _EXTENSIONS:
            raise _malformed("it has no extensions")
        inner = tbs[begin:stop]
        first, last = der.only(inner, der.SEQUENCE)
        extensions = tuple(inner[at:after] for _, at, _, after in der.children(inner, first, last))
    except (QuashError, ValueError) as error:
        raise _malformed(str(error)) from None
    if not extensions:
        raise _malformed("it has no extensions")
    return tbs[start:offset], extensions


def _join(head: bytes, extensions: Sequence[bytes]) -> bytes:
    return der.tlv(der.SEQUENCE, head, der.tlv(_EXTENSIONS, der.tlv(der.SEQUENCE, *extensions)))


@lru_cache(maxsize=256)  # most extensions are the same in all certificates of an issuer
def _extension_oid(extension: bytes) -> bytes:
    """The whole OID, DER."""
    try:
        start, end = der.only(extension, der.SEQUENCE)
        _, stop = der.expect(extension, start, der.OID, end)
    except QuashError as error:
        raise _malformed(str(error)) from None
    return extension[start:stop]


def _malformed(why: str) -> QuashError:
    return QuashError("ct.malformed", f"this is no TBSCertificate that CT knows: {why}", Kind.REFUSED)
