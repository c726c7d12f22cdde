"""The gate refuses what must never be published, each with its own code."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from quash.errors import QuashError
from quash.pki import crl, crl_gate, der
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.pki.crl import certificate_list, entry, read_crl, tbs_cert_list
from quash.pki.crl_gate import Expected, Published, Terms
from quash.pki.der import utc_or_generalized_time
from quash.pki.names import build_name

NOW = 1_800_000_000
VALIDITY = 4 * 86_400 - 1
ALGORITHM = SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"]
KEY = ec.generate_private_key(ec.SECP256R1())
URL = "http://crl.example.test/dv/3.crl"
TERMS = Terms(
    issuer=build_name({"C": "TN", "O": "Quash", "CN": "Quash Test CA"}),
    spki=KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    algorithm=ALGORITHM,
    authority_key_id=b"k" * 20,
    idp_urls=(URL,),
    only="user",
    not_after=NOW + 3000 * 86_400,
)
SERIALS = [b"\x01" + bytes([n]) * 15 for n in range(1, 6)]
ENTRIES = [entry(serial, NOW - 1000, reason) for serial, reason in zip(SERIALS, (0, 1, 3, 4, 9), strict=True)]
MANY = [entry(b"\x03" * 15 + bytes([n]), NOW, 4) for n in range(100)]
BEFORE = Published(7, NOW - 100, b"".join(ENTRIES), len(ENTRIES))
SOUND_ENTRY = entry(b"\x02" * 16, NOW, 4)
MALFORMED_ENTRIES = {
    "certificateHold (B11)": SOUND_ENTRY[:-1] + b"\x06",
    "unspecified spelt out (B10)": SOUND_ENTRY[:-1] + b"\0",
    "another extension (B8)": SOUND_ENTRY.replace(bytes.fromhex("0603551d15"), bytes.fromhex("0603551d18")),
    "a serial that is not minimal (B8)": entry(b"\0\x01", NOW, 4),
    "no such month (B19)": SOUND_ENTRY.replace(utc_or_generalized_time(NOW), b"\x17\x0d271315080000Z"),
    "29 February of a common year (B19)": SOUND_ENTRY.replace(utc_or_generalized_time(NOW), b"\x17\x0d270229080000Z"),
}
EXPECTED = Expected(number=8, this_update=NOW, next_update=NOW + VALIDITY, entries=5, now=NOW)


def make(*, key: ec.EllipticCurvePrivateKey = KEY, entries: list[bytes] = ENTRIES, **changes: Any) -> bytes:
    """A CRL as EXPECTED, but for the changes."""
    fields: dict[str, Any] = {
        "algorithm": ALGORITHM, "issuer": TERMS.issuer, "this_update": NOW, "next_update": NOW + VALIDITY,
        "entries": entries, "authority_key_id": TERMS.authority_key_id, "number": 8, "idp_urls": (URL,), "only": "user",
    }  # fmt: skip
    tbs = tbs_cert_list(**fields | changes)
    return certificate_list(tbs, ALGORITHM, ALGORITHM.decode(key.sign(tbs, ec.ECDSA(hashes.SHA256()))))


def admit(
    body: bytes, *, terms: Terms = TERMS, expected: Expected = EXPECTED, before: Published | None = BEFORE
) -> Any:
    return crl_gate.check(crl_gate.read(body, terms), expected, before)


def test_sound_crl_passes() -> None:
    """What continues the published CRL, with an entry more, loses nothing."""
    more = [*ENTRIES, entry(b"\x02" * 16, NOW, 5)]
    assert admit(make(entries=more), expected=replace(EXPECTED, entries=6)) == []
    assert admit(make(entries=[*ENTRIES, *MANY]), expected=replace(EXPECTED, entries=105)) == []
    assert admit(make()) == []
    assert admit(make(), before=None) == []


def test_a_serial_within_another_one_is_another_one() -> None:
    """Found in the octets of what is published, it is still new."""
    short = b"\x05"
    outer = entry(b"\x01" + der.tlv(der.INTEGER, short) + b"\x01" * 12, NOW - 1000, 1)
    before = Published(7, NOW - 100, outer, 1)
    assert (
        admit(make(entries=[outer, entry(short, NOW, 4)]), expected=replace(EXPECTED, entries=2), before=before) == []
    )


def flip(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
REFUSED: list[tuple[str, Callable[[], Any]]] = [
    ("signature.invalid", lambda: admit(flip(make()))),
    ("signature.invalid", lambda: admit(make(key=OTHER_KEY))),
    ("crl.malformed", lambda: admit(make()[:-1])),
    ("crl.malformed", lambda: admit(make() + b"\0")),
    ("crl.other_issuer", lambda: admit(make(issuer=build_name({"C": "TN", "O": "Quash", "CN": "Other"})))),
    ("crl.other_key_id", lambda: admit(make(authority_key_id=b"x" * 20))),
    ("crl.other_idp", lambda: admit(make(idp_urls=("http://crl.example.test/dv/4.crl",)))),
    ("crl.other_idp", lambda: admit(make(idp_urls=(), only=None))),
    ("crl.other_idp", lambda: admit(make(only=None))),
    ("crl.other_idp", lambda: admit(make(only="ca"))),
    ("crl.other_idp", lambda: admit(make(), terms=replace(TERMS, idp_urls=(), only=None))),
    ("crl.other_algorithm", lambda: admit(make(), terms=replace(TERMS, algorithm=SIGNATURE_ALGORITHMS["rsa-sha256"]))),
    ("crl.beyond_issuer", lambda: admit(make(), terms=replace(TERMS, not_after=NOW + VALIDITY - 1))),
    ("crl.number_not_rising", lambda: admit(make(number=7), expected=replace(EXPECTED, number=7))),
    ("crl.number_not_rising", lambda: admit(make(number=6), expected=replace(EXPECTED, number=6))),
    ("crl.number_not_rising", lambda: admit(make(number=9))),
    ("crl.clock_went_back", lambda: admit(make(), expected=replace(EXPECTED, now=NOW - 301))),
    ("crl.other_times", lambda: admit(make(this_update=NOW - 1))),
    ("crl.other_times", lambda: admit(make(next_update=NOW + VALIDITY + 1))),
    ("crl.other_times", lambda: admit(make(), before=replace(BEFORE, this_update=NOW))),
    (
        "crl.validity",
        lambda: admit(make(next_update=NOW + 10 * 86_400), expected=replace(EXPECTED, next_update=NOW + 10 * 86_400)),
    ),
    ("crl.count_differs", lambda: admit(make(entries=ENTRIES[:4]))),
    ("crl.count_differs", lambda: admit(make(), expected=replace(EXPECTED, entries=6))),
    (
        "crl.entry_twice",
        lambda: admit(make(entries=[*ENTRIES, ENTRIES[0]]), before=None, expected=replace(EXPECTED, entries=6)),
    ),
    (
        "crl.entry_twice",
        lambda: admit(make(entries=[*ENTRIES[1:], entry(SERIALS[1], NOW, 4)])),
    ),
    (
        "crl.entry_twice",
        lambda: admit(make(entries=[*ENTRIES, SOUND_ENTRY, SOUND_ENTRY]), expected=replace(EXPECTED, entries=7)),
    ),
    (
        "crl.entry_twice",  # and a new one is missing, so that the count is right
        lambda: admit(make(entries=[*ENTRIES, entry(SERIALS[1], NOW, 4)]), expected=replace(EXPECTED, entries=6)),
    ),
    (
        "crl.entry_twice",
        lambda: admit(
            make(entries=[*ENTRIES, *MANY, entry(SERIALS[1], NOW, 4)]), expected=replace(EXPECTED, entries=106)
        ),
    ),
    ("crl.reason_downgraded", lambda: admit(make(entries=[*ENTRIES[:4], entry(SERIALS[4], NOW - 1000, 4)]))),
    (
        "crl.reason_downgraded",
        lambda: admit(make(entries=[ENTRIES[0], entry(SERIALS[1], NOW - 1000, 0), *ENTRIES[2:]])),
    ),
    ("crl.date_moved", lambda: admit(make(entries=[*ENTRIES[:4], entry(SERIALS[4], NOW - 1001, 9)]))),
    ("crl.date_moved", lambda: admit(make(entries=[ENTRIES[0], entry(SERIALS[1], NOW - 999, 1), *ENTRIES[2:]]))),
]


@pytest.mark.parametrize(("code", "attempt"), REFUSED, ids=[f"{n}-{code}" for n, (code, _) in enumerate(REFUSED)])
def test_refused(code: str, attempt: Callable[[], Any]) -> None:
    """Each way to be wrong has its code."""
    with pytest.raises(QuashError) as caught:
        attempt()
    assert caught.value.code == code


@pytest.mark.parametrize("what", MALFORMED_ENTRIES)
@pytest.mark.parametrize("before", [BEFORE, None], ids=["appended", "all new"])
def test_malformed_entry_is_refused(what: str, before: Published | None) -> None:
    """Also behind entries that are published already, and on an issuer's first CRL."""
    body = make(entries=[*ENTRIES, MALFORMED_ENTRIES[what]])
    with pytest.raises(QuashError) as caught:
        admit(body, expected=replace(EXPECTED, entries=6), before=before)
    assert caught.value.code in ("crl.malformed", "der.malformed")


