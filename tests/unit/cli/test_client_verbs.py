"""`issue`, `revoke`, `status` and `crl` as commands, against the real admin API over mutual TLS: JSON, text, exits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding

from issuer.api import answer, application, listening, read, require
from issuer.issuance.api import OrderRequest
from issuer.revocation.api import AdminApi
from issuer.revocation.visible import Watches
from quash.errors import Kind, QuashError
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial
from quash.runtime.clock import FakeClock, SystemClock
from quash.runtime.config import Config
from quash.store import crl_demands, crls
from quash.store.database import acquire
from quash.store.revocations import Revocation
from quash.store.roles import ADMIN
from tests.support.command_line import CommandLine, Said
from tests.support.edge import Edge, TestCa
from tests.support.public import Public
from tests.support.revoking import Key, World, key_hash, make_world

KEY_COMPROMISE = int(Reason.keyCompromise)


@dataclass
class Deployment:
    """The admin API, a made-up issuing API and a made-up public side, with a state folder for the command line."""

    world: World
    edge: Edge
    public: Public
    config: Path
    orders: list[dict[str, Any]]
    command_line: CommandLine

    async def quash(self, *arguments: str, patch: Mapping[str, object] | None = None) -> Said:
        """Runs one command against this deployment."""
        options = ("--config", str(self.config), "--state", str(self.edge.state))
        return await self.command_line.run(*arguments, *options, patch=patch)


def orders_api(world: World, orders: list[dict[str, Any]]) -> web.Application:
    """Answers as the issuing API does: refuses one profile, keeps another waiting, issues the rest."""
    app = application(world.pool, SystemClock())

    def order(state: str, released: bool) -> dict[str, Any]:
        pems = {"certificate": "LEAF\n" if released else None, "chain": "CA\n" if released else None}
        times = {"not_after": "2027-06-01T00:00:00Z", "code": None, "detail": None}
        return {"id": "1", "state": state, "profile": "tls-dv", "issuer": "alpha", "serial": "1f", **pems, **times}

    async def post(request: web.Request) -> web.Response:
        require(request, "operator", "officer")
        body = await read(request, OrderRequest)
        orders.append(body.model_dump())
        if body.profile == "refused":
            raise QuashError("key.blocked", "this key is blocked: make a new one", Kind.REFUSED)
        if body.profile == "crash":
            assert request.transport is not None
            request.transport.abort()
        if body.profile == "slow":
            return answer(order("ready", released=False), 202)
        return answer(order("issued", released=True), 201)

    async def get(request: web.Request) -> web.Response:
        require(request, "operator")
        return answer(order("issued", released=True))

    app.add_routes([web.post("/v1/orders", post), web.get("/v1/orders/{id}", get)])
    return app


@pytest.fixture
async def world(database: Any) -> World:
    """Issuers alpha, beta and top, on the real time of day."""
    return await make_world(database, FakeClock(time.time()), ADMIN)


@pytest.fixture
async def deployment(world: World, database: Any, tmp_path: Path) -> AsyncIterator[Deployment]:
    edge = await Edge(tmp_path / "state", world.owner).set_up()
    certs = edge.state / "certs"
    certs.mkdir()
    for authority in world.authorities.values():
        (certs / f"{authority.name}.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    orders: list[dict[str, Any]] = []
    async with AsyncExitStack() as stack:
        public = await stack.enter_async_context(Public(world).serving())
        urls = {"responder": {"base_url": public.ocsp_url}, "crl_origin": {"base_url": public.crl_url}}
        config = Config.model_validate({**database.config.model_dump(), **urls})
        watches = await stack.enter_async_context(Watches(world.pool, config, SystemClock()))
        admin = application(world.pool, SystemClock())
        AdminApi(world.pool, config, SystemClock(), watches).add_routes(admin)
        admin_port = await stack.enter_async_context(listening(admin, edge.tls, "127.0.0.1", 0))
        orders_port = await stack.enter_async_context(listening(orders_api(world, orders), edge.tls, "127.0.0.1", 0))
        path = tmp_path / "quash.toml"
        path.write_text(
            f"[admin]\nport = {admin_port}\n[issuer]\nport = {orders_port}\n"
            f'[crl_origin]\nbase_url = "{public.crl_url}"\n[responder]\nbase_url = "{public.ocsp_url}"\n'
            "[issuance]\nvisible_timeout = 5\n"
        )
        command_line = await stack.enter_async_context(CommandLine())
        yield Deployment(world, edge, public, path, orders, command_line)


async def test_revoke_prints_the_contract(deployment: Deployment) -> None:
    """JSON with exactly the fields of the contract; dry run, first time, again; and the same as text."""
    world, spki = deployment.world, key_hash()
    key, sibling = await world.certificate(spki=spki), await world.certificate("beta", spki=spki)
    serial = format_serial(key[1])
    colons = ":".join(serial.zfill(32).upper()[n : n + 2] for n in range(0, 32, 2))
    arguments = ("revoke", colons, "--issuer", "alpha", "--reason", "keyCompromise")
    expected = {
        "serial": serial,
        "issuer": "alpha",
        "reason": "keyCompromise",
        "changed": True,
        "siblings": [{"issuer": "beta", "serial": format_serial(sibling[1])}],
    }
    dry = await deployment.quash(*arguments, "--json", "--dry-run", "--wait")
    assert (dry.status, dry.json, dry.err) == (0, expected, "")
    assert (await world.counts())["revocation"] == 0
    done = await deployment.quash(*arguments, "--json")
    assert (done.status, done.json) == (0, expected)
    again = await deployment.quash(*arguments, "--json")
    assert (again.status, again.json) == (0, {**expected, "changed": False})
    text = await deployment.quash(*arguments)
    assert text.out.splitlines() == [
        f"already revoked: alpha {serial} (keyCompromise)",
        f"  same key: beta {format_serial(sibling[1])}",
    ]
    assert (await world.counts())["revocation"] == 2


async def test_revoke_by_certificate_file(deployment: Deployment) -> None:
    """`--cert` takes PEM with a chain behind it, or DER; without a reason it is unspecified."""
    world = deployment.world
    first, second = await world.leaf("beta"), await world.leaf("alpha")
    pem = deployment.edge.state / "leaf.pem"
    chain = world.authorities["beta"].certificate
    pem.write_bytes(first.public_bytes(Encoding.PEM) + chain.public_bytes(Encoding.PEM))
    der = deployment.edge.state / "leaf.der"
    der.write_bytes(second.public_bytes(Encoding.DER))
    for path, issuer in ((pem, "beta"), (der, "alpha")):
        said = await deployment.quash("revoke", "--cert", str(path), "--json")
        assert (said.status, said.json["issuer"], said.json["reason"]) == (0, issuer, "unspecified")
    status = await deployment.quash("status", "--cert", str(pem), "--json")
    assert (status.json["status"], status.json["reason"]) == ("revoked", "unspecified")


async def test_failures_have_codes_and_exit_statuses(deployment: Deployment) -> None:
    """2: bad input; 3: refused by a rule or a role; each with one line on stderr and nothing on stdout or changed."""
    world = deployment.world
    key, expired = await world.certificate(), await world.certificate(not_after=world.now - 1)
    done = await world.certificate()
    await world.revoke(done, Reason.superseded)
    await world.certificate("beta", serial=key[1])
    deployment.edge.make_client("foreign", TestCa("operators"))
    deployment.edge.make_client("stranger")
    serial, before = format_serial(key[1]), await world.counts()
    garbage = deployment.edge.state / "garbage.pem"
    garbage.write_text("nothing")
    named = (serial, "--issuer", "alpha")
    cases: list[tuple[tuple[str, ...], int, str]] = [
        ((serial,), 2, "certificate.ambiguous"),
        (("77",), 2, "certificate.unknown"),
        ((serial, "--issuer", "gamma"), 2, "issuer.unknown"),
        (("xyz",), 2, "serial.malformed"),
        ((), 2, "certificate.unnamed"),
        ((*named, "--cert", str(garbage)), 2, "certificate.unnamed"),
        (("--cert", str(garbage)), 2, "certificate.malformed"),
        (("--cert", "/nowhere.pem"), 2, "file.unreadable"),
        ((*named, "--reason", "because"), 2, "revocation.reason_unknown"),
        ((*named, "--reason", "certificateHold"), 3, "revocation.reason_not_allowed"),
        ((format_serial(expired[1]),), 3, "certificate.expired"),
        ((format_serial(done[1]),), 3, "revocation.not_upgradable"),
        ((*named, "--as", "viewer"), 3, "operator.role"),
        ((*named, "--as", "stranger"), 3, "operator.unknown"),
        ((*named, "--as", "foreign"), 3, "api.refused_client"),
        ((*named, "--as", "nobody"), 2, "operator.no_files"),
        ((*named, "--set", "admin.port=1"), 4, "api.unavailable"),
        ((*named, "--set", "admin.prt=1"), 2, "config.invalid"),
    ]
    results = [await deployment.quash("revoke", *arguments, "--json") for arguments, _, _ in cases]
    assert [(said.status, said.code) for said in results] == [(status, code) for _, status, code in cases]
    assert {said.out for said in results} == {""}
    ambiguous = results[0].err
    assert f"alpha {serial}" in ambiguous
    assert f"beta {serial}" in ambiguous
    usage = await deployment.quash("revoke", "--no-such-option")
    assert (usage.status, usage.out) == (2, "")
    assert await world.counts() == before


async def test_server_of_another_ca_is_not_trusted(deployment: Deployment) -> None:
    """The client trusts the operators' CA alone."""
    ca = deployment.edge.operators / "ca.pem"
    ca.write_bytes(TestCa("operators").certificate.public_bytes(Encoding.PEM))
    said = await deployment.quash("status", "77")
    assert (said.status, said.code) == (3, "api.not_trusted")


