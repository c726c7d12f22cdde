"""Writer and reader of the cache file: the record as a maximum, damage, growth, replacement."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quash.cache import environment as files
from quash.cache import fsck, layout
from quash.cache.layout import IssuerRow, Record, TemplateRow
from quash.cache.reader import LmdbReader
from quash.cache.writer import Changes, LmdbWriter
from quash.errors import QuashError

NOW = 1_800_000_000
ISSUER = IssuerRow(1, "tls-dv", b"subject", b"spki", b"certificate", "tls-dv", 1800, 604_800)
TEMPLATE = TemplateRow(1, 1, "ecdsa-p256-sha256", b"certificate")


def record(version: int = 0, this_update: int = NOW, fill: bytes = b"s", validity: int = 172_799) -> bytes:
    """An encoded P-256 record; revoked for keyCompromise when `version` is not 0."""
    return layout.encode_record(
        Record(
            version,
            1 if version else None,
            NOW if version else 0,
            this_update,
            this_update + validity,
            1,
            (fill * 64, fill * 64),
        )
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache folder."""
    return tmp_path


@pytest.fixture
def writer(folder: Path) -> Iterator[LmdbWriter]:
    """An open writer on `folder`."""
    writer = LmdbWriter(folder)
    yield writer
    writer.environment.close()


RECORDS = st.builds(
    record, st.integers(0, 3), st.integers(NOW, NOW + 3), st.sampled_from([b"a", b"b"]), st.sampled_from([100, 200])
)
ITEMS = st.lists(
    st.tuples(st.integers(1, 2), st.sampled_from([b"\x01", b"\x02", b"\x02\x01"]), RECORDS), min_size=1, max_size=12
)


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[tuple[int, bytes, bytes]], list[list[tuple[int, bytes, bytes]]]]:
    """Some records, and the same ones delivered in another order, with repetitions, in batches of any size."""
    items = draw(ITEMS)
    repeated = draw(st.permutations(items + draw(st.lists(st.sampled_from(items), max_size=6))))
    cuts = sorted(draw(st.lists(st.integers(0, len(repeated)), max_size=3)))
    bounds = [0, *cuts, len(repeated)]
    return items, [list(repeated[a:b]) for a, b in itertools.pairwise(bounds)]


def contents(writer: LmdbWriter) -> dict[bytes, bytes]:
    """Every record of the file."""
    environment = writer.environment
    with environment.env.begin() as txn:
        return dict(txn.cursor(db=environment.records))


@settings(max_examples=60, deadline=None)
@given(deliveries())
def test_a_cache_is_the_maximum_of_its_records(
    delivery: tuple[list[tuple[int, bytes, bytes]], list[list[tuple[int, bytes, bytes]]]],
) -> None:
    """Any order of arrival and any repetition give the same cache: the greatest (version, thisUpdate) of a serial."""
    items, batches = delivery
    with tempfile.TemporaryDirectory() as folder:
        writer = LmdbWriter(Path(folder), map_size=1 << 24)
        for batch in batches:
            writer.apply(Changes(records=batch))
        expected: dict[bytes, list[bytes]] = {}
        for issuer_id, serial, data in items:
            expected.setdefault(layout.record_key(issuer_id, serial), []).append(data)
        found = contents(writer)
        writer.environment.close()
    assert found == {key: max(values) for key, values in expected.items()}
    for key, values in expected.items():
        assert layout.record_order(found[key]) == max(layout.record_order(value) for value in values)


def test_an_old_good_never_replaces_a_revocation(writer: LmdbWriter) -> None:
    """A signer whose clock runs ahead cannot shadow a later revocation: the version counts first."""
    revoked = record(version=1, this_update=NOW)
    writer.apply(Changes(records=[(1, b"s", revoked)]))
    assert writer.apply(Changes(records=[(1, b"s", record(this_update=NOW + 86_400))])) == 0
    assert list(contents(writer).values()) == [revoked]


def test_position_and_records_are_one_commit(folder: Path) -> None:
    """A writer killed without warning is found again with the records of its position, and no later ones."""
    script = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(Path.cwd())!r})
