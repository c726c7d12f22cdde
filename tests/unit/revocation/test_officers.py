"""What officers do over the admin API: the kill switch, operators, and four eyes."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from issuer.api import application, listening
from issuer.checks.blocklist import write_blocklist
from issuer.rate_limit import RateLimit
from issuer.revocation.main import add_routes
from issuer.revocation.visible import Watches
from issuer.signer.deployment import Deployment
from issuer.signer.operators import sign_operator
from quash.errors import QuashError
from quash.pki.serials import format_serial
from quash.runtime.clock import FakeClock
from quash.runtime.config import Checks
from quash.runtime.profiles import ProfileKind
from quash.runtime.state import State
from quash.store import issuers, operators
from quash.store.database import acquire
from tests.support.edge import Client, Edge
from tests.support.held_tables import all_wait, held
from tests.support.revoking import DAY, World, key_hash
from tests.support.role_matrix import ALL, STAFF, check_roles

# Every route of the admin API and who may ask it; a route that is not here fails the test.
ROUTES = {
    ("POST", "/v1/revocations"): {"operator", "officer", "reseller"},
    ("GET", "/v1/revocations/{act_id}"): ALL,
    ("GET", "/v1/certificates/{issuer}/{serial}"): ALL,
    ("GET", "/v1/certificates/{issuer}/{serial}/evidence"): STAFF,
    ("GET", "/v1/certificates/{issuer}/{serial}/incidents"): STAFF,
    ("GET", "/v1/certificates"): STAFF,
    ("POST", "/v1/certificates/lookup"): ALL,
    ("POST", "/v1/certificates/statements"): STAFF,
    ("GET", "/v1/crls"): STAFF,
    ("POST", "/v1/crls/builds"): {"operator", "officer"},
    ("POST", "/v1/crls/replacements"): {"officer"},
    ("POST", "/v1/crls/disclosures"): {"operator", "officer"},
    ("GET", "/v1/openapi.json"): STAFF,
    ("GET", "/v1/signers"): STAFF,
    ("GET", "/v1/signers/switches"): STAFF,
    ("GET", "/v1/signers/switches/{id}"): STAFF,
    ("POST", "/v1/signers/switches"): {"officer"},
    ("GET", "/v1/kill-switch"): STAFF,
    ("POST", "/v1/kill-switch"): {"operator", "officer"},
    ("GET", "/v1/operators"): {"officer", "auditor"},
    ("POST", "/v1/operators"): {"officer"},
    ("POST", "/v1/operators/{name}/disable"): {"officer"},
    ("GET", "/v1/proposals"): {"officer", "auditor"},
    ("GET", "/v1/proposals/{id}"): {"officer", "auditor"},
    ("POST", "/v1/proposals/{id}/approval"): {"officer"},
    ("GET", "/v1/blocked-keys"): STAFF,
    ("POST", "/v1/blocked-keys"): {"officer"},
    ("POST", "/v1/blocked-keys/imports"): {"officer"},
    ("GET", "/v1/blocked-keys/{spki_sha256}"): STAFF,
    ("POST", "/v1/blocked-keys/{spki_sha256}/notes"): {"operator", "officer"},
    ("POST", "/v1/key-compromises/challenges"): {"operator", "officer"},
    ("POST", "/v1/key-compromises"): {"operator", "officer"},
    ("GET", "/v1/acts"): {"officer", "auditor"},
    ("GET", "/v1/acts/{id}"): {"officer", "auditor"},
    ("GET", "/v1/jobs"): STAFF,
    ("GET", "/v1/jobs/{id}"): STAFF,
    ("GET", "/v1/triggers"): STAFF,
    ("GET", "/v1/cases"): STAFF,
    ("POST", "/v1/cases"): {"operator", "officer"},
    ("GET", "/v1/cases/{id}"): STAFF,
    ("GET", "/v1/cases/{id}/certificates"): STAFF,
    ("POST", "/v1/cases/{id}/certificates"): {"operator", "officer"},
    ("GET", "/v1/cases/{id}/exemptions"): STAFF,
    ("GET", "/v1/cases/{id}/timeline"): STAFF,
    ("POST", "/v1/cases/{id}/notes"): {"operator", "officer"},
    ("POST", "/v1/cases/{id}/evidence"): {"operator", "officer"},
    ("POST", "/v1/cases/{id}/preliminary-report"): {"operator", "officer"},
    ("POST", "/v1/cases/{id}/pick-up"): {"operator", "officer"},
    ("POST", "/v1/cases/{id}/judgement"): {"operator", "officer"},
    ("POST", "/v1/cases/{id}/closure"): {"officer"},
    ("POST", "/v1/cases/{id}/reopening"): {"officer"},
    ("GET", "/v1/cases/{id}/forecast"): STAFF,
    ("GET", "/v1/cases/{id}/files"): STAFF,
    ("PUT", "/v1/cases/{id}/files/{name}"): {"operator", "officer"},
    ("GET", "/v1/cases/{id}/files/{sha256}"): STAFF,
    ("GET", "/v1/cases/{id}/notices"): STAFF,
    ("POST", "/v1/cases/{id}/notices"): {"operator", "officer"},
    ("POST", "/v1/cases/{id}/revocation"): {"operator", "officer"},
    ("GET", "/v1/exemptions"): STAFF,
    ("POST", "/v1/exemptions"): {"officer"},
    ("POST", "/v1/exemptions/{id}/end"): {"officer"},
    ("GET", "/v1/mass-revocations"): STAFF,
    ("POST", "/v1/mass-revocations"): {"operator", "officer"},
    ("GET", "/v1/mass-revocations/{id}"): STAFF,
    ("GET", "/v1/mass-revocations/{id}/certificates"): STAFF,
    ("POST", "/v1/mass-revocations/{id}/certificates"): {"operator", "officer"},
    ("GET", "/v1/mass-revocations/{id}/exemptions"): STAFF,
    ("POST", "/v1/mass-revocations/{id}/pace"): {"operator", "officer"},
    ("POST", "/v1/mass-revocations/{id}/gather"): {"operator", "officer"},
    ("POST", "/v1/mass-revocations/{id}/start"): {"operator", "officer"},
    ("POST", "/v1/mass-revocations/{id}/pause"): {"operator", "officer"},
    ("POST", "/v1/mass-revocations/{id}/resume"): {"operator", "officer"},
    ("POST", "/v1/mass-revocations/{id}/abort"): {"operator", "officer"},
}


@pytest.fixture
async def edge(world: World, tmp_path: Path) -> Edge:
    edge = await Edge(tmp_path, world.owner).set_up()
    await edge.add_operator("second", "officer")
    return edge


@pytest.fixture
async def app(world: World, database: Any, clock: FakeClock) -> AsyncIterator[Any]:
    async with Watches(world.pool, database.config, clock) as watches:
        app = application(world.pool, clock)
        add_routes(app, world.pool, database.config, clock, watches)
        yield app


@pytest.fixture
async def api(app: Any, edge: Edge) -> AsyncIterator[Client]:
    async with listening(app, edge.tls, "127.0.0.1", 0) as port:
        yield Client(edge, port)


def request_for(key: Any, digest: hashes.HashAlgorithm | None = None) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "any")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, digest or hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def new_operator(**changes: Any) -> dict[str, Any]:
    csr = request_for(ec.generate_private_key(ec.SECP256R1()))
    return {"name": "anna", "person": "Anna Example", "role": "operator", "csr": csr} | changes


async def approve(api: Client, proposal: dict[str, Any], as_: str = "second") -> Any:
    return await api.post(f"/v1/proposals/{proposal['id']}/approval", {"sha256": proposal["sha256"]}, as_=as_)


async def test_every_role_against_every_route(app: Any, api: Client, edge: Edge) -> None:
    """A route that the router, the OpenAPI document or the table above does not have fails it."""
    await edge.add_operator("reseller", "reseller", account="acme")
    await check_roles(app, api, ROUTES)


async def test_one_stops_and_two_lift(world: World, api: Client) -> None:
    """An operator stops at once, by issuer or all; lifting takes two persons, and each switch is its own."""
    alpha, beta = world.authorities["alpha"].id, world.authorities["beta"].id

    async def stopped() -> tuple[bool, bool]:
        async with acquire(world.owner) as conn:
            return await issuers.is_stopped(conn, alpha), await issuers.is_stopped(conn, beta)

    switch = "/v1/kill-switch"
    assert (await api.post(switch, {"issuer": "alpha", "stopped": True, "why": "odd logins"})).status == 201
    assert await stopped() == (True, False)
    assert (await api.post(switch, {"stopped": True, "why": "break-in"})).status == 201
    assert await stopped() == (True, True)
    assert (await api.post(switch, {"issuer": "gamma", "stopped": True, "why": "x"})).code == "issuer.unknown"
    lift = {"stopped": False, "why": "all clear"}
    assert (await api.post(switch, lift)).code == "operator.role"
    proposed = await api.post(switch, lift, as_="officer")
    assert (proposed.status, proposed.body["approved_by"]) == (202, None)
    assert await stopped() == (True, True)
    assert (await approve(api, proposed.body, "officer")).code == "proposal.same_person"
    done = await approve(api, proposed.body)
    assert (done.status, done.body["approved_by"]) == (200, "second person")
    assert await stopped() == (True, False)
    shown = (await api.get(switch, as_="viewer")).body["switches"]
    assert [(each["issuer"], each["stopped"], each["why"]) for each in shown] == [
        (None, False, "all clear"),
        ("alpha", True, "odd logins"),
    ]
    acts = await world.owner.fetch("select actor, action from act order by id")
    assert [tuple(act) for act in acts] == [
        ("operator:operator", "kill-switch.stop"),
        ("operator:operator", "kill-switch.stop"),
        ("operator:officer", "proposal.add"),
        ("operator:second", "kill-switch.lift"),
    ]


async def test_revocation_goes_on_while_all_is_stopped(world: World, api: Client) -> None:
    """The kill switch never delays a revocation (G21)."""
    await api.post("/v1/kill-switch", {"stopped": True, "why": "break-in"})
    key = await world.certificate(spki=key_hash())
    body = {"issuer": "alpha", "serial": format_serial(key[1]), "reason": "keyCompromise"}
    assert (await api.post("/v1/revocations", body)).status == 201


async def test_what_was_not_shown_or_has_expired_is_not_approved(world: World, api: Client, clock: FakeClock) -> None:
    """The hash must be the proposal's, a day is its limit, and it is approved once."""
    lift = {"stopped": False, "why": "x"}
    first = (await api.post("/v1/kill-switch", lift, as_="officer")).body
    other = (await api.post("/v1/kill-switch", {**lift, "why": "y"}, as_="officer")).body
    assert (await approve(api, {**first, "sha256": other["sha256"]})).code == "proposal.changed"
    assert (await approve(api, {**first, "id": 999})).code == "proposal.unknown"
    assert (await approve(api, {**first, "sha256": "zz"})).code == "request.invalid"
    assert (await approve(api, first)).status == 200
    assert (await approve(api, first)).code == "proposal.approved"
    assert [each["id"] for each in (await api.get("/v1/proposals", as_="auditor")).body["proposals"]] == [other["id"]]
    clock.step(DAY)
    assert (await approve(api, other)).code == "proposal.expired"
    assert (await api.get("/v1/proposals", as_="officer")).body["proposals"] == []
    assert await world.owner.fetchval("select count(*) from kill_switch") == 1


