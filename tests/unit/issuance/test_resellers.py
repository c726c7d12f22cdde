"""Resellers (G42): over both APIs and real mutual TLS, each sees and revokes what its own account ordered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from issuer import idempotency
from issuer.api import application, listening
from issuer.checks import csr
from issuer.issuance.api import add_routes
from issuer.issuance.issue import Issuance
from issuer.issuance.validations import record
from issuer.rate_limit import RateLimit
from issuer.revocation.main import add_routes as add_admin_routes
from issuer.revocation.visible import Watches
from quash.errors import Kind, QuashError
from quash.store.roles import ADMIN
from tests.support.edge import Client, Edge
from tests.support.issuing import World, make_config, make_csr, private_key

RESELLERS = {"acme-1": "acme", "acme-2": "acme", "other-1": "other"}


@pytest.fixture
async def edge(world: World, tmp_path: Path) -> Edge:
    edge = await Edge(tmp_path / "state", world.owner).set_up()
    for name, account in RESELLERS.items():
        await edge.add_operator(name, "reseller", account=account)
    return edge


@pytest.fixture
async def issuing(world: World, edge: Edge) -> AsyncIterator[Client]:
    config = make_config(world.config, high_profile=["paypal"])
    app = application(world.pool, world.clock)
    add_routes(app, world.pool, config, world.issuance(config=config))
    app.middlewares.append(idempotency.middleware(world.pool, world.clock))
    async with listening(app, edge.tls, "127.0.0.1", 0) as port:
        yield Client(edge, port)


@pytest.fixture
async def admin(world: World, database: Any, edge: Edge) -> AsyncIterator[Client]:
    pool = await database.pool(ADMIN)
    async with Watches(pool, world.config, world.clock) as watches:
        app = application(pool, world.clock)
        add_admin_routes(app, pool, world.config, world.clock, watches)
        async with listening(app, edge.tls, "127.0.0.1", 0) as port:
            yield Client(edge, port)


async def order(issuing: Client, as_: str, name: str = "www.example.org", key: str = "own") -> dict[str, Any]:
    body = {"profile": "tls-dv", "csr": make_csr([name], key=private_key(f"{as_} {key}" if key == "own" else key))}
    said = await issuing.post("/v1/orders", body, as_=as_)
    assert said.status == 201
    return dict(said.body)


async def test_an_account_s_orders_are_its_own(world: World, issuing: Client) -> None:
    """Both of an account's operators see them, staff too, another reseller not even that they are there."""
    mine, theirs = await order(issuing, "acme-1"), await order(issuing, "other-1")
    for as_, status in {"acme-1": 200, "acme-2": 200, "other-1": 404, "officer": 200, "viewer": 200}.items():
        said = await issuing.get(f"/v1/orders/{mine['id']}", as_=as_)
        assert said.status == status
        assert status == 200 or said.body == (await issuing.get(f"/v1/orders/{uuid4()}", as_=as_)).body
    for as_, seen in {"acme-2": {mine["id"]}, "other-1": {theirs["id"]}, "officer": {mine["id"], theirs["id"]}}.items():
        said = await issuing.get("/v1/orders", as_=as_)
        assert {each["id"] for each in said.body["orders"]} == seen
        assert all(each["certificate"] is None for each in said.body["orders"])
    rows = await world.fetch("select operator, submitted_by from certificate_order order by operator")
    assert [tuple(row) for row in rows] == [("account:acme", "operator:acme-1"), ("account:other", "operator:other-1")]
    acts = await world.fetch("select actor from act where action = 'certificate.issue' order by actor")
    assert [row["actor"] for row in acts] == ["operator:acme-1", "operator:other-1"]


async def test_orders_are_listed_by_state_and_page(issuing: Client) -> None:
    """A page of one leads to the next by `before`; a reseller's held order is in its own list."""
    orders = [(await order(issuing, "acme-1", f"www{number}.example.org"))["id"] for number in range(3)]
    held = {"profile": "tls-dv", "csr": make_csr(["www.paypal.example.org"])}
    orders.append((await issuing.post("/v1/orders", held, as_="acme-1")).body["id"])
    seen: list[str] = []
    while True:
        before = f"&before={seen[-1]}" if seen else ""
        page = (await issuing.get(f"/v1/orders?limit=1{before}", as_="acme-2")).body["orders"]
        if not page:
            break
        seen += [each["id"] for each in page]
    assert sorted(seen) == sorted(orders)
    (listed,) = (await issuing.get("/v1/orders?state=held", as_="acme-2")).body["orders"]
    assert listed["id"] == orders[3]
    assert (await issuing.get("/v1/orders?state=held", as_="other-1")).body["orders"] == []
    assert (await issuing.post(f"/v1/orders/{orders[3]}/decision", {"release": True}, as_="acme-2")).status == 403
    for wrong in ("state=lost", "before=1", "limit=0", "limit=1001", "mine=1"):
        assert (await issuing.get(f"/v1/orders?{wrong}", as_="acme-1")).status == 400


