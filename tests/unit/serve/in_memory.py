"""HTTP servers of the responder on transports in memory, with and without the fast path."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from quash.cache import layout
from quash.cache.reader import CacheState
from quash.cache.writer import Catalog
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.runtime.config import Responder as ResponderConfig
from quash.runtime.process import Health
from responder.serve.connection import Connection
from responder.serve.http import HttpServer
from responder.serve.worker import Worker
from tests.support.ocsp_issuer import OcspIssuer

NOW = 1_800_000_000
DV = OcspIssuer(1, "tls-dv", 1)
OV = OcspIssuer(2, "demo/ca1", 2)
CATALOG = Catalog({1: DV.row, 2: OV.row}, {1: DV.template_row, 2: OV.template_row})
GOOD, REVOKED, EXPIRED, ELSEWHERE, STRAY, MISSING = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05", b"\x06"
LONG = bytes(range(0x41, 0x55))
RECORDS = {
    layout.record_key(1, GOOD): DV.record(GOOD, NOW - 3600),
    layout.record_key(1, LONG): DV.record(LONG, NOW - 3600),
    layout.record_key(1, REVOKED): DV.record(REVOKED, NOW - 3600, revoked=(1, NOW - 7200)),
    layout.record_key(1, EXPIRED): DV.record(EXPIRED, NOW - 172_799),
    layout.record_key(2, ELSEWHERE): OV.record(ELSEWHERE, NOW - 3600, revoked=(0, NOW - 7200)),
    layout.record_key(1, STRAY): OcspIssuer(1, "tls-dv", 9).record(STRAY, NOW - 3600),
}


class DictReader:
    """A CacheReader on a dict. `heartbeat` and `catalog_now` may be changed, then `generation` too; `fail` raises."""

    def __init__(self, records: dict[bytes, bytes]) -> None:
        self.records = records
        self.heartbeat = NOW
        self.generation = (1, 1)
        self.catalog_now = CATALOG
        self.fail: Callable[[bytes], bytes | None] | None = None

    def get(self, key: bytes) -> bytes | None:
        return self.records.get(key) if self.fail is None else self.fail(key)

    def state(self) -> CacheState:
        return CacheState(self.heartbeat, True, self.generation)

    def catalog(self) -> Catalog:
        return self.catalog_now

    def close(self) -> None:
        pass


class Wire(asyncio.Transport):
    """The server's side of a connection. `reading`: whether the client takes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.aborted = False
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()


@dataclass
class Said:
    """What a server wrote, and whether it closed."""

    octets: bytes
    closed: bool
    fast: int
    """How many answers came from the fast path."""


class Site:
    """A worker and its server over `reader`; to be made and used inside a running loop."""

    def __init__(self, *, fast: bool = True, records: dict[bytes, bytes] | None = None, **limits: Any) -> None:
        self.clock = FakeClock(NOW)
        self.reader = DictReader(dict(RECORDS) if records is None else records)
        config = Config(responder=ResponderConfig(**limits))
        self.worker = Worker(self.reader, self.clock, config, Health(), structlog.get_logger())
        self.worker.refresh()
        self.server = HttpServer(
            self.worker.answer, config.responder, now=self.clock.now, fast=self.worker.fast if fast else None
        )

    def connect(self) -> tuple[Connection, Wire]:
        connection, wire = self.server(), Wire()
        assert isinstance(connection, Connection)
        wire.protocol = connection
        connection.connection_made(wire)
        return connection, wire

    async def exchange(self, segments: Iterable[bytes], turns: int = 3) -> Said:
        """A connection that sends segments, giving the server `turns` of the loop after each and time at the end."""
        connection, wire = self.connect()
        await settle(1)
        for segment in segments:
            if wire.closed:
                break
            connection.data_received(segment)
            await settle(turns)
        await settle(40)
        closed = wire.closed
        wire.close()
        await settle(6)
        fast = sum(counted.answers for counted in self.worker.fast.take_counts())
        return Said(wire.written, closed, fast)


async def settle(turns: int = 20) -> None:
    """Lets the loop do what is due."""
    for _ in range(turns):
        await asyncio.sleep(0)


def answers(octets: bytes) -> list[bytes]:
    """The HTTP answers in what a server wrote, status lines first."""
    return [part for part in re.split(rb"(?=HTTP/1\.[01] \d)", octets) if part]


@contextmanager
def own_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop beside the tests' one; no task of it is left when it closes."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        yield runner.get_loop()


@dataclass
class Pair:
    """The same site with the fast path and without, and the loop that both live in."""

    loop: asyncio.AbstractEventLoop
    fast: Site
    full: Site

    def ask(self, segments: list[bytes], turns: int = 3) -> tuple[Said, Said]:
        """What both say."""
        return (
            self.loop.run_until_complete(self.fast.exchange(segments, turns)),
            self.loop.run_until_complete(self.full.exchange(segments, turns)),
        )

    def agree(self, segments: list[bytes], turns: int = 3) -> Said:
        """Asks both and compares."""
        fast, full = self.ask(segments, turns)
        assert full.fast == 0
        assert (fast.octets, fast.closed) == (full.octets, full.closed), segments
        return fast


async def make_pair(loop: asyncio.AbstractEventLoop) -> Pair:
    return Pair(loop, Site(), Site(fast=False))
