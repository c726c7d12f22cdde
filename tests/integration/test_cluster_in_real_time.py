"""Two machines as they are run: real processes, real time, the standby's machine in a network namespace of its own.

The short form, on a clock that the test moves, is `test_cluster.py`. Here a presigner is killed in the middle of a
batch, and the line is cut for longer than the ten seconds after which a node is stale.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography import x509

from issuer.revocation.find import Target
from issuer.revocation.revoke import Request, revoke
from issuer.signer.hierarchy import make_hierarchy
from loadtest.system import free_ports
from quash.errors import QuashError
from quash.pki.reasons import Reason
from quash.runtime.clock import SystemClock
from quash.runtime.config import Config
from quash.runtime.overview import ask
from quash.runtime.state import State
from quash.store import signer_requests, signer_switches
from quash.store.database import Pool, acquire, connect
from quash.store.roles import ADMIN, OWNER
from tests.support.flows import ocsp_request, read_answer
from tests.support.initialising import quick_config
from tests.support.replicas import Pair, a_pair

pytestmark = pytest.mark.long

FRESH = 10  # seconds, the freshness limit of both nodes
COUNT = 20_000
BUCKETS = 64
ISSUER = "tls-dv"
WITHIN = 180.0
DAY = 86_400

# Where the presigner that has the lease comes from; null: a Unix socket.
_LEADER = """
select case when host(a.client_addr) is null then 'near' else 'far' end
from pg_locks l join pg_stat_activity a using (pid) where l.locktype = 'advisory' and a.usename = 'quash_presigner'
"""


async def until(what: str, look: Callable[[], Awaitable[Any]]) -> Any:
    """Looks until it finds something; a database that is between two servers is looked at again."""
    deadline, seen = time.monotonic() + WITHIN, None
    while True:
        try:
            seen = await look()
        except (QuashError, OSError) as error:
            seen, found = error, False
        else:
            found = bool(seen)
        if found:
            return seen
        assert time.monotonic() < deadline, f"not within {WITHIN} s: {what} ({seen!r})"
        await asyncio.sleep(0.05)


class Machine:
    """Processes and a node on one side of the line; `enter` takes whatever runs here to that side."""

    def __init__(self, state: State, config: Path, port: int, enter: Callable[[], None]) -> None:
        self.state, self.config, self.port = state, config, port
        self._enter = enter
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._client = ThreadPoolExecutor(1, initializer=enter)  # a thread has a network namespace of its own

    async def start(self, *names: str) -> None:
        for name in names:
            command = ("-m", "quash.cli.main", "serve", name, "--config", str(self.config))
            with (self.state.root / f"{name}.log").open("ab") as log:
                self._processes[name] = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *command,
                    *("--state", str(self.state.root)),
                    stdout=log,
                    stderr=log,
                    preexec_fn=self._enter,
                )

    async def kill(self, *names: str) -> None:
        for name in names:
            process = self._processes.pop(name)
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.wait()

    def workers(self, name: str) -> list[int]:
        """The signing processes of a process: of those that it spawned, all but Python's tracker of resources."""
        pid = self._processes[name].pid
        spawned = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in spawned if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]

    async def stop(self) -> None:
        await self.kill(*self._processes)
        self._client.shutdown()

    async def ask(self, issuer: x509.Certificate, serial: bytes) -> tuple[str, int]:
        """What a relying party on this side is told, and who signed it."""
        request = ocsp_request(issuer, serial, "sha256")
        body = await asyncio.get_running_loop().run_in_executor(self._client, self._post, request)
        said = read_answer(body, request, issuer, time.time())
        return said.word, said.signer

    def _post(self, request: bytes) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", request, timeout=10) as answer:
            return bytes(answer.read())


