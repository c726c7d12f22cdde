"""Signing CRLs: the next one of the very scope, of now, and each number once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quash.errors import Kind, QuashError
from quash.keys import KeyUnavailable
from quash.pki import der
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, verify
from quash.pki.crl import ENTRIES, certificate_list, entry, read_crl
from quash.pki.reasons import ALLOWED_REASONS
from quash.pki.rules import CRL_VALIDITY_MAX_CAS
from quash.store import signing_log
from tests.support.issuing import CRL_BASE, DAY, SoftwareKey, private_key
from tests.support.reserving import Desk

MALFORMED = "crl.malformed"


async def sign(desk: Desk, tbs: bytes, name: str = "tls-dv", scope: str = "1") -> bytes:
    return await desk.signer.sign_crl(desk.hierarchy[name].id, scope, tbs)


async def code_of(call: Awaitable[bytes]) -> str:
    with pytest.raises(QuashError) as caught:
        await call
    assert caught.value.kind in (Kind.REFUSED, Kind.INPUT, Kind.NOT_FOUND, Kind.CONFLICT)
    return caught.value.code


@pytest.mark.parametrize(("name", "scope"), [("tls-dv", "1"), ("tls-dv", "full"), ("tls-ov", "full")])
async def test_signs_the_next_crl(desk: Desk, name: str, scope: str) -> None:
    """The raw signature verifies over the very bytes, entries and all, and the number is logged."""
    entries = [entry(bytes([1, number]), desk.now, 1) for number in range(100)]
    tbs = await desk.crl(name, scope, 7, entries=entries)
    raw = await sign(desk, tbs, name, scope)
    issuer = desk.hierarchy[name]
    algorithm = SIGNATURE_ALGORITHMS[issuer.signature_algorithm]
    verify(issuer.spki, algorithm, raw, tbs)
    assert len(read_crl(certificate_list(tbs, algorithm, raw)).entries) == 100
    rows = [tuple(row) for row in await desk.fetch("select kind, issuer_id, scope, number, at from signing_log")]
    assert rows == [("crl", issuer.id, scope, 7, desk.now)]


async def test_entries_matched_before_are_not_matched_again_and_others_are(desk: Desk) -> None:
    """What was appended is always looked at, and so is everything when any octet before it has changed (B8-B11)."""
    old = [entry(bytes([1, number]), desk.now, 1) for number in range(100)]
    bad = b"".join(old[:-1]) + old[-1][:-1] + b"\x06"  # certificateHold
    await sign(desk, await desk.crl(number=1, entries=old))
    await sign(desk, await desk.crl(number=2, entries=[*old, entry(b"\x02", desk.now, 4)]))
    more = [*old, entry(b"\x02", desk.now, 4), bad]
    assert await code_of(sign(desk, await desk.crl(number=3, entries=more))) == MALFORMED
    assert await code_of(sign(desk, await desk.crl(number=3, entries=[bad, entry(b"\x02", desk.now, 4)]))) == MALFORMED
    assert await code_of(sign(desk, await desk.crl(number=3, entries=[b"".join(old)[:-7]]))) == MALFORMED
    await sign(desk, await desk.crl(number=3, entries=old[:50]))
    await sign(desk, await desk.crl(number=4, entries=[]))
    await sign(desk, await desk.crl(number=5, entries=[*old[:50], *old]))
    assert await code_of(sign(desk, await desk.crl(number=6, entries=[*old[:50], bad]))) == MALFORMED


async def test_numbers_rise(desk: Desk) -> None:
    """A number is signed once, and only above every one before, in each scope by itself (B7)."""
    await sign(desk, await desk.crl(number=5))
    assert await code_of(sign(desk, await desk.crl(number=5))) == "crl.number"
    assert await code_of(sign(desk, await desk.crl(number=4))) == "crl.number"
    assert await code_of(sign(desk, await desk.crl(number=0))) == "crl.number"
    await sign(desk, await desk.crl(number=6))
    await sign(desk, await desk.crl(scope="2", number=1), scope="2")
    greatest = (1 << 159) - 1
    await sign(desk, await desk.crl(number=greatest))
    assert [int(row["number"]) for row in await desk.fetch("select number from signing_log order by id")] == [
        5,
        6,
        1,
        greatest,
    ]


async def test_the_same_number_at_once(desk: Desk) -> None:
    """Of two signer processes that sign one number at the same moment, one hands its signature out."""
    meet = threading.Barrier(2, timeout=10)

    class Together(SoftwareKey):
        def sign(self, tbs: bytes) -> bytes:
            meet.wait()
            return super().sign(tbs)

    signers = [desk.new_signer(lambda issuer: Together(private_key(issuer.name))) for _ in range(2)]
    lists = [await desk.crl(), await desk.crl(entries=[entry(b"\1", desk.now, 1)])]
    calls = [s.sign_crl(desk.hierarchy["tls-dv"].id, "1", tbs) for s, tbs in zip(signers, lists, strict=True)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    (failed,) = [result for result in results if isinstance(result, QuashError)]
    assert failed.code == "crl.number"
    assert len(await desk.fetch("select from signing_log")) == 1


async def test_a_crash_before_the_log_spends_no_number(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature that was not logged was not handed out, so its number may be signed."""

    async def crash(*_: Any, **__: Any) -> bool:
        raise ConnectionResetError

    tbs = await desk.crl()
    with monkeypatch.context() as patch:
        patch.setattr(signing_log, "add_crl", crash)
        with pytest.raises(ConnectionResetError):
            await sign(desk, tbs)
    assert await sign(desk, tbs)


