"""Checkpoints in a bucket (moto's S3, on the loopback interface), and what the system did by itself in the ledger."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import obstore
import pytest
from moto.server import ThreadedMotoServer

from issuer.audit.checkpoint_bucket import CheckpointBucket
from quash.errors import QuashError
from quash.runtime.config import S3
from quash.runtime.object_store import open_bucket
from quash.store import crls
from quash.store.database import acquire
from quash.store.roles import CRL_BUILDER, PRESIGNER
from tests.support.command_line import CommandLine
from tests.support.ledger import Ledger
from tests.support.revoking import make_world


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
async def place(endpoint: str, tmp_path: Path) -> S3:
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = test\naws_secret_access_key = test\n")

    name = f"ledger-{abs(hash(tmp_path)) % 10**8}"
    async with aiohttp.ClientSession() as session, session.put(f"{endpoint}/{name}") as made:
        assert made.status == 200
    return S3(bucket=name, prefix="quash", endpoint=endpoint, credentials_file=file, timeout=5)


async def test_each_checkpoint_is_an_object_of_its_own(book: Ledger, place: S3, tmp_path: Path) -> None:
    """The same lines as in the file, also those of before; the command line fetches them, and they verify."""
    await book.act(3)
    alone = book.sequencer(checkpoint_rows=1)
    await alone.step()
    await alone.let_go()
    sequencer = book.sequencer(bucket=CheckpointBucket(place), checkpoint_rows=1)
    for _ in range(3):
        await book.act()
        await sequencer.step()
    lines = book.file.read_bytes().splitlines()
    assert len(lines) == 4
    assert await CheckpointBucket(place).lines() == lines
    path = tmp_path / "quash.toml"
    path.write_text(
        f'[audit.s3]\nbucket = "{place.bucket}"\nprefix = "quash"\nendpoint = "{place.endpoint}"\n'
        f'credentials_file = "{place.credentials_file}"\n'
    )
    async with CommandLine() as line:
        said = await line.run("audit", "checkpoints", "--out", str(tmp_path / "copy"), "--config", str(path))
    assert (said.status, said.out) == (0, "4 checkpoints\n")
    report = book.verify_lines(b"\n".join(await book.export()) + b"\n", tmp_path / "copy")
    assert (report.faults, report.covered) == ([], 6)


async def test_a_bucket_that_is_away_holds_nothing_up(book: Ledger, place: S3) -> None:
    """Chaining and the file go on; once it is back it gets what it lacks."""
    away = CheckpointBucket(place.model_copy(update={"endpoint": "http://127.0.0.1:9", "timeout": 1}))
    sequencer = book.sequencer(bucket=away, checkpoint_rows=1)
    await book.act()
    assert await sequencer.step() == 1
    assert len(book.file.read_bytes().splitlines()) == 1
    sequencer._bucket = CheckpointBucket(place)
    assert await sequencer.step() == 0
    assert await CheckpointBucket(place).lines() == book.file.read_bytes().splitlines()


async def test_another_line_in_the_bucket_is_an_alarm(book: Ledger, place: S3) -> None:
    """Objects are never replaced: who finds another one under its number stops and says so."""
    await obstore.put_async(open_bucket(place), "checkpoint-000000000001.json", b"forged")
    sequencer = book.sequencer(bucket=CheckpointBucket(place), checkpoint_rows=1)
    await book.act()
    await sequencer.step()  # the bucket has this number: nothing was compared yet
    sequencer._in_bucket = 0
    with pytest.raises(QuashError) as error:
        await sequencer.step()
    assert error.value.code == "ledger.contradicts_checkpoint"
    assert await CheckpointBucket(place).lines() == [b"forged"]


async def test_what_the_system_did_is_chained(book: Ledger, database: Any) -> None:
    """A published CRL, a completed pass, a signer: written by the database, whoever causes them; nothing else is."""
    world = await make_world(database, book.clock, CRL_BUILDER)
    alpha = world.authorities["alpha"].id
    await world.owner.execute("insert into bucket (issuer_id, bucket, due_at) values ($1, 7, 1)", alpha)
    async with acquire(await database.pool(PRESIGNER)) as conn:
        await conn.execute("update bucket set due_at = 2")
        await conn.execute("update bucket set passed_at = 9, pass_xmin = '1'")
    async with acquire(world.pool) as conn:
        scope = await crls.find_scope(conn, alpha, None)
        assert scope is not None
        times = {"this_update": 1, "next_update": 2, "entries": 3, "covers": "1:1:", "scheduled": True}
        await crls.reserve(conn, scope, number=5, **times)
        await crls.signed(conn, scope, 5, bytes(32), 100)
        await crls.published(conn, scope, 5, 11)
    await world.owner.execute(
        "insert into ocsp_signer (issuer_id, certificate, key_ref, signature_algorithm, not_before, not_after, state,"
        " created_at) values ($1, 'c', 'k', 'a', 1, 2, 'active', 12)",
        alpha,
    )
    await world.owner.execute("update ocsp_signer set state = 'retired'")
    events = await world.owner.fetch("select at, kind, subject from system_event order by id")
    assert [(event["at"], event["kind"]) for event in events] == [
        (9, "ocsp.pass"),
        (11, "crl.published"),
        (12, "ocsp.signer"),
        (12, "ocsp.signer"),
    ]
    assert events[1]["subject"]["sha256"] == "00" * 32
    assert await book.sequencer(checkpoint_rows=1).step() == 4
    assert (await book.verify()).faults == []
    async with book.tampering() as conn:
        await conn.execute("update system_event set at = 10 where kind = 'crl.published'")
    assert (await book.verify()).fault_count > 0