async def test_one_person_with_two_certificates_is_one_person(api: Client, edge: Edge) -> None:
    """Written otherwise, in capitals and with spaces, the name is still that person's."""
    fingerprint = edge.make_client("alias")
    async with acquire(edge.owner) as conn:
        alias = operators.Operator(fingerprint, "alias", " Officer  PERSON", "officer", "active")
        await operators.add(conn, alias, 0)
    proposed = await api.post("/v1/kill-switch", {"stopped": False, "why": "x"}, as_="officer")
    assert (await approve(api, proposed.body, "alias")).code == "proposal.same_person"
    async with acquire(edge.owner) as conn:  # and when the name is put right between the two
        await conn.execute("update operator set person = 'Officer X' where name in ('officer', 'alias')")
    assert (await approve(api, proposed.body, "alias")).code == "proposal.same_person"


async def test_an_operator_is_added_by_two_and_signed_apart(
    world: World, api: Client, database: Any, clock: FakeClock, tmp_path: Path
) -> None:
    """Nothing is signed before the second officer; then the operators' CA signs once, for the key of the request."""
    key = ec.generate_private_key(ec.SECP256R1())
    proposed = await api.post("/v1/operators", new_operator(csr=request_for(key)), as_="officer")
    assert proposed.status == 202
    deployment = Deployment(database.config, State(tmp_path / "offline"), world.owner, clock)
    deployment.files.ensure("offline", "operators", "ec-p256")
    number = proposed.body["id"]

    async def sign(proposal_id: int = number) -> bytes:
        async with acquire(world.owner) as conn:
            return await sign_operator(deployment, conn, proposal_id)

    for wrong, code in ((number, "proposal.not_approved"), (number + 1, "proposal.unknown")):
        with pytest.raises(QuashError) as refused:
            await sign(wrong)
        assert refused.value.code == code
    assert (await approve(api, proposed.body)).status == 200
    der = await sign()
    assert await sign() == der
    certificate = x509.load_der_x509_certificate(der)
    certificate.verify_directly_issued_by(
        x509.load_pem_x509_certificate((deployment.state.operators / "ca.pem").read_bytes())
    )
    assert certificate.public_key() == key.public_key()
    async with acquire(world.owner) as conn:
        operator = await operators.find(conn, hashlib.sha256(der).digest())
    assert operator is not None
    assert (operator.name, operator.person, operator.role, operator.active) == (
        "anna",
        "Anna Example",
        "operator",
        True,
    )
    renewal = new_operator(renews=True, role="officer")
    assert (await api.post("/v1/operators", renewal, as_="officer")).code == "operator.changed"
    renewal = new_operator(renews=True)
    assert (await api.post("/v1/operators", renewal, as_="officer")).status == 202
    assert (await api.post("/v1/operators", new_operator(), as_="officer")).code == "operator.exists"