async def revoked(world: World, key: Key) -> list[Revocation]:
    """Waits for the certificate's revocation."""
    async with asyncio.timeout(20):
        while not (history := await world.history(key)):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
    return history


async def test_wait_reports_both_times(deployment: Deployment) -> None:
    """`--wait` returns once OCSP and CRL show the last sibling, with the milliseconds of each."""
    world, public, spki = deployment.world, deployment.public, key_hash()
    key, sibling = await world.certificate(spki=spki), await world.certificate("beta", spki=spki)
    command = asyncio.create_task(
        deployment.quash(
            "revoke",
            format_serial(key[1]),
            "--reason",
            "keyCompromise",
            "--wait",
            "--json",
            "--set",
            "admin.host=127.0.0.1",
        )
    )
    says = (KEY_COMPROMISE, (await revoked(world, sibling))[0].revoked_at)
    await asyncio.sleep(0.3)
    assert not command.done()
    for each in (key, sibling):
        public.revoke(each, *says)
    await asyncio.sleep(0.3)
    await public.publish("alpha", 1, [(key[1], says)])
    await public.publish("beta", 1, [(sibling[1], says)])
    said = await command
    assert said.status == 0
    assert 300 <= said.json["ocsp_visible_ms"] < said.json["crl_published_ms"] < 20_000
    assert set(said.json) == {
        "serial",
        "issuer",
        "reason",
        "changed",
        "siblings",
        "ocsp_visible_ms",
        "crl_published_ms",
    }


