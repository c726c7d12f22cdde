"""The `main` of CRL builder, CA signer and origin together: keys, sockets, roles and clock are real."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509

from crlgen.build import main as builder_process
from crlgen.build.disclosure import Disclosure
from crlgen.build.main import main as builder_main
from crlgen.origin.main import main as origin_main
from crlgen.publish.s3 import S3Publisher
from issuer.signer.hierarchy import make_hierarchy
from issuer.signer.main import main as signer_main
from quash.pki.serials import new_serial
from quash.runtime.clock import SystemClock
from quash.runtime.config import S3, Config
from quash.runtime.process import Process
from quash.runtime.state import State
from quash.store import revocations
from quash.store.database import Pool
from quash.store.passwords import password_file
from quash.store.roles import CA_SIGNER, CRL_BUILDER
from tests.support.crl_bench import lint, openssl
from tests.support.initialising import demo_config
from tests.unit.crlgen.test_publishers import bucket, s3_endpoint

__all__ = ["bucket", "s3_endpoint"]  # fixtures

MAINS: dict[str, Callable[[Process], Awaitable[None]]] = {
    "ca-signer": signer_main,
    "crl-builder": builder_main,
    "crl-origin": origin_main,
}


@dataclass
class Running:
    """A deployment's CRL side; each process is a task that can be stopped and started."""

    config: Config
    state: State
    pool: Pool
    listen: socket.socket
    processes: dict[str, Process] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        listen = self.listen if name == "crl-origin" else None
        process = self.processes[name] = Process(name, self.config, self.state, listen=listen)
        self.tasks[name] = asyncio.create_task(MAINS[name](process))  # type: ignore[arg-type]

    async def stop(self, name: str) -> None:
        task = self.tasks.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def ready(self, name: str, *, is_ready: bool = True) -> None:
        await until(lambda: self.processes[name].health.ready is is_ready)

    async def fetch(self, path: str) -> x509.CertificateRevocationList | None:
        """The CRL as the origin serves it now."""
        url = f"http://127.0.0.1:{self.listen.getsockname()[1]}/{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as reply:
            return x509.load_der_x509_crl(await reply.read()) if reply.status == 200 else None

    async def shows(self, path: str, serial: bytes) -> None:
        """Waits until the origin's CRL lists a serial."""
        async with asyncio.timeout(20):
            while True:
                crl = await self.fetch(path)
                if crl and crl.get_revoked_certificate_by_serial_number(int.from_bytes(serial, "big")):
                    return
                await asyncio.sleep(0.02)

    async def revoke(self, issuer: str, shard: int | None) -> bytes:
        """A new certificate of the issuer, revoked as flow 2 does: its row, then the hint with the commit."""
        serial, now = new_serial(), int(SystemClock().now())
        async with self.pool.acquire() as conn, conn.transaction():
            issuer_id = await conn.fetchval("select id from issuer where name = $1", issuer)
            await conn.execute(
                "insert into certificate (issuer_id, serial, state, profile, not_after, shard, bucket, created_at)"
                " values ($1, $2, 'imported', 'x', $3, $4, 0, 0)", issuer_id, serial, now + 86_400, shard,
            )  # fmt: skip
            act = await conn.fetchval(
                "insert into act (at, actor, action, subject) values ($1, 'test', 'revoke', '{}') returning id", now
            )
            await revocations.add(conn, [revocations.Revocation(issuer_id, serial, 1, 4, now, now, shard, act)])
        return serial


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - health has no event
            await asyncio.sleep(0.01)


@pytest.fixture
async def running(database: Any, tmp_path: Path) -> AsyncIterator[Running]:
    """The demo's hierarchy (DV in shards on P-256, OV on RSA), with all three processes ready."""
    listen = socket.create_server(("127.0.0.1", 0))
    origin = {"crl_origin": {"port": listen.getsockname()[1]}}
    config = Config.model_validate(demo_config(database.config).model_dump() | origin)
    state = State(tmp_path / "var")
    for role in (CA_SIGNER, CRL_BUILDER):
        shutil.copy(password_file(database.state, role), password_file(state, role))
    await make_hierarchy(config, state, database.owner, SystemClock(), lambda _: None)
    found = Running(config, state, database.owner, listen)
    for name in MAINS:
        found.start(name)
    for name in MAINS:
        await found.ready(name)
    yield found
    for name in list(found.tasks):
        await found.stop(name)
    listen.close()


