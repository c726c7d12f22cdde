"""pkilint before publishing, and over the whole of what was published."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
import uvloop

from crlgen.build import lint
from crlgen.build.lint import LintWorker, WholeLint, choose, twin
from quash.errors import QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.pki.crl import cut_entries, entry, read_crl, tbs_cert_list
from quash.pki.names import build_name
from tests.support.crl_bench import DAY, Bench

NOW = 1_800_000_000
ALGORITHM = SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"]


def entries(count: int, reason: int = 4) -> list[bytes]:
    return [entry(b"\x01" + os.urandom(15), NOW - n, reason) for n in range(count)]


def tbs(listed: list[bytes], *, days: int = 4) -> bytes:
    return tbs_cert_list(
        algorithm=ALGORITHM, issuer=build_name({"C": "TN", "O": "Quash", "CN": "Quash Test CA"}), this_update=NOW,
        next_update=NOW + days * DAY - 1, entries=listed, authority_key_id=b"k" * 20, number=5, idp_urls=(), only=None,
    )  # fmt: skip


class Recorder:
    """A linter that keeps what it is asked, and finds what it is told to."""

    def __init__(self, *findings: str) -> None:
        self.findings = list(findings)
        self.asked: list[bytes] = []

    async def lint(self, body: bytes) -> list[str]:
        self.asked.append(body)
        return self.findings


@pytest.fixture
async def worker() -> AsyncIterator[LintWorker]:
    found = LintWorker()
    yield found
    await found.close()


async def test_worker_lints_and_survives_noise_and_death(worker: LintWorker) -> None:
    """A sound CRL pleases pkilint, one of eleven days and noise do not; a killed worker is replaced."""
    assert await worker.lint(twin(tbs(entries(3)), entries(3), ALGORITHM)) == []
    findings = await worker.lint(twin(tbs([], days=11), entries(1), ALGORITHM))
    assert any("validity" in finding for finding in findings)
    assert (await worker.lint(b"noise"))[0].startswith("FATAL")
    process = worker._process
    assert process is not None
    process.kill()
    await process.wait()
    with pytest.raises(QuashError, match=r"crl\.lint_unavailable"):
        await worker.lint(twin(tbs([]), [], ALGORITHM))
    assert await worker.lint(twin(tbs([]), [], ALGORITHM)) == []


async def test_worker_that_died_is_replaced_in_a_service_too() -> None:
    """Services run on uvloop, which does not write to a process that has ended: one failure, and then a new worker."""

    async def body() -> list[str]:
        worker = LintWorker()
        await worker.lint(b"noise")
        assert worker._process is not None
        worker._process.kill()
        await asyncio.sleep(0.3)
        with pytest.raises(QuashError, match=r"crl\.lint_unavailable"):
            await worker.lint(b"noise")
        found = await worker.lint(b"noise")
        await worker.close()
        return found

    assert (await asyncio.to_thread(uvloop.run, body()))[0].startswith("FATAL")


async def test_worker_that_hangs_is_killed() -> None:
    """A linter that does not answer in time is an error with a code, and leaves no process behind."""
    worker = LintWorker(timeout=0.01)
    with pytest.raises(QuashError, match=r"crl\.lint_unavailable"):
        await worker.lint(twin(tbs([]), [], ALGORITHM))
    assert worker._process is None


async def test_worker_asked_by_several_answers_each_with_its_own(worker: LintWorker) -> None:
    """Questions asked at once, one of them given up, do not get each other's answers."""
    sound, long = twin(tbs([]), entries(50), ALGORITHM), twin(tbs([], days=11), [], ALGORITHM)
    given_up = asyncio.create_task(worker.lint(long))
    await asyncio.sleep(0.05)
    asked = [asyncio.create_task(worker.lint(body)) for body in (sound, long, sound)]
    given_up.cancel()
    assert [bool(each) for each in await asyncio.gather(*asked)] == [False, True, False]


