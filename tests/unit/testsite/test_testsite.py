"""Test sites (F13): what they order, when they renew, and what a TLS client meets."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from issuer.revocation.find import Target
from issuer.revocation.revoke import Request, revoke
from issuer.signer.service import CaSigner
from issuer.testsite.server import Sites
from issuer.testsite.sites import TestCertificates
from quash.errors import Kind, QuashError
from quash.pki.reasons import Reason
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config, load
from quash.runtime.state import State
from quash.runtime.supervisor import listening_socket
from quash.store.roles import ADMIN, CA_SIGNER, ISSUING
from tests.support.issuing import World, add_hierarchy, key_ring, make_config

DAY = 86_400
NO_HANDSHAKE = (ConnectionError, ssl.SSLError)
SITE = {"root": "root", "profile": "tls-dv", "expired_profile": "day", "domain": "test.example.org"}


@pytest.fixture
def clock() -> FakeClock:
    """Ten days ago: TLS clients live now."""
    return FakeClock(int(time.time()) - 10 * DAY)


@pytest.fixture
async def world(database: Any, clock: FakeClock) -> AsyncIterator[World]:
    config = make_config(database.config)
    more = {
        "profiles": [*config.model_dump()["profiles"], {"name": "day", "issuer": "tls-dv", "kind": "dv", "days": 1}]
    }
    config = Config.model_validate(config.model_dump() | more | {"testsite": {"sites": [SITE]}})
    hierarchy = await add_hierarchy(database.owner, clock)
    async with database.owner.acquire() as conn:
        await conn.execute("update issuer set profiles = profiles || array['day'] where name = 'tls-dv'")
    keys = key_ring()
    signer = CaSigner(await database.pool(CA_SIGNER), keys, clock)
    yield World(config, clock, database.owner, await database.pool(ISSUING), hierarchy, signer)
    await keys.close()


class Desk:
    """An `Authority` in process: flow 1 and flow 2, each in its own role."""

    def __init__(self, world: World, admin: Any) -> None:
        self.world, self.admin = world, admin
        self.config = world.config
        self.orders: list[str] = []
        self.refusing: dict[str, QuashError] = {}
        self.waiting = False
        self.revoking = True

    async def order(self, profile: str, csr: str) -> str:
        if error := self.refusing.get(host_of(csr)):
            raise error
        order = await self.world.issuance(config=self.config).submit("operator:ann", profile, csr)
        self.orders.append(profile)
        return str(order.id)

    async def collect(self, order: str) -> str | None:
        if self.waiting:
            return None
        found = await self.world.issuance(config=self.config).finish(UUID(order), timeout=0)
        if found.state != "issued":
            return None
        (row,) = await self.world.fetch("select der from certificate where serial = $1", found.serial)
        chain = [row["der"], await self.world.certificate_of("tls-dv")]
        return "".join(x509.load_der_x509_certificate(each).public_bytes(Encoding.PEM).decode() for each in chain)

    async def revoke(self, certificate: str) -> None:
        if not self.revoking:
            raise QuashError("api.unavailable", "down", Kind.UNAVAILABLE)
        asked = Request(Target(None, None, certificate), Reason.cessationOfOperation, None)
        async with self.admin.acquire() as conn:
            await revoke(conn, self.world.clock, asked, actor="operator:ann", batch=10)


@pytest.fixture
async def desk(world: World, database: Any) -> Desk:
    return Desk(world, await database.pool(ADMIN))


def host_of(csr: str) -> str:
    names = x509.load_pem_x509_csr(csr.encode()).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return str(names.get_values_for_type(x509.DNSName)[0])


def kept(world: World, desk: Desk, tmp_path: Path) -> TestCertificates:
    return TestCertificates(world.config.testsite, State(tmp_path), desk, world.clock)


def leaf_of(certificates: TestCertificates, kind: str) -> x509.Certificate:
    (site,) = (each for each in certificates.sites if each.kind == kind)
    return x509.load_pem_x509_certificates(certificates.file(site).read_bytes())[0]


async def greet(port: int, host: str, trusted: bytes) -> str:
    """What a TLS client that checks everything gets."""
    context = ssl.create_default_context(cadata=trusted)  # type: ignore[arg-type]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
    writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    said = await reader.read()
    writer.close()
    return said.rpartition(b"\r\n\r\n")[2].decode()


async def test_each_site_shows_what_its_name_says(world: World, desk: Desk, clock: FakeClock, tmp_path: Path) -> None:
    """F13: the valid one verifies, the revoked one too but is revoked, the expired one fails for just that."""
    certificates, root = kept(world, desk, tmp_path), await world.certificate_of("root")
    assert await certificates.step() == 3
    assert desk.orders == ["tls-dv", "tls-dv", "day"]
    sites = Sites(certificates)
    listen = listening_socket("127.0.0.1", 0)
    port = listen.getsockname()[1]
    async with sites.serving(listen):
        sites.load()
        assert sites.hosts == ("valid.test.example.org", "revoked.test.example.org")  # not expired yet: not shown
        with pytest.raises(NO_HANDSHAKE):
            await greet(port, "expired.test.example.org", root)
        await clock.advance(2 * DAY)
        assert await certificates.step() == 0
        sites.load()
        assert await greet(port, "valid.test.example.org", root) == (
            "This site shows the valid test certificate of root.\n"
        )
        assert "revoked" in await greet(port, "revoked.test.example.org", root)
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
            await greet(port, "expired.test.example.org", root)
        for unknown in ("www.example.org", "test.example.org"):
            with pytest.raises(NO_HANDSHAKE):
                await greet(port, unknown, root)
    (row,) = await world.fetch("select serial, reason from revocation")
    assert int.from_bytes(row["serial"], "big") == leaf_of(certificates, "revoked").serial_number
    assert row["reason"] == Reason.cessationOfOperation
    assert all(certificates.file(each).stat().st_mode & 0o777 == 0o600 for each in certificates.sites)


async def test_sites_are_renewed_each_month_and_the_expired_one_stays(
    world: World, desk: Desk, clock: FakeClock, tmp_path: Path
) -> None:
    """F13: at most 30 days; the key is new each time, and the new revoked one is revoked before it is shown."""
    certificates = kept(world, desk, tmp_path)
    await certificates.step()
    before = {kind: leaf_of(certificates, kind) for kind in ("valid", "revoked", "expired")}
    await clock.advance(30 * DAY - 60)
    assert await certificates.step() == 0
    await clock.advance(60)
    desk.revoking = False
    assert await certificates.step() == 1
    assert list(certificates.problems) == ["revoked.test.example.org"]
    assert leaf_of(certificates, "valid") != before["valid"]
    assert leaf_of(certificates, "revoked") == before["revoked"]
    desk.revoking = True
    assert certificates.pause == 30
    await clock.advance(30)
    assert await certificates.step() == 1  # what was ordered before the fault, not another one
    assert desk.orders == ["tls-dv", "tls-dv", "day", "tls-dv", "tls-dv"]
    after = {kind: leaf_of(certificates, kind) for kind in before}
    assert after["expired"] == before["expired"]
    assert after["revoked"] != before["revoked"]
    assert after["valid"].public_key() != before["valid"].public_key()
    revoked = {int.from_bytes(row["serial"], "big") for row in await world.fetch("select serial from revocation")}
    assert revoked == {before["revoked"].serial_number, after["revoked"].serial_number}


async def test_a_site_that_is_refused_holds_up_no_other_and_asks_ever_more_seldom(
    world: World, desk: Desk, clock: FakeClock, tmp_path: Path
) -> None:
    """Five have their certificates; the sixth is looked at again after pauses that double, up to a day."""
    more = SITE | {"domain": "b.example.org"}
    config = Config.model_validate(world.config.model_dump() | {"testsite": {"sites": [SITE, more]}})
    certificates = TestCertificates(config.testsite, State(tmp_path), desk, clock)
    desk.refusing["valid.test.example.org"] = QuashError("name.reserved", "no", Kind.REFUSED)
    assert await certificates.step() == 5
    assert list(certificates.problems) == ["valid.test.example.org"]
    pauses = []
    for _ in range(15):
        began = clock.now()
        while not certificates.problems or clock.now() == began:
            await clock.advance(certificates.pause)
            assert await certificates.step() == 0
        pauses.append(clock.now() - began)
    assert pauses[:4] == [30, 60, 120, 240]
    assert pauses[-1] == DAY
    desk.refusing = {}
    await clock.advance(DAY)
    assert await certificates.step() == 1
    assert (certificates.pause, len(desk.orders)) == (3600, 6)


async def test_while_an_order_waits_there_is_no_other(
    world: World, desk: Desk, clock: FakeClock, tmp_path: Path
) -> None:
    """Held for an officer, or without answers: it is asked for again, also by another process, and then taken."""
    desk.waiting = True
    for _ in range(5):
        certificates = kept(world, desk, tmp_path)  # a process that starts anew
        assert await certificates.step() == 0
        assert (certificates.problems, certificates.pause) == ({}, 30)
        await clock.advance(30)
    assert desk.orders == ["tls-dv", "tls-dv", "day"]
    desk.waiting = False
    assert await certificates.step() == 3
    key, leaf = (certificates.file(certificates.sites[0]).read_bytes(), leaf_of(certificates, "valid"))
    assert load_pem_private_key(key, None).public_key() == leaf.public_key()
    assert len(list((tmp_path / "testsite").iterdir())) == 3


async def test_an_order_that_an_officer_refuses_is_given_up(
    world: World, desk: Desk, clock: FakeClock, tmp_path: Path
) -> None:
    """The next one is another order, after the pause."""
    certificates = kept(world, desk, tmp_path)
    desk.collect = refuse  # type: ignore[method-assign]
    assert await certificates.step() == 0
    assert len(certificates.problems) == len(desk.orders) == 3
    del desk.collect  # type: ignore[attr-defined]
    assert await certificates.step() == 0
    assert len(desk.orders) == 3
    await clock.advance(30)
    assert await certificates.step() == 3
    assert len(desk.orders) == 6


async def refuse(_order: str) -> str | None:
    raise QuashError("order.refused", "by an officer", Kind.REFUSED)


async def test_a_damaged_file_is_replaced(world: World, desk: Desk, clock: FakeClock, tmp_path: Path) -> None:
    """It costs its site an order, and no other site anything."""
    certificates = kept(world, desk, tmp_path)
    await certificates.step()
    certificates.file(certificates.sites[0]).write_bytes(b"-----BEGIN")
    assert not certificates.shown(certificates.sites[0])
    assert await certificates.step() == 1
    assert certificates.shown(certificates.sites[0])


def test_shipped_hierarchies_have_their_sites() -> None:
    """F13: of each root above a CA that issues for TLS; an organization's profile is asked for one."""
    folder = Path(__file__).parents[3] / "config"
    for name, roots in (("trustcor", {"ca1", "ca2"}), ("tuntrust", {"root"}), ("demo", {"root"})):
        config = load(folder / f"{name}.toml")
        assert {each.root for each in config.testsite.sites} == roots
        for site in config.testsite.sites:
            profile = next(each for each in config.profiles if each.name == site.profile)
            assert bool(site.subject) is (profile.kind == "ov")


def test_a_site_is_of_a_ca_below_its_root() -> None:
    """A profile of another root, or none, is refused at load."""
    config = make_config(Config()).model_dump()
    for wrong in ({"profile": "nope"}, {"root": "tls-ov"}, {"expired_profile": "nope"}):
        site = {**SITE, "expired_profile": "tls-dv", **wrong}
        with pytest.raises(ValueError, match="F13"):
            Config.model_validate(config | {"testsite": {"sites": [site]}})
