"""Looking around over the admin API: certificates, acts, jobs; ETags."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from issuer.api import application, listening
from issuer.revocation import case_certificates_api
from issuer.revocation.cases import revoke_members
from issuer.revocation.main import add_routes
from issuer.revocation.visible import Watches
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial, new_serial
from quash.runtime.clock import FakeClock
from tests.support.command_line import CommandLine
from tests.support.edge import Client, Edge
from tests.support.revoking import DAY, Key, World, key_hash

OPEN = {"trigger": "br-3", "reporter": "Example", "summary": "key on a forum"}


@pytest.fixture
async def edge(world: World, tmp_path: Path) -> Edge:
    return await Edge(tmp_path, world.owner).set_up()


@pytest.fixture
async def api(world: World, database: Any, edge: Edge, clock: FakeClock) -> AsyncIterator[Client]:
    async with Watches(world.pool, database.config, clock) as watches:
        app = application(world.pool, clock)
        add_routes(app, world.pool, database.config, clock, watches)
        async with listening(app, edge.tls, "127.0.0.1", 0) as port:
            yield Client(edge, port)


def with_names(world: World, *names: x509.GeneralName, critical: bool = False) -> bytes:
    """DER of a certificate by alpha with these names."""
    authority, now = world.authorities["alpha"], dt.datetime.fromtimestamp(world.now, dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.certificate.subject)
        .public_key(authority.key.public_key())
        .serial_number(int.from_bytes(new_serial(), "big"))
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName(names), critical=critical)
        .sign(authority.key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


async def found(api: Client, query: str, **kwargs: Any) -> list[str]:
    said = await api.get(f"/v1/certificates?{query}", **kwargs)
    assert said.status == 200, said.body
    return [each["serial"] for each in said.body["certificates"]]


def serials(*keys: Key) -> list[str]:
    return [format_serial(serial) for _, serial in sorted(keys)]


async def test_certificates_by_name(world: World, api: Client) -> None:
    """Exactly, or all below a domain, in any case; a mailbox by itself or by its domain; hostile octets have none."""
    www = await world.certificate(
        der=with_names(world, x509.DNSName("www.Example.org"), x509.DNSName("*.dev.example.org"), critical=True)
    )
    many = await world.certificate(der=with_names(world, *(x509.DNSName(f"h{n}.example.net") for n in range(200))))
    mail = await world.certificate("beta", der=with_names(world, x509.RFC822Name("Anna@mail.example.org")))
    for cut in (100, 300, -80):
        await world.certificate(der=with_names(world, x509.DNSName("cut.example.com"))[:cut])
    await world.certificate(der=b"\x06\x03\x55\x1d\x11\x04\x84\xff\xff\xff\xff\x30")
    assert await found(api, "name=WWW.example.org") == serials(www)
    assert await found(api, "name=*.dev.example.org") == serials(www)
    assert await found(api, "name=.dev.example.org") == serials(www)
    assert await found(api, "name=.example.org") == serials(www, mail)
    assert await found(api, "name=anna%40mail.example.org") == serials(mail)
    assert await found(api, "name=%40mail.example.org") == serials(mail)
    assert await found(api, "name=h199.example.net") == serials(many)
    for other in ("example.org", "ww.example.org", ".org", ".ample.org", "%25", "ample.org"):
        assert await found(api, f"name={other}") == [], other
    (hit,) = (await api.get("/v1/certificates?name=www.example.org")).body["certificates"]
    assert hit["names"] == ["www.example.org", "*.dev.example.org"]


async def test_certificates_by_everything_else(world: World, api: Client) -> None:
    """Serial, key, account, issuer, state and dates; all of them must hold."""
    spki, order = key_hash(), uuid4()
    one = await world.certificate(spki=spki, not_after=world.now + 10 * DAY)
    two = await world.certificate("beta", spki=spki, serial=one[1], state="precertificate")
    await world.owner.execute(
        "insert into certificate_order (id, created_at, operator, profile, csr, state, updated_at)"
        " values ($1, 1, 'operator:anna', 'p', '', 'issued', 1)",
        order,
    )
    await world.owner.execute("update certificate set order_id = $1 where issuer_id = $2", order, two[0])
    await world.revoke(one, Reason.superseded)
    assert await found(api, f"serial={format_serial(one[1])}") == serials(one, two)
    assert await found(api, f"spki_sha256={spki.hex()}&issuer=beta") == serials(two)
    assert await found(api, "account=operator:anna") == serials(two)
    assert await found(api, "account=operator:nobody") == []
    assert await found(api, "state=precertificate") == serials(two)
    assert await found(api, "expires_to=2027-01-25T08:00:00Z") == serials(one)
    assert await found(api, "expires_from=2027-01-25T08:00:01Z") == serials(two)
    assert await found(api, "issued_from=2027-01-14T08:00:01Z") == []
    assert len(await found(api, "issued_to=2027-01-14T08:00:00Z")) == 2
    (hit,) = (await api.get("/v1/certificates?issuer=alpha", as_="viewer")).body["certificates"]
    assert (hit["reason"], hit["account"], hit["state"]) == ("superseded", None, "issued")
    for wrong, code in (
        ("nam=x", "request.invalid"),
        ("limit=0", "request.invalid"),
        ("state=x", "request.invalid"),
        ("after=7", "request.invalid"),
        ("name=a&name=b", "request.invalid"),
        ("name=%00", "request.nul"),
        ("issued_from=2027-01-14T08:00:01", "request.invalid"),
        ("issuer=nobody", "issuer.unknown"),
        ("serial=xyz", "serial.malformed"),
    ):
        assert (await api.get(f"/v1/certificates?{wrong}")).code == code, wrong


async def test_pages_go_on_by_key(world: World, api: Client) -> None:
    """Each certificate once, whatever is added behind or before meanwhile; an odd serial does not break it."""
    keys = [await world.certificate(serial=serial) for serial in (b"\x00\xff", b"\x7f", b"\x81\x01", new_serial())]
    seen, after = [], None
    while True:
        path = "/v1/certificates?limit=2" + (f"&after={after}" if after else "")
        page = (await api.get(path)).body
        seen += page["certificates"]
        after = page["after"]
        if after is None:
            break
        await world.certificate(serial=b"\x00\xfe") if len(seen) == 2 else None
    assert [each["serial"] for each in seen] == serials(*keys)


async def test_acts_and_jobs(world: World, api: Client) -> None:
    """Newest first, by actor and action, page by page; a job of siblings is listed with its progress."""
    spki = key_hash()
    keys = [await world.certificate(spki=spki) for _ in range(5)]
    await world.revoke(keys[0], Reason.keyCompromise, batch=2)
    assert (await api.get("/v1/acts")).code == "operator.role"
    first = (await api.get("/v1/acts?limit=2", as_="auditor")).body
    rest = (await api.get(f"/v1/acts?limit=2&before={first['before']}", as_="auditor")).body
    ids = [each["id"] for each in (*first["acts"], *rest["acts"])]
    assert ids == sorted(ids, reverse=True)
    assert rest["before"] is None
    (cause,) = (await api.get("/v1/acts?action=certificate.revoke&actor=operator:test", as_="officer")).body["acts"]
    assert (await api.get(f"/v1/acts/{cause['id']}", as_="officer")).body == cause
    assert (await api.get("/v1/acts/999", as_="officer")).code == "act.unknown"
    assert (await api.get("/v1/acts?since=2027-01-15T08:00:01Z", as_="officer")).body["acts"] == []
    (job,) = (await api.get("/v1/jobs", as_="viewer")).body["jobs"]
    assert (job["done"], job["state"], job["act_id"]) == (2, "running", cause["id"])
    assert (await api.get(f"/v1/jobs/{job['id']}")).body == job
    assert (await api.get(f"/v1/jobs/{job['id'] + 1}")).code == "job.unknown"


async def test_a_case_is_changed_only_as_it_was_seen(world: World, api: Client) -> None:
    """`If-Match` with an older ETag is 412 and does nothing; of two at once one wins; `If-None-Match` spares a body."""
    path = f"/v1/cases/{(await api.post('/v1/cases', OPEN)).body['id']}"
    tag = (await api.get(path)).headers["ETag"]
    assert (await api.get(path, headers={"If-None-Match": tag})).status == 304
    key = await world.certificate(spki=key_hash())
    named = {"certificates": [{"issuer": "alpha", "serial": format_serial(key[1])}]}
    match = {"headers": {"If-Match": tag}}
    both = await asyncio.gather(*(api.post(f"{path}/certificates", named, **match) for _ in range(2)))
    assert sorted(each.status for each in both) == [201, 412]
    late = await api.post(f"{path}/preliminary-report", {"text": "x"}, **match)
    assert (late.status, late.code) == (412, "precondition.failed")
    shown = await api.get(path)
    assert shown.headers["ETag"] != tag
    assert shown.body["preliminary_report_at"] is None
    match = {"headers": {"If-Match": f'"other", {shown.headers["ETag"]}'}}
    assert (await api.post(f"{path}/revocation", {}, **match)).body == {"revoked": 1, "left": 0}
    assert (await api.post(f"{path}/notes", {"text": "x"}, headers={"If-Match": "*"})).status == 201
    pages = [(await api.get(f"/v1/cases?limit=1{more}")).body for more in ("", "&before=1")]
    assert [len(page["cases"]) for page in pages] == [1, 0]


async def test_a_judgement_in_between_changes_no_reason(
    world: World, api: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is that of the case as it was shown: a judgement after the comparison counts for the next request."""
    path = f"/v1/cases/{(await api.post('/v1/cases', OPEN)).body['id']}"
    key = await world.certificate(spki=key_hash())
    named = {"certificates": [{"issuer": "alpha", "serial": format_serial(key[1])}]}
    tag = (await api.post(f"{path}/certificates", named)).status == 201 and (await api.get(path)).headers["ETag"]

    async def late(*args: Any, **kwargs: Any) -> Any:
        assert (await api.post(f"{path}/judgement", {"trigger": "br-5"}, as_="officer")).status == 201
        return await revoke_members(*args, **kwargs)

    monkeypatch.setattr(case_certificates_api, "revoke_members", late)
    said = await api.post(f"{path}/revocation", {}, headers={"If-Match": tag})
    assert said.body == {"revoked": 1, "left": 0}
    assert [Reason(each.reason) for each in await world.history(key)] == [Reason.keyCompromise]


