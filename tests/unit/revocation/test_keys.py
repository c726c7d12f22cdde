"""Blocked keys and compromised ones over the admin API: proofs, approvals, lists, and the sweep that follows."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from issuer.api import application, listening
from issuer.revocation.blocklists import describe, take_over
from issuer.revocation.evidence import verify_kept_proof
from issuer.revocation.key_api import KeyApi
from issuer.revocation.officer_api import OfficerApi
from issuer.revocation.sweep import Sweeper
from quash.errors import QuashError
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial
from quash.runtime.clock import FakeClock
from quash.store import acts, blocked_keys, key_evidence
from quash.store.database import acquire
from tests.support.edge import Client, Edge
from tests.support.proofs import csr, jws, pem
from tests.support.revoking import ACTOR, DAY, World, key_hash, spki_of

COMPROMISES = "/v1/key-compromises"


@pytest.fixture
async def api(world: World, database: Any, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Client]:
    """With batches of three, so that a few certificates already make a job."""
    edge = await Edge(tmp_path, world.owner).set_up()
    await edge.add_operator("second", "officer")
    admin = database.config.admin.model_copy(update={"sibling_batch": 3})
    app = application(world.pool, clock)
    OfficerApi(world.pool, clock).add_routes(app)
    KeyApi(world.pool, database.config.model_copy(update={"admin": admin}), clock).add_routes(app)
    async with listening(app, edge.tls, "127.0.0.1", 0) as port:
        yield Client(edge, port)


def sweeper(world: World) -> Sweeper:
    return Sweeper(world.pool, world.clock, batch=1000)


async def reasons(world: World, *keys: tuple[int, bytes]) -> list[list[tuple[Reason, int]]]:
    return [[(Reason(row.reason), row.revoked_at) for row in await world.history(key)] for key in keys]


async def approve(api: Client, proposed: Any) -> Any:
    path = f"/v1/proposals/{proposed.body['id']}/approval"
    return await api.post(path, {"sha256": proposed.body["sha256"]}, as_="second")


async def test_a_private_key_revokes_its_certificates_everywhere(world: World, api: Client) -> None:
    """At once, by one person, as of the date stated; expired ones stay, and nothing of the key is kept."""
    key = ec.generate_private_key(ec.SECP256R1())
    spki = hashlib.sha256(spki_of(key)).digest()
    live = [await world.certificate("alpha", spki=spki), await world.certificate("beta", spki=spki, state="reserved")]
    expired = await world.certificate(spki=spki, not_after=world.now - 1)
    stranger = await world.certificate(spki=key_hash())
    body = {"private_key": pem(key), "serial": format_serial(live[0][1]), "revoked_at": "2027-01-14T08:00:00Z"}
    dry = await api.post(COMPROMISES, {**body, "dry_run": True})
    assert (dry.status, dry.body["changed"], dry.body["issuers"]) == (200, False, {"alpha": 1, "beta": 1})
    assert (dry.body["accounts"], dry.body["signing_seconds"]) == ({"": 2}, None)
    assert dry.body["scopes"] == {"alpha full": 1, "beta full": 1}
    assert await reasons(world, *live) == [[], []]
    done = await api.post(COMPROMISES, body)
    assert (done.status, done.body["revoked"], done.body["to_revoke"]) == (201, 2, 2)
    since = world.now - DAY
    assert await reasons(world, *live, expired, stranger) == [[(Reason.keyCompromise, since)]] * 2 + [[], []]
    again = await api.post(COMPROMISES, body)
    assert (again.status, again.body["changed"]) == (200, False)
    shown = (await api.get(f"/v1/blocked-keys/{spki.hex()}", as_="auditor")).body
    assert shown["reason"] == "proof: private-key"
    async with acquire(world.owner) as conn:
        (_, kept), *_ = await key_evidence.of_key(conn, spki)
        text = await conn.fetchval(
            "select json_agg(act)::text || (select json_agg(e)::text from key_evidence e) from act"
        )
    verify_kept_proof(kept)
    secret = key.private_numbers().private_value
    assert f"{secret:x}" not in text
    assert "PRIVATE" not in text


async def test_more_certificates_than_a_batch_become_a_job(world: World, api: Client) -> None:
    """The first batch commits with the proof, the rest is a job's, and the sweep does not do it twice."""
    key = ec.generate_private_key(ec.SECP256R1())
    spki = hashlib.sha256(spki_of(key)).digest()
    for _ in range(8):
        await world.certificate(spki=spki)
    done = await api.post(COMPROMISES, {"private_key": pem(key)})
    assert (done.body["revoked"], done.body["to_revoke"]) == (3, 8)
    assert await world.owner.fetchrow("select total, done, state from job") == (8, 3, "running")
    assert await sweeper(world).step() == 0
    assert (await world.counts())["revocation"] == 3


