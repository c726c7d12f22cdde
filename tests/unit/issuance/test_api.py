"""The issuing API over real mutual TLS: who may order, what comes back, and how refusals look."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from issuer.api import MAX_BODY, application, listening
from issuer.issuance.api import add_routes
from issuer.issuance.visible import PublicAnswers
from quash.errors import Kind, QuashError
from quash.pki.ocsp_response import GOOD
from quash.pki.serials import parse_serial
from quash.runtime.clock import SystemClock
from tests.support.edge import Client, Edge
from tests.support.issuing import Responder, World, make_config, make_csr

ORDER = {"profile": "tls-dv", "csr": make_csr()}


@pytest.fixture
async def responder(world: World) -> AsyncIterator[Responder]:
    """Answers `good` for each serial as soon as it is asked: what it says is set by `sees_all`."""
    certificates = {name: await world.certificate_of(name) for name in world.hierarchy}
    async with Responder(world.hierarchy, certificates, world.clock).serving() as responder:
        yield responder


@pytest.fixture
async def client(world: World, responder: Responder, tmp_path: Path) -> AsyncIterator[Client]:
    """The API with operators of each role; a release waits for `responder`, one second at most."""
    edge = await Edge(tmp_path / "state", world.owner).set_up()
    config = make_config(world.config, visible_timeout=1, high_profile=["paypal"])
    async with PublicAnswers([responder.url], world.clock) as answers:

        async def sign(issuer_id: int, serial: bytes) -> bytes:
            der = await world.signer.sign_certificate(issuer_id, serial)
            if responder.age == 0:
                responder.says[serial] = GOOD
            return der

        issuance = world.issuance(config=config, answers=answers, sign=sign, clock=_Moving(world))
        app = application(world.pool, world.clock)
        add_routes(app, world.pool, config, issuance)
        async with listening(app, edge.tls, "127.0.0.1", 0) as port:
            yield Client(edge, port)


class _Moving(SystemClock):
    """The test's time of day, the machine's passing of time: the API's waits end by themselves."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> float:
        return self._world.clock.now()


@pytest.mark.parametrize("role", ["operator", "officer"])
async def test_an_order_returns_leaf_and_chain(world: World, client: Client, role: str) -> None:
    """201 with the command line's JSON names; the chain verifies up to the root, which is not in it."""
    said = await client.post("/v1/orders", ORDER, as_=role)
    assert said.status == 201
    assert said.headers["Location"] == f"/v1/orders/{said.body['id']}"
    assert (said.body["issuer"], said.body["profile"], said.body["state"]) == ("tls-dv", "tls-dv", "issued")
    leaf = x509.load_pem_x509_certificate(said.body["certificate"].encode())
    (ca,) = x509.load_pem_x509_certificates(said.body["chain"].encode())
    leaf.verify_directly_issued_by(ca)
    ca.verify_directly_issued_by(x509.load_der_x509_certificate(await world.certificate_of("root")))
    assert said.body["serial"] == f"{leaf.serial_number:x}"
    assert said.body["not_after"] == leaf.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    (order,) = await world.fetch("select operator from certificate_order")
    assert order["operator"] == f"operator:{role}"


async def test_der_in_base64_is_a_request_too(client: Client) -> None:
    """A client that has no PEM sends the base64 of its DER."""
    der = x509.load_pem_x509_csr(make_csr().encode()).public_bytes(Encoding.DER)
    said = await client.post("/v1/orders", {"profile": "tls-dv", "csr": base64.b64encode(der).decode()})
    assert said.status == 201


async def test_everyone_who_may_look_sees_an_order(client: Client) -> None:
    """GET gives the same body to every role, and 404 for what was never ordered."""
    made = await client.post("/v1/orders", ORDER)
    for role in ("viewer", "operator", "officer", "auditor"):
        assert (await client.get(f"/v1/orders/{made.body['id']}", as_=role)).body == made.body
    for name in (str(uuid4()), "0", "..%2f..%2fetc"):
        said = await client.get(f"/v1/orders/{name}")
        assert (said.status, said.code) == (404, "order.unknown")


@pytest.mark.parametrize("role", ["viewer", "auditor"])
async def test_who_only_looks_may_not_order(world: World, client: Client, role: str) -> None:
    """403, and nothing is stored, not even the order."""
    said = await client.post("/v1/orders", ORDER, as_=role)
    assert (said.status, said.code) == (403, "operator.role")
    assert await world.fetch("select from certificate_order") == []


async def test_until_its_answers_are_out_an_order_has_no_certificate(
    world: World, client: Client, responder: Responder
) -> None:
    """202 without the certificate when the responders do not see it in time; GET gives it once they do."""
    responder.age = 10**6  # what it says is out of date
    said = await client.post("/v1/orders", ORDER)
    assert (said.status, said.body["state"]) == (202, "ready")
    assert said.body["certificate"] is said.body["chain"] is None
    responder.age = 0
    responder.says[parse_serial(said.body["serial"])] = GOOD
    async with PublicAnswers([responder.url], world.clock) as answers:
        await world.issuance(answers=answers).step()
    said = await client.get(f"/v1/orders/{said.body['id']}")
    assert said.body["state"] == "issued"
    assert said.body["certificate"].startswith("-----BEGIN")