async def test_a_reseller_revokes_its_own_and_nothing_else(issuing: Client, admin: Client, world: World) -> None:
    """Whatever is not the account's is unknown to it, by serial and by certificate, as a serial nobody issued is."""
    mine, theirs = await order(issuing, "acme-1"), await order(issuing, "other-1")
    never = (await admin.post("/v1/revocations", {"issuer": "tls-dv", "serial": "77"}, as_="acme-1")).body
    for named in (
        {"serial": theirs["serial"]},
        {"serial": theirs["serial"], "issuer": "tls-dv"},
        {"certificate": theirs["certificate"]},
    ):
        said = await admin.post("/v1/revocations", named, as_="acme-1")
        assert (said.status, said.body) == (404, never)
        shown = await admin.post("/v1/certificates/lookup", named, as_="acme-1")
        assert (shown.body["status"], shown.body["reason"]) == ("unknown", None)
    assert (await admin.get(f"/v1/certificates/tls-dv/{theirs['serial']}", as_="acme-1")).body["status"] == "unknown"
    assert await world.fetch("select from revocation") == []
    refused = {"serial": mine["serial"], "reason": "privilegeWithdrawn"}
    assert (await admin.post("/v1/revocations", refused, as_="acme-2")).code == "revocation.reason_not_offered"  # C11
    done = await admin.post("/v1/revocations", {"serial": mine["serial"], "reason": "superseded"}, as_="acme-2")
    assert (done.status, done.body["changed"]) == (201, True)
    assert (await admin.get(f"/v1/certificates/tls-dv/{mine['serial']}", as_="acme-1")).body["status"] == "revoked"
    told = f"/v1/revocations/{done.body['act_id']}?issuer=tls-dv&serial={mine['serial']}"
    assert (await admin.get(told, as_="acme-1")).status == 200
    assert (await admin.get(told, as_="other-1")).status == 404


@pytest.mark.parametrize("dry_run", [True, False])
async def test_siblings_of_other_accounts_are_revoked_and_not_shown(
    issuing: Client, admin: Client, world: World, dry_run: bool
) -> None:
    """C8 goes by the key, whoever has it; the answer and the later look at it tell of the account's own alone."""
    first, second, foreign = [
        await order(issuing, as_, f"www{number}.example.org", key="shared")
        for number, as_ in enumerate(("acme-1", "acme-2", "other-1"))
    ]
    body = {"serial": first["serial"], "reason": "keyCompromise", "dry_run": dry_run}
    said = (await admin.post("/v1/revocations", body, as_="acme-1")).body
    own = [{"issuer": "tls-dv", "serial": second["serial"]}]
    assert (said["siblings"], said["siblings_total"]) == (own, 1)
    if dry_run:
        assert await world.fetch("select from revocation") == []
        return
    assert len(await world.fetch("select distinct serial from revocation")) == 3
    told = await admin.get(f"/v1/revocations/{said['act_id']}?issuer=tls-dv&serial={first['serial']}", as_="acme-2")
    assert (told.body["siblings"], told.body["siblings_total"], told.body["job"]) == (own, 1, None)
    whole = await admin.get(f"/v1/revocations/{said['act_id']}?issuer=tls-dv&serial={first['serial']}", as_="officer")
    assert whole.body["siblings_total"] == 2
    assert foreign["serial"] in {each["serial"] for each in whole.body["siblings"]}


OWN_PATHS = {
    ("POST", "/v1/revocations"), ("GET", "/v1/revocations/{act_id}"), ("GET", "/v1/certificates/{issuer}/{serial}"),
    ("POST", "/v1/certificates/lookup"),
}  # fmt: skip


async def test_everything_else_is_closed_to_resellers(admin: Client, issuing: Client) -> None:
    """A route that is added and forgets about them refuses them."""
    document = (await admin.get("/v1/openapi.json", as_="officer")).body
    asked = 0
    for path, operations in document["paths"].items():
        for method in operations:
            if (method.upper(), path) in OWN_PATHS:
                continue
            parts = {"id": "1", "act_id": "1", "spki_sha256": "0" * 64, "sha256": "0" * 64}
            url = path
            for name in {each["name"] for each in operations[method]["parameters"] if each["in"] == "path"}:
                url = url.replace(f"{{{name}}}", parts.get(name, "x"))
            said = await admin.ask(method.upper(), url, as_="acme-1", **({"json": {}} if method != "get" else {}))
            assert (said.status, said.code) == (403, "operator.role"), (method, path)
            asked += 1
    assert asked > 50
    assert (await issuing.post(f"/v1/orders/{uuid4()}/decision", {"release": True}, as_="acme-1")).status == 403


