"""The admin API over real mutual TLS: who may ask, what is refused with which code, and what is answered."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from issuer.api import MAX_BODY, application, listening
from issuer.revocation.api import AdminApi
from issuer.revocation.visible import Watches
from quash.pki.serials import format_serial
from quash.runtime.clock import FakeClock
from quash.store import operators
from quash.store.database import acquire
from tests.support.edge import Client, Edge, TestCa
from tests.support.revoking import DAY, World, key_hash


@pytest.fixture
async def api(world: World, database: Any, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Client]:
    """The admin API on a port of its own."""
    edge = await Edge(tmp_path, world.owner).set_up()
    async with Watches(world.pool, database.config, clock) as watches:
        app = application(world.pool, clock)
        AdminApi(world.pool, database.config, clock, watches).add_routes(app)
        async with listening(app, edge.tls, "127.0.0.1", 0) as port:
            yield Client(edge, port)


async def test_revoke_and_status(world: World, api: Client) -> None:
    """The names of the outside contract, from good to revoked, and idempotency by the status code."""
    spki = key_hash()
    key, sibling = await world.certificate(spki=spki), await world.certificate("beta", spki=spki)
    serial = format_serial(key[1])
    good = await api.get(f"/v1/certificates/alpha/{serial.upper()}")
    assert good.body == {
        "serial": serial,
        "issuer": "alpha",
        "status": "good",
        "reason": None,
        "revoked_at": None,
        "crl_url": "http://crl.example/alpha.crl",
    }
    body = {"issuer": "alpha", "serial": f"0x{serial}", "reason": "keyCompromise"}
    dry = await api.post("/v1/revocations", {**body, "dry_run": True})
    assert (dry.status, dry.body["changed"], dry.body["act_id"]) == (200, True, None)
    done = await api.post("/v1/revocations", body)
    assert done.status == 201
    expected = {
        "serial": serial,
        "issuer": "alpha",
        "reason": "keyCompromise",
        "revoked_at": "2027-01-15T08:00:00Z",
        "changed": True,
        "siblings": [{"issuer": "beta", "serial": format_serial(sibling[1])}],
        "siblings_total": 1,
    }
    assert {name: done.body[name] for name in expected} == expected
    again = await api.post("/v1/revocations", body)
    assert (again.status, again.body["changed"], again.body["act_id"]) == (200, False, done.body["act_id"])
    revoked = await api.get(f"/v1/certificates/beta/{format_serial(sibling[1])}")
    assert (revoked.body["status"], revoked.body["reason"]) == ("revoked", "keyCompromise")
    assert revoked.body["revoked_at"] == "2027-01-15T08:00:00Z"
    act = await world.owner.fetchrow("select actor from act where id = $1", done.body["act_id"])
    assert act["actor"] == "operator:operator"
    shown = await api.get(f"/v1/revocations/{done.body['act_id']}", as_="viewer")
    assert (shown.body["siblings"], shown.body["ocsp_visible_ms"]) == (expected["siblings"], None)


async def test_statuses(world: World, api: Client) -> None:
    """Expired, revoked before expired, reserved and never heard of."""
    expired = await world.certificate(not_after=world.now - 1)
    reserved = await world.certificate(state="reserved")
    both = await world.certificate(not_after=world.now + 5)
    await world.revoke(both)
    world.clock.step(6)
    for key, status in ((expired, "expired"), (reserved, "unknown"), (both, "revoked"), ((0, b"\x77"), "unknown")):
        said = await api.get(f"/v1/certificates/alpha/{format_serial(key[1])}", as_="auditor")
        assert (said.status, said.body["status"]) == (200, status)


async def test_certificate_by_showing_it(world: World, api: Client) -> None:
    """A certificate names itself; one with our name and serial that we did not issue is refused."""
    leaf = await world.leaf("beta")
    pem = leaf.public_bytes(Encoding.PEM).decode()
    found = await api.post("/v1/certificates/lookup", {"certificate": pem})
    assert (found.body["issuer"], found.body["status"]) == ("beta", "good")
    wrong_issuer = await api.post("/v1/revocations", {"certificate": pem, "issuer": "alpha"})
    assert (wrong_issuer.status, wrong_issuer.code) == (404, "certificate.unknown")
    await world.owner.execute("update certificate set der = $1 where serial = $2", b"another", _serial(leaf))
    foreign = await api.post("/v1/revocations", {"certificate": pem})
    assert (foreign.status, foreign.code) == (400, "certificate.foreign")
    assert (await world.counts())["revocation"] == 0
    unheard = TestCa("unheard of").certificate
    never = await api.post("/v1/certificates/lookup", {"certificate": unheard.public_bytes(Encoding.PEM).decode()})
    assert (never.body["issuer"], never.body["status"]) == (None, "unknown")


def _serial(certificate: Any) -> bytes:
    return bytes(certificate.serial_number.to_bytes(16, "big"))


async def test_ambiguous_serial(world: World, api: Client) -> None:
    """A serial of two issuers, without the issuer: a problem that lists both, for status and revocation alike."""
    key = await world.certificate("alpha")
    await world.certificate("beta", serial=key[1])
    for path in ("/v1/revocations", "/v1/certificates/lookup"):
        said = await api.post(path, {"serial": format_serial(key[1])})
        assert (said.status, said.code) == (400, "certificate.ambiguous")
        assert "alpha" in said.body["detail"]
        assert "beta" in said.body["detail"]
    assert (await world.counts())["revocation"] == 0


async def test_bad_requests_change_nothing(world: World, api: Client) -> None:
    """Each kind of bad input has its own code and leaves no row."""
    key = await world.certificate(spki=key_hash())
    expired = await world.certificate(not_after=world.now - 1)
    serial = format_serial(key[1])
    named = {"issuer": "alpha", "serial": serial}
    cases: list[tuple[Any, int, str]] = [
        ({**named, "reason": "certificateHold"}, 422, "revocation.reason_not_allowed"),
        ({**named, "reason": "removeFromCRL"}, 422, "revocation.reason_not_allowed"),
        ({**named, "reason": "keycompromise"}, 400, "revocation.reason_unknown"),
        ({**named, "reason": 1}, 400, "request.invalid"),
        ({**named, "issuer": "gamma"}, 404, "issuer.unknown"),
        ({**named, "serial": "77"}, 404, "certificate.unknown"),
        ({"issuer": "beta", "serial": serial}, 404, "certificate.unknown"),
        ({**named, "serial": "xyz"}, 400, "serial.malformed"),
        ({**named, "serial": "11" * 65}, 400, "serial.too_long"),
        ({"issuer": "alpha"}, 400, "request.invalid"),
        ({**named, "certificate": "both"}, 400, "request.invalid"),
        ({"certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}, 400, "certificate.malformed"),
        ({"certificate": "no PEM \N{SNOWMAN}"}, 400, "certificate.malformed"),
        ({**named, "reasons": "superseded"}, 400, "request.invalid"),
        ({**named, "revoked_at": "2030-01-01T00:00:00Z"}, 400, "revocation.date_in_future"),
        ({**named, "revoked_at": "0001-01-01T00:00:00Z"}, 400, "revocation.date_too_early"),
        ({**named, "revoked_at": "2020-01-01T00:00:00"}, 400, "request.invalid"),
        ({**named, "issuer": "al\0pha"}, 400, "request.nul"),
        ({**named, "dry_run": "yes"}, 400, "request.invalid"),
        ({"issuer": "alpha", "serial": format_serial(expired[1])}, 422, "certificate.expired"),
        ([], 400, "request.invalid"),
    ]
    for body, status, code in cases:
        said = await api.post("/v1/revocations", body)
        assert (said.status, said.code) == (status, code), body
        assert said.headers["Cache-Control"] == "no-store"
    assert set((await world.counts()).values()) == {0}


async def test_malformed_and_oversized_bodies(world: World, api: Client) -> None:
    """What is not JSON, not declared as JSON, or too large never reaches the use case."""
    json_type = {"Content-Type": "application/json"}
    for body in (b"{", b"", b'{"serial": "\xff"}', b"[" * 2000):
        said = await api.ask("POST", "/v1/revocations", data=body, headers=json_type)
        assert (said.status, said.code) == (400, "request.malformed_json"), body[:10]
    form = await api.ask("POST", "/v1/revocations", data=b"serial=77")
    assert (form.status, form.code) == (400, "request.content_type")
    large = await api.ask("POST", "/v1/revocations", data=b" " * (MAX_BODY + 1), headers=json_type)
    assert (large.status, large.code) == (413, "request.too_large")
    assert set((await world.counts()).values()) == {0}


async def test_paths_and_methods(api: Client) -> None:
    """Unknown paths and methods are problems too, and so is a path with U+0000, which no text of PostgreSQL holds."""
    nul = await api.get("/v1/certificates/al%00pha/77")
    assert (nul.status, nul.code) == (400, "request.nul")
    nowhere = await api.get("/v1/nowhere")
    assert (nowhere.status, nowhere.code) == (404, "request.no_such_path")
    method = await api.ask("DELETE", "/v1/revocations")
    assert (method.status, method.code, method.headers["Allow"]) == (405, "request.method", "POST")
    unknown = await api.get("/v1/revocations/999")
    assert (unknown.status, unknown.code) == (404, "revocation.unknown")


async def test_roles(world: World, api: Client) -> None:
    """Viewers and auditors read, operators and officers revoke; everybody else's request changes nothing."""
    for role, may in (("viewer", False), ("auditor", False), ("operator", True), ("officer", True)):
        key = await world.certificate()
        said = await api.post("/v1/revocations", {"issuer": "alpha", "serial": format_serial(key[1])}, as_=role)
        if may:
            assert said.status == 201
        else:
            assert (said.status, said.code) == (403, "operator.role")
            refused = await api.post("/v1/crls/builds", {}, as_=role)
            assert (refused.status, refused.code) == (403, "operator.role")
        assert len(await world.history(key)) == may
        assert (await api.get("/v1/crls", as_=role)).status == 200


