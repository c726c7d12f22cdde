"""What becomes of a report: a case, the effect of its proof, escalation, notices over real SMTP and HTTP."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from aiosmtpd.smtp import SMTP
from cryptography.hazmat.primitives.asymmetric import ec

from issuer.api import application, listening
from issuer.revocation import evidence
from issuer.revocation.case_api import CaseApi
from issuer.revocation.case_certificates_api import CaseCertificatesApi
from issuer.revocation.case_papers_api import CasePapersApi
from issuer.revocation.notice_sender import NoticeSender
from issuer.revocation.reports import ReportTaker
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config, Notices
from quash.store import reports
from quash.store.database import acquire
from quash.store.key_evidence import Evidence
from quash.store.reports import Report
from quash.store.roles import INTAKE
from tests.support.edge import Client, Edge
from tests.support.proofs import csr, jws, pem
from tests.support.revoking import DAY, World, key_hash, spki_of

HOUR = 3600


@pytest.fixture
async def api(world: World, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Client]:
    edge = await Edge(tmp_path, world.owner).set_up()
    app = application(world.pool, clock)
    CaseApi(world.pool, clock).add_routes(app)
    CaseCertificatesApi(world.pool, clock).add_routes(app)
    CasePapersApi(world.pool, clock).add_routes(app)
    async with listening(app, edge.tls, "127.0.0.1", 0) as port:
        yield Client(edge, port)


@pytest.fixture
def config(database: Any) -> Config:
    changes = {"notices": {"escalate_to": ["boss@example.org"]}}
    return Config.model_validate({**database.config.model_dump(), **changes})


@pytest.fixture
def taker(world: World, config: Config, clock: FakeClock) -> ReportTaker:
    return ReportTaker(world.pool, config, clock)


async def hand_in(world: World, database: Any, proof: Evidence | None = None, **body: Any) -> None:
    """As intake does, with its rights."""
    kind = "problem" if proof is None else "key-compromise"
    said = {"description": "odd\nthings", **body}
    report = Report(uuid4(), world.now, kind, "192.0.2.1", "anna@example.org", said, proof)
    async with acquire(await database.pool(INTAKE)) as conn:
        await reports.add(conn, report)


async def challenge(world: World, database: Any, name: str = "1" * 40) -> str:
    given = f"quash-compromise-{name}"
    async with acquire(await database.pool(INTAKE)) as conn:
        await reports.add_challenge(conn, given, at=world.now, expires_at=world.now + HOUR)
    return given


async def notes(world: World) -> list[str]:
    return [row["text"] for row in await world.owner.fetch("select text from case_event order by id")]


async def test_a_report_opens_a_case_once(world: World, database: Any, api: Client, taker: ReportTaker) -> None:
    """With the clock of its receipt, the certificates that we know, and a note of those that we do not."""
    key = await world.certificate(spki=key_hash())
    await hand_in(world, database, serials=[format_serial(key[1]), "7f", "zz"])
    received = world.now
    world.clock.step(60)
    assert await taker.step() == 1
    assert await taker.step() == 0
    (case,) = (await api.get("/v1/cases")).body["cases"]
    assert (case["trigger"], case["certificates"], case["reporter"]) == ("report", 1, "anna@example.org")
    assert (case["received_at"], case["picked_up_at"]) == ("2027-01-15T08:00:00Z", None)
    assert case["picked_up_by"] == "2027-01-15T10:00:00Z"
    assert received < world.now
    assert [note.partition(":")[0] for note in await notes(world)] == ["serial 'zz'"]


@pytest.mark.parametrize("kind", ["private-key", "csr", "jws"])
async def test_a_proof_acts_at_once(world: World, database: Any, api: Client, taker: ReportTaker, kind: str) -> None:
    """Every certificate of the key is revoked as of the date given, is in the case, and the key is blocked."""
    key = ec.generate_private_key(ec.SECP256R1())
    spki = spki_of(key)
    mine = [await world.certificate(issuer, spki=hashlib.sha256(spki).digest()) for issuer in ("alpha", "beta")]
    other = await world.certificate(spki=key_hash())
    given = await challenge(world, database)
    proof = {
        "private-key": lambda: evidence.from_private_key(pem(key)),
        "csr": lambda: evidence.from_csr(csr(key, given)),
        "jws": lambda: evidence.from_jws(jws(key, payload={"challenge": given}), spki),
    }[kind]()
    await hand_in(world, database, proof, revoked_at=world.now - DAY)
    world.clock.step(2 * HOUR)  # the challenge's hour is over: it was in time when it came
    assert await taker.step() == 1
    for each in mine:
        (revocation,) = await world.history(each)
        assert (revocation.reason, revocation.revoked_at) == (Reason.keyCompromise, world.now - DAY - 2 * HOUR)
    assert await world.history(other) == []
    (case,) = (await api.get("/v1/cases")).body["cases"]
    assert (case["trigger"], case["certificates"], case["revoked"]) == ("br-3", 2, 2)
    assert await world.owner.fetchval("select count(*) from blocked_key") == 1
    actors = await world.owner.fetch("select distinct actor from act where action in ('key.compromise', 'case.open')")
    assert [row["actor"] for row in actors] == ["intake"]


async def test_nothing_that_intake_wrote_is_believed(world: World, database: Any, taker: ReportTaker) -> None:
    """Somebody who owns intake writes what he likes: another key's name, no challenge of ours, an old or used one."""
    key, victim = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    spki = spki_of(victim)
    mine = await world.certificate(spki=hashlib.sha256(spki).digest())
    honest = evidence.from_private_key(pem(key))
    await hand_in(world, database, Evidence("private-key", spki, honest.proof, honest.sha256, None))
    request = evidence.from_csr(csr(key, f"quash-compromise-{'2' * 40}"))
    await hand_in(world, database, Evidence("csr", spki, request.proof, request.sha256, request.challenge))
    await hand_in(world, database, request)
    late = await challenge(world, database, "3" * 40)
    world.clock.step(HOUR)
    await hand_in(world, database, evidence.from_csr(csr(victim, late)))
    assert await taker.step() == 4
    assert await world.history(mine) == []
    codes = [note.split(": ")[1] for note in await notes(world)]
    assert codes == [
        "evidence.key_inconsistent",
        "evidence.key_mismatch",
        "evidence.challenge_unknown",
        "evidence.challenge_unknown",
    ]