async def test_wait_for_what_was_revoked_as_a_sibling(deployment: Deployment) -> None:
    """The same again, with --wait, of a certificate that another one's revocation took along: exit 0, not changed."""
    world, public, spki = deployment.world, deployment.public, key_hash()
    key, sibling = await world.certificate(spki=spki), await world.certificate("beta", spki=spki)
    arguments = ("--reason", "keyCompromise", "--json")
    first = await deployment.quash("revoke", format_serial(key[1]), *arguments)
    says = (KEY_COMPROMISE, (await revoked(world, sibling))[0].revoked_at)
    for each in (key, sibling):
        public.revoke(each, *says)
    await public.publish("alpha", 1, [(key[1], says)])
    await public.publish("beta", 1, [(sibling[1], says)])
    for serial in (sibling[1], key[1]):
        said = await deployment.quash("revoke", format_serial(serial), *arguments, "--wait")
        assert (first.status, said.status, said.err, said.json["changed"]) == (0, 0, "", False)
        assert said.json["ocsp_visible_ms"] is not None
        assert said.json["crl_published_ms"] is not None


async def test_wait_that_times_out(deployment: Deployment) -> None:
    """Exit 4 and "revoked, not yet visible", with what is known so far: the revocation stands all the same."""
    world, public = deployment.world, deployment.public
    key = await world.certificate()
    impatient = {"quash.cli.revoke:WAIT_SECONDS": 2.0}
    arguments = ("revoke", format_serial(key[1]), "--wait", "--json")
    command = asyncio.create_task(deployment.quash(*arguments, patch=impatient))
    (revocation,) = await revoked(world, key)
    public.revoke(key, 0, revocation.revoked_at)
    said = await command
    assert (said.status, said.code) == (4, "revocation.not_visible")
    assert "revoked, not yet visible" in said.err
    assert said.json["ocsp_visible_ms"] >= 0
    assert said.json["crl_published_ms"] is None
    assert len(await world.history(key)) == 1


