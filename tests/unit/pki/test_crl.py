"""CRLs: what is written, as pyca, asn1crypto, openssl and pkilint read it; and what the strict reader refuses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

import pytest
from asn1crypto import crl as asn1_crl
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from pkilint.bin import lint_crl

from quash.errors import QuashError
from quash.pki import der
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, verify
from quash.pki.crl import NUMBER_LIMIT, certificate_list, entry, read_crl, read_entry, tbs_cert_list
from quash.pki.reasons import ALLOWED_REASONS, Reason
from quash.pki.serials import new_serial
from tests.support.authority import NOW, Authority, authority, refuses_only, sign

NEXT = NOW + 96 * 3600 - 1
URL = "http://crl.example/tls-dv/17.crl"
REASONS = sorted(map(int, ALLOWED_REASONS))
SERIALS = st.integers(-(1 << 511), (1 << 511) - 1).map(der.integer_content)
TIMES = st.integers(0, NOW) | st.integers(2_524_607_990, 2_524_608_010)


def tbs(
    ca: Authority,
    entries: list[bytes],
    *,
    number: int = 7,
    this_update: int = NOW,
    next_update: int = NEXT,
    idp_url: str | None = None,
    only: Literal["user", "ca"] | None = None,
) -> bytes:
    """A TBSCertList of this CA."""
    return tbs_cert_list(
        algorithm=ca.algorithm,
        issuer=ca.fields.subject,
        this_update=this_update,
        next_update=next_update,
        entries=entries,
        authority_key_id=ca.key_identifier,
        number=number,
        idp_urls=(idp_url,) if idp_url else (),
        only=only,
    )


def signed(ca: Authority, to_sign: bytes) -> bytes:
    return certificate_list(to_sign, ca.algorithm, sign(ca.key, ca.algorithm, to_sign))


def one_of_each() -> list[bytes]:
    """An entry of each reason."""
    return [entry(new_serial(), NOW - 100 * reason, reason) for reason in REASONS]


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@given(SERIALS, TIMES, st.sampled_from(REASONS))
def test_entries_are_asn1cryptos(serial: bytes, revoked_at: int, reason: int) -> None:
    """asn1crypto writes the same entry from the same values, and read_entry reads it back (B8, B10, B19)."""
    written = entry(serial, revoked_at, reason)
    assert read_entry(written) == (serial, revoked_at, reason)
    form = "utc_time" if revoked_at < 2_524_608_000 else "general_time"
    values: dict[str, object] = {
        "user_certificate": int.from_bytes(serial, "big", signed=True),
        "revocation_date": asn1_crl.Time({form: at(revoked_at)}),
    }
    if reason:
        code = {"extn_id": "crl_reason", "extn_value": asn1_crl.CRLReason(reason)}
        values["crl_entry_extensions"] = [code]
    assert written == asn1_crl.RevokedCertificate(values).dump()


def test_sizes_are_those_of_b21() -> None:
    """53 octets with a serial of 20, 49 with one of 16 (B21)."""
    assert len(entry(b"\x7f" * 20, NOW, 1)) == 53
    assert len(entry(b"\x7f" * 16, NOW, 1)) == 49


@pytest.mark.parametrize("reason", [2, 6, 7, 8, 10, 11, -1])
def test_reasons_outside_b11_are_never_written(reason: int) -> None:
    """No configuration and no row of a database makes an entry with another reason (B11)."""
    with pytest.raises(QuashError, match=r"crl\.reason_not_allowed"):
        entry(b"\1", NOW, reason)


@given(st.binary(max_size=60), SERIALS, st.data())
def test_other_octets_are_no_entry(garbage: bytes, serial: bytes, data: st.DataObject) -> None:
    """Octets that entry would not write are refused; damaged entries that still read say what they encode."""
    damaged = bytearray(entry(serial, NOW, data.draw(st.sampled_from(REASONS))))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    for octets in (garbage, bytes(damaged), bytes(damaged[:-1])):
        with refuses_only("crl.malformed"):
            assert entry(*read_entry(octets)) == octets


@pytest.mark.parametrize(
    ("idp_url", "only"), [(None, None), (URL, None), (URL, "user"), (URL, "ca")], ids=["full", "any", "user", "ca"]
)
def test_pyca_reads_what_was_meant(ca: Authority, idp_url: str | None, only: Literal["user", "ca"] | None) -> None:
    """Every field of full CRLs and of shards, for every algorithm (B1, B7, B10, B14, B15, B19, B20)."""
    entries = one_of_each()
    found = x509.load_der_x509_crl(signed(ca, tbs(ca, entries, idp_url=idp_url, only=only)))
    assert found.is_signature_valid(ca.key.public_key())
    assert found.signature_algorithm_oid == ca.certificate.signature_algorithm_oid
    assert found.issuer.public_bytes() == ca.fields.subject
    assert (found.last_update_utc, found.next_update_utc) == (at(NOW), at(NEXT))
    expected = [
        x509.Extension(
            x509.AuthorityKeyIdentifier.oid, False, x509.AuthorityKeyIdentifier(ca.key_identifier, None, None)
        ),
        x509.Extension(x509.CRLNumber.oid, False, x509.CRLNumber(7)),
    ]
    if idp_url:
        point = x509.IssuingDistributionPoint(
            [x509.UniformResourceIdentifier(idp_url)], None, only == "user", only == "ca", None, False, False
        )
        expected.append(x509.Extension(x509.IssuingDistributionPoint.oid, True, point))
    assert list(found.extensions) == expected
    assert len(found) == len(entries)
    for written, revoked, reason in zip(entries, found, REASONS, strict=True):
        assert revoked.serial_number == int.from_bytes(read_entry(written)[0], "big")
        assert revoked.revocation_date_utc == at(NOW - 100 * reason)
        named = [extension.value.reason.value for extension in revoked.extensions]
        assert named == ([Reason(reason).name] if reason else [])


@pytest.mark.parametrize("idp_url", [None, URL])
@pytest.mark.parametrize("count", [0, 1, 3, 200])
def test_openssl_verifies_and_prints(
    ca: Authority, openssl: Callable[..., str], count: int, idp_url: str | None
) -> None:
    """`openssl crl` verifies the signature and prints number, times, scope and as many entries as there are (B9)."""
    entries = [entry(new_serial(), NOW - 60, 1) for _ in range(count)]
    data = signed(ca, tbs(ca, entries, number=NUMBER_LIMIT - 1, idp_url=idp_url, only="user" if idp_url else None))
    ca_file = openssl("x509", "-inform", "DER", "-in", ca.der).encode()
    printed = openssl("crl", "-inform", "DER", "-in", data, "-CAfile", ca_file, "-verify", "-noout", "-text")
    assert "verify OK" in printed
    assert "Version 2 (0x1)" in printed
    assert "Last Update: Nov 21 12:00:00 2026 GMT" in printed
    assert "Next Update: Nov 25 11:59:59 2026 GMT" in printed
    assert f"0x{NUMBER_LIMIT - 1:X}" in printed
    assert printed.count("Serial Number:") == printed.count("Key Compromise") == count
    assert ("No Revoked Certificates" in printed) == (count == 0)
    assert ("X509v3 Issuing Distribution Point: critical" in printed) == (f"URI:{URL}" in printed) == bool(idp_url)
    assert ("Only User Certificates" in printed) == bool(idp_url)


@pytest.mark.parametrize("form", ["full", "shard", "empty", "of CAs"])
def test_pkilint_finds_nothing(ca: Authority, pkilint: Callable[..., str], form: str) -> None:
    """pkilint reports nothing above notice by the Baseline Requirements (A42, B1-B15)."""
    entries = [] if form == "empty" else one_of_each()[1 if form == "of CAs" else 0 :]
    idp_url, only = (URL, "user") if form == "shard" else (None, None)
    data = signed(ca, tbs(ca, entries, idp_url=idp_url, only=only))
    assert pkilint(lint_crl.main, data, "-t", "ARL" if form == "of CAs" else "CRL", "-p", "BR") == ""


@given(
    st.lists(st.builds(entry, SERIALS, TIMES, st.sampled_from(REASONS)), max_size=300),
    st.integers(0, NUMBER_LIMIT - 1),
    TIMES,
    st.integers(0, 10**9),
    st.sampled_from([(None, None), (URL, None), (URL, "user"), (URL, "ca")]),
)
def test_lists_read_back(
    entries: list[bytes], number: int, this_update: int, seconds: int, scope: tuple[str | None, Literal["user", "ca"]]
) -> None:
    """What is written is read back in every field, by us and by asn1crypto; the tbs is cut out whole."""
    ca = authority("ecdsa-p256-sha256")
    idp_url, only = scope
    to_sign = tbs(
        ca,
        entries,
        number=number,
        this_update=this_update,
        next_update=this_update + seconds,
        idp_url=idp_url,
        only=only,
    )
    data = certificate_list(to_sign, ca.algorithm, b"\1" * 64)
    found = read_crl(data)
    assert found.tbs == to_sign
    assert found.algorithm == ca.algorithm.identifier
    assert ca.algorithm.decode(found.signature) == b"\1" * 64
    assert found.issuer == ca.fields.subject
    assert (found.this_update, found.next_update) == (this_update, this_update + seconds)
    assert (found.authority_key_id, found.number) == (ca.key_identifier, number)
    assert (found.idp_urls, found.idp_critical, found.only) == (
        (idp_url,) if idp_url else (),
        idp_url is not None,
        only,
    )
    assert found.entries == entries
    by_asn1 = asn1_crl.CertificateList.load(data, strict=True)["tbs_cert_list"]
    assert [each.dump() for each in by_asn1["revoked_certificates"]] == entries
    assert by_asn1.native["crl_extensions"][1]["extn_value"] == number


def test_entries_may_come_joined(p256: Authority) -> None:
    """Ready-made octets of many entries give the same list as the entries one by one, from any iterable."""
    entries = one_of_each() * 50
    one_by_one = tbs(p256, entries)
    assert tbs(p256, [b"".join(entries)]) == one_by_one
    assert tbs(p256, [b"".join(entries[:7]), *entries[7:]]) == one_by_one


@pytest.mark.parametrize("number", [-1, NUMBER_LIMIT])
def test_numbers_outside_b7_are_refused(p256: Authority, number: int) -> None:
    """A CRL number is at least 0 and below 2^159 (B7)."""
    with pytest.raises(QuashError, match=r"crl\.number_range"):
        tbs(p256, [], number=number)


def test_lists_that_make_no_sense_are_refused(p256: Authority) -> None:
    """nextUpdate before thisUpdate (B2); a scope flag without a distribution point (B14, B15)."""
    with pytest.raises(QuashError, match=r"crl\.validity"):
        tbs(p256, [], next_update=NOW - 1)
    with pytest.raises(QuashError, match=r"crl\.scope"):
        tbs(p256, [], only="user")


def test_signature_is_over_the_tbs(ca: Authority) -> None:
    """What read_crl returns verifies under the CA's key with its algorithm (B20)."""
    found = read_crl(signed(ca, tbs(ca, one_of_each())))
    verify(ca.fields.spki, ca.algorithm, ca.algorithm.decode(found.signature), found.tbs)