async def test_an_operator_has_a_key_of_the_profile(
    world: World, api: Client, database: Any, clock: FakeClock, tmp_path: Path
) -> None:
    """G25: a deployment that narrows `operator-client` to P-256 signs for no other key."""
    kinds = dict(database.config.kinds)
    narrow = kinds["operator-client"].model_dump() | {"keys": ("ec-p256",)}
    kinds["operator-client"] = ProfileKind.model_validate(narrow)
    config = database.config.model_copy(update={"kinds": kinds})
    deployment = Deployment(config, State(tmp_path / "offline"), world.owner, clock)
    deployment.files.ensure("offline", "operators", "ec-p256")
    body = new_operator(csr=request_for(ec.generate_private_key(ec.SECP384R1())))
    asked = (await api.post("/v1/operators", body, as_="officer")).body
    assert (await approve(api, asked)).status == 200
    async with acquire(world.owner) as conn:
        with pytest.raises(QuashError, match=r"key\.outside_profile"):
            await sign_operator(deployment, conn, int(asked["id"]))
        assert not any(each.name == "anna" for each in await operators.everyone(conn))


async def test_an_operators_key_is_no_listed_one(
    world: World, api: Client, database: Any, clock: FakeClock, tmp_path: Path
) -> None:
    """D45: whoever has a key that is public would be that operator."""
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    write_blocklist(tmp_path / "listed", [spki])
    checks = Checks.model_validate({"blocklists": [{"name": "debian", "file": tmp_path / "listed"}]})
    config = database.config.model_copy(update={"checks": checks})
    deployment = Deployment(config, State(tmp_path / "offline"), world.owner, clock)
    deployment.files.ensure("offline", "operators", "ec-p256")
    asked = (await api.post("/v1/operators", new_operator(csr=request_for(key)), as_="officer")).body
    assert (await approve(api, asked)).status == 200
    async with acquire(world.owner) as conn:
        with pytest.raises(QuashError, match=r"key\.listed"):
            await sign_operator(deployment, conn, int(asked["id"]))
        assert not any(each.name == "anna" for each in await operators.everyone(conn))