async def test_status(deployment: Deployment) -> None:
    """JSON with exactly the fields of the contract, for any way of writing a serial; and text."""
    world = deployment.world
    key = await world.certificate()
    serial = format_serial(key[1])
    good = {
        "serial": serial,
        "issuer": "alpha",
        "status": "good",
        "reason": None,
        "revoked_at": None,
        "crl_url": "http://crl.example/alpha.crl",
    }
    for written in (serial, f"0X{serial.upper()}", f"000{serial}"):
        said = await deployment.quash("status", written, "--json", "--as", "viewer")
        assert (said.status, said.json) == (0, good)
    await world.revoke(key, Reason.privilegeWithdrawn)
    text = await deployment.quash("status", serial)
    assert text.out.startswith(f"alpha {serial}: revoked, privilegeWithdrawn since 20")
    unknown = await deployment.quash("status", "77", "--json")
    assert (unknown.status, unknown.json["status"], unknown.json["issuer"]) == (0, "unknown", None)
    await world.certificate("beta", serial=key[1])
    ambiguous = await deployment.quash("status", serial, "--json")
    assert (ambiguous.status, ambiguous.code) == (2, "certificate.ambiguous")


async def test_issue(deployment: Deployment, tmp_path: Path) -> None:
    """PEM to stdout or a file, JSON with the fields of the contract; a late answer is waited for."""
    csr, out = tmp_path / "a.csr", tmp_path / "leaf.pem"
    csr.write_text("-----BEGIN CERTIFICATE REQUEST-----\n")
    arguments = ("issue", "--csr", str(csr), "--profile")
    printed = await deployment.quash(*arguments, "tls-dv")
    assert (printed.status, printed.out) == (0, "LEAF\nCA\n")
    filed = await deployment.quash(*arguments, "slow", "--out", str(out), "--json")
    assert filed.json == {
        "serial": "1f",
        "issuer": "alpha",
        "profile": "tls-dv",
        "not_after": "2027-06-01T00:00:00Z",
        "certificate": "LEAF\n",
        "chain": "CA\n",
    }
    assert out.read_text() == "LEAF\nCA\n"
    csr.write_bytes(b"\x30\x82\xff")
    assert (await deployment.quash(*arguments, "tls-dv")).status == 0
    assert [order["csr"] for order in deployment.orders][1:] == ["-----BEGIN CERTIFICATE REQUEST-----\n", "MIL/"]


async def test_issue_failures(deployment: Deployment, tmp_path: Path) -> None:
    """A refusal exits with 3 and its code, a file that is not there with 2, an API that is away with 4."""
    csr = tmp_path / "a.csr"
    csr.write_text("x")
    arguments = ("issue", "--profile", "refused", "--csr")
    refused = await deployment.quash(*arguments, str(csr))
    assert (refused.status, refused.code, refused.out) == (3, "key.blocked", "")
    missing = await deployment.quash(*arguments, "/nowhere.csr")
    assert (missing.status, missing.code) == (2, "file.unreadable")
    away = await deployment.quash(*arguments, str(csr), "--set", "issuer.port=1")
    assert (away.status, away.code) == (4, "api.unavailable")
    role = await deployment.quash(*arguments, str(csr), "--as", "auditor")
    assert (role.status, role.code) == (3, "operator.role")
    crash = await deployment.quash("issue", "--profile", "crash", "--csr", str(csr))
    assert (crash.status, crash.code) == (4, "api.unavailable")
    assert [order["profile"] for order in deployment.orders] == ["refused", "crash"], "no order is sent twice"