async def test_challenges(world: World, api: Client, clock: FakeClock) -> None:
    """A request proves with our challenge only, once, for an hour; the same proof again is answered as before."""
    key, other = (rsa.generate_private_key(65537, 2048) for _ in range(2))

    async def challenge() -> str:
        given = await api.post(f"{COMPROMISES}/challenges", {})
        assert given.status == 201
        return str(given.body["challenge"])

    first = await challenge()
    foreign = "quash-compromise-" + "00" * 20
    assert (await api.post(COMPROMISES, {"csr": csr(key, foreign)})).code == "evidence.challenge_unknown"
    proof = {"csr": csr(key, first)}
    assert (await api.post(COMPROMISES, proof)).status == 201
    assert (await api.post(COMPROMISES, proof)).status == 200
    assert (await api.post(COMPROMISES, {"csr": csr(other, first)})).code == "evidence.challenge_used"
    late = await challenge()
    clock.step(3600)
    assert (await api.post(COMPROMISES, {"csr": csr(other, late)})).code == "evidence.challenge_expired"
    assert (await world.counts())["blocked_key"] == 1


async def test_a_proof_must_be_by_the_named_certificates_key(world: World, api: Client) -> None:
    """A right proof of another key revokes nothing; a JWS counts for the certificate that is shown alone."""
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    certificate = await world.leaf(key=key)
    shown = certificate.public_bytes(Encoding.PEM).decode()
    for name in ({"certificate": shown}, {"serial": f"{certificate.serial_number:x}", "issuer": "alpha"}):
        said = await api.post(COMPROMISES, {"private_key": pem(other), **name})
        assert said.code == "evidence.key_mismatch"
    given = (await api.post(f"{COMPROMISES}/challenges", {})).body["challenge"]
    signed = jws(key, payload={"challenge": given})
    assert (await api.post(COMPROMISES, {"jws": signed})).code == "evidence.no_certificate"
    forged = jws(other, payload={"challenge": given})
    assert (await api.post(COMPROMISES, {"jws": forged, "certificate": shown})).code == "evidence.jws_signature"
    future = {"jws": signed, "certificate": shown, "revoked_at": "2027-01-15T08:00:01Z"}
    assert (await api.post(COMPROMISES, future)).code == "revocation.date_in_future"
    assert (await world.counts())["blocked_key"] == 0
    done = await api.post(COMPROMISES, {"jws": signed, "certificate": shown})
    assert (done.status, done.body["revoked"]) == (201, 1)
    both = await api.post(COMPROMISES, {"jws": signed, "private_key": pem(key)})
    assert both.code == "request.invalid"