def test_malformed_serial_among_many_alike_is_refused() -> None:
    """Of appended entries that differ in their serials alone one is looked into; the form of all is matched (B8)."""
    alike = [entry(b"\0\x01", NOW, 4), entry(b"\x02\x01", NOW, 4)]
    with pytest.raises(QuashError) as caught:
        admit(make(entries=[*ENTRIES, *alike]), expected=replace(EXPECTED, entries=7))
    assert caught.value.code == "crl.malformed"


def test_idp_that_is_not_critical_is_refused() -> None:
    """B15: whoever does not understand it must not take a shard for the whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crl, "_TRUE", b"")
        body = make()
    assert (crl.read_crl(body).idp_urls, crl.read_crl(body).idp_critical) == ((URL,), False)
    with pytest.raises(QuashError) as caught:
        admit(body)
    assert caught.value.code == "crl.other_idp"


def test_what_pkilint_finds_is_refused() -> None:
    """And nothing else."""
    crl_gate.refuse_findings([])
    with pytest.raises(QuashError, match=r"x\.y") as caught:
        crl_gate.refuse_findings(["ERROR x.y"])
    assert caught.value.code == "crl.lint"


def test_thisupdate_goes_back_only_by_order() -> None:
    """It rises, but where a person ordered that a CRL from the future be replaced; its number rises even then."""
    future = replace(BEFORE, this_update=NOW + 86_400)
    assert admit(make(), expected=replace(EXPECTED, goes_back=True), before=future) == []
    for expected, before, code in (
        (EXPECTED, future, "crl.other_times"),
        (replace(EXPECTED, goes_back=True), replace(future, number=8), "crl.number_not_rising"),
    ):
        with pytest.raises(QuashError) as caught:
            admit(make(), expected=expected, before=before)
        assert caught.value.code == code


def test_lost_entry_is_named_and_refused_unless_it_may_go() -> None:
    """An entry missing from the new CRL is reported; only the database's word that it may go lets it (B13)."""
    lost = admit(make(entries=[ENTRIES[0], *ENTRIES[2:]]), expected=replace(EXPECTED, entries=4))
    assert lost == [SERIALS[1]]
    crl_gate.refuse_lost(lost, {SERIALS[1]})
    with pytest.raises(QuashError, match=SERIALS[1].hex()) as caught:
        crl_gate.refuse_lost(lost, {SERIALS[0]})
    assert caught.value.code == "crl.entry_lost"


