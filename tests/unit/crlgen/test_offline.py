"""CRLs of offline keys, as the builder watches over them: commands publish them, it announces, compares and tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crlgen.build.builder import CrlBuilder
from crlgen.publish.bring import Bring
from crlgen.publish.folder import FolderPublisher
from crlgen.publish.with_copy import WithCopy
from tests.support.crl_bench import Bench
from tests.unit.crlgen.test_faults import alarms

announced: list[str] = []


@pytest.fixture
async def builder(bench: Bench) -> CrlBuilder:
    """One that notes what it announces to purge hooks."""
    announced.clear()
    return await bench.start(announce=lambda scope: announced.append(scope.path))


async def test_published_by_command_and_announced_at_once(bench: Bench, builder: CrlBuilder) -> None:
    """G1: caches are told within a step of a running builder, once for each CRL, not at its next start (B4)."""
    root = await bench.issuer("root", key_ref=None)
    await builder.step()
    assert announced == []
    for times in (1, 2):
        await bench.revoked(root)
        await bench.command_publishes(root)
        await builder.step()
        await bench.settle(3600)
        assert announced == ["root.crl"] * times
    assert builder.problems == {}


async def test_start_beside_an_older_crl_in_the_bucket(bench: Bench, tmp_path: Path) -> None:
    """What the bucket lacks is said until the newer CRL is brought there, without a restart; then caches are told."""
    (tmp_path / "bucket").mkdir()
    bucket, folder = FolderPublisher(tmp_path / "bucket"), FolderPublisher(bench.folder)
    root = await bench.issuer("root", key_ref=None)
    await bench.command_publishes(root)
    await Bring(bench.pool, bucket, folder, bench.clock).step()
    serial = await bench.revoked(root)
    await bench.command_publishes(root)
    announced.clear()
    builder = await bench.start(WithCopy(bucket, folder), announce=lambda scope: announced.append(scope.path))
    await bench.settle()
    assert serial.hex() in builder.problems["root.crl"]
    assert announced == ["root.crl"], "at start, whatever it is"
    await Bring(bench.pool, bucket, folder, bench.clock).step()
    await builder.step()
    assert builder.problems == {}
    assert announced == ["root.crl"] * 2


async def test_revocation_that_a_command_did_not_show_is_said_until_one_does(bench: Bench, builder: CrlBuilder) -> None:
    """Also of a running builder: each new file is held against the database, and clears what was said of the last."""
    root = await bench.issuer("root", key_ref=None)
    serial = await bench.revoked(root)
    await bench.command_publishes(root)
    await bench.database.owner.execute("update crl set sha256 = sha256($1), entries = 0", bare := bench.crl(root, 1))
    bench.path("root.crl").write_bytes(bare)
    await builder.step()
    assert serial.hex() in builder.problems["root.crl"]
    await bench.command_publishes(root)
    await builder.step()
    assert builder.problems == {}


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"noise")], ids=["missing", "damaged"])
async def test_file_that_nobody_but_a_person_can_mend(bench: Bench, builder: CrlBuilder, spoil: Any) -> None:
    """Said two minutes later, when it is not just on its way to the bucket; the same octets back end it."""
    root = await bench.issuer("root", key_ref=None)
    body = await bench.command_publishes(root)
    await builder.step()
    spoil(bench.path("root.crl"))
    before = alarms("crl.file_damaged") + alarms("crl.file_missing")
    await bench.settle(100)
    assert builder.problems == {}
    assert alarms("crl.file_damaged") + alarms("crl.file_missing") == before
    for _ in range(2):
        await bench.settle(100)
        assert alarms("crl.file_damaged") + alarms("crl.file_missing") == before + 1
    assert "crl.file_" in builder.problems["root.crl"]
    assert "quash root crl" in builder.problems["root.crl"]
    bench.path("root.crl").write_bytes(body)
    await bench.settle()
    assert builder.problems == {}
    assert bench.signer.signed == [], "the builder has no such key"