async def test_what_no_longer_holds_is_not_signed(
    world: World, api: Client, database: Any, clock: FakeClock, tmp_path: Path
) -> None:
    """Two additions of one name, both approved: one is signed. A renewal of who was disabled meanwhile: never."""
    deployment = Deployment(database.config, State(tmp_path / "offline"), world.owner, clock)
    deployment.files.ensure("offline", "operators", "ec-p256")

    async def approved(path: str, body: dict[str, Any]) -> int:
        asked = (await api.post(path, body, as_="officer")).body
        assert (await approve(api, asked)).status == 200
        return int(asked["id"])

    async def signed(proposal_id: int) -> str:
        async with acquire(world.owner) as conn:
            try:
                await sign_operator(deployment, conn, proposal_id)
            except QuashError as error:
                return error.code
        return "signed"

    first, second = [await approved("/v1/operators", new_operator(role=role)) for role in ("operator", "officer")]
    assert [await signed(first), await signed(second)] == ["signed", "operator.exists"]
    renewal = await approved("/v1/operators", new_operator(renews=True))
    kept = await approved("/v1/operators", new_operator(renews=True))
    assert await signed(kept) == "signed"
    await approved("/v1/operators/anna/disable", {})
    assert await signed(renewal) == "operator.unknown_name"
    assert await signed(kept) == "signed"  # the same again, and of no use
    listed = (await api.get("/v1/operators", as_="officer")).body["operators"]
    assert {each["state"] for each in listed if each["name"] == "anna"} == {"disabled"}


