"""Identifiers that officers mark as validated: for whom, by which method, since when, and for how long that counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from issuer.api import application, listening
from issuer.checks import bodies
from issuer.checks.registries import Registries
from issuer.checks.validation import Identifier, check_validated, identifiers, organizations, proofs
from issuer.issuance import validation_api
from issuer.issuance.validations import record, withdraw
from issuer.profiles import SUBJECT_OIDS, LeafContent
from quash.errors import Kind, QuashError
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.store.orders import Order
from quash.store.validations import Validation
from tests.support.edge import Client, Edge
from tests.support.issuing import OV_SUBJECT, World, make_config, make_csr

DAY = 86_400
ANN, BOB = "operator:ann", "operator:bob"
DNS = {"kind": "dns", "value": "example.org"}
ORGANIZATION = {"kind": "organization", "value": "TN/Société d'Essai"}
IN_TUNIS = {"kind": "organization", "value": "TN/Société d'Essai/L=Tunis"}


async def _mark(
    world: World, identifier: dict[str, str] = DNS, method: str = "3.2.2.4.7", **changes: Any
) -> Validation:
    now = int(world.clock.now())
    given = {"method": method, "validated_at": now, "now": now} | changes
    async with world.pool.acquire() as conn:
        return await record(conn, BOB, ANN, identifier, **given)


async def _order(world: World, profile: str = "tls-dv", who: str = ANN) -> Order:
    """A name below example.org, for real: identifiers count, only logs are left out."""
    config = make_config(world.config, require_validation=True)
    config = config.model_copy(update={"ct": config.ct.model_copy(update={"required": False})})
    issuance = world.issuance(config=config)
    order = await issuance.submit(who, profile, make_csr(["www.example.org"], subject=OV_SUBJECT))
    return await issuance.finish(order.id, timeout=0)


async def test_what_an_officer_marked_is_issued(world: World) -> None:
    """For the applicant and nobody else; the act names all of it (F2); withdrawn, it counts no more."""
    await _mark(world)
    assert (await _order(world)).state == "issued"
    with pytest.raises(QuashError, match=r"validation\.required.*www\.example\.org"):
        await _order(world, who="operator:carol")
    (act,) = await world.fetch("select actor, action, subject from act where action like 'validation%'")
    assert (act["actor"], act["action"]) == (BOB, "validation.record")
    assert act["subject"] == {
        "applicant": ANN,
        "kind": "dns",
        "value": "example.org",
        "method": "3.2.2.4.7",
        "validated_at": int(world.clock.now()),
    }
    async with world.pool.acquire() as conn:
        await withdraw(conn, BOB, ANN, DNS, int(world.clock.now()))
        with pytest.raises(QuashError, match=r"validation\.unknown"):
            await withdraw(conn, BOB, ANN, DNS, int(world.clock.now()))
    with pytest.raises(QuashError, match=r"validation\.required"):
        await _order(world)


async def test_an_organization_is_validated_too(world: World) -> None:
    """D22, G46: an OV certificate needs the names and the body behind them."""
    await _mark(world)
    with pytest.raises(QuashError, match=r"validation\.required.*TN/Société d'Essai"):
        await _order(world, "tls-ov")
    await _mark(world, ORGANIZATION, "3.2.2.1")
    with pytest.raises(QuashError, match=r"validation\.required.*TN/Société d'Essai/L=Tunis"):
        await _order(world, "tls-ov")  # nobody looked where it is
    await _mark(world, IN_TUNIS, "3.2.2.1")
    assert (await _order(world, "tls-ov")).state == "issued"
    async with world.pool.acquire() as conn:  # taken back as the organization: whatever else was said of it goes too
        await withdraw(conn, BOB, ANN, ORGANIZATION, int(world.clock.now()))
    with pytest.raises(QuashError, match=r"validation\.required"):
        await _order(world, "tls-ov")
    acts = await world.fetch("select subject from act where action = 'validation.withdraw' order by id")
    assert {act["subject"]["value"] for act in acts} == {ORGANIZATION["value"], IN_TUNIS["value"]}


async def test_with_old_lists_of_names_nothing_is_issued(world: World, clock: FakeClock) -> None:
    """G48: nobody knows then which names exist; orders are not judged, and one that waits goes on with new lists."""
    await _mark(world)
    registries = Registries()
    days = (clock.now() - min(registries.published.values())) // DAY
    config = make_config(world.config, require_validation=True).model_dump()
    config |= {"names": {"max_age_days": days - 1}, "ct": {"required": False}}
    config["issuance"]["require_validation"] = False
    relaxed = Config.model_validate(config)
    strict = relaxed.model_copy(update={"issuance": relaxed.issuance.model_copy(update={"require_validation": True})})
    issuance = world.issuance(config=strict, registries=registries)
    with pytest.raises(QuashError) as error:
        await issuance.submit(ANN, "tls-dv", make_csr(["www.example.org"]))
    assert (error.value.code, error.value.kind) == ("names.outdated", Kind.UNAVAILABLE)
    assert await world.fetch("select from certificate_order") == []
    waiting = await world.issuance(config=strict).submit(ANN, "tls-dv", make_csr(["www.example.org"]))
    assert (await issuance.finish(waiting.id, timeout=0)).state == "pending"
    assert await world.fetch("select from certificate") == []
    renewed = strict.model_copy(update={"names": strict.names.model_copy(update={"max_age_days": days + 1})})
    again = world.issuance(config=renewed, registries=registries)
    assert (await again.finish(waiting.id, timeout=0)).state == "issued"


async def test_a_record_is_kept_in_one_form(world: World) -> None:
    """Attributes in their order, in NFC, whatever the officer wrote: what certificates have is compared as it is."""
    said = "TN/Socie\u0301te\u0301/organizationIdentifier=VATTN-1234567/A/M/L=Tunis"
    row = await _mark(world, {"kind": "organization", "value": said}, "3.2.3")
    assert row.value == "TN/Société/L=Tunis/organizationIdentifier=VATTN-1234567/A/M"
    person = await _mark(world, {"kind": "person", "value": "TN/Société/SN=Ben Salah/GN=Amel"}, "3.2.4")
    assert person.value == "TN/Société/GN=Amel/SN=Ben Salah"


@pytest.mark.parametrize(
    ("identifier", "changes", "code"),
    [
        (DNS, {"method": "3.2.2.4.2"}, "validation.method"),
        (DNS, {"method": "3.2.2.1"}, "validation.method"),
        (ORGANIZATION, {"method": "3.2.2.4.7"}, "validation.method"),
        ({"kind": "email", "value": "a@example.org"}, {"method": "3.2.2.4.7"}, "validation.method"),
        (DNS, {"validated_at": 1_800_000_000 - 30 * DAY - 1}, "validation.time"),
        (DNS, {"validated_at": 1_800_000_061}, "validation.time"),
        ({"kind": "dns", "value": "co.uk"}, {}, "name.public_suffix"),
        ({"kind": "dns", "value": "*.example.org"}, {}, "name.wildcard"),
        ({"kind": "organization", "value": "Essai"}, {"method": "3.2.2.1"}, "validation.organization"),
        ({"kind": "organization", "value": "tn/Essai"}, {"method": "3.2.2.1"}, "name.attribute_value"),
        ({"kind": "organization", "value": "TN/Essai/L=N/A"}, {"method": "3.2.2.1"}, "name.attribute_value"),
        ({"kind": "organization", "value": "TN/Essai/L=A/L=B"}, {"method": "3.2.2.1"}, "validation.organization"),
        ({"kind": "organization", "value": "TN/Essai/OU=IT"}, {"method": "3.2.2.1"}, "validation.organization"),
        ({"kind": "organization", "value": "TN/Essai/GN=A/SN=B"}, {"method": "3.2.2.1"}, "validation.organization"),
        ({"kind": "person", "value": "TN/Essai/GN=A/SN=B"}, {"method": "3.2.2.1"}, "validation.method"),
        ({"kind": "person", "value": "TN/Essai/GN=Amel"}, {"method": "3.2.4"}, "validation.person"),
        ({"kind": "person", "value": "TN/Essai/L=Tunis/GN=A/SN=B"}, {"method": "3.2.4"}, "validation.person"),
    ],
)
async def test_marks_that_prove_nothing(
    world: World, identifier: dict[str, str], changes: dict[str, Any], code: str
) -> None:
    """D21-D24: a retired or foreign method, an old time, a name that nobody could hold; nothing is stored."""
    with pytest.raises(QuashError) as error:
        await _mark(world, identifier, **changes)
    assert error.value.code == code
    assert await world.fetch("select from validated_identifier union all select from act") == []


MAILBOXES = {
    "admin@example.org": True,
    "Hostmaster@Example.org": True,
    "postmaster@example.org": True,
    "info@example.org": False,
    "admin@www.example.org": False,
    "admin@example.org.evil.example": False,
    "admin": False,
    None: False,
}


@pytest.mark.parametrize("mailbox", MAILBOXES)
async def test_a_constructed_e_mail_went_to_one_of_five_mailboxes(world: World, mailbox: str | None) -> None:
    """G36: at the domain that is validated; the act says which."""
    if not MAILBOXES[mailbox]:
        with pytest.raises(QuashError, match=r"validation\.mailbox.*webmaster"):
            await _mark(world, DNS, "3.2.2.4.4", mailbox=mailbox)
        assert await world.fetch("select from validated_identifier") == []
        return
    await _mark(world, DNS, "3.2.2.4.4", mailbox=mailbox)
    (act,) = await world.fetch("select subject from act")
    assert act["subject"]["mailbox"] == mailbox
    with pytest.raises(QuashError, match=r"validation\.mailbox"):
        await _mark(world, DNS, "3.2.2.4.7", mailbox=mailbox)


async def test_nobody_marks_for_oneself(world: World) -> None:
    """Four eyes."""
    async with world.pool.acquire() as conn:
        with pytest.raises(QuashError, match=r"validation\.own"):
            await record(conn, ANN, ANN, DNS, method="3.2.2.4.7", validated_at=1_800_000_000, now=1_800_000_000)


def _at(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())


# (wanted, row's kind, value, method number, age in days, on this day, whether it proves)
CASES = [
    (("dns", "a.b.example.org"), "dns", "example.org", "3.2.2.4.7", 0, "2026-11-22", True),
    (("dns", "example.org"), "dns", "www.example.org", "3.2.2.4.7", 0, "2026-11-22", False),
    (("dns", "notexample.org"), "dns", "example.org", "3.2.2.4.7", 0, "2026-11-22", False),
    (("dns", "example.org"), "dns", "example.org", "3.2.2.4.19", 0, "2026-11-22", True),
    (("dns", "www.example.org"), "dns", "example.org", "3.2.2.4.19", 0, "2026-11-22", False),  # D25
    (("dns", "example.org"), "dns", "example.org", "3.2.2.4.7", 30, "2026-11-22", True),
    (("dns", "example.org"), "dns", "example.org", "3.2.2.4.7", 31, "2026-11-22", False),  # G13
    (("dns", "example.org"), "dns", "example.org", "3.2.2.4.7", 30, "2029-03-14", True),
    (("dns", "example.org"), "dns", "example.org", "3.2.2.4.7", 10, "2029-03-15", True),
    (("dns", "example.org"), "dns", "example.org", "3.2.2.4.7", 11, "2029-03-15", False),  # D21
    (("dns", "example.org"), "dns", "example.org", "3.2.2.4.22", 10, "2026-11-22", True),
    (("dns", "example.org"), "dns", "example.org", "3.2.2.4.22", 11, "2026-11-22", False),  # D21
    (("dns", "example.org"), "dns", "example.org", "3.2.2.4.4", 1, "2028-03-14", True),
    (("dns", "example.org"), "dns", "example.org", "3.2.2.4.4", 1, "2028-03-15", False),  # D24
    (("dns", "example.org"), "dns", "example.org", "3.2.2.4.7", -1, "2026-11-22", False),
    (("email", "a@example.org"), "email", "a@example.org", "3.2.2.2", 30, "2026-11-22", True),
    (("email", "a@example.org"), "email", "a@example.org", "3.2.2.2", 31, "2026-11-22", False),  # D50
    (("email", "b@example.org"), "email", "a@example.org", "3.2.2.2", 0, "2026-11-22", False),
    (("email", "a@example.org"), "dns", "example.org", "3.2.2.4.7", 0, "2026-11-22", True),
    (("email", "a@mail.example.org"), "dns", "example.org", "3.2.2.4.7", 0, "2026-11-22", True),
    (("dns", "example.org"), "email", "a@example.org", "3.2.2.2", 0, "2026-11-22", False),
    (("organization", "TN/Essai"), "organization", "TN/Essai", "3.2.2.1", 365, "2026-11-22", True),
    (("organization", "TN/Essai"), "organization", "TN/Essai", "3.2.2.1", 366, "2026-11-22", False),  # D22, G14
    (("organization", "FR/Essai"), "organization", "TN/Essai", "3.2.2.1", 0, "2026-11-22", False),
    (("organization", "TN/Essai/L=Tunis"), "organization", "TN/Essai", "3.2.2.1", 0, "2026-11-22", False),
    (("organization", "TN/Essai/L=Sfax"), "organization", "TN/Essai/L=Tunis", "3.2.2.1", 0, "2026-11-22", False),
    (("organization", "TN/Essai/L=tunis"), "organization", "TN/Essai/L=Tunis", "3.2.2.1", 0, "2026-11-22", False),
    (("organization", "TN/Essai"), "organization", "TN/Essai/L=Tunis", "3.2.2.1", 0, "2026-11-22", True),
    (("organization", "TN/Essai"), "organization", "TN/Essai Sud", "3.2.2.1", 0, "2026-11-22", False),
    (("organization", "TN/Essai/L=Tunis"), "organization", "TN/Essai/ST=X/L=Tunis", "3.2.3", 0, "2026-11-22", True),
    (("person", "TN/Essai/GN=A/SN=B"), "person", "TN/Essai/GN=A/SN=B", "3.2.4", 365, "2026-11-22", True),
    (("person", "TN/Essai/GN=A/SN=B"), "person", "TN/Essai/GN=A/SN=B", "3.2.4", 366, "2026-11-22", False),  # G14
    (("person", "TN/Essai/GN=A/SN=B"), "person", "TN/Essai/GN=A/SN=C", "3.2.4", 0, "2026-11-22", False),
    (("person", "TN/Essai/GN=A/SN=B"), "person", "TN/Autre/GN=A/SN=B", "3.2.4", 0, "2026-11-22", False),
    (("person", "TN/Essai/GN=A/SN=B"), "organization", "TN/Essai", "3.2.3", 0, "2026-11-22", False),
]


@pytest.mark.parametrize(("wanted", "kind", "value", "method", "age", "day", "enough"), CASES)
def test_what_proves_what_and_for_how_long(
    wanted: tuple[str, str], kind: str, value: str, method: str, age: int, day: str, enough: bool
) -> None:
    """The clock is moved over each switch date of reuse and methods (D-4)."""
    now = _at(day)
    row = Validation(ANN, kind, value, method, now - age * DAY, now, False, 1)
    identifier = Identifier(*wanted)
    # What the database is asked for holds every row that could prove it.
    begins = organizations([identifier])
    found = (kind, value) in proofs([identifier]) or any(
        value == each or value.startswith(f"{each}/") for each in begins
    )
    assert found or not enough
    if enough:
        check_validated([identifier], [row], now)
        return
    with pytest.raises(QuashError, match=r"validation\.required"):
        check_validated([identifier], [row], now)


@pytest.fixture
async def client(world: World, tmp_path: Path) -> AsyncIterator[Client]:
    edge = await Edge(tmp_path / "state", world.owner).set_up()
    app = application(world.pool, world.clock)
    validation_api.add_routes(app, world.pool, world.issuance())
    async with listening(app, edge.tls, "127.0.0.1", 0) as port:
        yield Client(edge, port)


async def test_the_api(client: Client, clock: FakeClock) -> None:
    """Officers record and withdraw, auditors look, operators neither: nobody outside validates (G37)."""
    path, body = "/v1/validations", {"applicant": "operator:operator", **DNS, "method": "3.2.2.4.7"}
    assert (await client.post(path, body)).status == 403
    made = await client.post(path, body | {"validated_at": "2027-01-15T00:00:00Z"}, as_="officer")
    told = {**body, "validated_at": "2027-01-15T00:00:00Z", "recorded_at": "2027-01-15T08:00:00Z"}
    assert (made.status, made.body) == (201, told)
    assert (await client.get(f"{path}?applicant=operator:operator", as_="auditor")).body == {"validations": [told]}
    assert (await client.get(f"{path}?applicant=operator:other", as_="officer")).body == {"validations": []}
    assert (await client.post(path, body | {"applicant": "operator:officer"}, as_="officer")).status == 403
    assert (await client.post(path, body | {"method": "phone"}, as_="officer")).status == 400
    gone = {key: body[key] for key in ("applicant", "kind", "value")}
    assert (await client.post(f"{path}/withdrawals", gone, as_="officer")).status == 200
    assert (await client.post(f"{path}/withdrawals", gone, as_="officer")).status == 404
    assert clock.now() == 1_800_000_000


def test_a_mailbox_of_an_organization_needs_the_organization_too() -> None:
    """G38: who controls the mailbox does not speak for the organization; both are proven for whoever orders."""
    content = LeafContent(b"", (), {"C": "TN", "O": "Essai"}, ("info@example.org",))
    now = _at("2026-11-22")
    wanted = identifiers(content)
    assert {(each.kind, each.value) for each in wanted} == {("email", "info@example.org"), ("organization", "TN/Essai")}
    mailbox = Validation("operator:ann", "email", "info@example.org", "3.2.2.2", now, now, False, 0)
    body = Validation("operator:ann", "organization", "TN/Essai", "3.2.3", now, now, False, 0)
    for found, missing in (([mailbox], "TN/Essai"), ([body], "info@example.org")):
        with pytest.raises(QuashError, match=f": {missing} must be validated first"):
            check_validated(wanted, found, now)
    check_validated(wanted, [mailbox, body], now)


SPONSORED = {
    "C": "TN",
    "ST": "Tunis",
    "L": "Tunis",
    "O": "Essai",
    "organizationIdentifier": "NTRTN-B2412342",
    "GN": "Amel",
    "SN": "Ben Salah",
    "CN": "Amel Ben Salah",
}
ESSAI, AMEL = "TN/Essai/ST=Tunis/L=Tunis/organizationIdentifier=NTRTN-B2412342", "TN/Essai/GN=Amel/SN=Ben Salah"


def test_every_attribute_of_a_subject_must_have_been_validated() -> None:
    """D6, D49, G38: whichever is changed or left out of the records, the refusal names the line that lacks it."""
    now = _at("2026-11-22")
    assert {"C", "O", "CN", *bodies.ORGANIZATION, *bodies.PERSON} == set(SUBJECT_OIDS)
    wanted = identifiers(LeafContent(b"", (), SPONSORED))
    assert [(each.kind, each.value) for each in wanted] == [("organization", ESSAI), ("person", AMEL)]
    body = Validation(ANN, "organization", ESSAI, "3.2.3", now, now, False, 0)
    person = Validation(ANN, "person", AMEL, "3.2.4", now, now, False, 0)
    check_validated(wanted, [body, person], now)
    for attribute in set(SPONSORED) - {"CN"}:
        other = {**SPONSORED, attribute: "FR" if attribute == "C" else "NTRTN-X" if "Id" in attribute else "Invented"}
        with pytest.raises(QuashError, match=f"{other[attribute]}.* must be validated first"):
            check_validated(identifiers(LeafContent(b"", (), other)), [body, person], now)


def test_two_bodies_of_one_name_prove_no_third() -> None:
    """The place of one record and the register of another are of two organizations perhaps."""
    now = _at("2026-11-22")
    rows = [
        Validation(ANN, "organization", f"TN/Essai/{each}", "3.2.3", now, now, False, 0)
        for each in ("L=Tunis", "organizationIdentifier=NTRTN-B2412342")
    ]
    both = Identifier("organization", "TN/Essai/L=Tunis/organizationIdentifier=NTRTN-B2412342")
    with pytest.raises(QuashError, match=r"validation\.required"):
        check_validated([both], rows, now)


@pytest.mark.parametrize(
    "subject", [{"C": "TN", "O": "Essai/L=Tunis"}, {"C": "TN", "O": "Essai", "ST": "A/L=B"}, {"C": "TN", "O": "A/x=y"}]
)
def test_a_name_that_reads_like_attributes_cannot_be_validated(subject: dict[str, str]) -> None:
    """Nobody could tell a record of it from one of something else."""
    with pytest.raises(QuashError, match=r"validation\.required"):
        identifiers(LeafContent(b"", (), subject))
