"""Root CRLs signed elsewhere: exported, signed by openssl, imported through the gate (G4, D20)."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from issuer.signer.elsewhere import export_tbs, import_signed
from issuer.signer.offline import renew_crl
from quash.errors import QuashError
from quash.pki import crl_gate
from quash.pki.crl import entry, read_crl, read_entry, with_entries
from quash.store import acts, crl_demands, crl_entries, crls, revocations
from quash.store.revocations import Revocation
from tests.support.initialising import Made

DAY = 86_400


async def revoke(made: Made, reason: int = 5, version: int = 1, *, name: str | None = "tls-dv") -> bytes:
    """The certificate of a sub-CA; None: of the root's OCSP signer."""
    ((issuer_id,),) = await made.fetch("select id from issuer where name = 'root'")
    der = made.certificate(name or "tls-dv").public_bytes(Encoding.DER)
    ((serial,),) = await made.fetch(
        "select serial from certificate where issuer_id = $1 and (der = $2) = $3", issuer_id, der, name is not None
    )
    now = int(made.clock.now())
    async with made.deployment.pool.acquire() as conn, conn.transaction():
        act_id = await acts.record(conn, at=now, actor="test", action="revoke", subject={})
        await revocations.add(conn, [Revocation(issuer_id, serial, version, reason, now, now, None, act_id)])
    return bytes(serial)


async def openssl_signs(made: Made, tbs: bytes, folder: Path) -> bytes:
    """What an operator does on the machine with the root's key: `openssl dgst -sha384 -sign`."""
    key = made.state.keys / "offline" / "root.pem"
    passphrase = made.state.secrets / "offline.passphrase"
    (folder / "crl.tbs").write_bytes(tbs)
    command = [
        "openssl",
        "dgst",
        "-sha384",
        "-sign",
        str(key),
        "-passin",
        f"file:{passphrase}",
        str(folder / "crl.tbs"),
    ]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    return bytes(done.stdout)


async def code_of(attempt: Callable[[], Awaitable[Any]]) -> str:
    with pytest.raises(QuashError) as caught:
        await attempt()
    return caught.value.code


@pytest.mark.usefixtures("no_lint")
async def test_exported_crl_signed_by_openssl_is_published(deployment: Made, tmp_path: Path) -> None:
    """The CRL lists the revoked sub-CA, bears the next number, is recorded as published, and goes in once."""
    await deployment.make()
    serial = await revoke(deployment)
    deployment.clock.step(DAY)
    tbs = await export_tbs(deployment.deployment, "root")
    signature = await openssl_signs(deployment, tbs, tmp_path)
    deployment.clock.step(2 * DAY)
    crl = await import_signed(deployment.deployment, "root", tbs, signature)
    assert crl == read_crl((deployment.state.crl / "root.crl").read_bytes())
    assert [read_entry(each)[::2] for each in crl.entries] == [(serial, 5)]
    rows = await deployment.fetch("select number, entries, published_at is not null from crl order by number")
    assert rows == [(1, 0, True), (2, 1, True)]
    assert await code_of(lambda: import_signed(deployment.deployment, "root", tbs, signature)) == "crl.not_exported"
    assert (await renew_crl(deployment.deployment, "root")).number == 3


@pytest.mark.usefixtures("no_lint")
async def test_whatever_was_not_exported_is_refused(deployment: Made, tmp_path: Path) -> None:
    """Other octets, even under the root's own signature, another key's signature and old exports are not published."""
    await deployment.make()
    serial = await revoke(deployment)
    before = (deployment.state.crl / "root.crl").read_bytes()
    old = await export_tbs(deployment.deployment, "root")
    tbs = await export_tbs(deployment.deployment, "root")
    now = int(deployment.clock.now())
    other = [with_entries(tbs, entries) for entries in ([], [entry(serial, now, 4)], [entry(b"\x05", now, 5)])]
    for octets in (old, *other):
        signature = await openssl_signs(deployment, octets, tmp_path)
        refused = await code_of(lambda t=octets, s=signature: import_signed(deployment.deployment, "root", t, s))
        assert refused == "crl.not_exported"
    signature = await openssl_signs(deployment, tbs, tmp_path)
    wrong = await openssl_signs(deployment, old, tmp_path)
    assert await code_of(lambda: import_signed(deployment.deployment, "root", tbs, wrong)) == "signature.invalid"
    assert await code_of(lambda: import_signed(deployment.deployment, "root", b"\x30\0", signature)) == "crl.malformed"
    assert await code_of(lambda: import_signed(deployment.deployment, "tls-dv", tbs, signature)) == (
        "hierarchy.not_offline"
    )
    assert (deployment.state.crl / "root.crl").read_bytes() == before
    await revoke(deployment, 1, 2)
    assert await code_of(lambda: import_signed(deployment.deployment, "root", tbs, signature)) == "crl.not_exported"
    deployment.clock.step(200 * DAY)
    assert await code_of(lambda: import_signed(deployment.deployment, "root", tbs, signature)) == "crl.stale"


@pytest.mark.usefixtures("no_lint")
async def test_a_revocation_since_the_export_takes_nobodys_place(deployment: Made, tmp_path: Path) -> None:
    """As many entries, all of them the database's, and yet one that the export listed would count as shown and is not.

    What was exported is published beside the new revocation all the same; that is due on the next CRL.
    """
    await deployment.make()
    serial = await revoke(deployment)
    tbs = await export_tbs(deployment.deployment, "root")
    later = await revoke(deployment, name=None)
    swapped = with_entries(tbs, [entry(later, int(deployment.clock.now()), 5)])
    signature = await openssl_signs(deployment, swapped, tmp_path)
    refused = await code_of(lambda: import_signed(deployment.deployment, "root", swapped, signature))
    assert refused == "crl.not_exported"
    signature = await openssl_signs(deployment, tbs, tmp_path)
    crl = await import_signed(deployment.deployment, "root", tbs, signature)
    assert [read_entry(each)[0] for each in crl.entries] == [serial]
    async with deployment.deployment.pool.acquire() as conn:
        root = next(each for each in await crls.states(conn, offline=True) if each.offline)
    assert root.dirty_since is not None