AKI = bytes.fromhex("301f0603551d2304183016 8014") + b"k" * 20
NUMBER = bytes.fromhex("300a0603551d140403020107")
TIME = b"\x17\x0d261121120000Z"
ALGORITHM = SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"].identifier
ENTRY = entry(b"\x5a" * 16, NOW, 1)
NAME = b"\x30\x00"


def idp(*content: bytes, critical: bytes = b"\1\1\xff") -> bytes:
    """An issuingDistributionPoint extension."""
    return der.tlv(0x30, der.oid("2.5.29.28"), critical, der.tlv(4, der.tlv(0x30, *content)))


POINT = bytes.fromhex("a00aa008 8606") + b"http:x"


def crl_of(
    *,
    version: bytes = b"\2\1\1",
    inner: bytes = ALGORITHM,
    outer: bytes = ALGORITHM,
    times: bytes = TIME + TIME,
    revoked: bytes = b"",
    extensions: tuple[bytes, ...] | None = (AKI, NUMBER),
    after: bytes = b"",
    signature: bytes = b"\3\2\0\xff",
    tail: bytes = b"",
) -> bytes:
    """A CRL put together by hand, right unless told otherwise."""
    wrapped = b"" if extensions is None else der.tlv(0xA0, der.tlv(0x30, *extensions))
    inside = der.tlv(0x30, version, inner, NAME, times, revoked, wrapped, after)
    return der.tlv(0x30, inside, outer, signature) + tail


