"""Cases: deadlines by trigger, met only by what relying parties see, and the report of it."""

from __future__ import annotations

import calendar
import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from issuer.api import application, listening
from issuer.revocation.case_api import CaseApi
from issuer.revocation.cases import CaseWatcher, standing
from issuer.revocation.triggers import TRIGGERS
from quash.cli.case import appendix, incident_report
from quash.pki.ocsp_response import Status
from quash.pki.reasons import ALLOWED_REASONS, Reason
from quash.pki.serials import format_serial
from quash.runtime.clock import FakeClock
from quash.store.cases import Case
from tests.support.edge import Client, Edge
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
async def api(world: World, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Client]:
    edge = await Edge(tmp_path, world.owner).set_up()
    app = application(world.pool, clock)
    CaseApi(world.pool, clock).add_routes(app)
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


def test_triggers_are_complete() -> None:
    """Sixteen of BR 4.9.1.1, nine for sub-CAs, Microsoft's; 24 hours, 5 and 7 days; reasons that may be published."""
    hours = [TRIGGERS[f"br-{n}"].seconds // 3600 for n in range(1, 17)]
    assert hours == [24] * 5 + [120] * 11
    assert [TRIGGERS[f"sub-ca-{n}"].seconds // 3600 for n in range(1, 10)] == [168] * 9
    assert TRIGGERS["microsoft"].seconds == DAY
    assert len(TRIGGERS) == 26
    assert {each.reason for each in TRIGGERS.values()} <= ALLOWED_REASONS
    key = {"br-3", "br-4", "br-16", "sub-ca-3"}
    assert {name for name, each in TRIGGERS.items() if each.reason is Reason.keyCompromise} == key


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
    """From the receipt, to the second: a case is late one second after, and stays what it was when it was met."""
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
    """Not when the database says revoked: each certificate in OCSP and in the published CRL."""
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
    assert len((await api.get("/v1/triggers")).body["triggers"]) == 26


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
        "case.note",
        "case.evidence",
        "case.preliminary-report",
    ]
    report = incident_report((await api.get(path)).body, certificates, timeline)
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