@pytest.mark.usefixtures("no_lint")
async def test_times_rise_and_end_with_the_root(deployment: Made) -> None:
    """thisUpdate rises, with a clock that is a little behind too; nextUpdate is not after the root's own end (B2)."""
    await deployment.make()
    first = read_crl((deployment.state.crl / "root.crl").read_bytes())
    deployment.clock.step(-200)
    assert (await renew_crl(deployment.deployment, "root")).this_update == first.this_update + 1
    deployment.clock.step(-200)
    assert await code_of(lambda: renew_crl(deployment.deployment, "root")) == "crl.clock_went_back"
    assert await code_of(lambda: export_tbs(deployment.deployment, "root")) == "crl.clock_went_back"
    async with deployment.deployment.pool.acquire() as conn, conn.transaction():
        scope = next(each.scope for each in await crls.states(conn, offline=True) if each.offline)
        at = int(deployment.clock.now())
        await crl_demands.add(conn, [scope], actor="test", at=at, replaces_future="the clock ran ahead")
    assert (await renew_crl(deployment.deployment, "root")).this_update == deployment.clock.now()
    ends = int(deployment.clock.now()) + 10 * DAY
    await deployment.deployment.pool.execute(
        "update issuer_certificate set not_after = $1 where issuer_id = (select id from issuer where name = 'root')",
        ends,
    )
    deployment.clock.step(DAY)
    assert (await renew_crl(deployment.deployment, "root")).next_update == ends
    deployment.clock.step(9 * DAY)
    assert await code_of(lambda: renew_crl(deployment.deployment, "root")) == "crl.issuer_expired"


@pytest.mark.usefixtures("no_lint")
async def test_entry_that_was_changed_in_the_database_is_refused(deployment: Made) -> None:
    """C16, B25: a published entry changes to keyCompromise alone; a row changed behind our back reaches no CRL."""
    await deployment.make()
    await revoke(deployment, 4)
    await renew_crl(deployment.deployment, "root")
    before = (deployment.state.crl / "root.crl").read_bytes()
    async with deployment.deployment.pool.acquire() as conn:
        await conn.execute("alter table revocation disable trigger append_only")
        await conn.execute("update revocation set reason = 5, entry = crl_entry(serial, revoked_at, 5::smallint)")
        await conn.execute("alter table revocation enable trigger append_only")
    assert await code_of(lambda: renew_crl(deployment.deployment, "root")) == "crl.reason_downgraded"
    assert (deployment.state.crl / "root.crl").read_bytes() == before
    await revoke(deployment, 1, 2)
    crl = await renew_crl(deployment.deployment, "root")
    assert [read_entry(each)[2] for each in crl.entries] == [1]


@pytest.mark.usefixtures("no_lint")
async def test_crl_that_pkilint_refuses_is_neither_exported_nor_signed_nor_published(
    deployment: Made, tmp_path: Path
) -> None:
    """Our own reader has nothing against a URL with a blank in it; pkilint has, before a key is used or a number taken.

    What was exported before, by a release that did not ask it, is stopped on its way in.
    """
    await deployment.make()
    before = (deployment.state.crl / "root.crl").read_bytes()
    await deployment.deployment.pool.execute(
        "update crl_scope set idp = true, url = 'http://crl.example.test/ro ot.crl' where path = 'root.crl'"
    )
    assert await code_of(lambda: export_tbs(deployment.deployment, "root")) == "crl.lint"
    assert await code_of(lambda: renew_crl(deployment.deployment, "root")) == "crl.lint"
    assert await deployment.fetch("select max(number) from crl") == [(1,)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crl_gate, "refuse_findings", lambda _: None)
        tbs = await export_tbs(deployment.deployment, "root")
    signature = await openssl_signs(deployment, tbs, tmp_path)
    assert await code_of(lambda: import_signed(deployment.deployment, "root", tbs, signature)) == "crl.lint"
    assert (deployment.state.crl / "root.crl").read_bytes() == before


@pytest.mark.usefixtures("no_lint")
async def test_list_that_is_not_the_databases_is_refused(deployment: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate of every CRL: entries are as many as the database counts by itself."""
    await deployment.make()
    serial, at = await revoke(deployment), int(deployment.clock.now())
    before = (deployment.state.crl / "root.crl").read_bytes()
    listing = crl_entries.listing
    sound = entry(serial, at, 5)
    for encoded in (b"", sound * 2):

        async def wrong(*arguments: Any, encoded: bytes = encoded) -> crl_entries.Listing:
            return replace(await listing(*arguments), encoded=encoded, count=len(encoded) // len(sound))

        monkeypatch.setattr(crl_entries, "listing", wrong)
        assert await code_of(lambda: renew_crl(deployment.deployment, "root")) == "crl.count_differs"
    assert (deployment.state.crl / "root.crl").read_bytes() == before


@pytest.mark.usefixtures("no_lint")
async def test_damaged_crl_in_the_folder_is_named(deployment: Made) -> None:
    """What was published cannot be compared with then; a person decides, and the next one is made without the file."""
    await deployment.make()
    path = deployment.state.crl / "root.crl"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(QuashError, match=r"root\.crl: .*remove the file"):
        await renew_crl(deployment.deployment, "root")
    path.unlink()
    assert (await renew_crl(deployment.deployment, "root")).number == 2
