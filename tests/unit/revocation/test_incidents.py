"""What a mass event means for a certificate's owner: its incidents, and notices that go by themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from issuer.api import application, listening
from issuer.revocation.case_api import CaseApi
from issuer.revocation.case_certificates_api import CaseCertificatesApi
from issuer.revocation.incident_api import IncidentApi
from issuer.revocation.mass_api import MassApi
from issuer.revocation.mass_runner import MassRunner
from issuer.revocation.progress import ProgressTeller
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial
from quash.runtime.clock import FakeClock
from quash.runtime.config import Notices
from quash.store import cases
from quash.store.database import acquire
from quash.store.roles import JOBS
from tests.support.edge import Client, Edge
from tests.support.revoking import Key, World, key_hash

HOUR = 3600


@pytest.fixture
async def api(world: World, database: Any, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Client]:
    edge = await Edge(tmp_path, world.owner).set_up()
    app = application(world.pool, clock)
    CaseApi(world.pool, clock).add_routes(app)
    CaseCertificatesApi(world.pool, clock).add_routes(app)
    MassApi(world.pool, database.config, clock).add_routes(app)
    IncidentApi(world.pool, clock, "https://ca.example/incidents/{case}").add_routes(app)
    async with listening(app, edge.tls, "127.0.0.1", 0) as port:
        yield Client(edge, port)


async def open_case(api: Client, keys: list[Key], reporter: str = "anna@example.org") -> int:
    opened = {"trigger": "br-7", "reporter": reporter, "summary": "misuse"}
    number = int((await api.post("/v1/cases", opened)).body["id"])
    named = [{"issuer": "alpha", "serial": format_serial(serial)} for _, serial in keys]
    assert (await api.post(f"/v1/cases/{number}/certificates", {"certificates": named})).status == 201
    return number


async def test_incidents_of_a_certificate(world: World, api: Client, database: Any, clock: FakeClock) -> None:
    """C21: by cases that are not closed, mass revocations from their start on, and jobs for its key."""
    keys = [await world.certificate(spki=key_hash()) for _ in range(3)]

    async def ask(key: Key) -> Any:
        said = await api.get(f"/v1/certificates/alpha/{format_serial(key[1])}/incidents", as_="viewer")
        assert said.status == 200
        return said.body

    said = await ask(keys[0])
    assert (said["cases"], said["mass_revocations"], said["jobs"], said["renewal_info"]) == ([], [], [], None)
    number = await open_case(api, keys[:1])
    said = await ask(keys[0])
    assert [(each["id"], each["state"]) for each in said["cases"]] == [(number, "open")]
    assert said["renewal_info"] == {
        "suggestedWindow": {"start": "2027-01-14T08:00:00Z", "end": "2027-01-15T07:59:59Z"},
        "explanationURL": f"https://ca.example/incidents/{number}",
    }
    await api.post(f"/v1/cases/{number}/closure", {"text": "a mistake"}, as_="officer")
    assert (await ask(keys[0]))["renewal_info"] is None

    made = (await api.post("/v1/mass-revocations", {"list": True, "reason": "superseded"})).body["id"]
    path = f"/v1/mass-revocations/{made}"
    await api.post(f"{path}/certificates", {"serials": [format_serial(serial) for _, serial in keys[1:]]})
    await api.post(f"{path}/gather", {})
    runner = MassRunner(await database.pool(JOBS), clock, batch=10)
    await runner.step()
    assert (await ask(keys[1]))["mass_revocations"] == []
    await api.post(f"{path}/start", {})
    said = await ask(keys[1])
    assert said["mass_revocations"] == [{"id": made, "state": "running", "reason": "superseded"}]
    assert "explanationURL" not in said["renewal_info"]
    assert (await ask(keys[0]))["mass_revocations"] == []

    sibling = key_hash()
    several = [await world.certificate(spki=sibling) for _ in range(4)]
    await world.revoke(several[0], Reason.keyCompromise, batch=2)
    assert [each["reason"] for each in (await ask(several[3]))["jobs"]] == ["keyCompromise"]


async def test_progress_is_told_by_itself(world: World, api: Client, clock: FakeClock) -> None:
    """C17, C18: once for each interval, to each account and to the reporter; and once when all is seen revoked."""
    keys = [await world.certificate(spki=key_hash()) for _ in range(4)]
    for account, mine in (("operator:anna", keys[:3]), ("operator:bert", keys[3:])):
        order = uuid4()
        await world.owner.execute(
            "insert into certificate_order (id, created_at, operator, profile, csr, state, updated_at)"
            " values ($1, 1, $2, 'p', '', 'issued', 1)",
            order,
            account,
        )
        for key in mine:
            await world.owner.execute("update certificate set order_id = $1 where serial = $2", order, key[1])
    mass, small = await open_case(api, keys), await open_case(api, keys[:1], "somebody on the telephone")
    teller = ProgressTeller(world.pool, Notices(progress_from=4, progress_hours=6), clock)
    assert await teller.step() == 0
    for key in keys[:2]:
        await world.revoke(key)
    assert await teller.step() == 3
    clock.step(3 * HOUR)
    assert await teller.step() == 0
    clock.step(3 * HOUR)
    assert await teller.step() == 3

    async def told() -> list[tuple[str, str, str]]:
        rows = await world.owner.fetch("select case_id, channel, recipient, template, subject from notice order by id")
        assert {row["case_id"] for row in rows} == {mass} != {small}
        return [(row["recipient"], row["template"], row["subject"]) for row in rows]

    assert sorted(await told())[:2] == [("anna@example.org", "progress", "Case 1: 0 of 4 revoked")] * 2
    for key in keys[2:]:
        await world.revoke(key)
    async with acquire(world.pool) as conn:
        for key in keys:
            await cases.add_sighting(conn, mass, *key, world.now)
        await cases.add_sighting(conn, small, *keys[0], world.now)
    assert (await teller.step(), await teller.step()) == (3, 0)
    assert [recipient for recipient, template, _ in await told() if template == "done"] == [
        *("operator:anna", "operator:bert", "anna@example.org"),
    ]
    clock.step(2 * 24 * HOUR)
    assert await ProgressTeller(world.pool, Notices(progress_from=1), clock).step() == 0  # no news any more


async def test_cursors_that_no_page_gave(api: Client, world: World) -> None:
    """An issuer that cannot be is behind all; anything else that we did not write is refused."""
    number = await open_case(api, [await world.certificate()])
    made = (await api.post("/v1/mass-revocations", {"list": True})).body["id"]
    case, mass = f"/v1/cases/{number}/certificates", f"/v1/mass-revocations/{made}/certificates"
    assert len((await api.get(f"{case}?after=-1:")).body["certificates"]) == 1
    for path in (f"{case}?after=99999:00", f"{mass}?after=99999:{'9' * 18}:00", f"{mass}?after="):
        said = await api.get(path)
        assert (said.status, said.body["after"]) == (200, None)
    for path in (f"{case}?after=1", f"{case}?since=1", f"{mass}?after=1:1", f"{mass}?after=1:1:0"):
        assert (await api.get(path)).code == "request.invalid"
