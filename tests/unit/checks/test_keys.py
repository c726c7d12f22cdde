"""Blocklist files, the service for compromised keys, and the order in which keys are checked."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from issuer.checks import blocklist
from issuer.checks.blocklist import Blocklist, write_blocklist
from issuer.checks.keys import KeyChecks
from quash.cli.main import main
from quash.errors import Kind, QuashError
from quash.runtime.config import Checks
from tests.support.issuing import private_key, spki_of

BAD, GOOD = spki_of(private_key("bad")), spki_of(private_key("good"))
BAD_RSA, GOOD_RSA = spki_of(private_key("rsa-bad")), spki_of(private_key("rsa-good"))


class Counting:
    """A `Runner` that lets every key pass and counts."""

    def __init__(self) -> None:
        self.runs = 0

    async def run(self, task: str, argument: str, octets: bytes) -> None:
        self.runs += 1


def _badkeys_record(spki: bytes) -> bytes:
    numbers: Any = private_key("rsa-bad" if spki == BAD_RSA else "bad").public_key().public_numbers()
    value = numbers.n if hasattr(numbers, "n") else numbers.x
    return hashlib.sha256(value.to_bytes((value.bit_length() + 7) // 8, "big")).digest()[:15] + b"\7"


@pytest.mark.parametrize("others", [0, 1, 2, 1000])
def test_a_list_finds_its_keys_and_no_others(tmp_path: Path, others: int) -> None:
    """Both formats, at every size from one record on; a rewritten list is whole again."""
    for bad, good in ((BAD, GOOD), (BAD_RSA, GOOD_RSA)):
        write_blocklist(tmp_path / "spki", [bad, bad, *(secrets.token_bytes(90) for _ in range(others))])
        found = Blocklist(tmp_path / "spki", "spki")
        assert len(found) == others + 1
        assert bad in found
        assert good not in found
        records = sorted([_badkeys_record(bad), *(secrets.token_bytes(16) for _ in range(others))])
        (tmp_path / "badkeys").write_bytes(b"".join(records))
        found = Blocklist(tmp_path / "badkeys", "badkeys")
        assert bad in found
        assert good not in found


@pytest.mark.parametrize("kind", ["spki", "badkeys"])
def test_a_list_is_built_from_hashes_and_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """D42: comments, both notations, duplicates; sorted in parts as a large one is; what is wrong leaves the old."""
    monkeypatch.setattr(blocklist, "_PART", 7)
    digest = hashlib.sha256(BAD).digest() if kind == "spki" else _badkeys_record(BAD)[:15] + bytes(17)
    pem = private_key("rsa-bad").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    lines = ["# ours", digest.hex(), digest.hex().upper(), pem, *(secrets.token_hex(32) for _ in range(50))]
    source, out = tmp_path / "source", tmp_path / "out"
    source.write_text("\n".join(lines))
    with pytest.raises(SystemExit) as end:
        main(["blocklist", "build", "--json", "--kind", kind, str(source), str(out)])
    assert (end.value.code or 0, orjson.loads(capsys.readouterr().out)["keys"]) == (0, 52)
    found = Blocklist(out, kind)
    assert (BAD in found, BAD_RSA in found, GOOD in found, len(found)) == (True, True, False, 52)
    for wrong in ("nonsense", pem[:-40], "\N{SNOWMAN}"):
        source.write_text(f"{digest.hex()}\n{wrong}\n", encoding="utf-8")
        with pytest.raises(SystemExit) as end:
            main(["blocklist", "build", "--kind", kind, str(source), str(out)])
        assert end.value.code == 2
        assert len(Blocklist(out, kind)) == 52
        assert not out.with_name("out.new").exists()
    source.write_text("# nothing but this\n")
    with pytest.raises(SystemExit) as end:
        main(["blocklist", "build", "--kind", kind, str(source), str(out)])
    assert "blocklist.empty" in capsys.readouterr().err
    assert (end.value.code, len(Blocklist(out, kind))) == (2, 52)


def test_a_look_up_in_a_large_list_takes_microseconds(tmp_path: Path) -> None:
    """Two million records: CPU time for each look-up, far below what any other check costs."""
    numbers = range(0, 1 << 32, (1 << 32) // 2_000_000)
    (tmp_path / "large").write_bytes(b"".join(number.to_bytes(4, "big") + bytes(28) for number in numbers))
    found = Blocklist(tmp_path / "large", "spki")
    assert len(found) > 2_000_000 - 1
    before = time.process_time()
    for _ in range(1000):
        assert GOOD not in found
    assert (time.process_time() - before) / 1000 < 200e-6


@pytest.mark.parametrize(
    "content", [None, b"", b"x" * 33, b"\2" * 32 + b"\1" * 32], ids=["none", "empty", "torn", "unsorted"]
)
def test_a_list_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    """A missing, torn or unsorted file must not look like an empty list."""
    if content is not None:
        (tmp_path / "list").write_bytes(content)
    with pytest.raises(QuashError, match=r"blocklist\.unreadable"):
        Blocklist(tmp_path / "list", "spki")


async def test_a_listed_key_is_refused_by_its_list_and_arithmetic_is_done_once(tmp_path: Path) -> None:
    """D42, D45: the refusal names the list. A good key asked for again costs a look-up, not the arithmetic."""
    write_blocklist(tmp_path / "list", [BAD])
    config = Checks.model_validate({"blocklists": [{"name": "debian", "file": str(tmp_path / "list")}]})
    runner = Counting()
    async with KeyChecks(config, runner) as check:
        for _ in range(3):
            await check(GOOD)
        assert runner.runs == 1
        for _ in range(2):
            with pytest.raises(QuashError, match="debian") as error:
                await check(BAD)
            assert (error.value.code, error.value.kind) == ("key.listed", Kind.REFUSED)
        write_blocklist(tmp_path / "list", [GOOD])  # a new list counts without a restart, for keys that were good too
        await check(BAD)
        with pytest.raises(QuashError, match="debian"):
            await check(GOOD)
        (tmp_path / "list").unlink()
        with pytest.raises(QuashError, match=r"blocklist\.unreadable"):
            await check(BAD)


@asynccontextmanager
async def _service(status: int, delay: float = 0) -> AsyncIterator[tuple[str, list[str]]]:
    """A service that knows BAD and says `status` of other keys, after `delay` seconds."""
    asked: list[str] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        await asyncio.sleep(delay)
        known = request.path.endswith(hashlib.sha256(BAD).hexdigest())
        return web.Response(status=200 if known else status)

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}/v1", asked
    finally:
        await runner.cleanup()


def _asking(url: str, **more: Any) -> Checks:
    return Checks.model_validate({"pwnedkeys": {"url": url, "timeout": 0.5, **more}})


async def test_a_key_that_the_service_knows_is_refused() -> None:
    """G9, G10: the service is asked by the SHA-256 of the SPKI; 200 refuses, 404 passes."""
    async with _service(404) as (url, asked), KeyChecks(_asking(url), Counting()) as check:
        await check(GOOD)
        with pytest.raises(QuashError) as error:
            await check(BAD)
        assert (error.value.code, error.value.kind) == ("key.pwned", Kind.REFUSED)
        assert asked[0] == f"/v1/{hashlib.sha256(GOOD).hexdigest()}"


@pytest.mark.parametrize(
    ("status", "delay"), [(500, 0), (302, 0), (404, 5), (0, 0)], ids=["5xx", "moved", "slow", "down"]
)
async def test_a_service_without_an_answer_fails_closed_unless_told(status: int, delay: float) -> None:
    """An error, a redirect, a time-out, nobody there: no certificate, or a warning where the configuration says so."""
    async with _service(status, delay) as (served, _):
        url = served if status else "http://127.0.0.1:1"
        async with KeyChecks(_asking(url), Counting()) as check:
            with pytest.raises(QuashError) as error:
                await check(GOOD)
            assert (error.value.code, error.value.kind) == ("key.unchecked", Kind.UNAVAILABLE)
        async with KeyChecks(_asking(url, fail_closed=False), Counting()) as check:
            await check(GOOD)