async def test_crl_list_and_build(deployment: Deployment) -> None:
    """One object per scope with exactly the fields of the contract; `build --now` leaves a durable demand."""
    world, public = deployment.world, deployment.public
    key = await world.certificate()
    await public.publish("alpha", 7, [(key[1], (0, world.now))])
    listed = await deployment.quash("crl", "list", "--json")
    assert [line["issuer"] for line in listed.lines] == ["top", "alpha", "beta"]
    alpha = listed.lines[1]
    size = len(public.files["/alpha.crl"])
    assert (alpha["number"], alpha["entries"], alpha["bytes"]) == (7, 1, size)
    fields = ["issuer", "scope", "url", "number", "entries", "this_update", "next_update", "bytes"]
    assert list(alpha) == [*fields, "forecast_bytes", "warnings"]
    text = await deployment.quash("crl", "list")
    assert text.out.splitlines()[2] == "beta full: none yet  http://crl.example/beta.crl"
    built = await deployment.quash("crl", "build", "--now", "--issuer", "alpha", "--json")
    assert (built.status, built.lines) == (0, [{"issuer": "alpha", "scope": "full"}])
    assert await world.owner.fetchval("select count(*) from crl_demand") == 1
    not_now = await deployment.quash("crl", "build")
    assert (not_now.status, not_now.code) == (2, "crl.not_now")


QUICK: Mapping[str, object] = {
    f"quash.cli.crl:{name}": value for name, value in (("_PAUSE", 0), ("_TRIES", 1), ("_SETTLED", -1))
}


async def test_crl_verify(deployment: Deployment) -> None:
    """`verify` accepts what is as the API says, and names what is not: bytes, signature, number, nothing published."""
    world, public = deployment.world, deployment.public
    key = await world.certificate()
    await world.revoke(key, Reason.keyCompromise)
    public.revoke(key, KEY_COMPROMISE, world.now)
    entries = [(key[1], (KEY_COMPROMISE, world.now))]
    await public.publish("alpha", 7, entries)
    arguments = ("crl", "verify", "--json", "--issuer")
    fine = await deployment.quash(*arguments, "alpha", patch=QUICK)
    assert fine.status == 0, fine.lines
    assert [line["ok"] for line in fine.lines] == [True, True]
    assert (fine.lines[1]["revoked"], fine.lines[1]["asked"]) == (1, 1)
    forged = public.crl("alpha", 7, entries)[:-1] + b"\x00"
    wrongs = {
        "number is 8": public.crl("alpha", 8, entries),
        "entries is 0": public.crl("alpha", 7, []),
        "crl.other_issuer": public.crl("beta", 7, entries),
        "signature.invalid": forged,
        "crl.malformed": b"\x30\x03",
    }
    for problem, body in wrongs.items():
        public.files["/alpha.crl"] = body
        said = await deployment.quash(*arguments, "alpha", patch=QUICK)
        assert (said.status, said.code) == (3, "crl.verify_failed")
        assert problem in said.lines[0]["problem"]
    del public.files["/alpha.crl"]
    gone = await deployment.quash(*arguments, "alpha", patch=QUICK)
    assert "crl.not_served" in gone.lines[0]["problem"]
    nothing = await deployment.quash(*arguments, "beta", patch=QUICK)
    assert (nothing.status, nothing.lines[0]["problem"]) == (3, "nothing is published yet")


async def test_crl_verify_says_when_a_sound_crl_has_no_successor(deployment: Deployment) -> None:
    """What is out is as it should be, but a newer one was demanded and does not come: the builder is asked for it."""
    world, public = deployment.world, deployment.public
    await public.publish("alpha", 7, [])
    arguments = ("crl", "verify", "--json", "--issuer", "alpha")
    async with acquire(world.pool) as conn, conn.transaction():
        scope = await crls.find_scope(conn, world.authorities["alpha"].id, None)
        assert scope is not None
        await crl_demands.add(conn, [scope], actor="operator:x", at=int(time.time()) - 3600)
    late = await deployment.quash(*arguments, patch={**QUICK, "quash.cli.crl:_SETTLED": 60})
    assert (late.status, late.code) == (3, "crl.verify_failed")
    assert "a newer one has been due for 1:" in late.lines[0]["problem"]
    coming = await deployment.quash(*arguments, patch={**QUICK, "quash.cli.crl:_SETTLED": 7200})
    assert coming.status == 0, "it is being made"
    await public.publish("alpha", 8, [])
    assert (await deployment.quash(*arguments, patch=QUICK)).status == 0