async def test_operator_is_checked_on_each_request(world: World, api: Client) -> None:
    """An operator who is disabled while connected is out with the next request on the same connection."""
    fingerprint = await api.edge.add_operator("leaving", "officer")
    connector = aiohttp.TCPConnector(ssl=api.edge.client_context("leaving"), limit=1)
    url = f"https://127.0.0.1:{api.port}/v1/crls"
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.get(url) as response:
            assert response.status == 200
        async with acquire(world.owner) as conn:
            assert await operators.set_state(conn, fingerprint, "disabled")
        async with session.get(url) as response:
            assert (response.status, (await response.json(content_type=None))["code"]) == (403, "operator.disabled")


async def test_unregistered_client_certificate(world: World, api: Client) -> None:
    """A certificate of our operators' CA that no operator has is refused: the table decides."""
    api.edge.make_client("stranger")
    key = await world.certificate()
    said = await api.post("/v1/revocations", {"serial": format_serial(key[1])}, as_="stranger")
    assert (said.status, said.code) == (403, "operator.unknown")
    assert await world.history(key) == []


async def test_tls_refuses_other_clients(api: Client) -> None:
    """No client certificate, one of a foreign CA, a server's one, or TLS 1.2: there is no HTTP at all."""
    foreign = TestCa("operators")  # the same name, another key
    api.edge.make_client("foreign", foreign)
    api.edge.ca.issue(api.edge.operators, "not-a-client", "server")
    old = api.edge.client_context("operator")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for tls in (api.edge.client_context(None), *map(api.edge.client_context, ("foreign", "not-a-client")), old):
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await api.get("/v1/crls", tls=tls)
    assert (await api.get("/v1/crls")).status == 200