def test_swapped_entry_is_noticed_although_the_count_is_right() -> None:
    """A lost entry hidden behind a new one is still lost."""
    entries = [*ENTRIES[:2], entry(b"\x03" * 16, NOW, 4), *ENTRIES[3:]]
    assert admit(make(entries=entries)) == [SERIALS[2]]


def test_upgrade_to_key_compromise_passes() -> None:
    """B25: the reason may become keyCompromise, and its date may move back then."""
    entries = [entry(SERIALS[0], NOW - 5000, 1), entry(SERIALS[1], NOW - 1001, 1), *ENTRIES[2:]]
    assert admit(make(entries=entries)) == []


@given(st.binary(max_size=400))
def test_reading_noise_refuses_with_a_code(noise: bytes) -> None:
    """No octets, however wrong, come through or raise anything but the error family."""
    with pytest.raises(QuashError):
        crl_gate.read(noise, TERMS)


@given(st.data())
def test_reading_a_damaged_crl_refuses(data: st.DataObject) -> None:
    """Any single changed octet is refused: by form, by terms or by the signature."""
    body = bytearray(SOUND)
    position = data.draw(st.integers(0, len(body) - 1))
    body[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(QuashError):
        crl_gate.read(bytes(body), TERMS)


SOUND = make()


@given(st.sets(st.integers(0, 19)), st.sets(st.integers(0, 19)), st.booleans())
def test_comparison_reports_exactly_what_is_gone(old: set[int], new: set[int], appended: bool) -> None:
    """Whatever the order of the entries, the lost serials are those of the old list that the new one has not."""
    serials = [b"\x01" + bytes([n]) * 15 for n in range(20)]
    first = [entry(serials[n], NOW, 4) for n in sorted(old)]
    order = [*sorted(old & new), *sorted(new - old)] if appended else sorted(new, reverse=True)
    crl = read_crl(make(entries=[entry(serials[n], NOW, 4) for n in order]))
    before = Published(7, NOW - 100, b"".join(first), len(first))
    lost = crl_gate.check(crl, replace(EXPECTED, entries=len(new)), before)
    assert sorted(lost) == [serials[n] for n in sorted(old - new)]


def test_million_entries_are_compared_without_looking_into_each() -> None:
    """One more entry at the end of a long CRL costs far less than reading the CRL did (design 8)."""
    first = [entry(b"\x01" + os.urandom(15), NOW - n % 90, 4) for n in range(50_000)]
    crl = read_crl(make(entries=[*first, ENTRIES[0]]))
    before = Published(7, NOW - 100, b"".join(first), len(first))
    looked_into: list[bytes] = []
    original = crl_gate.read_entry

    def counting(data: bytes) -> tuple[bytes, int, int]:
        looked_into.append(data)
        return original(data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crl_gate, "read_entry", counting)
        assert crl_gate.check(crl, replace(EXPECTED, entries=50_001), before) == []
    assert looked_into == [ENTRIES[0]]