class Cluster:
    """Both machines. CA signer and CRL builder run on the near one; both presigners reach the keys, as on a token.

    The published CRLs lie on both machines: no presigner signs what it has not held against them (C16).
    """

    def __init__(self, pair: Pair, near: Machine, far: Machine, owner: Pool, admin: Pool) -> None:
        self.pair, self.near, self.far = pair, near, far
        self.owner, self._admin = owner, admin
        self.issuer = x509.load_pem_x509_certificate((near.state.certs / f"{ISSUER}.pem").read_bytes())

    async def words(self, serial: bytes) -> list[str]:
        return [(await each.ask(self.issuer, serial))[0] for each in (self.near, self.far)]

    async def both_say(self, serial: bytes, word: str) -> None:
        async def look() -> bool:
            return await self.words(serial) == [word, word]

        await until(f"both nodes say {word}", look)

    async def revoke(self, serial: bytes) -> None:
        request = Request(Target(ISSUER, serial), Reason.superseded, None)
        async with acquire(self._admin) as conn:
            await revoke(conn, SystemClock(), request, actor="operator:test", batch=1)

    async def published(self) -> bool:
        scopes = await self.owner.fetch("select path from crl_scope")
        return all((self.far.state.crl / scope["path"]).exists() for scope in scopes)

    async def far_says_stale(self) -> None:
        """Its responder to whoever watches it: still ready, and why that is not all."""
        at = self.far.state.run / "responder.health"
        report = orjson.loads(await ask(at, "/readyz"))
        assert report == {"ready": True, "checks": {"cache": {"ok": True, "detail": "stale"}}}
        assert b'quash_ocsp_cache_freshness{state="stale"} 1.0' in await ask(at, "/metrics")

    async def leads(self, name: str) -> None:
        async def look() -> bool:
            return await self.pair.primary.admin(_LEADER) == name

        await until(f"the {name} presigner leads", look)

    async def order_switch(self) -> int:
        async with acquire(self._admin) as conn, conn.transaction():
            issuer_id = await conn.fetchval("select id from issuer where name = $1", ISSUER)
            job, _ = await signer_requests.order_switch(
                conn, issuer_id, ISSUER, actor="operator:test", at=int(time.time())
            )
        return job

    async def progress(self, job: int) -> tuple[str, int]:
        async with acquire(self._admin) as conn:
            found = await signer_switches.get(conn, job)
        assert found is not None
        return found.state, found.done


def serial_number(number: int) -> bytes:
    return b"\x01" + hashlib.sha256(str(number).encode()).digest()[:15]


UNKNOWN = b"\x02" * 16


def write_config(path: Path, url: str, port: int) -> Path:
    path.write_text(f'[database]\nurl = "{url}"\n[responder]\nport = {port}\nfresh_seconds = {FRESH}\n')
    return path


@asynccontextmanager
async def a_cluster(pair: Pair) -> AsyncIterator[Cluster]:
    near, far = pair.primary.state, pair.standby.state
    reading = Config.model_validate({"database": {"url": pair.primary.url(pair.standby)}})
    owner, admin = await connect(reading, near, OWNER), await connect(reading, near, ADMIN)
    config = quick_config(reading, presign={"buckets": BUCKETS})
    await make_hierarchy(config, near, owner, SystemClock(), lambda _: None)
    await _import(owner)
    for name in ("keys", "secrets", "crl"):
        _share(near.root / name, far.root / name)
    ports = free_ports(2)
    machines = (
        Machine(near, write_config(near.root / "near.toml", reading.database.url, ports[0]), ports[0], lambda: None),
        Machine(far, write_config(far.root / "far.toml", pair.over_the_link(), ports[1]), ports[1], pair.link.enter),
    )
    # The far node reads its own server, as it has to when the line is cut; its presigner writes to whichever may be.
    follower = Machine(
        far, write_config(far.root / "node.toml", pair.standby.url(), ports[1]), ports[1], pair.link.enter
    )
    try:
        await machines[0].start("ca-signer", "crl-builder", "follower", "responder")
        await follower.start("follower", "responder")
        cluster = Cluster(pair, *machines, owner, admin)
        await until("every CRL is published", cluster.published)
        await machines[0].start("presigner")
        await cluster.leads("near")
        await machines[1].start("presigner")
        yield cluster
    except BaseException:
        for log in (*near.root.glob("*.log"), *far.root.glob("*.log")):
            sys.stderr.write(f"{log}: {log.read_text()[-1500:]}\n")
        raise
    finally:
        for machine in (*machines, follower):
            await machine.stop()
        owner.terminate()
        admin.terminate()


def _share(ours: Path, theirs: Path) -> None:
    if theirs.exists():
        theirs.rename(theirs.with_name(f"{theirs.name}.before"))
    theirs.symlink_to(ours)