async def test_concurrent_requests_for_one_serial(world: World, api: Client) -> None:
    """Ten operators at once: one 201, nine 200, one row."""
    key = await world.certificate(spki=key_hash())
    body = {"issuer": "alpha", "serial": format_serial(key[1]), "reason": "superseded"}
    said = await asyncio.gather(*(api.post("/v1/revocations", body) for _ in range(10)))
    assert sorted(each.status for each in said) == [200] * 9 + [201]
    assert len(await world.history(key)) == 1


async def test_key_compromise_with_a_date(world: World, api: Client) -> None:
    """B25 over HTTP: a compromised key's date moves back to the time that is given."""
    key = await world.certificate(spki=key_hash())
    body = {"issuer": "alpha", "serial": format_serial(key[1]), "reason": "keyCompromise"}
    await api.post("/v1/revocations", body)
    earlier = await api.post("/v1/revocations", {**body, "revoked_at": "2027-01-14T08:00:00Z"})
    assert (earlier.status, earlier.body["revoked_at"]) == (201, "2027-01-14T08:00:00Z")
    assert [each.revoked_at for each in await world.history(key)] == [world.now, world.now - DAY]


async def test_crl_list_and_builds(world: World, api: Client) -> None:
    """Every scope is listed; a build makes online scopes due for their builder, durably, with one act."""
    listed = (await api.get("/v1/crls")).body["crls"]
    assert [(crl["issuer"], crl["scope"], crl["number"]) for crl in listed] == [
        ("top", "full", None),
        ("alpha", "full", None),
        ("beta", "full", None),
    ]
    assert listed[1]["url"] == "http://crl.example/alpha.crl"
    all_of_them = await api.post("/v1/crls/builds", {})
    assert (all_of_them.status, [each["issuer"] for each in all_of_them.body["scopes"]]) == (202, ["alpha", "beta"])
    one = await api.post("/v1/crls/builds", {"issuer": "beta"})
    assert one.body["scopes"] == [{"issuer": "beta", "scope": "full"}]
    rows = await world.owner.fetch("select issuer_id, at from crl_demand order by id")
    assert [row["issuer_id"] for row in rows] == [world.authorities[name].id for name in ("alpha", "beta", "beta")]
    assert {row["at"] for row in rows} == {world.now}
    for body, code in (({"issuer": "gamma"}, "issuer.unknown"), ({"issuer": "top"}, "crl.no_such_scope")):
        said = await api.post("/v1/crls/builds", body)
        assert (said.status, said.code) == (404, code)
    acts = await world.owner.fetch("select actor, subject from act order by id")
    assert [row["subject"]["scopes"] for row in acts] == [["alpha/full", "beta/full"], ["beta/full"]]


