"""Cases: deadlines by trigger, met only by what relying parties see, and the report of it."""

from __future__ import annotations

import calendar
import csv
import hashlib
import io
from collections.abc import AsyncIterator
from itertools import permutations
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import REGISTRY

from issuer.api import application, listening
from issuer.revocation.case_api import CaseApi
from issuer.revocation.case_certificates_api import CaseCertificatesApi
from issuer.revocation.case_papers_api import CasePapersApi
from issuer.revocation.cases import CaseWatcher, standing
from issuer.revocation.key_api import KeyApi
from issuer.revocation.notices import teller
from issuer.revocation.triggers import TRIGGERS
from quash.cli.incident_report import appendix, incident_report
from quash.pki.ocsp_response import Status
from quash.pki.reasons import ALLOWED_REASONS, PRECEDENCE, Reason, strongest
from quash.pki.serials import format_serial
from quash.runtime.clock import FakeClock
from quash.store.cases import Case
from tests.support.edge import Client, Edge
from tests.support.proofs import pem
from tests.support.revoking import DAY, Key, World, key_hash

OPEN = {"trigger": "br-3", "reporter": "Example", "summary": "key on a forum | seen\ntoday"}


class Strangers:
    """In place of responders: says what the test lets be visible."""

    def __init__(self) -> None:
        self.visible: set[bytes] = set()
        self.asked: list[tuple[bytes, Status]] = []

    async def say(self, _issuer: Any, _certificate: bytes, serial: bytes, status: Status) -> bool:
        self.asked.append((serial, status))
        return serial in self.visible


@pytest.fixture
async def api(world: World, database: Any, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Client]:
    edge = await Edge(tmp_path, world.owner).set_up()
    app = application(world.pool, clock)
    for each in (CaseApi, CaseCertificatesApi, CasePapersApi):
        each(world.pool, clock).add_routes(app)
    KeyApi(world.pool, database.config, clock).add_routes(app)
    async with listening(app, edge.tls, "127.0.0.1", 0) as port:
        yield Client(edge, port)


def named(world: World, *keys: Key) -> dict[str, Any]:
    return {"certificates": [{"issuer": world.name_of(i), "serial": format_serial(s)} for i, s in keys]}


async def publish(world: World, issuer: str) -> None:
    """A published CRL of the issuer that covers all that has committed."""
    await world.owner.execute(
        "insert into crl (issuer_id, scope, number, this_update, next_update, entries, covers, scheduled, published_at)"
        " select $1, 'full', coalesce(max(number), 0) + 1, 1, 2, 0, pg_current_snapshot(), false, 1 from crl"
        " where issuer_id = $1",
        world.authorities[issuer].id,
    )


# By the rules' own numbering (C1, C2 and, for S/MIME, C22; C3; C7): hours, and the CRLReason, 0 being left out (B11).
_BY_THE_RULES = {
    **{f"br-{n}": (24, reason) for n, reason in enumerate([0, 9, 1, 1, 4], 1)},
    **{f"br-{n}": (120, reason) for n, reason in enumerate([4, 9, 9, 5, 9, 9, 4, 9, 0, 0, 1], 6)},
    **{f"sub-ca-{n}": (168, reason) for n, reason in enumerate([5, 9, 1, 9, 4, 9, 5, 5, 4], 1)},
    "microsoft": (24, 9),
    "report": (24, 0),  # what is not judged yet
}