async def _import(owner: Pool) -> None:
    """Certificates of an earlier life: `good` without their DER."""
    now = int(time.time())
    rows = [(serial_number(n), n % BUCKETS) for n in range(COUNT)]
    await owner.execute(
        "insert into certificate (issuer_id, serial, state, profile, not_before, not_after, bucket, created_at)"
        " select (select id from issuer where name = $1), s, 'imported', 'imported', $4::bigint, $5::bigint, b, $4"
        " from unnest($2::bytea[], $3::integer[]) k (s, b)",
        ISSUER,
        [serial for serial, _ in rows],
        [bucket for _, bucket in rows],
        now - DAY,
        now + 90 * DAY,
    )


async def test_a_cluster_in_real_time(server_folder: Path) -> None:
    """A presigner dies in a batch, the line is cut for longer than the limit, and then the primary dies."""
    async with a_pair(server_folder) as pair, a_cluster(pair) as cluster:
        first, second, third, fourth, good = map(serial_number, range(5))
        await cluster.both_say(serial_number(COUNT - 1), "good")
        await cluster.both_say(UNKNOWN, "unauthorized")
        await cluster.revoke(first)
        await cluster.both_say(first, "revoked")

        # Everything is being signed anew; the presigner that does so is killed when some of it is out.
        _, before = await cluster.far.ask(cluster.issuer, good)
        job = await cluster.order_switch()

        async def in_the_middle() -> bool:
            state, done = await cluster.progress(job)
            assert state != "done", "too late to kill it in the middle: raise COUNT"
            return state == "signing" and done > 0

        await until("some of it is signed", in_the_middle)
        workers = cluster.near.workers("presigner")
        assert len(workers) == Config().presign.workers
        await cluster.near.kill("presigner")
        await cluster.leads("far")
        await cluster.revoke(second)
        await cluster.both_say(second, "revoked")
        await until("the killed presigner's workers are gone", lambda: _gone(workers))

        async def finished() -> bool:
            return await cluster.progress(job) == ("done", BUCKETS)

        await until("the other presigner has signed everything", finished)
        for machine in (cluster.near, cluster.far):

            async def by_the_new_one(machine: Machine = machine) -> bool:
                said = [await machine.ask(cluster.issuer, serial_number(n)) for n in range(0, COUNT, COUNT // 200)]
                return before not in {signer for _, signer in said}

            await until("every answer is by the new signer", by_the_new_one)
        await cluster.near.start("presigner")

        # The line is cut: nothing is acknowledged, the far node says that it is stale, and answers what it knows.
        pair.link.cut()
        cut = time.monotonic()
        revoking = asyncio.create_task(cluster.revoke(third))

        async def stale() -> bool:
            return (await cluster.far.ask(cluster.issuer, UNKNOWN))[0] == "try_later"

        await until("the far node is stale", stale)
        assert time.monotonic() - cut > FRESH - 3, "stale before its limit: a heartbeat is at most that much older"
        await cluster.far_says_stale()
        assert (await cluster.far.ask(cluster.issuer, good))[0] == "good"
        assert (await cluster.far.ask(cluster.issuer, first))[0] == "revoked"
        assert not revoking.done(), "acknowledged, and one machine alone has it"

        # It comes back, and nothing is skipped.
        pair.link.mend()
        await asyncio.wait_for(revoking, WITHIN)
        await cluster.both_say(third, "revoked")
        await cluster.both_say(UNKNOWN, "unauthorized")

        # The primary dies; the standby is promoted, and both presigners and followers find it by themselves.
        await cluster.revoke(fourth)
        pair.primary.kill()
        await pair.alone()
        for serial in (first, second, third, fourth):
            await cluster.both_say(serial, "revoked")
        fifth = serial_number(5)
        await until("revoked on the new primary", lambda: _revoked(cluster, fifth))
        await cluster.both_say(fifth, "revoked")
        await cluster.both_say(good, "good")
        await cluster.both_say(UNKNOWN, "unauthorized")


async def _revoked(cluster: Cluster, serial: bytes) -> bool:
    await cluster.revoke(serial)
    return True


async def _gone(workers: list[int]) -> bool:
    """Ended; whether somebody has taken note of it is not theirs to say."""
    return not any(_state(pid) not in ("Z", "X", "") for pid in workers)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