async def test_public_crls_are_sound_and_follow_a_revocation_within_seconds(running: Running) -> None:
    """Each CRLDP answers with a CRL that pkilint, openssl and pyca accept; a revocation is soon on its own.

    From commit to the public CRL: hint, burst waiting, build, gate and publication.
    """
    rows = await running.pool.fetch(
        "select s.path, s.scope, i.name from crl_scope s join issuer i on i.id = s.issuer_id where i.name <> 'root'"
    )
    assert len(rows) == 6  # four shards and the rest of tls-dv, tls-ov
    for row in rows:
        path = running.state.crl / row["path"]
        assert lint(path.read_bytes()) == []
        crl = await running.fetch(row["path"])
        issuer = x509.load_pem_x509_certificate((running.state.certs / f"{row['name']}.pem").read_bytes())
        assert crl is not None
        assert crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
        chain = str(running.state.certs / "chain.pem")
        said = openssl("crl", "-inform", "DER", "-in", str(path), "-CAfile", chain, "-noout")
        assert b"verify OK" in said.stdout + said.stderr
    assert await running.fetch("root.crl") is not None
    paths = {(row["name"], row["scope"]): row["path"] for row in rows}
    async with asyncio.timeout(10):
        dv = await running.revoke("tls-dv", 2)
        ov = await running.revoke("tls-ov", None)
        await running.shows(paths["tls-dv", "2"], dv)
        await running.shows(paths["tls-ov", "full"], ov)


async def test_processes_that_were_away_are_waited_for_and_named(running: Running) -> None:
    """Without the CA signer the builder is unready and says why; each restarted process takes up what happened."""
    before = await running.fetch("tls-ov.crl")
    await running.stop("ca-signer")
    serial = await running.revoke("tls-ov", None)
    await running.ready("crl-builder", is_ready=False)
    detail = running.processes["crl-builder"].health.report()["checks"]["crls"]["detail"]
    assert "tls-ov" in detail
    assert "rpc.unavailable" in detail
    running.start("ca-signer")
    await running.shows("tls-ov.crl", serial)
    await running.ready("crl-builder")
    await running.stop("crl-builder")
    serial = await running.revoke("tls-ov", None)
    running.start("crl-builder")
    await running.shows("tls-ov.crl", serial)
    after = await running.fetch("tls-ov.crl")
    numbers = [
        crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        for crl in (before, after)
        if crl is not None
    ]
    assert numbers[1] > numbers[0] + 1


async def test_what_nobody_foresaw_beside_the_builder_does_not_end_it(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What CCADB reads is written all the same, a little later; nobody would notice a task that is gone."""
    await running.stop("crl-builder")
    file, step, fault = running.state.crl / "ccadb" / "tls-ov.json", Disclosure.step, [RuntimeError("unforeseen")]
    file.unlink(missing_ok=True)

    async def faulty(self: Disclosure) -> int:
        if fault:
            raise fault.pop()
        return await step(self)

    monkeypatch.setattr(Disclosure, "step", faulty)
    monkeypatch.setattr(builder_process, "_AGAIN", 0.1)
    running.start("crl-builder")
    await until(file.exists)
    assert not fault


async def test_builder_that_stands_by_brings_what_its_own_machine_signed(
    running: Running, bucket: S3, tmp_path: Path
) -> None:
    """B4: the root's CRL is signed where its key is for the moment; whichever machine's builder leads, it gets out."""
    other = State(tmp_path / "other")
    shutil.copy(password_file(running.state, CRL_BUILDER), password_file(other, CRL_BUILDER))
    shutil.copy(running.state.crl / "root.crl", other.crl / "root.crl")
    config = running.config.model_copy(update={"publish": running.config.publish.model_copy(update={"s3": bucket})})
    process = Process("crl-builder", config, other)
    standing_by, place = asyncio.create_task(builder_main(process)), S3Publisher(bucket)
    try:
        async with asyncio.timeout(20):
            while (found := await place.get("root.crl")) is None:  # noqa: ASYNC110 - a bucket has no event
                await asyncio.sleep(0.1)
        assert found[0] == (running.state.crl / "root.crl").read_bytes()
        assert await place.get("tls-ov.crl") is None, "it does not lead"
    finally:
        standing_by.cancel()
        await asyncio.gather(standing_by, return_exceptions=True)
