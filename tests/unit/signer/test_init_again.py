"""Init interrupted, repeated, at once, late, and without the keys that it does not need."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cryptography import x509

from issuer.signer import key_files, offline, operators, publish_files
from issuer.signer.offline import renew_crl, renew_ocsp_signer
from issuer.signer.service import CaSigner
from quash.errors import QuashError
from quash.pki.crl import read_crl, read_entry
from quash.runtime.config import Config
from quash.store import acts, certificates, crls, issuers, ocsp_signers, outbox, revocations
from quash.store.revocations import Revocation
from tests.support.initialising import Made

DAY = 86_400


class Crash(Exception):  # noqa: N818 - it is no error of the program
    """The machine stopped here."""


def crash_after(patch: pytest.MonkeyPatch, owner: Any, name: str, crashes: list[str]) -> None:
    """The machine stops after every second call has done its work, three times: each step is crashed and repeated."""
    original, calls = getattr(owner, name), iter(range(1000))

    def stop() -> None:
        if next(calls) in (0, 2, 4):
            crashes.append(name)
            raise Crash(name)

    if asyncio.iscoroutinefunction(original):

        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = await original(*args, **kwargs)
            stop()
            return result

        patch.setattr(owner, name, wrapped)
    else:

        def wrapped_sync(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            stop()
            return result

        patch.setattr(owner, name, wrapped_sync)


STEPS: list[tuple[Any, str]] = [
    (key_files, "generate_pem_key"),
    (certificates, "reserve"),
    (CaSigner, "sign_certificate"),
    (certificates, "complete"),
    (issuers, "add"),
    (crls, "add_scope"),
    (ocsp_signers, "add"),
    (outbox, "add_signer"),
    (crls, "reserve"),
    (CaSigner, "sign_crl"),
    (crls, "signed"),
    (offline, "write_file"),
    (crls, "published"),
    (publish_files, "write_file"),
    (operators, "write_file"),
]


async def until_done(made: Made, crashes: list[str], most: int) -> int:
    """Runs init until it gets through; returns how often that took."""
    for attempt in range(1, most + 1):
        try:
            await made.make()
        except Crash:
            continue
        return attempt
    raise AssertionError(f"not through after {most} attempts: {crashes}")


@pytest.mark.usefixtures("no_lint")
async def test_stopped_after_every_step(deployment: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after each of its steps, again and again, init ends with what one undisturbed run makes."""
    crashes: list[str] = []
    with monkeypatch.context() as patch:
        for owner, name in STEPS:
            crash_after(patch, owner, name, crashes)
        await until_done(deployment, crashes, 3 * len(STEPS) + 1)
    assert set(crashes) == {name for _, name in STEPS}
    assert await deployment.fetch(
        "select i.name, c.profile, c.state, count(*) from certificate c join issuer i on i.id = c.issuer_id"
        " group by 1, 2, 3 order by 1, 2"
    ) == [
        ("root", "ocsp-signer", "issued", 1),
        ("root", "sub-ca", "issued", 1),
        ("tls-dv", "ocsp-signer", "issued", 1),
    ]
    assert await deployment.fetch("select state, count(*) from ocsp_signer group by 1") == [("active", 2)]
    assert await deployment.fetch("select count(*) from signing_log where kind = 'certificate'") == [(4,)]
    assert await deployment.fetch("select count(*) from revocation") == [(0,)]
    assert await deployment.fetch("select name, count(*) from operator group by 1 having count(*) > 1") == []
    published = read_crl((deployment.state.crl / "root.crl").read_bytes())
    numbers = await deployment.fetch("select number from crl where published_at is not null")
    assert numbers == [(published.number,)]
    assert not [name for name in deployment.files() if "draft" in name or name.endswith(".new")]
    before, stored = deployment.files(), await deployment.rows()
    assert await deployment.make() == []
    assert (deployment.files(), await deployment.rows()) == (before, stored)