async def test_operators_that_are_refused(api: Client) -> None:
    """Each fault of a new operator has its code."""
    small = request_for(rsa.generate_private_key(65537, 1024))
    curve = ec.generate_private_key(ec.SECP256R1())
    wrong = [
        ({"name": "Anna"}, "operator.name"),
        ({"name": "a b"}, "operator.name"),
        ({"role": "root"}, "operator.role_unknown"),
        ({"person": " "}, "operator.person"),
        ({"person": "A\u200bnna\n"}, "operator.person"),
        ({"name": "nobody", "renews": True}, "operator.unknown_name"),
        ({"name": "viewer"}, "operator.exists"),
        ({"csr": "AAAA"}, "csr.malformed"),
        ({"csr": small}, "key.too_small"),
        ({"csr": request_for(curve)[:-60] + "A" * 8 + "\n-----END CERTIFICATE REQUEST-----\n"}, None),
    ]
    for changes, code in wrong:
        said = await api.post("/v1/operators", new_operator(**changes), as_="officer")
        assert said.status >= 400
        assert code is None or said.code == code, changes


async def test_a_disabled_operator_is_out_and_two_officers_remain(api: Client, edge: Edge) -> None:
    """Out with the next request; but of two officers none can be disabled."""
    proposed = await api.post("/v1/operators/operator/disable", {}, as_="officer")
    assert (await api.get("/v1/crls")).status == 200
    assert (await approve(api, proposed.body)).status == 200
    assert (await api.get("/v1/crls")).code == "operator.disabled"
    assert (await api.post("/v1/operators/operator/disable", {}, as_="officer")).code == "operator.unknown_name"
    assert (await api.post("/v1/operators/second/disable", {}, as_="officer")).code == "operator.last_officers"
    await edge.add_operator("third", "officer")
    proposed = await api.post("/v1/operators/second/disable", {}, as_="officer")
    assert (await approve(api, proposed.body, "third")).status == 200
    listed = (await api.get("/v1/operators", as_="auditor")).body["operators"]
    assert {each["name"] for each in listed if each["state"] == "disabled"} == {"operator", "second"}