async def test_an_order_with_an_idempotency_key_is_one_order(issuing: Client, world: World) -> None:
    """Sent again, with the answer lost perhaps, it gets the same certificate, or the same refusal."""
    body = {"profile": "tls-dv", "csr": make_csr(key=private_key("once"))}
    first = await issuing.post("/v1/orders", body, as_="acme-1", headers={"Idempotency-Key": "one"})
    again = await issuing.post("/v1/orders", body, as_="acme-1", headers={"Idempotency-Key": "one"})
    assert (first.status, again.status, again.body) == (201, 201, first.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await issuing.post(
        "/v1/orders", {**body, "profile": "tls-ov"}, as_="acme-1", headers={"Idempotency-Key": "one"}
    )
    assert other.code == "idempotency.reused"
    theirs = await issuing.post("/v1/orders", body, as_="other-1", headers={"Idempotency-Key": "one"})
    assert theirs.body["id"] != first.body["id"]
    wrong = {"profile": "tls-dv", "csr": make_csr(["*.example.org"])}
    for _ in range(2):
        said = await issuing.post("/v1/orders", wrong, as_="acme-1", headers={"Idempotency-Key": "two"})
        assert said.code == "name.wildcard"
    assert said.headers["Idempotency-Replayed"] == "true"
    assert len(await world.fetch("select from certificate where state = 'issued'")) == 2


async def test_a_passing_fault_leaves_an_idempotency_key_as_it_was(
    issuing: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 503 before anything was done: the same request under the same key orders once the fault is over."""
    body = {"profile": "tls-dv", "csr": make_csr(key=private_key("passing"))}
    with monkeypatch.context() as patched:
        patched.setattr(csr, "public_key", _raising)
        for _ in range(2):
            said = await issuing.post("/v1/orders", body, as_="acme-1", headers={"Idempotency-Key": "p"})
            assert (said.status, said.code) == (503, "key.unchecked")
    assert await world.fetch("select from certificate_order") == []
    said = await issuing.post("/v1/orders", body, as_="acme-1", headers={"Idempotency-Key": "p"})
    assert said.status == 201
    again = await issuing.post("/v1/orders", body, as_="acme-1", headers={"Idempotency-Key": "p"})
    assert again.body == said.body


async def test_a_fault_behind_the_order_s_commit_leaves_its_key_unknown(
    issuing: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may have been done is not done twice."""
    body = {"profile": "tls-dv", "csr": make_csr(key=private_key("behind"))}
    monkeypatch.setattr(Issuance, "_begin", _raising)
    for status, code in ((503, "key.unchecked"), (409, "idempotency.unknown")):
        said = await issuing.post("/v1/orders", body, as_="acme-1", headers={"Idempotency-Key": "b"})
        assert (said.status, said.code) == (status, code)
    assert len(await world.fetch("select from certificate_order")) == 1


def _raising(*_: object) -> None:
    raise QuashError("key.unchecked", "try again", Kind.UNAVAILABLE)


async def test_an_idempotency_key_is_the_operator_s_whichever_certificate_it_shows(
    issuing: Client, edge: Edge, world: World
) -> None:
    """A renewed certificate orders nothing again; somebody else who takes over the name is told nothing."""
    body = {"profile": "tls-dv", "csr": make_csr(key=private_key("renewed"))}
    first = await issuing.post("/v1/orders", body, as_="acme-1", headers={"Idempotency-Key": "r"})
    await edge.add_operator("acme-1", "reseller", account="acme")
    again = await issuing.post("/v1/orders", body, as_="acme-1", headers={"Idempotency-Key": "r"})
    assert (first.status, again.status, again.body) == (201, 201, first.body)
    await world.owner.execute("update operator set person = 'another person' where name = 'acme-1'")
    other = await issuing.post("/v1/orders", body, as_="acme-1", headers={"Idempotency-Key": "r"})
    assert "Idempotency-Replayed" not in other.headers


async def test_orders_of_one_operator_are_limited(edge: Edge, world: World) -> None:
    """Beyond the limit 429 with a time to wait; it is per operator, not per certificate."""
    app = application(world.pool, world.clock)
    add_routes(app, world.pool, world.config, world.issuance())
    app.middlewares.append(RateLimit(world.clock, reads=60, changes=2).middleware())
    async with listening(app, edge.tls, "127.0.0.1", 0) as port:
        issuing = Client(edge, port)
        for status in (201, 201, 429):
            await edge.add_operator("acme-1", "reseller", account="acme")
            said = await issuing.post("/v1/orders", {"profile": "tls-dv", "csr": make_csr()}, as_="acme-1")
            assert said.status == status
        assert (said.code, int(said.headers["Retry-After"]) > 0) == ("operator.rate_limited", True)
        said = await issuing.post("/v1/orders", {"profile": "tls-dv", "csr": make_csr()}, as_="other-1")
        assert said.status == 201


async def test_validations_are_an_account_s(world: World, edge: Edge) -> None:
    """What was validated for an account counts for all its operators, and for nobody else."""
    issuance, now = world.issuance(config=make_config(world.config, require_validation=True)), int(world.clock.now())
    example = {"kind": "dns", "value": "example.org"}
    async with world.pool.acquire() as conn:
        await record(conn, "operator:officer", "account:acme", example, method="3.2.2.4.7", validated_at=now, now=now)
    for by in ("operator:acme-1", "operator:acme-2"):
        order = await issuance.submit("account:acme", "tls-dv", make_csr(["www.example.org"]), by=by)
        assert (order.state, order.actor) == ("pending", by)
    with pytest.raises(QuashError) as error:
        await issuance.submit("account:other", "tls-dv", make_csr(["www.example.org"]), by="operator:other-1")
    assert error.value.code == "validation.required"