from quash.cache.writer import Changes, LmdbWriter
writer = LmdbWriter(Path({str(folder)!r}))
writer.apply(Changes(records=[(1, b"a", b"{{}}".ljust(40))], position=b"one"))
with writer.environment.env.begin(write=True) as txn:
    txn.put(b"position", b"two", db=writer.environment.meta)
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    writer = LmdbWriter(folder)
    assert writer.rebuilt == ""
    assert writer.position() == b"one"
    assert list(contents(writer)) == [layout.record_key(1, b"a")]
    writer.close()


def test_heartbeats_only_rise(writer: LmdbWriter) -> None:
    """An older heartbeat read again does not make the cache look older than it is."""
    for at in (NOW, NOW + 5, NOW + 2):
        writer.apply(Changes(heartbeat=at))
    assert writer.heartbeat() == NOW + 5


def test_the_generation_rises_with_the_catalog_alone(writer: LmdbWriter) -> None:
    """Readers load issuers and signers again when, and only when, one changed."""
    reader = LmdbReader(shared=writer)
    writer.apply(Changes(issuers=[ISSUER], templates=[TEMPLATE]))
    first = reader.state()
    writer.apply(Changes(records=[(1, b"s", record())], issuers=[ISSUER], templates=[TEMPLATE], heartbeat=NOW))
    assert reader.state().generation == first.generation
    writer.apply(Changes(templates=[TemplateRow(2, 1, "ecdsa-p256-sha256", b"other")]))
    assert reader.state().generation != first.generation
    assert set(reader.catalog().templates) == {1, 2}
    assert reader.catalog().issuers == {1: ISSUER}


def test_complete_is_never_taken_back(writer: LmdbWriter) -> None:
    """Once the head was reached, a later commit does not forget it."""
    reader = LmdbReader(shared=writer)
    assert not reader.state().complete
    writer.apply(Changes(complete=True))
    writer.apply(Changes(heartbeat=NOW))
    assert reader.state().complete
    assert writer.complete()


def test_a_full_map_applies_nothing_and_loses_nothing(folder: Path) -> None:
    """When the file may not grow, `cache.full` is raised, the last commit stands, and smaller ones go on."""
    writer = LmdbWriter(folder, map_size=64 * 4096)
    writer.apply(Changes(records=[(1, b"s", record())], position=b"one"))
    many = [(1, number.to_bytes(8, "big"), record()) for number in range(1, 5000)]
    with pytest.raises(QuashError, match=r"cache\.full"):
        writer.apply(Changes(records=many, position=b"two"))
    assert writer.position() == b"one"
    assert list(contents(writer)) == [layout.record_key(1, b"s")]
    assert writer.apply(Changes(records=many[:3], position=b"two")) == 3
    writer.close()


def test_a_sweep_removes_what_expired_long_ago_and_nothing_else(writer: LmdbWriter) -> None:
    """A12: purged in slices of a given size, one pass over the whole file."""
    old = [(1, bytes([n]), record(this_update=NOW - 1_000_000)) for n in range(1, 40)]
    live = [(1, bytes([n, 1]), record()) for n in range(1, 40)]
    writer.apply(Changes(records=old + live))
    after, passes = writer.sweep(b"", 7, NOW - 86_400), 1
    while after:
        after, passes = writer.sweep(after, 7, NOW - 86_400), passes + 1
    assert passes == 12
    assert set(contents(writer)) == {layout.record_key(1, serial) for _, serial, _ in live}


READER = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from quash.cache import environment as files
opened = files.open_for_reading(Path({folder!r}))
txn = opened.env.begin(opened.records)  # a look-up that never ends
txn.get(b"x")
print("reading", flush=True)
sys.stdin.read()
"""


def start_stuck_reader(folder: Path) -> subprocess.Popen[bytes]:
    """Another process that holds a read transaction open."""
    script = READER.format(here=str(Path.cwd()), folder=str(folder))
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"reading\n"
    return child


def rewrite(writer: LmdbWriter, rounds: int, start: int) -> int:
    """Replaces every one of 2,000 records `rounds` times; returns the file's size."""
    for step in range(start, start + rounds):
        writer.apply(
            Changes(
                records=[(1, number.to_bytes(4, "big"), record(this_update=NOW + step)) for number in range(1, 2000)]
            )
        )
    return writer.size().file