async def test_of_two_disablings_at_once_one_is_refused(world: World, api: Client, edge: Edge) -> None:
    """Each alone would leave two officers, both together one: whichever comes second finds that out."""
    await edge.add_operator("third", "officer")
    asked = {
        name: (await api.post(f"/v1/operators/{name}/disable", {}, as_="officer")).body for name in ("second", "third")
    }
    async with held(world.owner, "approval"):
        both = asyncio.gather(approve(api, asked["second"], "third"), approve(api, asked["third"], "second"))
        await all_wait(world.owner, 2)
    said = await both
    assert sorted(each.status for each in said) == [200, 422]
    assert "operator.last_officers" in {each.body.get("code") for each in said}
    listed = (await api.get("/v1/operators", as_="officer")).body["operators"]
    assert len([each for each in listed if (each["role"], each["state"]) == ("officer", "active")]) == 2


async def test_who_was_disabled_stands_for_nothing(api: Client, edge: Edge) -> None:
    """What a disabled officer proposed is listed no more and cannot be approved: nobody else stands for it (F9)."""
    await edge.add_operator("third", "officer")
    lift = {"stopped": False, "why": "x"}
    pending = (await api.post("/v1/kill-switch", lift, as_="third")).body
    disabling = (await api.post("/v1/operators/third/disable", {}, as_="officer")).body
    assert (await approve(api, disabling)).status == 200
    assert (await api.get("/v1/proposals", as_="auditor")).body["proposals"] == []
    assert (await approve(api, pending)).code == "proposal.proposer_disabled"
    assert (await api.get(f"/v1/proposals/{pending['id']}", as_="auditor")).body["approved_by"] is None


def wide(text: str) -> str:
    """In the full-width letters that look alike."""
    return "".join(chr(ord(each) + 0xFEE0) for each in text)


def test_one_notion_of_a_person() -> None:
    """Case, width, ligatures, composition and spaces tell no two persons apart; another name does."""
    for one, other in (
        ("Anna Example", "  ANNA\u00a0 example "),
        (wide("Officer"), "officer"),
        ("\ufb01ona Strauß", "Fiona STRAUSS"),
        ("Zoe\u0308", "ZOË"),
    ):
        assert operators.same_person(one, other), (one, other)
    assert not operators.same_person("Anna Example", "Anne Example")
    assert not operators.same_person("Anna Example", "")


async def test_officers_are_counted_as_persons(api: Client, edge: Edge) -> None:
    """A second certificate of an officer, written otherwise, is no second officer."""
    async with acquire(edge.owner) as conn:
        alias = operators.Operator(
            edge.make_client("alias"), "alias", wide("OFFICER") + "  person", "officer", "active"
        )
        await operators.add(conn, alias, 0)
    assert (await api.post("/v1/operators/second/disable", {}, as_="officer")).code == "operator.last_officers"


async def test_a_loop_gone_wild_is_slowed_down(app: Any, edge: Edge, clock: FakeClock) -> None:
    """Beyond its minute's worth an operator gets 429 and is told when to come back; others are not touched."""
    app.middlewares.append(RateLimit(clock, reads=60, changes=2).middleware())
    async with listening(app, edge.tls, "127.0.0.1", 0) as port:
        api = Client(edge, port)
        for _ in range(2):
            assert (await api.post("/v1/crls/builds", {"issuer": "alpha"})).status == 202
        limited = await api.post("/v1/crls/builds", {"issuer": "alpha"})
        assert (limited.status, limited.code, limited.headers["Retry-After"]) == (429, "operator.rate_limited", "30")
        assert (await api.get("/v1/crls")).status == 200
        assert (await api.post("/v1/crls/builds", {"issuer": "alpha"}, as_="officer")).status == 202
        await clock.advance(30)
        assert (await api.post("/v1/crls/builds", {"issuer": "alpha"})).status == 202


async def test_a_certificate_of_nobody_does_not_pass(api: Client, edge: Edge) -> None:
    """No certificate, no connection: officers' routes are no exception."""
    tls: ssl.SSLContext = edge.client_context(None)
    with pytest.raises(aiohttp.ClientError):
        await api.get("/v1/proposals", tls=tls)
