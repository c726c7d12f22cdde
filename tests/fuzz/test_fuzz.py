"""The kept corpora, replayed; a bounded run of the fuzzer itself among the long tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from quash.pki.ocsp_request import OcspRequest, parse_plain_request
from tests.fuzz import targets
from tests.fuzz.run import CORPUS, LENGTHS, fuzz, seeds

KEPT = {"request": 50, "segment": 30}  # files, at least: an empty corpus would replay nothing
SECONDS = 60


def corpus(target: str) -> list[Path]:
    return sorted((CORPUS / target).iterdir())


def replay(target: str, *more: bytes) -> None:
    """Gives a target the golden requests, and more."""
    for octets in (*seeds(target), *more):
        targets.TARGETS[target](octets)


@pytest.mark.parametrize("target", LENGTHS)
def test_the_corpus_holds(target: str) -> None:
    """Everything that fuzzing ever found worth keeping, and the goldens: no exception, no disagreement."""
    files = corpus(target)
    assert len(files) >= KEPT[target]
    replay(target, *(path.read_bytes() for path in files))


def test_a_parser_that_errs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short cut that reads another serial than the long way does: goldens alone show it."""

    def wrong(octets: bytes) -> OcspRequest | None:
        parsed = parse_plain_request(octets)
        if parsed is None or parsed.cert_ids[0] is None:
            return parsed
        return OcspRequest((parsed.cert_ids[0]._replace(serial=b"\x01"),), parsed.nonce)

    monkeypatch.setattr(targets, "parse_plain_request", wrong)
    with pytest.raises(AssertionError):
        replay("request")


def test_a_fast_path_that_errs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One octet of a fast answer is another than the full path's."""
    _, fast, _ = targets.sites()
    path = fast.worker.fast

    def entry(octets: bytes) -> list[bytes] | None:
        parts = path.answer(octets)
        return [b"".join(parts)[:-1]] if parts else None

    monkeypatch.setattr(path, "entry", entry)
    with pytest.raises(AssertionError):
        replay("segment")


@pytest.mark.long
@pytest.mark.parametrize("target", LENGTHS)
def test_fuzzing_finds_nothing(target: str) -> None:
    """A minute of libFuzzer from the corpus on; `make fuzz` is for longer."""
    assert fuzz(target, SECONDS) == 0