def test_a_killed_reader_does_not_grow_the_file(folder: Path, writer: LmdbWriter) -> None:
    """While a reader hangs, old pages pile up; once it is killed the file stops growing."""
    settled = rewrite(writer, 10, 0)
    assert rewrite(writer, 10, 10) == settled
    child = start_stuck_reader(folder)
    try:
        pinned = rewrite(writer, 20, 20)
        assert pinned > 3 * settled  # or the test would prove nothing
    finally:
        child.kill()
        child.communicate()
    assert rewrite(writer, 40, 40) <= pinned + settled
    assert writer.size().used < settled


def test_a_reader_opens_the_file_that_replaced_its_own(folder: Path, writer: LmdbWriter) -> None:
    """A rebuilt file is noticed at the next `state`, and the reader answers from it."""
    script = f"""
import sys
sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from quash.cache.reader import LmdbReader
reader = LmdbReader(Path({str(folder)!r}))
for line in sys.stdin:
    print(reader.state().heartbeat, reader.get(bytes.fromhex(line)), reader.state().generation, flush=True)
"""
    writer.apply(Changes(records=[(1, b"s", b"old record")], heartbeat=NOW))
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    key = layout.record_key(1, b"s").hex() + "\n"
    try:
        child.stdin.write(key)
        child.stdin.flush()
        assert child.stdout.readline() == f"{NOW} b'old record' (1, 0)\n"
        writer.rebuild()
        writer.apply(Changes(records=[(1, b"s", b"new record")], heartbeat=NOW + 1))
        child.stdin.write(key)
        child.stdin.flush()
        assert child.stdout.readline() == f"{NOW + 1} b'new record' (2, 0)\n"
    finally:
        child.stdin.close()
        child.wait(10)
        child.stdout.close()


def test_a_missing_file_is_said_to_be_missing(folder: Path) -> None:
    """A worker that starts before its follower gets a code, not an LMDB error, and succeeds later."""
    reader = LmdbReader(folder)
    for call in (reader.state, reader.catalog, lambda: reader.get(b"key")):
        with pytest.raises(QuashError, match=r"cache\.missing"):
            call()
    assert not (folder / files.FILE).exists()


def damage(path: Path, how: str) -> None:
    """Spoils a cache file in one way."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        if how == "truncated":
            file.truncate(size - 4096)
        elif how == "empty":
            file.truncate(0)
        elif how == "head":
            file.write(os.urandom(8192))


@pytest.mark.parametrize("how", ["truncated", "empty", "head"])
def test_a_damaged_file_is_deleted_and_made_anew(folder: Path, how: str) -> None:
    """What fails the check at opening is replaced by an empty file, and readers refuse it until then."""
    writer = LmdbWriter(folder)
    rewrite(writer, 1, 0)
    writer.apply(Changes(position=b"one"))
    writer.close()
    damage(folder / files.FILE, how)
    with pytest.raises(QuashError, match=r"cache\.missing"):
        LmdbReader(folder).state()
    writer = LmdbWriter(folder)
    assert "deleted and built again" in writer.rebuilt
    assert writer.position() is None
    assert contents(writer) == {}
    writer.close()
    assert LmdbReader(folder).state().heartbeat is None


def test_a_file_open_when_the_machine_stopped_is_not_trusted(folder: Path) -> None:
    """Commits are not flushed, so the mark of another boot means that pages may be missing anywhere."""
    writer = LmdbWriter(folder)
    writer.apply(Changes(position=b"one"))
    with writer.environment.env.begin(write=True) as txn:
        txn.put(files.MARK_KEY, b"another-boot:1", db=writer.environment.meta)
    writer.environment.close()
    writer = LmdbWriter(folder)
    assert "machine stopped" in writer.rebuilt
    assert writer.position() is None
    writer.close()


def test_a_file_closed_in_order_is_trusted_after_a_reboot(folder: Path) -> None:
    """Closing flushes everything and takes the mark off."""
    writer = LmdbWriter(folder)
    writer.apply(Changes(position=b"one"))
    writer.close()
    opened = files.open_for_writing(folder)
    opened.close()  # as a killed process leaves it: marked with this boot
    writer = LmdbWriter(folder)
    assert (writer.rebuilt, writer.position()) == ("", b"one")
    writer.close()
    env = files.open_for_reading(folder)
    with env.env.begin(env.meta) as txn:
        assert txn.get(files.MARK_KEY) == b""
    env.close()


@pytest.mark.parametrize(("run", "runs_of_a_commit"), [(200, 3), (1500, 1), (1500, 3), (20_000, 1)])
def test_a_record_takes_less_than_300_octets(folder: Path, run: int, runs_of_a_commit: int) -> None:
    """Design, section 8: also where an import's buckets, each a range of serials, arrive in any order."""
    dice = random.Random(5)
    serials = sorted(dice.randbytes(16) for _ in range(20_000))
    runs = [serials[begin : begin + run] for begin in range(0, len(serials), run)]
    dice.shuffle(runs)
    writer = LmdbWriter(folder)
    for begin in range(0, len(runs), runs_of_a_commit):
        some = itertools.chain.from_iterable(runs[begin : begin + runs_of_a_commit])
        writer.apply(Changes([(1, serial, record()) for serial in some]))
    writer.environment.close()
    report = fsck.examine(folder, NOW)
    assert report.records == len(serials)
    assert report.used_bytes / report.records < 260


