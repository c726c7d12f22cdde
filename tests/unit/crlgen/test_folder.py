"""What the folder promises beyond the publisher's contract (test_publishers)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from crlgen.publish.folder import FolderPublisher
from quash.errors import QuashError


@pytest.fixture
def publisher(tmp_path: Path) -> FolderPublisher:
    return FolderPublisher(tmp_path)


async def test_removed_file_is_not_replaced_unseen(publisher: FolderPublisher, tmp_path: Path) -> None:
    """Whoever took the file away is noticed."""
    tag = await publisher.put("a.crl", b"one", replaces=None)
    (tmp_path / "a.crl").unlink()
    with pytest.raises(QuashError) as caught:
        await publisher.put("a.crl", b"two", replaces=tag)
    assert caught.value.code == "publish.conflict"


async def test_reader_never_sees_a_mixture(publisher: FolderPublisher, tmp_path: Path) -> None:
    """A file opened before a put stays whole and old; one opened after is whole and new."""
    tag = await publisher.put("a.crl", b"old" * 1000, replaces=None)
    with (tmp_path / "a.crl").open("rb") as file:
        head = file.read(10)
        await publisher.put("a.crl", b"new" * 1000, replaces=tag)
        assert head + file.read() == b"old" * 1000


async def test_folders_are_made_and_files_are_for_everybody(publisher: FolderPublisher, tmp_path: Path) -> None:
    """A shard's sub-folder appears by itself; strangers may read files whatever the umask; no hidden file stays."""
    old = os.umask(0o077)
    try:
        await publisher.put("dv/3.crl", b"x", replaces=None)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "dv/3.crl").stat().st_mode) == 0o644
    assert [path.name for path in (tmp_path / "dv").iterdir()] == ["3.crl"]


async def test_left_over_of_a_crash_is_taken_over(publisher: FolderPublisher, tmp_path: Path) -> None:
    """A half-written hidden file neither counts as published nor gets in the way."""
    (tmp_path / ".a.crl.new").write_bytes(b"half")
    assert await publisher.get("a.crl") is None
    await publisher.put("a.crl", b"whole", replaces=None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.crl"]


async def test_failed_write_leaves_the_old_file_and_has_a_code(publisher: FolderPublisher, tmp_path: Path) -> None:
    """When the folder cannot be written, what is published stays."""
    tag = await publisher.put("a.crl", b"one", replaces=None)
    (tmp_path / ".a.crl.new").mkdir()
    with pytest.raises(QuashError) as caught:
        await publisher.put("a.crl", b"two", replaces=tag)
    assert caught.value.code == "publish.failed"
    assert await publisher.get("a.crl") == (b"one", tag)


@pytest.mark.parametrize("name", ["../a", "/etc/a", "", "a//b", ".hidden", "a/../b", "a/.b", "a\0b", "a b", "a/"])
async def test_names_that_could_climb_out_are_refused(publisher: FolderPublisher, name: str) -> None:
    """Names are plain relative paths; anything else is refused before the disk is touched."""
    for attempt in (publisher.head(name), publisher.get(name), publisher.put(name, b"", replaces=None)):
        with pytest.raises(QuashError) as caught:
            await attempt
        assert caught.value.code == "publish.name"
