"""What commands write into the folder reaches the bucket: CRLs of offline keys (B4), CA certificates."""

from __future__ import annotations

from pathlib import Path

import pytest

from crlgen.publish.bring import Bring
from crlgen.publish.folder import FolderPublisher
from tests.support.crl_bench import Bench, Ca


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """A folder that plays the bucket; the contract suite has both (`test_publishers`)."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    return folder


def bringing(bench: Bench, bucket: Path) -> Bring:
    return Bring(bench.pool, FolderPublisher(bucket), FolderPublisher(bench.folder), bench.clock)


async def test_newer_crl_and_certificates_are_brought(bench: Bench, bucket: Path) -> None:
    """Within a minute; an older or an equal CRL is not, and online CRLs are not touched."""
    root, sub = await bench.issuer("root", key_ref=None), await bench.issuer("sub")
    bring = bringing(bench, bucket)
    bench.path("root.crl").write_bytes(second := bench.crl(root, 2))
    bench.path("sub.crl").write_bytes(bench.crl(sub, 9))
    assert await bring.step() == 3
    assert sorted(path.name for path in bucket.iterdir()) == ["root.cer", "root.crl", "sub.cer"]
    assert (bucket / "root.crl").read_bytes() == second
    bench.path("root.crl").write_bytes(third := bench.crl(root, 3))
    assert await bring.step() == 0, "not before the next look"
    await bench.clock.advance(60)
    assert await bring.step() == 1
    assert (bucket / "root.crl").read_bytes() == third
    await bench.clock.advance(60)
    assert await bring.step() == 0


async def test_folder_that_is_behind_gets_the_newer_crl(bench: Bench, bucket: Path) -> None:
    """A command ran on another machine, or the folder was restored: the greater number is what is out (B7)."""
    root = await bench.issuer("root", key_ref=None)
    (bucket / "root.crl").write_bytes(third := bench.crl(root, 3))
    bench.path("root.crl").write_bytes(bench.crl(root, 2))
    await bringing(bench, bucket).step()
    assert bench.path("root.crl").read_bytes() == (bucket / "root.crl").read_bytes() == third


@pytest.mark.parametrize("damaged", ["bucket", "folder"])
async def test_damaged_or_foreign_crl_is_replaced_by_the_other_place(bench: Bench, bucket: Path, damaged: str) -> None:
    """Whatever number it claims: only what the issuer's key signed counts, and nothing else is spread."""
    root, other = await bench.issuer("root", key_ref=None), await bench.issuer("other")
    bad, good = (bucket, bench.folder) if damaged == "bucket" else (bench.folder, bucket)
    (good / "root.crl").write_bytes(second := bench.crl(root, 2))
    forged = bench.crl(Ca(root.id, "root", other.key, root.certificate, root.algorithm), 9)
    for body in (forged, second[:-1], b""):
        (bad / "root.crl").write_bytes(body)
        await bringing(bench, bucket).step()
        assert (bad / "root.crl").read_bytes() == (good / "root.crl").read_bytes() == second