@pytest.mark.usefixtures("no_lint")
async def test_a_reservation_that_grew_old(deployment: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A serial that a crash left reserved for two days is revoked, hence answered (A8); another one is taken."""
    with monkeypatch.context() as patch:
        crash_after(patch, certificates, "reserve", [])
        with pytest.raises(Crash):
            await deployment.make()
    ((old,),) = await deployment.fetch("select serial from certificate where state = 'reserved'")
    deployment.clock.step(2 * DAY)
    await deployment.make()
    assert await deployment.fetch("select serial, reason, version from revocation") == [(old, 4, 1)]
    assert await deployment.fetch("select state from certificate where serial = $1", old) == [("reserved",)]
    assert await deployment.fetch("select count(*) from outbox where serial = $1", old) == [(1,)]
    assert await deployment.fetch("select count(*) from ocsp_signer") == [(2,)]
    crl = read_crl((deployment.state.crl / "root.crl").read_bytes())
    assert [read_entry(each)[0] for each in crl.entries] == [old]


@pytest.mark.usefixtures("no_lint")
async def test_two_at_once(deployment: Made) -> None:
    """Of two inits at the same moment one works, the other says so."""
    results = await asyncio.gather(deployment.make(), deployment.make(), return_exceptions=True)
    (error,) = [result for result in results if isinstance(result, BaseException)]
    assert isinstance(error, QuashError)
    assert error.code == "init.running"
    assert await deployment.fetch("select count(*) from issuer") == [(2,)]


@pytest.mark.usefixtures("no_lint")
async def test_ocsp_signers_are_renewed(deployment: Made) -> None:
    """Online signers are replaced when a third of their life is left; the root's by its command only (G4)."""
    await deployment.make()
    deployment.clock.step(19 * DAY)
    assert await deployment.make() == []
    deployment.clock.step(2 * DAY)
    assert await deployment.make() == ["made an OCSP signer of tls-dv"]
    query = "select i.name, s.state, s.key_ref from ocsp_signer s join issuer i on i.id = s.issuer_id order by s.id"
    assert await deployment.fetch(query) == [
        ("root", "active", "pem:ocsp/root-1.pem"),
        ("tls-dv", "retiring", "pem:ocsp/tls-dv-1.pem"),
        ("tls-dv", "active", "pem:ocsp/tls-dv-2.pem"),
    ]
    await renew_ocsp_signer(deployment.deployment, "root")
    assert (await deployment.fetch(query))[0] == ("root", "retiring", "pem:ocsp/root-1.pem")
    assert (await deployment.fetch(query))[-1] == ("root", "active", "pem:ocsp/root-2.pem")


async def code_of(call: Callable[[], Awaitable[object]]) -> str:
    with pytest.raises(QuashError) as caught:
        await call()
    return caught.value.code


@pytest.mark.usefixtures("no_lint")
async def test_the_root_key_may_go_away(deployment: Made) -> None:
    """Once all is made, init needs no offline key; what does need it says what is missing, and no new key is made."""
    await deployment.make()
    keys, passphrase = deployment.state.keys / "offline", deployment.state.secrets / "offline.passphrase"
    away = deployment.state.root.parent / "safe"
    shutil.move(keys, away)
    passphrase.rename(away / "passphrase")
    assert await deployment.make() == []
    assert await code_of(lambda: renew_crl(deployment.deployment, "root")) == "key.unavailable"
    assert not passphrase.exists()
    assert not list((deployment.state.keys / "ca").glob("operators*"))  # the operators' CA went with it (G20)
    deployment.clock.step(deployment.deployment.config.kinds["operator-client"].days * DAY)
    (said,) = [each for each in await deployment.make() if "private APIs" in each]  # and holds nothing else up
    assert "keys/offline" in said
    (away / "passphrase").rename(passphrase)
    shutil.move(away, keys)
    assert (await renew_crl(deployment.deployment, "root")).number > 1
    assert "made the server certificate of the private APIs" in await deployment.make()


@pytest.mark.usefixtures("no_lint")
async def test_an_operators_key_of_an_earlier_release(deployment: Made) -> None:
    """It lies with the CA signer's keys, and renews what is due from there."""
    files = deployment.deployment.files
    spki = files.ensure("ca", "operators", "ec-p256")
    key = files.open("ca", files.ref("ca", "operators"))
    now = int(deployment.clock.now())
    deployment.state.operators.mkdir(exist_ok=True)
    operators._ensure_ca(deployment.deployment.config, deployment.state, key, now)
    await deployment.make()
    assert not list((deployment.state.keys / "offline").glob("operators*"))
    made = x509.load_pem_x509_certificate((deployment.state.secrets / "api.pem").read_bytes())
    made.verify_directly_issued_by(x509.load_pem_x509_certificate((deployment.state.operators / "ca.pem").read_bytes()))
    assert spki == key.spki


@pytest.mark.usefixtures("no_lint")
async def test_a_lost_passphrase(deployment: Made) -> None:
    """A passphrase is never made anew while keys need the old one."""
    await deployment.make()
    (deployment.state.secrets / "ocsp.passphrase").unlink()
    deployment.clock.step(21 * DAY)
    assert await code_of(deployment.make) == "key.passphrase_lost"
    assert not (deployment.state.secrets / "ocsp.passphrase").exists()


async def revoke(made: Made, serial: bytes) -> None:
    now = int(made.clock.now())
    ((issuer_id,),) = await made.fetch("select id from issuer where name = 'root'")
    async with made.deployment.pool.acquire() as conn, conn.transaction():
        act_id = await acts.record(conn, at=now, actor="test", action="revoke", subject={})
        await revocations.add(conn, [Revocation(issuer_id, serial, 1, 5, now, now, None, act_id)])


@pytest.mark.usefixtures("no_lint")
async def test_the_root_crl_again(deployment: Made) -> None:
    """The command lists a revoked sub-CA with its reason (B10) under a greater number, for half a year (G4)."""
    await deployment.make()
    ((serial,),) = await deployment.fetch("select serial from certificate where profile = 'sub-ca'")
    await revoke(deployment, serial)
    deployment.clock.step(DAY)
    crl = await renew_crl(deployment.deployment, "root")
    assert crl == read_crl((deployment.state.crl / "root.crl").read_bytes())
    assert [read_entry(each)[::2] for each in crl.entries] == [(serial, 5)]
    assert (crl.number, crl.this_update) == (2, deployment.clock.now())
    assert crl.next_update - crl.this_update == deployment.deployment.config.crl.root_validity
    assert await deployment.fetch("select number, entries, published_at is not null from crl order by number") == [
        (1, 0, True),
        (2, 1, True),
    ]
    assert await code_of(lambda: renew_crl(deployment.deployment, "tls-dv")) == "hierarchy.not_offline"
    assert await code_of(lambda: renew_crl(deployment.deployment, "nobody")) == "issuer.unknown"


@pytest.mark.usefixtures("no_lint")
async def test_a_root_crl_never_loses_an_entry(deployment: Made, database: Any) -> None:
    """When the database has lost what the published CRL lists (a restored backup), no CRL is published."""
    await deployment.make()
    ((serial,),) = await deployment.fetch("select serial from certificate where profile = 'sub-ca'")
    await revoke(deployment, serial)
    await renew_crl(deployment.deployment, "root")
    published = (deployment.state.crl / "root.crl").read_bytes()
    async with deployment.deployment.pool.acquire() as conn:
        await conn.execute("alter table revocation disable trigger append_only")
        await conn.execute("delete from revocation")
        await conn.execute("alter table revocation enable trigger append_only")
    assert await code_of(lambda: renew_crl(deployment.deployment, "root")) == "crl.entry_lost"
    assert (deployment.state.crl / "root.crl").read_bytes() == published
    assert await deployment.fetch("select max(number) from crl where published_at is not null") == [(2,)]


@pytest.mark.usefixtures("no_lint")
async def test_another_number_of_shards_is_refused(deployment: Made) -> None:
    """B16: a changed configuration alone does not move certificates to other CRLs; the message names the command."""
    await deployment.make()
    dump = deployment.deployment.config.model_dump()
    for each in dump["issuers"]:
        each["shards"] += each["name"] == "tls-dv"
    with pytest.raises(QuashError, match="quash ca shards --issuer tls-dv --count 5") as caught:
        await deployment.make(Config.model_validate(dump))
    assert caught.value.code == "hierarchy.shards_changed"
    assert await deployment.fetch("select shard_count from issuer where name = 'tls-dv'") == [(4,)]


async def test_operators_are_left_alone(deployment: Made) -> None:
    """A disabled operator stays disabled, one whose files moved away is not made again, an old one is renewed."""
    await deployment.make()
    folder = deployment.state.operators
    await deployment.fetch("update operator set state = 'disabled' where role = 'viewer'")
    for suffix in (".pem", ".key"):
        (folder / f"officer{suffix}").unlink()
    assert await deployment.make() == []
    assert await deployment.fetch("select state from operator where role = 'viewer'") == [("disabled",)]
    assert not (folder / "officer.pem").exists()
    deployment.clock.step(370 * DAY)
    said = await deployment.make()
    assert "made the client certificate operators/operator.pem" in said
    assert "made the server certificate of the private APIs" in said
    assert not (folder / "officer.pem").exists()
    assert await deployment.fetch("select count(*) from operator where role = 'operator'") == [(2,)]