def test_fsck_counts_what_is_there(folder: Path, writer: LmdbWriter) -> None:
    """`quash cache stats` gives records by issuer and status, the heartbeat and the sizes."""
    expired = record(this_update=NOW - 1_000_000)
    writer.apply(
        Changes(
            records=[(1, b"g", record()), (1, b"r", record(version=1)), (1, b"e", expired)],
            issuers=[ISSUER],
            templates=[TEMPLATE],
            heartbeat=NOW,
            position=b"42",
            complete=True,
        )
    )
    report = run_fsck(folder, NOW)
    assert report == (3, 1, "tls-dv", 2, 1, 1, NOW, True, "42", 0)


def run_fsck(folder: Path, now: int) -> tuple[object, ...]:
    """Examines in another process: this one has the file open."""
    script = f"""
import sys
sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from quash.cache.fsck import examine
r = examine(Path({str(folder)!r}), {now})
i = r.issuers[1]
assert r.file_bytes >= r.used_bytes > 0
counts = (r.records, r.signers, i.name, i.good, i.revoked, i.expired)
print(repr((*counts, r.heartbeat, r.complete, r.position, r.fault_count)))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    result: tuple[object, ...] = eval(done.stdout)
    return result


def test_fsck_names_each_fault(folder: Path) -> None:
    """Unknown signers, unknown issuers and records that are none are each found."""
    writer = LmdbWriter(folder)
    writer.apply(
        Changes(records=[(1, b"a", record()), (2, b"b", record()), (1, b"c", b"not a record")], issuers=[ISSUER])
    )
    writer.close()
    report = fsck.examine(folder, NOW)
    assert report.fault_count == 3
    text = "\n".join(report.faults)
    for part in ("signer 1 is unknown", "issuer 2 is unknown", "wrong length or format"):
        assert part in text


def test_fsck_finds_a_page_that_was_overwritten(folder: Path) -> None:
    """The walk as a process ends with a failure, whatever LMDB does on such a page."""
    writer = LmdbWriter(folder)
    rewrite(writer, 1, 0)
    writer.apply(Changes(issuers=[ISSUER], templates=[TEMPLATE]))
    writer.close()
    assert subprocess.run([sys.executable, "-m", "quash.cache.fsck", str(folder)], check=False).returncode == 0
    path = folder / files.FILE
    whole = path.read_bytes()
    page = whole.index(record()[:3]) // 4096
    path.write_bytes(whole[: page * 4096] + os.urandom(4096) + whole[(page + 1) * 4096 :])
    assert subprocess.run([sys.executable, "-m", "quash.cache.fsck", str(folder)], check=False).returncode != 0
