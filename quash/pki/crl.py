"""CRLs: entries and lists written from ready-made octets, and a strict reader of its own for what is published.

Profile of BR 7.2: v2; authorityKeyIdentifier (keyIdentifier only) and cRLNumber, not critical (B7); a critical
issuingDistributionPoint for a shard (B15); entries carry at most a reasonCode (B8). The writer makes nothing else,
and no delta CRLs (B27).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from quash.errors import QuashError
from quash.pki import der
from quash.pki.algorithms import SignatureAlgorithm
from quash.pki.der import utc_or_generalized_time
from quash.pki.reasons import ALLOWED_REASONS, Reason
from quash.pki.serials import MAX_OCTETS

OID_AUTHORITY_KEY_IDENTIFIER = der.oid("2.5.29.35")
OID_CRL_NUMBER = der.oid("2.5.29.20")
OID_ISSUING_DISTRIBUTION_POINT = der.oid("2.5.29.28")
OID_REASON_CODE = der.oid("2.5.29.21")
NUMBER_LIMIT = 1 << 159  # B7

_V2 = der.integer(1)
_TRUE = bytes.fromhex("0101ff")
_FIELDS = 6  # of a TBSCertList without entries: version, algorithm, issuer, two times, extensions
_EXTENSIONS, _DISTRIBUTION_POINT, _FULL_NAME, _URI, _KEY_IDENTIFIER = 0xA0, 0xA0, 0xA0, 0x86, 0x80
_ONLY: dict[Literal["user", "ca"], bytes] = {"user": bytes.fromhex("8101ff"), "ca": bytes.fromhex("8201ff")}


def _reason_extensions(reason: Reason) -> bytes:
    """crlEntryExtensions with the reason alone; unspecified is said by saying nothing (B10)."""
    if reason is Reason.unspecified:
        return b""
    value = der.tlv(der.OCTET_STRING, der.tlv(der.ENUMERATED, bytes((reason,))))
    return der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, OID_REASON_CODE, value))


_REASON_EXTENSIONS = {int(reason): _reason_extensions(reason) for reason in ALLOWED_REASONS}
_REASONS = {extensions: reason for reason, extensions in _REASON_EXTENSIONS.items()}
# Entry header and serial header at once, by (octets of the serial, octets after it).
_ENTRY_HEADS = {
    (serial, rest): bytes((der.SEQUENCE,)) + der.length(2 + serial + rest) + bytes((der.INTEGER, serial))
    for serial in range(1, 65)
    for rest in (15, 17, 29, 31)
}


_OUR_SERIAL: Final = 16
_MINIMAL: Final = rb"(?!\x00[\x00-\x7f]|\xff[\x80-\xff])"  # X.690 8.3.2: no octet more than an INTEGER needs
_DAY_AND_TIME: Final = (  # of any year, so the 29th of February too
    rb"(?:(?:0[13578]|1[02])(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)(?:0[1-9]|[12][0-9]|30)|02(?:0[1-9]|[12][0-9]))"
    rb"(?:[01][0-9]|2[0-3])[0-5][0-9][0-5][0-9]Z"
)
_TIMES: Final = (  # B19: UTCTime from 1970 through 2049, GeneralizedTime from 2050
    (15, rb"\x17\x0d(?:[0-4][0-9]|[7-9][0-9])" + _DAY_AND_TIME),
    (17, rb"\x18\x0f(?:20[5-9][0-9]|2[1-9][0-9]{2}|[3-9][0-9]{3})" + _DAY_AND_TIME),
)


def _entry_pattern() -> bytes:
    extension = _REASON_EXTENSIONS[Reason.keyCompromise]
    allowed = b"".join(re.escape(bytes((reason,))) for reason in ALLOWED_REASONS if reason)  # B10, B11
    reasons = ((0, b""), (len(extension), re.escape(extension[:-1]) + b"[" + allowed + b"]"))
    # Ours first: a serial of 16 octets is tried before all others.
    lengths = sorted(range(1, MAX_OCTETS + 1), key=lambda length: length != _OUR_SERIAL)
    entries = [
        re.escape(bytes((der.SEQUENCE, 2 + length + time_size + reason_size, der.INTEGER, length)))
        + (_MINIMAL if length > 1 else b"")
        + b"[\\x00-\\xff]{%d}" % length
        + time
        + reason
        for length in lengths
        for time_size, time in _TIMES
        for reason_size, reason in reasons
    ]
    return b"(?:" + b"|".join(entries) + b")"


ENTRY: Final = re.compile(_entry_pattern())
"""One entry as `entry` writes it."""
ENTRIES: Final = re.compile(ENTRY.pattern + b"*+")  # possessive: no memory for ways back
"""Joined entries as `entry` writes them, of every length of serial that the store holds: `fullmatch` looks into a
million of them in a quarter of a second. It takes the 29th of February in every year; `read_entry` does not."""

# Any TLVs of less than 128 octets, ours first.
_OUR_SIZES: Final = tuple(2 + serial + rest for serial in (16, 17, 20, 21) for rest in (29, 15))
_SHORT_ENTRY: Final = re.compile(
    b"(?s)0(?:"
    + b"|".join(re.escape(bytes((size,))) + b".{%d}" % size for size in dict.fromkeys((*_OUR_SIZES, *range(1, 128))))
    + b")"
)


def cut_entries(revoked: bytes) -> list[bytes]:
    """Whole entries, in order, from what stands inside revokedCertificates. Raises `der.malformed`.

    They are cut apart, not looked into: that is `read_entry`'s and `ENTRIES`'.
    """
    found: list[bytes] = _SHORT_ENTRY.findall(revoked)
    if sum(map(len, found)) == len(revoked):  # nothing was skipped: each begins where the one before ends
        return found
    return [_whole(revoked, tlv) for tlv in der.children(revoked, 0, len(revoked))]


def _whole(revoked: bytes, tlv: tuple[int, int, int, int]) -> bytes:
    tag, offset, _, stop = tlv
    if tag != der.SEQUENCE:
        raise der.malformed("a revoked certificate that is no SEQUENCE")
    return revoked[offset:stop]


def entry(serial: bytes, revoked_at: int, reason: int) -> bytes:
    """One element of revokedCertificates; `serial` byte for byte as in the certificate (B8).

    Raises `crl.reason_not_allowed` for what may not be published (B11).
    """
    try:
        rest = utc_or_generalized_time(revoked_at) + _REASON_EXTENSIONS[reason]
    except KeyError:
        raise QuashError("crl.reason_not_allowed", f"reason {reason} may not be published (B11)") from None
    return _ENTRY_HEADS[len(serial), len(rest)] + serial + rest


def _extension(oid: bytes, value: bytes, *, critical: bool = False) -> bytes:
    return der.tlv(der.SEQUENCE, oid, _TRUE if critical else b"", der.tlv(der.OCTET_STRING, value))


def _issuing_distribution_point(urls: Sequence[str], only: Literal["user", "ca"] | None) -> bytes:
    names = [der.tlv(_URI, url.encode("ascii")) for url in urls]
    name = der.tlv(_DISTRIBUTION_POINT, der.tlv(_FULL_NAME, *names))
    return der.tlv(der.SEQUENCE, name, _ONLY[only] if only else b"")


def tbs_cert_list(
    *,
    algorithm: SignatureAlgorithm,
    issuer: bytes,
    this_update: int,
    next_update: int,
    entries: Iterable[bytes],
    authority_key_id: bytes,
    number: int,
    idp_urls: Sequence[str],
    only: Literal["user", "ca"] | None,
) -> bytes:
    """DER TBSCertList: what the CA signer signs.

    `issuer`: the CA's subject, byte for byte (B1). Times: Unix seconds, nextUpdate inclusive. `entries`: made by
    `entry`, one by one or already joined, in the order wanted; none at all leaves the list out (B9).
    `authority_key_id`: the issuer's SKI. `idp_urls`: a shard's URLs, each as in some CRLDP (B15); none for a full
    CRL (B14), which then has no `only`.
    Raises `crl.number_range`, `crl.validity`, `crl.scope`.
    """
    if not 0 <= number < NUMBER_LIMIT:
        raise QuashError("crl.number_range", "a CRL number is at least 0 and below 2^159 (B7)")
    if this_update > next_update:
        raise QuashError("crl.validity", "nextUpdate is before thisUpdate (B2)")
    if only and not idp_urls:
        raise QuashError("crl.scope", "a CRL of one kind of certificate needs the URL of its distribution point (B15)")
    extensions = [
        _extension(OID_AUTHORITY_KEY_IDENTIFIER, der.tlv(der.SEQUENCE, der.tlv(_KEY_IDENTIFIER, authority_key_id))),
        _extension(OID_CRL_NUMBER, der.integer(number)),
    ]
    if idp_urls:
        value = _issuing_distribution_point(idp_urls, only)
        extensions.append(_extension(OID_ISSUING_DISTRIBUTION_POINT, value, critical=True))
    revoked = b"".join(entries)
    return der.tlv(
        der.SEQUENCE,
        _V2,
        algorithm.identifier,
        issuer,
        utc_or_generalized_time(this_update),
        utc_or_generalized_time(next_update),
        *((bytes((der.SEQUENCE,)) + der.length(len(revoked)), revoked) if revoked else ()),
        der.tlv(_EXTENSIONS, der.tlv(der.SEQUENCE, *extensions)),
    )


def with_entries(tbs: bytes, entries: Iterable[bytes]) -> bytes:
    """The same TBSCertList with other entries; none at all leaves the list out. Raises `der.malformed`."""
    start, end = der.only(tbs, der.SEQUENCE)
    fields = [(tag, offset, stop) for tag, offset, _, stop in der.children(tbs, start, end)]
    if len(fields) < _FIELDS or fields[-1][0] != _EXTENSIONS:
        raise der.malformed("no TBSCertList of our profile")
    revoked = b"".join(entries)
    listed = der.tlv(der.SEQUENCE, revoked) if revoked else b""
    return der.tlv(der.SEQUENCE, tbs[start : fields[_FIELDS - 2][2]], listed, tbs[fields[-1][1] : end])


def certificate_list(tbs: bytes, algorithm: SignatureAlgorithm, raw_signature: bytes) -> bytes:
    """DER CertificateList: the CRL to publish."""
    signature = der.tlv(der.BIT_STRING, b"\0", algorithm.encode(raw_signature))
    return der.tlv(der.SEQUENCE, tbs, algorithm.identifier, signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crl:
    """A CRL as read.

    `tbs`: the octets under the signature. `algorithm`: its DER AlgorithmIdentifier. `signature`: as in the BIT STRING
    (`SignatureAlgorithm.decode` makes it raw). `issuer`: DER Name. Times: Unix seconds. `idp_urls` is empty without an
    IDP, and `idp_critical` and `only` are False and None then. `revoked`: what stands inside
    revokedCertificates, that is the entries joined.
    """

    tbs: bytes
    algorithm: bytes
    signature: bytes
    issuer: bytes
    this_update: int
    next_update: int
    authority_key_id: bytes
    number: int
    idp_urls: tuple[str, ...]
    idp_critical: bool
    only: Literal["user", "ca"] | None
    revoked: bytes

    @property
    def entries(self) -> list[bytes]:
        """Whole entries in order, for `read_entry`; cut apart at each call."""
        return cut_entries(self.revoked)


def read_crl(data: bytes, known: bytes = b"") -> Crl:
    """Reads a CRL of the profile above, and no other: strictly, so that it can be the gate before publishing.

    That the entries are whole is checked; they are not looked into. `known`: joined entries that were checked before;
    where the list begins with them, only what follows is. Nothing is verified. Raises `crl.malformed`.
    """
    try:
        return _certificate_list(data, known)
    except (QuashError, ValueError) as error:
        raise QuashError("crl.malformed", f"this is no CRL of our profile: {error}") from None


def _certificate_list(data: bytes, known: bytes) -> Crl:
    start, end = der.only(data, der.SEQUENCE)
    tbs_start, tbs_end = der.expect(data, start, der.SEQUENCE, end)
    _, algorithm_end = der.expect(data, tbs_end, der.SEQUENCE, end)
    begin, stop = der.expect(data, algorithm_end, der.BIT_STRING, end)
    if stop != end or data[begin : begin + 1] != b"\0":
        raise der.malformed("a signature that is not whole octets at the end")
    algorithm = data[tbs_end:algorithm_end]
    offset = tbs_start + len(_V2) + len(algorithm)
    if data[tbs_start:offset] != _V2 + algorithm:  # B1
        raise der.malformed("version 2 and twice the same signature algorithm belong here")
    _, issuer_end = der.expect(data, offset, der.SEQUENCE, tbs_end)
    this_update, times = _time(data, issuer_end, tbs_end)
    next_update, times = _time(data, times, tbs_end)
    revoked, after = _revoked(data, times, tbs_end, known)
    return Crl(
        tbs=data[start:tbs_end],
        algorithm=algorithm,
        signature=data[begin + 1 : stop],
        issuer=data[offset:issuer_end],
        this_update=this_update,
        next_update=next_update,
        revoked=revoked,
        **_extensions(data, after, tbs_end)._asdict(),
    )


class _CrlExtensions(NamedTuple):
    authority_key_id: bytes
    number: int
    idp_urls: tuple[str, ...]
    idp_critical: bool
    only: Literal["user", "ca"] | None


def _time(data: bytes, offset: int, end: int) -> tuple[int, int]:
    """(Unix seconds, where the next field begins); in the one form that B19 allows for that time."""
    tag, _, start, stop = der.read_tlv(data, offset, end)
    at = der.read_time(tag, data[start:stop])
    if data[offset:stop] != utc_or_generalized_time(at):
        raise der.malformed("a time in the wrong form for its year")
    return at, stop


_SHORT_ENTRIES: Final = re.compile(b"(?:" + _SHORT_ENTRY.pattern.removeprefix(b"(?s)") + b")*+", re.DOTALL)


def _revoked(data: bytes, offset: int, end: int, known: bytes) -> tuple[bytes, int]:
    """(entries joined, where the next field begins); an empty list may not be written (B9)."""
    tag, _, start, stop = der.read_tlv(data, offset, end)
    if tag != der.SEQUENCE:
        return b"", offset
    if start == stop:
        raise der.malformed("an empty revokedCertificates")
    revoked = data[start:stop]
    seen = len(known) if revoked.startswith(known) else 0
    if not _SHORT_ENTRIES.fullmatch(revoked, seen):
        cut_entries(revoked)
    return revoked, stop


def _extensions(data: bytes, offset: int, end: int) -> _CrlExtensions:
    start, stop = der.expect(data, offset, _EXTENSIONS, end)
    if stop != end:
        raise der.malformed("fields after the extensions")
    found = _read_extensions(data, start, stop)
    key_id, number = found.pop(OID_AUTHORITY_KEY_IDENTIFIER, None), found.pop(OID_CRL_NUMBER, None)
    if key_id is None or number is None or key_id[0] or number[0]:
        raise der.malformed("authorityKeyIdentifier and cRLNumber belong here, not critical (B7)")
    critical, idp = found.pop(OID_ISSUING_DISTRIBUTION_POINT, (False, None))
    if found:
        raise der.malformed("an extension beyond B7 and B15")
    urls, only = ((), None) if idp is None else _read_distribution_point(idp)
    return _CrlExtensions(_read_key_id(key_id[1]), _read_number(number[1]), urls, critical, only)


def _read_extensions(data: bytes, start: int, end: int) -> dict[bytes, tuple[bool, bytes]]:
    """OID as TLV -> (critical, value) of the Extensions that fill [start, end)."""
    start, stop = der.expect(data, start, der.SEQUENCE, end)
    if stop != end or start == stop:
        raise der.malformed("an Extensions field that is empty or more than one")
    found: dict[bytes, tuple[bool, bytes]] = {}
    while start < stop:
        begin, after = der.expect(data, start, der.SEQUENCE, stop)
        _, value = der.expect(data, begin, der.OID, after)
        oid = data[begin:value]
        critical = data[value : value + 3] == _TRUE
        first, last = der.expect(data, value + 3 * critical, der.OCTET_STRING, after)
        if last != after or oid in found:
            raise der.malformed("an extension given twice, or with fields after its value")
        found[oid] = critical, data[first:last]
        start = after
    return found


def _read_key_id(value: bytes) -> bytes:
    start, end = der.only(value, der.SEQUENCE)
    start, stop = der.expect(value, start, _KEY_IDENTIFIER, end)
    if stop != end:
        raise der.malformed("an authorityKeyIdentifier with more than the keyIdentifier")
    return value[start:stop]


def _read_number(value: bytes) -> int:
    start, end = der.only(value, der.INTEGER)
    number = der.read_integer(value[start:end])
    if not 0 <= number < NUMBER_LIMIT:
        raise der.malformed("a CRL number outside B7")
    return number


def _read_distribution_point(value: bytes) -> tuple[tuple[str, ...], Literal["user", "ca"] | None]:
    start, end = der.only(value, der.SEQUENCE)
    begin, stop = der.expect(value, start, _DISTRIBUTION_POINT, end)
    position, name_end = der.expect(value, begin, _FULL_NAME, stop)
    urls: list[str] = []
    while position < name_end:
        begin, position = der.expect(value, position, _URI, name_end)
        urls.append(value[begin:position].decode("ascii"))
    if name_end != stop or not urls:
        raise der.malformed("a distribution point that is more than URIs, or none")
    rest = value[stop:end]
    for name, flag in _ONLY.items():
        if rest == flag:
            return tuple(urls), name
    if rest:
        raise der.malformed("an issuingDistributionPoint beyond B15")
    return tuple(urls), None


def serial_of(data: bytes) -> bytes:
    """The serial of an entry that `ENTRIES` or `read_entry` has passed before."""
    return data[4 : 4 + data[3]]


def read_entry(data: bytes) -> tuple[bytes, int, int]:
    """(serial, Unix seconds of the revocation, reason; 0 when none is given) of one whole entry.

    Raises `crl.malformed` unless the octets are exactly those that `entry` writes for these values.
    """
    try:
        date = 4 + data[3]
        after = date + 2 + data[date + 1]
        serial, revoked_at = data[4:date], der.read_time(data[date], data[date + 2 : after])
        reason = _REASONS[data[after:]]
        der.check_integer(serial)
        # Cut without looking, because this runs for each entry; that it encodes back proves the rest.
        if entry(serial, revoked_at, reason) == data:
            return serial, revoked_at, reason
    except (QuashError, KeyError, IndexError):
        pass
    raise QuashError("crl.malformed", "this is no CRL entry of our profile")