async def test_replacing_a_crl_from_the_future_is_an_officers_order_with_a_reason(world: World, api: Client) -> None:
    """Nobody else may order it, nor anybody without saying why; the act keeps who and why."""
    body = {"issuer": "alpha", "why": "the clock ran ahead by a year"}
    refused = await api.post("/v1/crls/replacements", body, as_="operator")
    assert (refused.status, refused.code) == (403, "operator.role")
    silent = await api.post("/v1/crls/replacements", {"issuer": "alpha", "why": ""}, as_="officer")
    assert (silent.status, silent.code) == (400, "request.invalid")
    done = await api.post("/v1/crls/replacements", body, as_="officer")
    assert (done.status, done.body["scopes"]) == (202, [{"issuer": "alpha", "scope": "full"}])
    sql = "select d.replaces_future, a.actor, a.subject from crl_demand d join act a on a.id = d.act_id"
    (row,) = await world.owner.fetch(sql)
    assert row["replaces_future"]
    assert row["actor"].endswith("officer")
    assert row["subject"] == {"scopes": ["alpha/full"], "why": body["why"]}
    offline = await api.post("/v1/crls/replacements", body | {"issuer": "top"}, as_="officer")
    assert (offline.status, offline.body["scopes"]) == (202, [{"issuer": "top", "scope": "full"}])


async def test_lost_database_connections(world: World, api: Client, cluster: Any) -> None:
    """Cut off from the database, requests end as 503 with a code until the pool has connected again."""
    assert (await api.get("/v1/crls")).status == 200
    admin = await cluster.admin()
    try:
        await admin.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where usename = 'quash_admin' and datname = $1",
            await world.owner.fetchval("select current_database()"),
        )
    finally:
        await admin.close()
    statuses = [await api.get("/v1/crls") for _ in range(12)]
    assert [said.status for said in statuses[-2:]] == [200, 200]
    assert {said.code for said in statuses if said.status != 200} <= {"store.unavailable"}


async def test_unforeseen_fault_is_told_without_detail(world: World, api: Client) -> None:
    """A fault of ours is a 500 that gives nothing away, and the next request is served."""
    await world.owner.execute("revoke select on crl from quash_admin")
    broken = await api.get("/v1/crls")
    assert (broken.status, broken.code) == (500, "internal")
    assert "permission" not in broken.body["detail"]
    await world.owner.execute("grant select on crl to quash_admin")
    assert (await api.get("/v1/crls")).status == 200


async def test_nobody_revokes_a_ca_alone(world: World, api: Client) -> None:
    """A root's certificates are of CAs, its OCSP signers apart; other issuers' say so. A preview is anybody's."""
    sub_ca = await world.certificate("top")
    signer = await world.certificate("top")
    await world.owner.execute("update certificate set profile = 'ocsp-signer' where serial = $1", signer[1])
    below = await world.certificate("alpha", der=world.authorities["beta"].der)
    leaf = await world.leaf("alpha")
    for issuer, serial in (("top", sub_ca[1]), ("alpha", below[1])):
        body = {"issuer": issuer, "serial": format_serial(serial), "reason": "cessationOfOperation"}
        for role in ("operator", "officer"):
            said = await api.post("/v1/revocations", body, as_=role)
            assert (said.status, said.code) == (422, "revocation.two_officers")
        assert (await api.post("/v1/revocations", {**body, "dry_run": True})).body["changed"]
    assert (await world.counts())["revocation"] == 0
    for issuer, serial in (("top", signer[1]), ("alpha", _serial(leaf))):
        body = {"issuer": issuer, "serial": format_serial(serial), "reason": "superseded"}
        assert (await api.post("/v1/revocations", body)).status == 201
