"""Golden requests, sent to the responder's servers over sockets: answered as the rules say, to the octet.

make_http.py made requests and answers without Quash; the cache holds OpenSSL's own signatures. Rows shown: A5, A9-A13,
A18-A39, A41 and G45; each case names its own.
"""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import structlog
from asn1crypto import ocsp

from quash.cache.reader import LmdbReader
from quash.cache.writer import Changes, LmdbWriter
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.runtime.process import Health
from responder.serve.http import HttpServer
from responder.serve.worker import Worker
from tests.support.golden import CASES, PKI, SIGNED_AT, catalog, octets, records, sent
from tests.unit.serve.in_memory import own_loop

RULES = {*(f"A{number}" for number in (5, *range(9, 14), *range(18, 40), 41)), "G45"}
STATUSES = {200: 225, 304: 14, 404: 1, 405: 5, 413: 1, 414: 1, 431: 1}
SIGNED = sorted({case["answer"] for case in CASES.values() if str(case["answer"]).endswith(".der")})
WITHIN = 10.0  # seconds, A40
_AHEAD = 5 * 86_400  # of the heartbeat: it is newer than every moment that is asked about


def test_no_golden_is_lost() -> None:
    """As many as were made, of every kind; every row that a request can show is shown."""
    assert len(CASES) == 248
    assert Counter(case["status"] for case in CASES.values()) == STATUSES
    assert {rule for case in CASES.values() for rule in case["rules"]} == RULES
    assert all(case["source"] for case in CASES.values())


@dataclass
class Site:
    """A server with the fast path (`worker`'s) and one without, over one cache and one clock."""

    clock: FakeClock
    worker: Worker
    ports: dict[bool, int]

    def ask(self, case: dict[str, Any], fast: bool) -> tuple[http.client.HTTPResponse, bytes]:
        """Sends a golden request in one segment and reads its answer as http.client does."""
        self.clock.step(SIGNED_AT + case["at"] - self.clock.now())
        with socket.create_connection(("127.0.0.1", self.ports[fast]), timeout=WITHIN) as connection:
            connection.sendall(sent(case))
            answer = http.client.HTTPResponse(connection, method=case["head"].partition(" ")[0])
            answer.begin()
            return answer, answer.read()

    def fast_answers(self) -> int:
        """How many the fast path has given since the last call."""
        return sum(counted.answers for counted in self.worker.fast.take_counts())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The golden CAs' answers, served."""
    writer = LmdbWriter(tmp_path_factory.mktemp("golden"))
    listed = catalog()
    heartbeat = SIGNED_AT + _AHEAD
    writer.apply(Changes(records(), listed.templates.values(), listed.issuers.values(), heartbeat, complete=True))
    clock, config = FakeClock(SIGNED_AT), Config()
    workers, ports = {}, {}

    async def serve(loop: asyncio.AbstractEventLoop, fast: bool) -> asyncio.Server:
        worker = Worker(LmdbReader(shared=writer), clock, config, Health(), structlog.get_logger())
        worker._limits = replace(worker._limits, ahead=_AHEAD)  # these clocks are set to and fro
        worker.refresh()
        server = HttpServer(worker.answer, config.responder, now=clock.now, fast=worker.fast if fast else None)
        listener = await loop.create_server(server, "127.0.0.1", 0)
        workers[fast], ports[fast] = worker, listener.sockets[0].getsockname()[1]
        return listener

    with closing(writer.environment), own_loop() as loop:
        listeners = [loop.run_until_complete(serve(loop, fast)) for fast in (True, False)]
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield Site(clock, workers[True], ports)
        finally:
            for listener in listeners:
                loop.call_soon_threadsafe(listener.close)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "full"])
@pytest.mark.parametrize("name", CASES)
def test_golden(site: Site, name: str, fast: bool) -> None:
    """Status, every header field that says something about the response, and the response itself, within A40's time."""
    case, began = CASES[name], time.monotonic()
    answer, body = site.ask(case, fast)
    assert time.monotonic() - began < WITHIN
    assert answer.status == case["status"]
    fields = {field: value for field, value in answer.getheaders() if field not in ("Date", "Server", "Connection")}
    moment = answer.getheader("Date")
    assert moment is not None
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", moment)
    assert parsedate_to_datetime(moment)
    if answer.status < 400:
        assert fields == case["fields"]
        assert body == (octets(case["answer"]) if case["answer"].endswith(".der") else bytes.fromhex(case["answer"]))
    else:
        assert fields.items() >= case["fields"].items()
        assert fields["Cache-Control"] == "no-store"  # A37


def test_plain_goldens_take_the_fast_path(site: Site) -> None:
    """What OpenSSL sends for a certificate in the cache is answered by the fast path, else it would not be tested."""
    plain = [name for name, case in CASES.items() if case["source"] == "openssl ocsp -reqout, -respout"]
    site.fast_answers()
    for name in plain:
        site.ask(CASES[name], fast=True)
    assert site.fast_answers() == len(plain) == 48


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "full"])
@pytest.mark.parametrize("name", SIGNED)
def test_responses_hold_no_extension(site: Site, name: str, fast: bool) -> None:
    """A22: one SingleResponse. A23: no responseExtensions. A24: no singleExtensions, the reason is in RevokedInfo."""
    asked = next(case for case in CASES.values() if case["answer"] == name and case["status"] == 200)
    _, body = site.ask(asked, fast)
    data = ocsp.OCSPResponse.load(body).response_data
    assert data["response_extensions"].native is None
    (single,) = data["responses"]
    assert single["single_extensions"].native is None
    reason = PKI[name]["revoked"][0] if PKI[name]["revoked"] else None
    said = single["cert_status"]
    assert said.name == ("revoked" if reason is not None else "good")
    if reason:  # A25: 0 is said by omission
        assert said.chosen["revocation_reason"].native == {1: "key_compromise"}[reason]
    elif reason == 0:
        assert said.chosen["revocation_reason"].native is None