def test_triggers_are_those_of_the_rules() -> None:
    """Each with its time, and the one reason that the rules want for it: 1, 4 and 9 for nothing else (C13)."""
    assert {name: (each.seconds // 3600, each.reason) for name, each in TRIGGERS.items()} == _BY_THE_RULES
    assert len(TRIGGERS) == 16 + 9 + 1 + 1
    assert {each.reason for each in TRIGGERS.values()} <= ALLOWED_REASONS


@pytest.mark.parametrize(
    ("trigger", "received", "due"),
    [
        ("br-3", (2028, 2, 28, 23, 59, 59), (2028, 2, 29, 23, 59, 59)),  # leap day
        ("br-3", (2028, 2, 29, 12, 0, 0), (2028, 3, 1, 12, 0, 0)),
        ("br-7", (2028, 2, 27, 0, 0, 0), (2028, 3, 3, 0, 0, 0)),
        ("br-7", (2027, 2, 27, 0, 0, 0), (2027, 3, 4, 0, 0, 0)),  # none this year
        ("sub-ca-1", (2027, 12, 28, 6, 0, 0), (2028, 1, 4, 6, 0, 0)),
        ("microsoft", (2026, 12, 31, 23, 0, 0), (2027, 1, 1, 23, 0, 0)),
    ],
)
def test_deadlines(trigger: str, received: tuple[int, ...], due: tuple[int, ...]) -> None:
    """From the receipt (C5, C6), to the second: late one second after, and once met it stays what it was."""
    at, by = calendar.timegm(received), calendar.timegm(due)

    def case(total: int, seen: int, last: int | None) -> Case:
        return Case(1, trigger, at, at, "r", "s", total, seen, seen, last, None)

    stands = standing(case(1, 0, None), by)
    assert (stands.publish_by, stands.report_by, stands.state, stands.late) == (by, at + DAY, "open", False)
    assert standing(case(1, 0, None), by + 1).late
    assert standing(case(0, 0, None), by + 1).state == "open"
    assert not standing(case(2, 2, by), by + 999).late
    assert standing(case(2, 2, by + 1), by + 999).late
    assert standing(case(2, 1, by), by + 999).late


async def test_a_case_is_met_when_strangers_see_it(world: World, api: Client, clock: FakeClock) -> None:
    """Not when the database says revoked (C5): each certificate in OCSP and in the published CRL."""
    first, second = await world.certificate("alpha", spki=key_hash()), await world.certificate("beta", spki=key_hash())
    opened = await api.post("/v1/cases", OPEN)
    path = f"/v1/cases/{opened.body['id']}"
    assert (opened.status, opened.body["publish_by"], opened.body["reason"]) == (
        201,
        "2027-01-16T08:00:00Z",
        "keyCompromise",
    )
    assert (await api.post(f"{path}/certificates", named(world, first, second))).body == {"added": 2}
    assert (await api.post(f"{path}/certificates", named(world, first))).body == {"added": 0}
    strangers = Strangers()
    watcher = CaseWatcher(world.pool, strangers, clock)  # type: ignore[arg-type]
    assert await watcher.step() == 0
    assert (await api.post(f"{path}/revocation", {})).body == {"revoked": 2, "left": 0}
    assert (await api.post(f"{path}/revocation", {})).body == {"revoked": 0, "left": 0}
    assert [row.reason for row in await world.history(first)] == [Reason.keyCompromise]

    async def state() -> tuple[str, int, int]:
        body = (await api.get(path, as_="viewer")).body
        return body["state"], body["revoked"], body["visible"]

    strangers.visible = {first[1], second[1]}
    assert await watcher.step() == 0  # no CRL has them
    assert strangers.asked == []
    await publish(world, "alpha")
    assert await watcher.step() == 1
    assert await state() == ("open", 2, 1)
    await publish(world, "beta")
    strangers.visible = {first[1]}
    assert await watcher.step() == 0
    await clock.advance(60)
    strangers.visible.add(second[1])
    assert await watcher.step() == 1
    assert await state() == ("met", 2, 2)
    assert (await api.get(path)).body["visible_at"] == "2027-01-15T08:01:00Z"
    assert await watcher.step() == 0
    assert {status.reason for _, status in strangers.asked} == {Reason.keyCompromise}


async def case_about(api: Client, trigger: str, body: dict[str, Any]) -> str:
    """The path of an open case of these certificates."""
    path = f"/v1/cases/{(await api.post('/v1/cases', {**OPEN, 'trigger': trigger})).body['id']}"
    assert (await api.post(f"{path}/certificates", body)).status == 201
    return path


def test_of_several_reasons_one_goes_before() -> None:
    """C12: 1 > 9 > 5 > 3 > 4 > none, in whatever order they come; every reason that may be published has its place."""
    assert [int(each) for each in PRECEDENCE] == [1, 9, 5, 3, 4, 0]
    assert set(PRECEDENCE) == ALLOWED_REASONS
    for each in permutations(PRECEDENCE, 3):
        assert strongest(each) == PRECEDENCE[min(map(PRECEDENCE.index, each))]


@pytest.mark.parametrize(
    ("first", "second", "published"),
    [("br-12", "br-7", 9), ("br-7", "br-12", 9), ("br-9", "br-5", 5), ("br-1", "br-6", 4), ("br-11", "br-4", 1)],
)
async def test_two_open_cases_about_one_certificate(
    world: World, api: Client, first: str, second: str, published: int
) -> None:
    """C12: whichever is acted upon, the stronger reason is published; another certificate of it keeps its own."""
    both, alone = await world.certificate(spki=key_hash()), await world.certificate(spki=key_hash())
    path = await case_about(api, first, named(world, both, alone))
    await case_about(api, second, named(world, both))
    assert (await api.post(f"{path}/revocation", {})).body == {"revoked": 2, "left": 0}
    assert [row.reason for row in await world.history(both)] == [published]
    assert [row.reason for row in await world.history(alone)] == [TRIGGERS[first].reason]


async def test_a_case_that_was_closed_gives_no_reason(world: World, api: Client) -> None:
    """C13: an officer decided that its situation is none; reopened, it counts again."""
    one, other = await world.certificate(spki=key_hash()), await world.certificate(spki=key_hash())
    path = await case_about(api, "br-12", named(world, one))
    closed = await case_about(api, "br-7", named(world, one, other))
    assert (await api.post(f"{closed}/closure", {"text": "no misuse"}, as_="officer")).status == 201
    assert (await api.post(f"{path}/revocation", {})).body["revoked"] == 1
    assert [row.reason for row in await world.history(one)] == [Reason.superseded]
    await api.post(f"{path}/certificates", named(world, other))
    assert (await api.post(f"{closed}/reopening", {"text": "misuse"}, as_="officer")).status == 201
    assert (await api.post(f"{path}/revocation", {})).body["revoked"] == 1
    assert [row.reason for row in await world.history(other)] == [Reason.privilegeWithdrawn]


async def test_a_later_case_may_find_it_compromised(world: World, api: Client) -> None:
    """C12, B25, C8, C9: keyCompromise replaces what stands, blocks the key and takes its siblings; nothing else may."""
    spki = key_hash()
    one, sibling = await world.certificate(spki=spki), await world.certificate("beta", spki=spki)
    superseded = await case_about(api, "br-12", named(world, one))
    assert (await api.post(f"{superseded}/revocation", {})).body == {"revoked": 1, "left": 0}
    misused = await case_about(api, "br-7", named(world, one))
    assert (await api.post(f"{misused}/revocation", {})).body == {"revoked": 0, "left": 0}  # C16
    assert [row.reason for row in await world.history(one)] == [Reason.superseded]
    compromised = await case_about(api, "br-3", named(world, one))
    assert (await api.post(f"{compromised}/revocation", {})).body == {"revoked": 1, "left": 0}
    assert (await api.post(f"{compromised}/revocation", {})).body == {"revoked": 0, "left": 0}
    assert [row.reason for row in await world.history(one)] == [Reason.superseded, Reason.keyCompromise]
    assert [row.reason for row in await world.history(sibling)] == [Reason.keyCompromise]
    assert await world.owner.fetchval("select count(*) from blocked_key where spki_sha256 = $1", spki) == 1


async def test_short_lived_certificates_are_dealt_with_like_others(world: World, api: Client) -> None:
    """C4: a CA may revoke them; we do, within the same time, since nobody can tell a week from a compromised key."""
    short = await world.certificate(spki=key_hash(), not_after=world.now + 6 * DAY)
    path = await case_about(api, "br-3", named(world, short))
    assert (await api.get(path)).body["publish_by"] == "2027-01-16T08:00:00Z"
    assert (await api.post(f"{path}/revocation", {})).body == {"revoked": 1, "left": 0}
    assert await world.news() == {short}


async def test_what_expires_is_due_no_more(world: World, api: Client, clock: FakeClock) -> None:
    """An expired certificate cannot be revoked and holds no case open; the report counts it apart."""
    short = await world.certificate(spki=key_hash(), not_after=world.now + 10)
    number = (await api.post("/v1/cases", OPEN)).body["id"]
    path = f"/v1/cases/{number}"
    await api.post(f"{path}/certificates", named(world, short))
    clock.step(11)
    assert (await api.post(f"{path}/revocation", {})).body == {"revoked": 0, "left": 0}
    assert await CaseWatcher(world.pool, Strangers(), clock).step() == 1  # type: ignore[arg-type]
    assert (await api.get(path)).body["state"] == "met"
    (member,) = (await api.get(f"{path}/certificates")).body["certificates"]
    assert (member["revoked"], member["expired"]) == (False, True)


async def test_the_timeline_of_a_compromise(world: World, api: Client, clock: FakeClock) -> None:
    """C19: the proof, its revocations as one, the notices, and when strangers saw it: not each certificate of many."""
    key = ec.generate_private_key(ec.SECP256R1())
    leaves = [await world.leaf("alpha", key) for _ in range(3)]
    path = f"/v1/cases/{(await api.post('/v1/cases', OPEN)).body['id']}"
    await api.post(f"{path}/certificates", {"certificates": [{"serial": f"{each.serial_number:x}"} for each in leaves]})
    clock.step(60)
    assert (await api.post("/v1/key-compromises", {"private_key": pem(key)})).status == 201
    clock.step(60)
    await api.post(f"{path}/notices", {"template": "revocation", "to": ["anna@example.org", "bob@example.org"]})
    await publish(world, "alpha")
    strangers = Strangers()
    strangers.visible.update(each.serial_number.to_bytes(16, "big") for each in leaves)
    watcher = CaseWatcher(world.pool, strangers, clock)  # type: ignore[arg-type]
    assert await watcher.step() == 3
    told = (await api.get(f"{path}/timeline")).body["timeline"]
    assert [(each["at"][14:16], each["by"], each["action"], each["what"]) for each in told[2:]] == [
        ("01", "operator:operator", "key.compromise", "proof: private-key"),
        ("01", "operator:operator", "certificate.revoke-sibling", "3 certificates"),
        ("02", "mail", "notice.revocation", "2 recipients"),
        ("02", "outside probe", "case.visible", "3 certificates"),
    ]


async def test_what_is_wrong_with_a_case(world: World, api: Client) -> None:
    """Each fault has its code, and a list with one unknown certificate adds none of it."""
    known = await world.certificate(spki=key_hash())
    assert (await api.post("/v1/cases", {**OPEN, "trigger": "br-17"})).code == "case.trigger_unknown"
    future = {**OPEN, "received_at": "2027-01-15T08:00:01Z"}
    assert (await api.post("/v1/cases", future)).code == "case.received_in_future"
    assert (await api.get("/v1/cases/7")).code == "case.unknown"
    assert (await api.post("/v1/cases", OPEN, as_="auditor")).code == "operator.role"
    number = (await api.post("/v1/cases", {**OPEN, "received_at": "2027-01-14T06:00:00+01:00"})).body["id"]
    body = named(world, known)
    body["certificates"].append({"serial": "7f"})
    assert (await api.post(f"/v1/cases/{number}/certificates", body)).code == "certificate.unknown"
    shown = (await api.get(f"/v1/cases/{number}")).body
    assert (shown["certificates"], shown["late"], shown["publish_by"]) == (0, True, "2027-01-15T05:00:00Z")
    assert [each["id"] for each in (await api.get("/v1/cases")).body["cases"]] == [number]
    assert len((await api.get("/v1/triggers")).body["triggers"]) == 27


async def test_the_incident_report(world: World, api: Client) -> None:
    """Summary, impact with counts, the timeline from the ledger's acts, and the appendix with the columns of C20."""
    revoked, left = await world.certificate(spki=key_hash()), await world.certificate("beta", spki=key_hash())
    path = f"/v1/cases/{(await api.post('/v1/cases', OPEN)).body['id']}"
    await api.post(f"{path}/certificates", named(world, revoked, left))
    await world.revoke(revoked, Reason.keyCompromise)
    await api.post(f"{path}/notes", {"text": "called the subscriber"})
    await api.post(f"{path}/evidence", {"name": "forum.pdf", "sha256": "ab" * 32})
    sent = await api.post(f"{path}/preliminary-report", {"text": "by mail to both"})
    assert sent.body["preliminary_report_at"] == "2027-01-15T08:00:00Z"
    certificates = (await api.get(f"{path}/certificates")).body["certificates"]
    timeline = (await api.get(f"{path}/timeline")).body["timeline"]
    assert [each["action"] for each in timeline] == [
        "case.open",
        "case.add-certificates",
        "certificate.revoke",
        "case.note",
        "case.evidence",
        "case.preliminary-report",
    ]
    assert [each["what"] for each in timeline[1:3]] == ["2 certificates", "1 certificates"]
    report = incident_report((await api.get(path)).body, certificates, timeline, [])
    for expected in (
        "- Certificates: 2, of issuers: alpha, beta",
        "- Revoked: 1",
        "- Not yet revoked: 1",
        "| case.note | called the subscriber |",
        "key on a forum \\| seen today |",
        "## Root cause analysis",
    ):
        assert expected in report
    rows = list(csv.DictReader(io.StringIO(appendix(certificates))))
    assert [(row["serial"], row["Is revoked?"], row["reason"]) for row in rows] == [
        (format_serial(revoked[1]), "yes", "keyCompromise"),
        (format_serial(left[1]), "no", ""),
    ]


def case_of(total: int, seen: int, first_seen_at: int | None = None, received_at: int = 0) -> Case:
    return Case(
        1, "br-7", received_at, received_at, "r", "s", total, seen, seen, None, None, first_seen_at=first_seen_at
    )


def test_the_forecast() -> None:
    """From what became visible so far, a standstill included; before, from what the deployment was measured to do."""
    due = 5 * DAY
    nothing = standing(case_of(1000, 0), DAY)
    assert (nothing.expected_at, nothing.at_risk) == (None, False)
    assert standing(case_of(1000, 0), DAY, 10.0).expected_at == DAY + 100
    half = standing(case_of(1000, 500, DAY), DAY + 5000, 10.0)
    assert (half.expected_at, half.at_risk) == (DAY + 10_000, False)
    # The same number, three days later: it stands still, and the forecast says so.
    stalled = standing(case_of(1000, 500, DAY), 4 * DAY, 10.0)
    assert (stalled.expected_at, stalled.at_risk) == (7 * DAY, True)
    assert not standing(case_of(1000, 0), due - 6 * 3600).at_risk
    assert standing(case_of(1000, 0), due - 6 * 3600 + 1).at_risk
    assert standing(case_of(1000, 0), 4 * DAY, 1000 / (2 * DAY)).at_risk  # nobody began, and it takes two days
    assert not standing(case_of(1000, 1000, DAY), due + 1).at_risk
    leap = calendar.timegm((2028, 2, 27, 0, 0, 0))
    slow = standing(case_of(1000, 500, leap, leap), leap + 3 * DAY - 1)
    assert (slow.expected_at, slow.publish_by) == (leap + 6 * DAY - 2, leap + 5 * DAY)


async def test_a_case_at_risk_is_said_once(world: World, api: Client, clock: FakeClock) -> None:
    """By the metrics, in the API, and to the addresses for escalations."""
    key = await world.certificate(spki=key_hash())
    number = (await api.post("/v1/cases", OPEN)).body["id"]
    await api.post(f"/v1/cases/{number}/certificates", named(world, key))
    watcher = CaseWatcher(world.pool, Strangers(), clock, teller(["boss@example.org"], "cases"))  # type: ignore[arg-type]
    await watcher.step()
    assert REGISTRY.get_sample_value("quash_cases_at_risk") == 0
    assert REGISTRY.get_sample_value("quash_case_certificates_left", {"case": str(number)}) == 1
    clock.step(18 * 3600 + 1)
    for _ in range(3):
        await watcher.step()
    assert REGISTRY.get_sample_value("quash_cases_at_risk") == 1
    assert (await api.get(f"/v1/cases/{number}/forecast")).body == {"at_risk": True, "expected_at": None, "left": 1}
    (notice,) = (await api.get(f"/v1/cases/{number}/notices")).body["notices"]
    assert (notice["to"], notice["template"]) == ("boss@example.org", "escalation")
    assert "1 certificates are left" in notice["text"]


async def test_evidence_files_are_kept(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Octet for octet, by their hash, once; whoever fetches one gets no page to show; too large ones are refused."""
    path = f"/v1/cases/{(await api.post('/v1/cases', OPEN)).body['id']}"
    body, octets = bytes(range(256)) * 1000, {"Content-Type": "application/octet-stream"}
    sha256 = hashlib.sha256(body).hexdigest()

    async def put(name: str, data: bytes, **kwargs: Any) -> Any:
        return await api.ask("PUT", f"{path}/files/{name}", data=data, **{"headers": octets, **kwargs})

    assert (await put("mail%20%C3%A9.eml", body)).body["sha256"] == sha256
    assert (await put("again.eml", body)).status == 201
    (kept,) = (await api.get(f"{path}/files", as_="auditor")).body["files"]
    assert (kept["name"], kept["octets"]) == ("mail \u00e9.eml", len(body))
    connector = aiohttp.TCPConnector(ssl=api.edge.client_context("viewer"))
    url = f"https://127.0.0.1:{api.port}{path}/files/{sha256}"
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
        assert await response.read() == body
        assert response.headers["Content-Disposition"] == "attachment"
    assert (await api.get(f"{path}/files/{'0' * 64}")).code == "case.file_unknown"
    assert (await put("x", b"{}", headers={"Content-Type": "text/html"})).code == "request.content_type"
    assert (await put("x", b"y", as_="viewer")).code == "operator.role"
    monkeypatch.setattr("issuer.revocation.case_papers_api._MAX_FILE", 1000)
    assert (await put("large", body)).code == "case.file_too_large"
    actions = [each["action"] for each in (await api.get(f"{path}/timeline")).body["timeline"]]
    assert actions == ["case.open", "case.evidence"]


async def test_siblings_within_a_case_that_another_case_finds_compromised(world: World, api: Client) -> None:
    """C12, C8: the first takes its sibling along as compromised, which the case's own reason then cannot replace."""
    spki = key_hash()
    one, sibling = await world.certificate(spki=spki), await world.certificate("beta", spki=spki)
    path = await case_about(api, "br-12", named(world, one, sibling))
    await case_about(api, "br-3", named(world, one))
    assert (await api.post(f"{path}/revocation", {})).body == {"revoked": 2, "left": 0}
    for each in (one, sibling):
        assert [row.reason for row in await world.history(each)] == [Reason.keyCompromise]