async def test_a_crash_in_between_is_made_good(
    world: World, database: Any, api: Client, taker: ReportTaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The case is there, the proof has not acted: the next step does it, in the same case."""
    key = ec.generate_private_key(ec.SECP256R1())
    mine = await world.certificate(spki=hashlib.sha256(spki_of(key)).digest())
    await hand_in(world, database, evidence.from_private_key(pem(key)))

    async def crash(*_: Any) -> None:
        raise RuntimeError("here the process ends")

    with monkeypatch.context() as patch:
        patch.setattr(ReportTaker, "_prove", crash)
        with pytest.raises(RuntimeError):
            await taker.step()
    assert await world.history(mine) == []
    assert await taker.step() == 0
    assert len(await world.history(mine)) == 1
    assert len((await api.get("/v1/cases")).body["cases"]) == 1


async def test_what_nobody_picks_up_is_escalated_once(
    world: World, database: Any, api: Client, taker: ReportTaker
) -> None:
    """After two hours and one second (G39), to the addresses configured; picked up, it is not."""
    await hand_in(world, database)
    await hand_in(world, database)
    await taker.step()
    assert (await api.post("/v1/cases/2/pick-up", {})).body["picked_up_at"] == "2027-01-15T08:00:00Z"
    world.clock.step(2 * HOUR)
    await taker.step()
    assert (await api.get("/v1/cases/1/notices")).body["notices"] == []
    world.clock.step(1)
    await taker.step()
    await taker.step()
    (notice,) = (await api.get("/v1/cases/1/notices", as_="viewer")).body["notices"]
    assert (notice["to"], notice["template"], notice["sent_at"]) == ("boss@example.org", "escalation", None)
    assert "To be picked up by 2027-01-15T10:00:00Z" in notice["text"]
    assert (await api.get("/v1/cases/2/notices")).body["notices"] == []


async def test_a_case_is_judged_closed_and_opened_again(
    world: World, database: Any, api: Client, taker: ReportTaker
) -> None:
    """The deadline follows the judgement, from the receipt on; closing is an officer's and is not being met."""
    await hand_in(world, database)
    await taker.step()
    world.clock.step(HOUR)
    judged = await api.post("/v1/cases/1/judgement", {"trigger": "br-7"})
    assert (judged.body["trigger"], judged.body["publish_by"]) == ("br-7", "2027-01-20T08:00:00Z")
    assert (await api.post("/v1/cases/1/judgement", {"trigger": "nope"})).code == "case.trigger_unknown"
    assert (await api.post("/v1/cases/1/closure", {"text": "x"})).code == "operator.role"
    closed = await api.post("/v1/cases/1/closure", {"text": "no ground"}, as_="officer")
    assert (closed.body["state"], closed.body["late"]) == ("closed", False)
    world.clock.step(30 * DAY)
    assert not (await api.get("/v1/cases/1")).body["late"]
    again = await api.post("/v1/cases/1/reopening", {"text": "there was one"}, as_="officer")
    assert (again.body["state"], again.body["late"]) == ("open", True)


class Mailbox:
    """Keeps what aiosmtpd hands it; refuses while it is told to."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.refuses = False

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if self.refuses:
            return "451 come back"
        self.mails.append(envelope)
        return "250 taken"


async def test_notices_go_out_until_they_are_taken(
    world: World, database: Any, api: Client, clock: FakeClock, tmp_path: Path
) -> None:
    """Mails to addresses, a webhook for each account of the case; refused ones again after growing pauses."""
    keys = [await world.certificate(spki=key_hash()) for _ in range(3)]
    for account, mine in (("operator:anna", keys[:2]), ("operator:bert", keys[2:])):
        order = uuid4()
        await world.owner.execute(
            "insert into certificate_order (id, created_at, operator, profile, csr, state, updated_at)"
            " values ($1, 1, $2, 'p', '', 'issued', 1)",
            order,
            account,
        )
        for key in mine:
            await world.owner.execute("update certificate set order_id = $1 where serial = $2", order, key[1])
    opened = {"trigger": "br-7", "reporter": "Example", "summary": "misuse\nof it"}
    path = f"/v1/cases/{(await api.post('/v1/cases', opened)).body['id']}"
    named = [{"issuer": "alpha", "serial": format_serial(serial)} for _, serial in keys]
    await api.post(f"{path}/certificates", {"certificates": named})
    told = await api.post(f"{path}/notices", {"template": "revocation", "subscribers": True, "text": "Sorry."})
    assert (told.status, told.body) == (202, {"queued": 2})
    mail = {"template": "preliminary-report", "to": ["anna@example.org"]}
    assert (await api.post(f"{path}/notices", mail)).body == {"queued": 1}
    for wrong, code in (
        ({"template": "nope", "to": ["a@b"]}, "notice.template_unknown"),
        ({"template": "done", "to": ["a@b\nBcc: c@d"]}, "notice.address"),
        ({"template": "done", "to": ["a@b, c@d"]}, "notice.address"),
        ({"template": "done"}, "request.invalid"),
    ):
        assert (await api.post(f"{path}/notices", wrong)).code == code
    posts: list[tuple[str, Any]] = []

    async def hook(request: web.Request) -> web.Response:
        posts.append((request.headers["Authorization"], await request.json()))
        return web.Response(status=500 if len(posts) == 1 else 204, text="full")

    receiver = web.Application()
    receiver.router.add_post("/hook", hook)
    runner = web.AppRunner(receiver)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    mailbox = Mailbox()
    smtp = await asyncio.get_running_loop().create_server(lambda: SMTP(mailbox), "127.0.0.1", 0)
    (tmp_path / "token").write_text("secret\n")
    config = Notices(
        smtp_host="127.0.0.1",
        smtp_port=smtp.sockets[0].getsockname()[1],
        smtp_tls="none",
        sender="revocation@example.org",
        webhook=f"http://127.0.0.1:{runner.addresses[0][1]}/hook",
        webhook_token_file=tmp_path / "token",
    )
    try:
        mailbox.refuses = True
        async with NoticeSender(world.pool, config, clock) as sender:
            assert await sender.step() == 1
            assert await sender.step() == 0
            mailbox.refuses = False
            clock.step(30)
            assert await sender.step() == 2
            assert await sender.step() == 0
    finally:
        smtp.close()
        await runner.cleanup()
    assert [(token, body["account"]) for token, body in posts] == [
        ("Bearer secret", "operator:anna"),
        ("Bearer secret", "operator:bert"),
        ("Bearer secret", "operator:anna"),
    ]
    assert "concerns 2 of your certificates" in posts[0][1]["text"]
    (envelope,) = mailbox.mails
    assert envelope.rcpt_tos == ["anna@example.org"]
    assert b"Subject: Case 1: preliminary report" in envelope.content
    assert b"Auto-Submitted: auto-generated" in envelope.content
    shown = (await api.get(f"{path}/notices")).body["notices"]
    assert [(each["tries"], each["sent_at"] is not None) for each in shown] == [(2, True), (1, True), (2, True)]


async def test_what_strangers_allege_is_no_other_cases_reason(
    world: World, database: Any, api: Client, taker: ReportTaker
) -> None:
    """C12, C13: a report's case says keyCompromise for others only once a person judged that it is one."""
    alleged, judged = await world.certificate(spki=key_hash()), await world.certificate(spki=key_hash())
    key = ec.generate_private_key(ec.SECP256R1())
    serials = [format_serial(each[1]) for each in (alleged, judged)]
    await hand_in(world, database, evidence.from_csr(csr(key, f"quash-compromise-{'2' * 40}")), serials=serials)
    assert await taker.step() == 1
    (report,) = (await api.get("/v1/cases")).body["cases"]
    assert (report["trigger"], report["certificates"]) == ("br-3", 2)
    said = {"trigger": "br-12", "reporter": "Example", "summary": "not by the CPS"}
    case = f"/v1/cases/{(await api.post('/v1/cases', said)).body['id']}"

    async def revoke(serial: str) -> None:
        assert (await api.post(f"{case}/certificates", {"certificates": [{"serial": serial}]})).status == 201
        assert (await api.post(f"{case}/revocation", {})).body == {"revoked": 1, "left": 0}

    await revoke(serials[0])
    assert [row.reason for row in await world.history(alleged)] == [Reason.superseded]
    assert await world.owner.fetchval("select count(*) from blocked_key") == 0
    assert (await api.post(f"/v1/cases/{report['id']}/judgement", {"trigger": "br-3"})).status == 201
    await revoke(serials[1])
    assert [row.reason for row in await world.history(judged)] == [Reason.keyCompromise]
