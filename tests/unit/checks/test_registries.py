"""Which names exist: what ships, refreshed files, their age, and the explicit command that fetches them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

import pytest
from aiohttp import web

from issuer.checks.doctor import examine
from issuer.checks.names import check_mailbox, check_name, shipped
from issuer.checks.refresh import refresh
from issuer.checks.registries import ROOT_ZONE, SUFFIXES, Registries, read_list
from quash.errors import QuashError
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config, Names
from quash.runtime.state import State

DAY = 86_400
PSL = files("publicsuffixlist").joinpath(SUFFIXES).read_text(encoding="utf-8")
TLDS = ["COM", "ORG", "TN", "XN--P1AI", *(f"TLD{n}" for n in range(1200))]


def zone(day: int = 20, tlds: list[str] | None = None) -> str:
    """The root zone as IANA publishes it, of a day in November 2026."""
    lines = TLDS if tlds is None else tlds
    return f"# Version 2026{11}{day}00, Last Updated Fri Nov {day} 07:07:01 2026 UTC\n" + "".join(
        f"{x}\n" for x in lines
    )


NAMES = {
    "www.example.org": None,
    "example.tn": None,
    "a.xn--p1ai": None,  # by the registries; that it is not ASCII for people is another rule's (G29)
    "co.uk": "name.public_suffix",
    "com": "name.public_suffix",
    "www.corp": "name.no_public_suffix",
    "www.lan": "name.no_public_suffix",
    "www.example": "name.special_use",
    "a.b.test": "name.special_use",
    "printer.local": "name.special_use",
    "a.localhost": "name.special_use",
    "abc.onion": "name.special_use",
    "db.internal": "name.special_use",
    "router.home.arpa": "name.special_use",
    "a.invalid": "name.special_use",
    "a.alt": "name.special_use",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_nobody_holds_are_refused(name: str) -> None:
    """D11, D12, G28: internal names, special-use names, and registries' own suffixes."""
    if (code := NAMES[name]) is None:
        shipped().check(name)
        return
    with pytest.raises(QuashError) as error:
        shipped().check(name)
    assert error.value.code == code


FORMS = {
    "www.example.org.": "name.trailing_dot",
    "xn--caf-dma.example.org": "name.reserved_label",
    "ab--cd.example.org": "name.reserved_label",
    "a_b.example.org": "name.underscore",
    "*.example.org": "name.wildcard",
    "192.0.2.1": "name.ip_address",
    "2001:db8::1": "name.ip_address",
    "1.2.0.192.in-addr.arpa": "name.reverse_zone",
    "café.example.org": "name.not_ascii",
}


@pytest.mark.parametrize("name", FORMS)
def test_form_comes_before_place(name: str) -> None:
    """D11, G27-G29: P-labels too, for names are ASCII as people write them."""
    with pytest.raises(QuashError) as error:
        check_name(name)
    assert error.value.code == FORMS[name]


MAILBOXES = {
    "a@example": "name.single_label",
    "a@b@example.org": "email.malformed",
    "@example.org": "email.malformed",
    "example.org": "email.malformed",
    '"a b"@example.org': "email.malformed",
    ".a@example.org": "email.malformed",
    "a..b@example.org": "email.malformed",
    "é@example.org": "email.not_ascii",
    "a@exámple.org": "email.not_ascii",
    f"{'a' * 65}@example.org": "email.too_long",
    "a@co.uk": "name.public_suffix",
    "a@[192.0.2.1]": "name.ip_address",
    "a@host.local": "name.special_use",
}


@pytest.mark.parametrize("address", MAILBOXES)
def test_mailboxes_that_are_none(address: str) -> None:
    """D49: a dotted ASCII local part at a host that exists."""
    with pytest.raises(QuashError) as error:
        check_mailbox(address)
    assert error.value.code == MAILBOXES[address]


def test_a_mailbox_keeps_its_local_part() -> None:
    """Only the host is without case."""
    assert check_mailbox("Amel.BenSalah+x@Mail.Example.ORG") == "Amel.BenSalah+x@mail.example.org"