async def test_the_kill_switch_leaves_crls(desk: Desk) -> None:
    """Issuing stops, revoking goes on (G21)."""
    await desk.stop(None)
    assert await sign(desk, await desk.crl())


async def test_a_key_that_is_offline(desk: Desk) -> None:
    """An opener without the key refuses, with the code of the refusal."""

    def opener(_: object) -> SoftwareKey:
        raise KeyUnavailable("not here", "signer.no_key")

    signer = desk.new_signer(opener)
    with pytest.raises(QuashError, match=r"signer\.no_key"):
        await signer.sign_crl(desk.hierarchy["tls-dv"].id, "1", await desk.crl())
    assert await desk.fetch("select from signing_log") == []


Change = Callable[[Desk], dict[str, Any]]

WRONG: dict[str, tuple[Change, str]] = {
    "another issuer": (lambda desk: {"issuer": desk.hierarchy["tls-ov"].subject}, "crl.issuer"),
    "another algorithm": (lambda _: {"algorithm": SIGNATURE_ALGORITHMS["ecdsa-p384-sha384"]}, "crl.malformed"),
    "another key": (lambda _: {"authority_key_id": b"\1" * 20}, "crl.issuer"),
    "the URL of another shard": (lambda _: {"idp_urls": (f"{CRL_BASE}/tls-dv/2.crl",)}, "crl.scope"),
    "no distribution point": (lambda _: {"idp_urls": (), "only": None}, "crl.scope"),
    "CA certificates only": (lambda _: {"only": "ca"}, "crl.scope"),
    "from the past": (lambda desk: {"this_update": desk.now - 301}, "crl.this_update"),
    "from the future": (lambda desk: {"this_update": desk.now + 301}, "crl.this_update"),
    "valid for too long": (lambda desk: {"next_update": desk.now + 10 * DAY}, "crl.validity"),
}


async def test_refuses_what_is_not_the_scopes_next(desk: Desk) -> None:
    """Each list breaks one thing, is refused with the code of that thing, and spends no number."""
    codes = {what: await code_of(sign(desk, await desk.crl(**change(desk)))) for what, (change, _) in WRONG.items()}
    assert codes == {what: code for what, (_, code) in WRONG.items()}
    assert await code_of(sign(desk, await desk.crl("tls-ov", "full"), "tls-dv", "full")) == "crl.malformed"
    assert await code_of(sign(desk, await desk.crl(scope="2"), scope="1")) == "crl.scope"
    assert await code_of(sign(desk, await desk.crl(idp_urls=(f"{CRL_BASE}/x",)), scope="full")) == "crl.scope"
    assert await desk.fetch("select from signing_log") == []
    assert await sign(desk, await desk.crl(this_update=desk.now - 300))


async def test_scopes_that_do_not_exist(desk: Desk) -> None:
    """Only the scopes of the issuer's own rows are signed for, by their exact names."""
    for scope in ("", "4", "01", "-1", "x", "9" * 40, "\u0661", "Full"):
        assert await code_of(sign(desk, await desk.crl(), scope=scope)) == "signer.scope_unknown"