def test_twin_is_the_same_frame() -> None:
    """What is linted differs from what is signed in its entries alone, also from and to a list without any (B9)."""
    one, two = entries(3), entries(2)
    for listed, other in ((one, two), (one, []), ([], two), ([], [])):
        crl = read_crl(twin(tbs(listed), other, ALGORITHM))
        assert crl.tbs == tbs(other)


def test_every_new_entry_is_chosen_and_the_sample_moves_on() -> None:
    """All that is new, two hundred of the rest, whole entries only; another number chooses others."""
    old, new = entries(3000), entries(7, 1)
    chosen = choose(b"".join([*old, *new]), b"".join(old), 1)
    assert set(new) <= set(chosen)
    assert set(chosen) <= {*old, *new}
    assert 150 <= len(chosen) <= lint.SAMPLE + 8
    assert set(choose(b"".join([*old, *new]), b"".join(old), 2)) != set(chosen)
    assert choose(b"", b"", 1) == []


def test_mass_revocation_is_chosen_from_by_shape() -> None:
    """Of more new entries than can be linted in time, one of each shape and a sample from end to end."""
    same = [entry(b"\x01" + os.urandom(15), NOW, 4) for _ in range(2000)]
    odd = entry(b"\x01" * 20, NOW, 4)
    chosen = choose(b"".join([*same, odd]), b"", 1)
    assert odd in chosen
    assert all(set(same[n : n + 100]) & set(chosen) for n in range(0, 2000, 100))
    assert lint.SAMPLE <= len(chosen) <= 2 * lint.SAMPLE + 2


async def test_crl_that_pkilint_refuses_is_not_published(bench: Bench) -> None:
    """A finding keeps the published CRL, and the problem says what was found."""
    ca = await bench.issuer()
    await bench.settle()
    recorder = Recorder()
    await bench.start(linter=recorder)
    serial = await bench.revoked(ca)
    await bench.settle()
    (asked,) = recorder.asked
    assert [each[4:20] for each in read_crl(asked).entries] == [serial]
    recorder.findings = ["ERROR x.y what is wrong"]
    await bench.revoked(ca)
    await bench.settle()
    assert bench.read().number == 2
    assert "x.y" in bench.builder.problems["ca.crl"]
    recorder.findings = []
    await bench.settle(10)
    assert len(bench.listed()) == 2
    assert bench.builder.problems == {}


async def test_whole_crl_is_linted_afterwards_entry_by_entry() -> None:
    """Every entry of a published CRL meets the linter once, in pieces; a finding stays a problem until the next CRL."""
    recorder = Recorder()
    whole, listed = WholeLint(recorder), entries(450)
    whole.add("ca.crl", tbs(listed), b"".join(listed), ALGORITHM)
    assert [await whole.step() for _ in range(5)] == [200, 200, 50, 0, 0]
    assert [each for body in recorder.asked for each in cut_entries(read_crl(body).revoked)] == listed
    recorder.findings = ["ERROR x.y"]
    whole.add("ca.crl", tbs(listed), b"".join(listed), ALGORITHM)
    assert [await whole.step() for _ in range(2)] == [200, 0]
    assert "x.y" in whole.problems["ca.crl"]
    whole.add("ca.crl", tbs([]), b"", ALGORITHM)
    assert whole.problems == {}


async def test_scheduled_crl_is_handed_over_to_be_linted_whole(bench: Bench) -> None:
    """The daily CRL is linted whole; one more revocation in between is not a reason to."""
    recorder = Recorder()
    await bench.start(linter=recorder)
    ca = await bench.issuer()
    await bench.revoked(ca)
    await bench.settle()
    assert bench.builder.afterwards is not None
    assert await bench.builder.afterwards.step() == 1
    assert await bench.builder.afterwards.step() == 0
    await bench.revoked(ca)
    await bench.settle()
    assert await bench.builder.afterwards.step() == 0