def test_a_refreshed_root_zone_goes_before_what_ships(tmp_path: Path) -> None:
    """A top-level domain that left the root zone is refused at once, by a process that runs; a bad file is an error."""
    registries = Registries(tmp_path)
    registries.check("www.example.org")
    path = tmp_path / ROOT_ZONE
    path.write_text(zone(tlds=[each for each in TLDS if each != "ORG"]))
    with pytest.raises(QuashError, match=r"name\.unknown_tld"):
        registries.check("www.example.org")
    registries.check("www.example.tn")
    path.write_text(zone())
    os.utime(path, ns=(1, 1))
    registries.check("www.example.org")
    assert registries.published[ROOT_ZONE] == 1_795_158_421


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (SUFFIXES, ""),
        (SUFFIXES, PSL.replace("// VERSION:", "// version")),
        (SUFFIXES, PSL[: len(PSL) // 4]),
        (SUFFIXES, PSL.replace("===END ICANN", "===end")),
        (ROOT_ZONE, "<html>not found</html>\n"),
        (ROOT_ZONE, zone(tlds=TLDS[:10])),
        (ROOT_ZONE, zone()[:-1]),
    ],
)
def test_half_a_list_is_none(name: str, text: str) -> None:
    """No list is taken in part."""
    with pytest.raises(QuashError, match=r"names\.malformed"):
        read_list(name, text)


async def test_old_lists_are_an_alarm(tmp_path: Path) -> None:
    """G48: past `names.max_age_days` the check fails, and `quash doctor` says bad, except in a demonstration."""
    registries = Registries()
    published = registries.published[SUFFIXES]
    registries.check_age(30 * DAY, published + 30 * DAY)
    with pytest.raises(QuashError, match=r"names\.outdated.*quash names refresh"):
        registries.check_age(30 * DAY, published + 30 * DAY + 1)
    old = FakeClock(published + 91 * DAY)
    for config, state in (
        (Config(), "bad"),
        (Config.model_validate({"issuance": {"require_validation": False}}), "absent"),
    ):
        found = [each.state async for each in examine(config, State(tmp_path), old) if each.what == "names"]
        assert found == [state]


@asynccontextmanager
async def publisher(bodies: Mapping[str, str]) -> AsyncIterator[Names]:
    """Both publishers on one local server."""

    async def answer(request: web.BaseRequest) -> web.Response:
        body = bodies.get(request.path[1:])
        return web.Response(text=body) if body is not None else web.Response(status=404)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield Names(public_suffixes_url=f"http://{host}:{port}/psl", root_zone_url=f"http://{host}:{port}/tlds")
    finally:
        await runner.cleanup()


async def test_the_command_fetches_both(tmp_path: Path) -> None:
    """Fetched, read, put in place whole; an older, a broken or a missing list leaves what is there."""
    folder = tmp_path / "names"
    bodies = {"psl": PSL, "tlds": zone(20)}
    async with publisher(bodies) as config:
        assert await refresh(config, folder) == {SUFFIXES: shipped().published[SUFFIXES], ROOT_ZONE: 1_795_158_421}
        kept = {path.name: path.read_text() for path in folder.iterdir()}
        assert kept == {SUFFIXES: PSL, ROOT_ZONE: zone(20)}
        for body, code in ((zone(19), "names.older"), (zone(20)[:-9], "names.malformed"), (None, "names.unreachable")):
            bodies.pop("tlds", None)
            if body is not None:
                bodies["tlds"] = body
            with pytest.raises(QuashError, match=code):
                await refresh(config, folder)
            assert {path.name: path.read_text() for path in folder.iterdir()} == kept
        bodies["tlds"] = zone(21)
        await refresh(config, folder)
    with pytest.raises(QuashError, match=r"names\.unreachable"):
        await refresh(config, folder)
    Registries(folder).check("www.example.org")