def _with_entries(desk: Desk, entries: bytes) -> bytes:
    """A list whose revokedCertificates are these octets; all else is hardly looked at before."""
    time = der.utc_or_generalized_time(desk.now)
    issuer = desk.hierarchy["tls-dv"]
    algorithm = SIGNATURE_ALGORITHMS[issuer.signature_algorithm].identifier
    rest = der.tlv(0xA0, der.tlv(der.SEQUENCE))
    return der.tlv(
        der.SEQUENCE, der.integer(1), algorithm, issuer.subject, time, time, der.tlv(der.SEQUENCE, entries), rest
    )


@given(
    st.lists(
        st.tuples(
            st.integers(-(1 << 500), 1 << 500).map(der.integer_content),
            st.integers(0, 4_000_000_000),
            st.sampled_from(sorted(ALLOWED_REASONS)),
        ),
        min_size=1,
        max_size=20,
    ),
    st.data(),
)
def test_entries_are_matched_as_they_are_read(entries: list[tuple[bytes, int, int]], data: st.DataObject) -> None:
    """Whatever our writer writes is matched; of what is changed, nothing with another reason or extension (B8, B11)."""
    octets = b"".join(entry(*each) for each in entries)
    assert ENTRIES.fullmatch(octets)
    offset = data.draw(st.integers(0, len(octets) - 1))
    changed = octets[:offset] + bytes([data.draw(st.integers(0, 255))]) + octets[offset + 1 :]
    if ENTRIES.fullmatch(changed):
        for _, begin, _, end in der.children(changed, 0, len(changed)):
            tags = [tag for tag, *_ in der.children(changed, *der.read_tlv(changed, begin)[2:])]
            assert tags[0] == der.INTEGER
            assert tags[1] in (0x17, 0x18)
            assert tags[2:] in ([], [der.SEQUENCE])
            assert not tags[2:] or changed[end - 1] in ALLOWED_REASONS


async def test_malformed_lists(desk: Desk) -> None:
    """What is not strict DER of our profile is refused before it is looked at further."""
    tbs = await desk.crl(entries=[entry(b"\1", desk.now, 1)])
    start = der.read_tlv(tbs, 0)[2]
    critical, not_critical = bytes.fromhex("0603551d1c0101ff"), bytes.fromhex("0603551d1c010100")
    assert critical in tbs
    broken = {
        "empty": b"",
        "noise": b"\xff" * 100,
        "an octet too many": tbs + b"\0",
        "an octet too few": tbs[:-1],
        "version 1": der.tlv(der.SEQUENCE, tbs[start + 3 :]),
        "a certificate list": certificate_list(tbs, SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"], b"\1" * 64),
        "critical FALSE": tbs.replace(critical, not_critical),
        "an entry cut": tbs.replace(entry(b"\1", desk.now, 1), entry(b"\1", desk.now, 1)[:-1]),
        "certificateHold": tbs.replace(bytes.fromhex("551d1504030a0101"), bytes.fromhex("551d1504030a0106")),
        "another extension": tbs.replace(bytes.fromhex("551d15"), bytes.fromhex("551d18")),
        "no time": tbs.replace(b"Z\x30\x0c", b"z\x30\x0c"),
        "an empty list of entries": _with_entries(desk, b""),
        "entries that are none": _with_entries(desk, b"\x30\x00"),
    }
    assert len(set(broken.values())) == len(broken)
    assert tbs not in broken.values()
    codes = {what: await code_of(sign(desk, body)) for what, body in broken.items()}
    assert codes == dict.fromkeys(broken, "crl.malformed")
    assert await desk.fetch("select from signing_log") == []


async def test_a_root_may_last_half_a_year(desk: Desk) -> None:
    """A list of CA certificates lasts up to half a year (B2, G4), one of subscribers ten days."""
    await desk.fetch("update issuer set key_ref = 'memory:root' where name = 'root'")
    good = await desk.crl("root", "full", next_update=desk.now + CRL_VALIDITY_MAX_CAS - 1)
    assert await sign(desk, good, "root", "full")
    long = await desk.crl("root", "full", 2, next_update=desk.now + CRL_VALIDITY_MAX_CAS)
    assert await code_of(sign(desk, long, "root", "full")) == "crl.validity"