async def test_the_command_line_looks_around(world: World, api: Client, edge: Edge, tmp_path: Path) -> None:
    """`quash find`, `acts` and `jobs`: all pages, as text and as JSON, and the API's own errors."""
    names = [x509.DNSName("cli.example.org")]
    keys = [await world.certificate(der=with_names(world, *names), spki=key_hash()) for _ in range(3)]
    await world.revoke(keys[0], Reason.superseded)
    path = tmp_path / "quash.toml"
    path.write_text(f"[admin]\nport = {api.port}\n")
    options = ("--config", str(path), "--state", str(edge.state))
    patch = {"quash.cli.find:_PAGE": 2}
    async with CommandLine() as line:
        found = await line.run("find", "--name", ".example.org", "--json", *options, patch=patch)
        assert [each["serial"] for each in found.lines] == serials(*keys)
        text = await line.run("find", "--name", "cli.example.org", "--limit", "1", *options)
        assert text.out.count("cli.example.org") == 1
        assert (await line.run("find", "--issued-to", "yesterday", *options)).code == "request.invalid"
        (act,) = (await line.run("acts", "--action", "certificate.revoke", "--json", *options)).lines
        assert act["by"] == "operator:test"
        assert (await line.run("acts", "--as", "viewer", *options)).code == "operator.role"
        assert (await line.run("jobs", *options)).out == ""
