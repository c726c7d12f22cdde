"""Before anything is signed: does the database hold what OCSP answers `revoked` here (A26, C16)?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quash.cache.layout import Record, encode_record
from quash.cache.writer import Changes, LmdbWriter
from quash.errors import QuashError
from quash.pki.serials import format_serial, new_serial
from quash.store.statuses import LOST
from responder.presign import answered


def fill(world: Any, folder: Path, authority: Any, good: list[bytes], revoked: list[bytes]) -> Path:
    """A node's cache, closed again, as its follower leaves it."""
    folder.mkdir()
    writer = LmdbWriter(folder, map_size=1 << 26)
    head = {"this_update": world.now, "next_update": world.now + 86_400, "signer_id": 1, "signatures": (b"x", b"y")}
    records = [(serial, encode_record(Record(version=0, reason=None, revoked_at=0, **head))) for serial in good]
    records += [
        (serial, encode_record(Record(version=1, reason=1, revoked_at=world.now, **head))) for serial in revoked
    ]
    writer.apply(Changes(records=[(authority.id, serial, record) for serial, record in records]))
    writer.close()
    return folder


@pytest.mark.parametrize("size", [1, 2, 20_000])
async def test_refuses_when_an_answered_revocation_is_lost(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """One that no CRL showed yet: nothing is signed, and the serial is named; it does not matter where slices end."""
    monkeypatch.setattr(answered, "_SLICE", size)
    authority = await world.authority()
    known, good, lost = await world.issue(authority), await world.issue(authority), new_serial()
    await world.revoke(authority, known)
    presigner = await world.presigner(cache=fill(world, tmp_path / "cache", authority, [good], [known, lost]))
    with pytest.raises(QuashError) as refused:
        await presigner.step()
    assert refused.value.code == "presign.revocations_lost"
    assert format_serial(lost) in refused.value.message
    assert format_serial(known) not in refused.value.message
    assert await world.database.owner.fetchval("select count(*) from feed") == 0


async def test_signs_when_the_database_knows_them_all_or_there_is_no_cache(world: Any, tmp_path: Path) -> None:
    authority = await world.authority()
    known, good = await world.issue(authority), await world.issue(authority)
    await world.revoke(authority, known)
    agreeing = fill(world, tmp_path / "cache", authority, [good], [known])
    assert await (await world.presigner(cache=agreeing)).step() > 0
    await world.presigners[-1].close()
    without = await world.presigner(cache=tmp_path / "none")
    await without.step()
    assert without.leading


@pytest.mark.parametrize(("reason", "since"), [(4, 0), (1, 1)], ids=["for another reason", "later"])
async def test_refuses_when_an_answered_upgrade_is_lost(world: Any, tmp_path: Path, reason: int, since: int) -> None:
    """Revoked it is, but OCSP said keyCompromise and since when: to sign less would take that back (B25, C16)."""
    authority = await world.authority()
    serial = await world.issue(authority)
    await world.revoke(authority, serial, reason, at=world.now + since)
    presigner = await world.presigner(cache=fill(world, tmp_path / "cache", authority, [], [serial]))
    with pytest.raises(QuashError, match=format_serial(serial)) as refused:
        await presigner.step()
    assert refused.value.code == "presign.revocations_lost"
    await world.revoke(authority, serial, 1, at=world.now)
    assert await presigner.step() > 0


async def test_of_a_damaged_record_counts_that_it_is_revoked(world: Any, tmp_path: Path) -> None:
    """It is the node's to find and to fill again; the presigner goes on."""
    authority = await world.authority()
    known, lost = await world.issue(authority), await world.issue(authority)
    await world.revoke(authority, known, 4)
    folder = fill(world, tmp_path / "cache", authority, [], [known])
    writer = LmdbWriter(folder, map_size=1 << 26)
    damaged = encode_record(Record(9, 1, 1, world.now, world.now + 1, 1, (b"x", b"y")))[:-1]
    writer.apply(Changes(records=[(authority.id, known, damaged)]))
    assert await (await world.presigner(cache=folder)).step() > 0
    await world.presigners[-1].close()
    writer.apply(Changes(records=[(authority.id, lost, damaged)]))
    writer.close()
    with pytest.raises(QuashError, match=format_serial(lost)):
        await (await world.presigner(cache=folder)).step()


async def test_each_is_looked_up_by_its_key_before_statistics_tell_of_them(world: Any) -> None:
    """A takeover just after a mass revocation: no slice may read all revocations there are."""
    authority = await world.authority()
    args = [authority.id, [new_serial()], [1], [world.now]]
    plan = "\n".join(row[0] for row in await world.database.owner.fetch(f"explain {LOST}", *args))
    assert "Index Scan using revocation_pkey" in plan
    assert "Join" not in plan