async def test_an_asserted_key_needs_two_officers_and_is_swept(world: World, api: Client) -> None:
    """Blocked for ever with the approval; the sweep then revokes every certificate that has it, once."""
    spki = key_hash()
    live = [await world.certificate("alpha", spki=spki), await world.certificate("beta", spki=spki)]
    superseded = await world.certificate(spki=spki)
    await world.revoke(superseded, Reason.superseded)
    body = {"spki_sha256": spki.hex(), "why": "seen on a forum"}
    assert (await api.post("/v1/blocked-keys", body)).code == "operator.role"
    proposed = await api.post("/v1/blocked-keys", body, as_="officer")
    assert proposed.body["payload"]["certificates"] == {"alpha": 2, "beta": 1}
    sweep = sweeper(world)
    assert await sweep.step() == 0
    assert (await world.counts())["blocked_key"] == 0
    assert (await approve(api, proposed)).status == 200
    assert await sweep.step() == 1
    assert await reasons(world, *live) == [[(Reason.keyCompromise, world.now)]] * 2
    assert [reason for reason, _ in (await reasons(world, superseded))[0]] == [Reason.superseded, Reason.keyCompromise]
    assert await sweep.step() == 0
    assert await sweeper(world).step() == 0


async def test_a_certificate_that_expired_names_the_key_to_block(world: World, api: Client) -> None:
    """It cannot be revoked any more, but what it certified can be blocked, and living siblings are swept."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = await world.leaf(key=key)
    shown = certificate.public_bytes(Encoding.PEM).decode()
    await world.clock.advance(91 * DAY)
    sibling = await world.certificate(spki=hashlib.sha256(spki_of(key)).digest())
    proposed = await api.post("/v1/blocked-keys", {"certificate": shown, "why": "stolen backup"}, as_="officer")
    assert (await approve(api, proposed)).status == 200
    assert await sweeper(world).step() == 1
    assert [reason for reason, _ in (await reasons(world, sibling))[0]] == [Reason.keyCompromise]


async def test_blocked_keys_are_listed_and_annotated_never_removed(world: World, api: Client) -> None:
    """There is no route to remove one, and the table itself refuses."""
    proposed = await api.post("/v1/blocked-keys", {"spki_sha256": "ab" * 32, "why": "x"}, as_="officer")
    await approve(api, proposed)
    path = f"/v1/blocked-keys/{'ab' * 32}"
    assert (await api.post(f"{path}/notes", {"note": "reported by Example"})).status == 201
    assert (await api.post(f"/v1/blocked-keys/{'cd' * 32}/notes", {"note": "x"})).code == "key.not_blocked"
    shown = (await api.get(path, as_="viewer")).body
    assert [(each["by"], each["note"]) for each in shown["notes"]] == [("operator:operator", "reported by Example")]
    assert [each["spki_sha256"] for each in (await api.get("/v1/blocked-keys")).body["blocked_keys"]] == ["ab" * 32]
    assert (await api.get(f"/v1/blocked-keys?after={'ab' * 32}")).body["blocked_keys"] == []
    assert (await api.ask("DELETE", path, as_="officer")).status == 405


async def _import(world: World, api: Client, path: Path, kind: str) -> Any:
    body = {**describe(path, kind), "source": "test"}
    proposed = await api.post("/v1/blocked-keys/imports", body, as_="officer")
    async with acquire(world.owner) as conn:
        with pytest.raises(QuashError) as refused:
            await take_over(conn, path, proposed.body["id"], world.now)
        assert refused.value.code == "proposal.not_approved"
        await approve(api, proposed)
        whole = path.read_bytes()
        path.write_bytes(whole + b"\n")
        with pytest.raises(QuashError) as refused:
            await take_over(conn, path, proposed.body["id"], world.now)
        assert refused.value.code == "blocklist.changed"
        path.write_bytes(whole)
        first = await take_over(conn, path, proposed.body["id"], world.now)
        assert (await take_over(conn, path, proposed.body["id"], world.now)).blocked == 0
    return first


async def test_a_list_of_hashes_is_approved_taken_over_and_swept(world: World, api: Client, tmp_path: Path) -> None:
    """All of it is blocked, and certificates that have one of its keys are revoked."""
    spki, known = key_hash(), key_hash()
    live = await world.certificate(spki=spki)
    await world.revoke(await world.certificate(spki=known), Reason.keyCompromise)
    path = tmp_path / "list.txt"
    lines = ["# keys", spki.hex().upper() + "  # ours", known.hex(), *(key_hash().hex() for _ in range(50)), ""]
    path.write_text("\n".join(lines))
    taken = await _import(world, api, path, "spki")
    assert (taken.entries, taken.blocked) == (52, 51)
    assert await sweeper(world).step() == 1
    assert await reasons(world, live) == [[(Reason.keyCompromise, world.now)]]
    path.write_text("not a hash")
    with pytest.raises(QuashError) as refused:
        describe(path, "spki")
    assert refused.value.code == "blocklist.unreadable"


async def test_a_badkeys_list_blocks_what_certificates_have(world: World, api: Client, tmp_path: Path) -> None:
    """Its entries hash a key's value, not its SPKI: what matches is blocked by its SPKI, the rest is for checks."""
    key = ec.generate_private_key(ec.SECP256R1())
    await world.leaf(key=key)
    await world.leaf()
    x = key.public_key().public_numbers().x
    value = x.to_bytes((x.bit_length() + 7) // 8, "big")
    entries = sorted([hashlib.sha256(value).digest()[:15] + b"\1", *(key_hash()[:15] + b"\2" for _ in range(20))])
    path = tmp_path / "blocklist.dat"
    path.write_bytes(b"".join(entries))
    taken = await _import(world, api, path, "badkeys")
    assert (taken.entries, taken.blocked) == (21, 1)
    async with acquire(world.owner) as conn:
        assert await blocked_keys.is_blocked(conn, hashlib.sha256(spki_of(key)).digest())
    assert await sweeper(world).step() == 1


async def test_a_sweep_that_was_cut_off_is_done_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between two keys loses none of them, and revokes nothing twice."""
    keys = [key_hash() for _ in range(3)]
    live = [await world.certificate(spki=key) for key in keys]
    async with acquire(world.owner) as conn:
        act_id = await conn.fetchval(
            "insert into act (at, actor, action, subject) values (1, 'a', 'b', '{}') returning id"
        )
        await blocked_keys.block_many(conn, keys, reason="x", added_at=1, act_id=act_id)
    sweep, count = sweeper(world), 0
    whole = sweep._revoke

    async def once(*arguments: Any) -> bool:
        nonlocal count
        count += 1
        if count == 2:
            raise ConnectionResetError
        return await whole(*arguments)

    monkeypatch.setattr(sweep, "_revoke", once)
    with pytest.raises(ConnectionResetError):
        await sweep.step()
    assert await sweeper(world).step() == 2
    assert [len(history) for history in await reasons(world, *live)] == [1, 1, 1]


async def test_what_the_sweep_finds_is_a_case(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the shortest clock, with every unexpired certificate of the key; once, also when it was cut off in between."""
    spki = key_hash()
    found = [await world.certificate(issuer, spki=spki) for issuer in ("alpha", "beta")]
    await world.certificate(spki=spki, not_after=world.now - 1)
    async with acquire(world.pool) as conn:
        for key in (spki, key_hash()):
            act_id = await acts.record(conn, at=world.now, actor=ACTOR, action="list", subject={})
            await blocked_keys.block(conn, key, reason="list: leaked", added_at=world.now, act_id=act_id)

    async def crash(*_: Any) -> int:
        raise RuntimeError("here the process ends")

    with monkeypatch.context() as patch:
        patch.setattr("issuer.revocation.sweep.add_key", crash)
        with pytest.raises(RuntimeError):
            await sweeper(world).step()
    for _ in range(2):
        await sweeper(world).step()
    (case,) = await world.owner.fetch("select id, trigger, reporter, summary from revocation_case")
    assert tuple(case)[1:] == ("br-3", "sweep", "certificates of ours have a blocked key (list: leaked)")
    members = await world.owner.fetch("select issuer_id, serial from case_certificate")
    assert {tuple(row) for row in members} == set(found)
    assert [len(await world.history(key)) for key in found] == [1, 1]