def test_crl_put_together_by_hand_is_read() -> None:
    """The frame of the next test is a CRL of the profile: each refusal below is for its one change."""
    found = read_crl(crl_of(revoked=der.tlv(0x30, ENTRY), extensions=(NUMBER, AKI, idp(POINT))))
    assert (found.entries, found.number, found.authority_key_id) == ([ENTRY], 7, b"k" * 20)
    assert (found.idp_urls, found.idp_critical, found.only) == (("http:x",), True, None)


def test_idp_that_is_not_critical_is_told() -> None:
    """A shard whose IDP is not critical can be read, for the gate to say so (B15)."""
    assert not read_crl(crl_of(extensions=(AKI, NUMBER, idp(POINT, critical=b"")))).idp_critical


MALFORMED = {
    "empty": b"",
    "trailing octet": crl_of(tail=b"\0"),
    "version 1": crl_of(version=b""),
    "version 3": crl_of(version=b"\2\1\2"),
    "two algorithms": crl_of(outer=SIGNATURE_ALGORITHMS["ecdsa-p384-sha384"].identifier),
    "no nextUpdate": crl_of(times=TIME),
    "time with a zone": crl_of(times=b"\x17\x11261121120000+0100" + TIME),
    "GeneralizedTime before 2050": crl_of(times=b"\x18\x0f20261121120000Z" + TIME),
    "before 1970": crl_of(times=b"\x17\x0d691121120000Z" + TIME),
    "empty revokedCertificates": crl_of(revoked=b"\x30\0"),
    "entry of another tag": crl_of(revoked=der.tlv(0x30, b"\x31" + ENTRY[1:])),
    "entry beyond the list": crl_of(revoked=der.tlv(0x30, ENTRY[:-1])),
    "one octet after the entries": crl_of(revoked=der.tlv(0x30, ENTRY, b"\x30")),
    "no extensions": crl_of(extensions=None),
    "empty extensions": crl_of(extensions=()),
    "no authorityKeyIdentifier": crl_of(extensions=(NUMBER,)),
    "no cRLNumber": crl_of(extensions=(AKI,)),
    "cRLNumber twice": crl_of(extensions=(AKI, NUMBER, NUMBER)),
    "critical cRLNumber": crl_of(extensions=(AKI, bytes.fromhex("300d0603551d140101ff0403020107"))),
    "negative cRLNumber": crl_of(extensions=(AKI, bytes.fromhex("300a0603551d1404030201ff"))),
    "cRLNumber of 2^159": crl_of(
        extensions=(AKI, der.tlv(0x30, der.oid("2.5.29.20"), der.tlv(4, der.integer(NUMBER_LIMIT))))
    ),
    "cRLNumber with a tail": crl_of(extensions=(AKI, bytes.fromhex("300c0603551d1404050201070500"))),
    "delta": crl_of(extensions=(AKI, NUMBER, bytes.fromhex("300d0603551d1b0101ff0403020105"))),
    "unknown extension": crl_of(extensions=(AKI, NUMBER, der.tlv(0x30, der.oid("1.2.3.4"), b"\4\0"))),
    "extension with a tail": crl_of(extensions=(AKI, bytes.fromhex("300c0603551d1404030201070500"))),
    "issuer and serial in authorityKeyIdentifier": crl_of(
        extensions=(bytes.fromhex("30110603551d23040a3008 8003414243820105"), NUMBER)
    ),
    "second extensions": crl_of(after=der.tlv(0xA0, der.tlv(0x30, AKI))),
    "indirect": crl_of(extensions=(AKI, NUMBER, idp(POINT, bytes.fromhex("8401ff")))),
    "some reasons": crl_of(extensions=(AKI, NUMBER, idp(POINT, bytes.fromhex("83020640")))),
    "attribute certificates": crl_of(extensions=(AKI, NUMBER, idp(POINT, bytes.fromhex("8501ff")))),
    "users and CAs": crl_of(extensions=(AKI, NUMBER, idp(POINT, bytes.fromhex("8101ff8201ff")))),
    "FALSE spelt out": crl_of(extensions=(AKI, NUMBER, idp(POINT, bytes.fromhex("810100")))),
    "empty IDP": crl_of(extensions=(AKI, NUMBER, idp())),
    "IDP without a point": crl_of(extensions=(AKI, NUMBER, idp(bytes.fromhex("8101ff")))),
    "no name": crl_of(extensions=(AKI, NUMBER, idp(bytes.fromhex("a002a000")))),
    "a name that is no URL": crl_of(extensions=(AKI, NUMBER, idp(bytes.fromhex("a008a006 860161820162")))),
    "name not ASCII": crl_of(extensions=(AKI, NUMBER, idp(bytes.fromhex("a005a003 8601e9")))),
    "no signature": crl_of(signature=b""),
    "unused bits": crl_of(signature=b"\3\2\1\xfe"),
    "after the signature": crl_of(signature=b"\3\2\0\xff\5\0"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_other_lists_are_refused(what: str) -> None:
    """Whatever is not strictly of the profile does not pass the gate's reader (B1, B7, B9, B14, B15, B19, B27)."""
    with pytest.raises(QuashError, match=r"crl\.malformed"):
        read_crl(MALFORMED[what])


@given(st.binary(max_size=200), st.data())
def test_any_octets_read_or_are_malformed(garbage: bytes, data: st.DataObject) -> None:
    """No octets make the reader do anything but return or refuse; one that reads is the same list again."""
    damaged = bytearray(crl_of(revoked=der.tlv(0x30, ENTRY), extensions=(AKI, NUMBER, idp(POINT))))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    for octets in (garbage, bytes(damaged)):
        with refuses_only("crl.malformed"):
            assert read_crl(octets).tbs in octets


def test_long_entries_of_others_are_cut_too() -> None:
    """An entry above 127 octets, which we never write, is cut apart, and refused by read_entry."""
    odd = der.tlv(0x30, b"\2\1\5", TIME, der.tlv(0x30, b"\4\x81\x80" + bytes(128)))
    found = read_crl(crl_of(revoked=der.tlv(0x30, ENTRY, odd, ENTRY)))
    assert found.entries == [ENTRY, odd, ENTRY]
    with pytest.raises(QuashError, match=r"crl\.malformed"):
        read_entry(odd)


def test_a_scope_that_moved_names_every_url(ca: Authority) -> None:
    """An IDP may name several URLs, of which a certificate's CRLDP carries one (B15); none is lost in reading."""
    urls = ("http://b.example/0.crl", "http://a.example/0.crl")
    data = signed(
        ca,
        tbs_cert_list(
            algorithm=ca.algorithm,
            issuer=ca.fields.subject,
            this_update=NOW,
            next_update=NEXT,
            entries=(),
            authority_key_id=ca.key_identifier,
            number=1,
            idp_urls=urls,
            only="user",
        ),
    )
    point = x509.load_der_x509_crl(data).extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    assert point.full_name == [x509.UniformResourceIdentifier(url) for url in urls]
    assert read_crl(data).idp_urls == urls