@pytest.mark.parametrize(
    ("scheduled", "dirty_since", "offline", "since"),
    [
        (None, None, False, None),
        (100, None, False, None),
        (99, None, False, 199),
        (99, None, True, None),
        (99, 150, False, 150),
        (150, 180, True, 180),
        (99, 199, False, 199),
    ],
)
def test_a_crl_is_due_by_schedule_or_by_what_it_lacks(
    scheduled: int | None, dirty_since: int | None, offline: bool, since: int | None
) -> None:
    """The longer waiting of both; no schedule binds an issuer whose key is offline."""
    scope = crls.Scope(1, "alpha", "full", None, "http://crl.example/alpha.crl", (), "alpha.crl", False)
    regular = None if scheduled is None else crls.Crl(1, scheduled, 900, 0, 1, b"", "1:1:", True, scheduled)
    state = crls.ScopeState(scope, regular, regular, regular, dirty_since, offline=offline)
    assert state.due_since(199.5, 100) == since


async def test_crl_verify_finds_what_the_crl_lacks_and_what_it_has_too_much(deployment: Deployment) -> None:
    """A revocation that no CRL shows, an entry of a good and one of an unknown serial, and an OCSP answer that lags.

    The CRL is in itself as recorded: sound, current, of the right number.
    """
    world, public = deployment.world, deployment.public
    lacking, good, lags = [await world.certificate() for _ in range(3)]
    unknown = b"\x7e" * 16
    for key in (lacking, lags):
        await world.revoke(key, Reason.superseded)
    superseded = (int(Reason.superseded), world.now)
    public.revoke(lacking, *superseded)
    await public.publish("alpha", 7, [(serial, superseded) for serial in (good[1], lags[1], unknown)])
    said = await deployment.quash("crl", "verify", "--whole", "--json", "--issuer", "alpha", patch=QUICK)
    assert (said.status, said.code) == (3, "crl.verify_failed")
    scope, certificates = said.lines
    assert scope["problem"].startswith("3 disagree")
    for serial, words in (
        (lacking[1], "it is not on the CRL alpha.crl"),
        (good[1], "the database says good"),
        (unknown, "the database does not know it"),
    ):
        assert words in next(part for part in scope["problem"].split("; ") if format_serial(serial) in part)
    assert certificates["problem"].startswith("2 disagree"), "each CertID hash"
    assert format_serial(lags[1]) in certificates["problem"]
    assert (certificates["revoked"], certificates["asked"]) == (2, 3)


async def test_crl_verify_waits_for_what_is_just_being_published(deployment: Deployment) -> None:
    """A revocation of this second may still be on its way: it is looked at again before anything is said."""
    world, public = deployment.world, deployment.public
    key = await world.certificate()
    await public.publish("alpha", 7, [])
    await world.revoke(key, Reason.superseded)

    async def publish() -> None:
        await asyncio.sleep(1.5)
        public.revoke(key, int(Reason.superseded), world.now)
        await public.publish("alpha", 8, [(key[1], (int(Reason.superseded), world.now))])

    publishing = asyncio.create_task(publish())
    said = await deployment.quash("crl", "verify", "--json", "--issuer", "alpha", patch={"quash.cli.crl:_PAUSE": 0.2})
    await publishing
    assert said.status == 0, said.lines


async def test_crl_disclosed(deployment: Deployment, tmp_path: Path) -> None:
    """What was entered in CCADB is remembered, as served or as a file says; new and gone URLs are printed (B23)."""
    url = "http://crl.example/alpha.crl"
    deployment.public.files["/.well-known/ccadb/alpha.json"] = f'["{url}"]'.encode()
    arguments = ("crl", "disclosed", "--issuer", "alpha")
    first = await deployment.quash(*arguments, "--json")
    assert (first.status, first.json) == (0, {"added": [url], "removed": []})
    (tmp_path / "none.json").write_text('[""]')
    text = await deployment.quash(*arguments, "--urls", str(tmp_path / "none.json"))
    assert text.out == f"removed {url}\n"
    (tmp_path / "bad.json").write_text("no")
    bad = await deployment.quash(*arguments, "--urls", str(tmp_path / "bad.json"))
    assert (bad.status, bad.code) == (2, "disclosure.malformed")
    early = await deployment.quash("crl", "disclosed", "--issuer", "beta")
    assert (early.status, early.code) == (2, "crl.not_served")
    assert "within 10 minutes" in early.err
    acts = await deployment.world.owner.fetch("select subject from act where action = 'crl.disclosed' order by id")
    assert [act["subject"]["urls"] for act in acts] == [[url], []]
