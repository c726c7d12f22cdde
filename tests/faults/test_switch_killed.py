"""kill -9 of everybody in the middle of an emergency switch: whoever starts next goes on with the job, to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal

import pytest

from loadtest.system import System
from quash.pki.serials import parse_serial
from tests.support.clients import Told
from tests.support.faults import Records, assert_everything_holds, processes_of, until

ISSUER = "tls-dv"
_BEHIND = """
select 1 from bucket b join issuer i on i.id = b.issuer_id where i.name = $1 and b.signer_id is distinct from
    (select max(id) from ocsp_signer s where s.issuer_id = b.issuer_id)
"""


async def kill_everybody(system: System) -> None:
    """Supervisor, children, database: nobody has a moment to say goodbye."""
    assert system.process is not None
    everybody = processes_of(system)
    for pid in everybody:
        with contextlib.suppress(ProcessLookupError):  # it ended with its parent
            os.kill(pid, signal.SIGKILL)
    system.process.wait()

    async def gone() -> bool:
        return not everybody.keys() & processes_of(system).keys()

    await until("nobody is left", gone)


@pytest.mark.long
async def test_a_switch_survives_everybody(system: System, records: Records) -> None:
    """Killed twice, from the very order on. The signers that come of it are the one before and one new one."""
    before = {each["serial"] for each in _signers(system)}
    ordered = await asyncio.to_thread(system.quash, "signer switch", "--issuer", ISSUER, "--json")
    assert ordered.status == 0, ordered.err
    job = ordered.json["job"]
    for _ in range(2):
        await kill_everybody(system)
        await asyncio.to_thread(system.start)
        await asyncio.sleep(random.uniform(0, 1))
    await asyncio.to_thread(system.wait_ready)
    assert (await asyncio.to_thread(system.quash, "job watch", job)).status == 0
    done = await asyncio.to_thread(system.quash, "job show", job, "--json")
    assert (done.json["state"], done.json["done"]) == ("done", done.json["buckets"])
    assert await records.fetch(_BEHIND, ISSUER) == []
    (new,) = {each["serial"] for each in _signers(system)} - before
    signer = await records.fetch("select state from certificate where serial = $1", parse_serial(new))
    assert [row["state"] for row in signer] == ["issued"]
    await assert_everything_holds(system, records, Told())


def _signers(system: System) -> list[dict[str, str]]:
    return [each for each in system.quash("signer list", "--json").lines if each["issuer"] == ISSUER]
