"""A whole site goes to this release and back to the one before, while certificates are issued, revoked and asked for.

The release before is its own code (`tests/support/releases.py`). Nodes and formats: tests/flows/test_two_releases.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from quash.pki.serials import format_serial
from quash.store.migrate import shipped
from tests.support.clients import Operator, Told, make_csr, new_key
from tests.support.faults import Records, assert_everything_holds, until
from tests.support.postgres import folder_for_servers
from tests.support.releases import PROCESSES, THIS, Mixed, said_by, unpack
from tests.support.traffic import Traffic

_MANY = 40
_PACE = "0.2"  # a second: longer than the whole takes


class MassJob:
    """A mass revocation that is under way all the time, so slowly that each release has a part of it."""

    def __init__(self, system: Mixed, records: Records) -> None:
        self._system, self._records = system, records
        self._number = ""

    async def begin(self, told: Told, folder: Path) -> None:
        """Of certificates of its own, which count as asked for from now on, and as told from then."""
        async with Operator(self._system, told) as operator:
            keys = [await operator.order("tls-dv", make_csr("tls-dv", new_key())) for _ in range(_MANY)]
        told.asked.update(keys)
        listed = folder / "serials"
        listed.write_text("\n".join(format_serial(serial) for _, serial in keys))
        job = await self._quash(
            "revoke --json --preview --reason superseded --per-second", _PACE, "--file", str(listed)
        )
        self._number = str(job["id"])
        await self._quash("job start --json", self._number)
        told.revoked.update(dict.fromkeys(keys, "superseded"))

    async def goes_on(self) -> None:
        """Some more are done, and some are left."""
        before = await self._done()

        async def look() -> bool:
            return await self._done() > before

        await until("the mass revocation goes on", look)
        assert await self._done() < _MANY

    async def finish(self) -> None:
        await self._quash("job pace --json", self._number)

        async def look() -> bool:
            return bool((await self._quash("job show --json", self._number))["state"] == "done")

        await until("the mass revocation is done", look)
        assert await self._done() == _MANY

    async def _done(self) -> int:
        ((done,),) = await self._records.fetch("select done from mass_job where id = $1", int(self._number))
        return int(done)

    async def _quash(self, verb: str, *arguments: str) -> dict[str, str]:
        said = await asyncio.to_thread(self._system.quash, verb, *arguments)
        assert said.status == 0, said.err
        return dict(said.json)


async def newest(records: Records) -> int:
    ((version,),) = await records.fetch("select max(version) from schema_migration")
    return int(version)


async def change_all(system: Mixed, traffic: Traffic, order: Iterable[str], release: Path) -> None:
    """One process after the other; with each new one, orders and revocations go on."""
    for process in order:
        await asyncio.to_thread(system.change, process, release)
        await traffic.progress()


@pytest.mark.long
async def test_every_process_is_upgraded_and_rolled_back_under_traffic(tmp_path: Path) -> None:
    """No revoked is ever good again, nothing is served too long, all that was handed out has an answer, and whatever
    was acknowledged holds: of old processes on the new schema, of both releases side by side, and after the way back.
    """
    before = unpack(tmp_path / "before")
    assert said_by(before, "import issuer, quash; print(quash.__path__[0])").strip() == str(before / "quash")
    with folder_for_servers() as folder:
        system = Mixed(folder)
        with system.running(before):
            async with Records(system) as records:
                mass = MassJob(system, records)
                async with Traffic(system) as traffic:
                    await mass.begin(traffic.told, folder)
                    # The schema goes ahead: every process is still of the release before.
                    await asyncio.to_thread(system.init, THIS)
                    assert await newest(records) == shipped()[-1].version
                    await traffic.progress()
                    await mass.goes_on()
                    await change_all(system, traffic, PROCESSES, THIS)
                    await mass.goes_on()
                    # The schema stays, the processes go back.
                    await change_all(system, traffic, reversed(PROCESSES), before)
                    await mass.goes_on()
                    await mass.finish()
                    told = await traffic.stop()
                assert traffic.answers > 2 * len(PROCESSES)
                await assert_everything_holds(system, records, told)
            verified = system.quash("audit verify")
            assert verified.status == 0, verified.err