BAD = {
    "unknown profile": ({**ORDER, "profile": "nope"}, 400, "profile.unknown"),
    "no csr": ({"profile": "tls-dv"}, 400, "request.invalid"),
    "unknown member": ({**ORDER, "validity": 800}, 400, "request.invalid"),
    "csr is no text": ({**ORDER, "csr": 7}, 400, "request.invalid"),
    "garbage csr": ({**ORDER, "csr": "garbage"}, 400, "csr.malformed"),
    "too large a csr": ({**ORDER, "csr": "A" * 60_000}, 400, "csr.too_large"),
    "too large a body": ({**ORDER, "csr": "A" * (MAX_BODY + 1)}, 413, "request.too_large"),
    "wildcard": ({**ORDER, "csr": make_csr(["*.example.org"])}, 422, "name.wildcard"),
    "surrogate": ({**ORDER, "csr": "\N{SNOWMAN}"}, 400, "csr.malformed"),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_orders_are_problem_documents(world: World, client: Client, case: str) -> None:
    """Each fault its status and code; no certificate, no serial."""
    body, status, code = BAD[case]
    said = await client.post("/v1/orders", body)
    assert (said.status, said.code) == (status, code)
    assert await world.fetch("select from certificate") == []
    kept = [str(row["id"]) for row in await world.fetch("select id from certificate_order")]
    assert kept == ([said.body["order"]] if "order" in said.body else [])
    for each in kept:  # the refused order that was stored is named, and can be looked at
        assert said.headers["Location"] == f"/v1/orders/{each}"
        found = await client.get(f"/v1/orders/{each}")
        assert (found.body["state"], found.body["code"]) == ("refused", code)


async def test_a_refusal_after_the_reservation_names_its_order(world: World, client: Client) -> None:
    """What the CA signer refuses comes back with the signer's code, and the order can be looked at."""

    async def refuse(_issuer_id: int, _serial: bytes) -> bytes:
        raise QuashError("tbs.subject", "no", Kind.REFUSED)

    issuance = world.issuance(sign=refuse)
    order = await issuance.submit("operator:ann", "tls-dv", make_csr())
    order = await issuance.finish(order.id, timeout=0)
    said = await client.get(f"/v1/orders/{order.id}")
    assert (said.body["state"], said.body["code"], said.body["detail"]) == ("refused", "tbs.subject", "no")
    assert said.body["certificate"] is None
    (row,) = await world.fetch("select reason from revocation")
    assert row["reason"] == 4


async def test_held_orders_are_paged_from_the_oldest_on(world: World, client: Client) -> None:
    """None is out of reach, however many wait."""
    made = []
    for number in range(5):
        body = {"profile": "tls-dv", "csr": make_csr([f"www{number}.paypal.example.org"])}
        made.append((await client.post("/v1/orders", body)).body["id"])
        await world.owner.execute("update certificate_order set created_at = $1 where id = $2", 1000 + number, made[-1])
    found: list[str] = []
    query = "/v1/orders?state=held&limit=2"
    while page := (await client.get(query + (f"&after={found[-1]}" if found else ""), as_="officer")).body["orders"]:
        found += [each["id"] for each in page]
    assert found == made
    newest = await client.get(f"/v1/orders?limit=2&before={made[2]}", as_="officer")
    assert [each["id"] for each in newest.body["orders"]] == [made[1], made[0]]


async def test_an_officer_decides_about_a_held_order(client: Client) -> None:
    """G19: 202 and held; only officers list and decide; released, it is issued like any other."""
    held = {"profile": "tls-dv", "csr": make_csr(["www.paypal.example.org"])}
    said = await client.post("/v1/orders", held, as_="operator")
    assert (said.status, said.body["state"], said.body["certificate"]) == (202, "held", None)
    path = f"/v1/orders/{said.body['id']}"
    for role in ("operator", "viewer", "auditor"):
        assert (await client.get("/v1/orders?state=held", as_=role)).status == 403
        assert (await client.post(f"{path}/decision", {"release": True}, as_=role)).status == 403
    listed = await client.get("/v1/orders?state=held", as_="officer")
    assert [each["id"] for each in listed.body["orders"]] == [said.body["id"]]
    for wrong in ({"release": False}, {"release": True, "reason": "why not"}, {"release": 1}, {}):
        assert (await client.post(f"{path}/decision", wrong, as_="officer")).status == 400
    said = await client.post(f"{path}/decision", {"release": True}, as_="officer")
    assert (said.status, said.body["state"]) == (200, "pending")
    assert (await client.get("/v1/orders?state=held", as_="officer")).body["orders"] == []
    assert (await client.post(f"{path}/decision", {"release": True}, as_="officer")).status == 409
    assert (await client.get("/v1/orders?state=lost", as_="officer")).status == 400
