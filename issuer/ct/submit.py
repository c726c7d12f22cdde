"""Submitting to logs. Precertificates: side by side, with more logs as soon as one is slow or fails (E5, E6, G44).

Final certificates, which wait for nothing: to one log, and to the next where it fails.
"""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

import aiohttp
import orjson
from prometheus_client import Counter, Gauge, Histogram

from issuer.ct import log_list, policy, sct
from issuer.ct.log_list import Log, LogList
from issuer.ct.sct import Sct
from issuer.ct.tbs import plain
from issuer.signer.tbs import tbs_of
from quash.errors import Kind, QuashError
from quash.pki.certificate import read_certificate
from quash.runtime.clock import Clock
from quash.runtime.config import Ct
from quash.runtime.log import logger

_MAX_ANSWER: Final = 64 * 1024
_CLOCK_STEP: Final = 60  # seconds that a log's clock may be ahead of ours

_SUBMITTED = Counter("quash_ct_submissions_total", "Submissions of precertificates and certificates", ["log", "result"])
_SECONDS = Histogram("quash_ct_seconds", "From the first submission to enough SCTs")
_LIST_AGE = Gauge("quash_ct_log_list_age_seconds", "Age of the log list (E9: at most 70 days)")


class Transparency(Protocol):
    """Gets SCTs for a precertificate; asked again for the same one, it may return others. Raises `ct.*`."""

    async def sct_list(
        self, precertificate: bytes, issuers: Sequence[bytes], seconds: int, not_after: int
    ) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is submitted, and where: the chain as JSON; `signed`: what the SCT must be about."""

    path: str
    body: bytes
    signed: bytes


class CtLogs:
    """`Transparency` by a log list in a file, read again when it changes. Use as an async context manager."""

    def __init__(
        self, config: Ct, file: Path, clock: Clock, shuffle: Callable[[list[Log]], None] | None = None
    ) -> None:
        self._config = config
        self._file = file
        self._clock = clock
        self._shuffle = shuffle or random.shuffle  # spreads load over logs; nobody must not guess it
        self._stamp: tuple[int, int, int] | None = None
        self._list: LogList | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._config.timeout))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    def check(self) -> None:
        """Raises `ct.log_list` when the list is missing, unreadable or older than 70 days (E9)."""
        self._logs()

    async def sct_list(self, precertificate: bytes, issuers: Sequence[bytes], seconds: int, not_after: int) -> bytes:
        """The SignedCertificateTimestampList to embed: exactly as many SCTs as Chrome and Apple want, each verified.

        `issuers`: DER, the issuing CA first, the root last. Raises `ct.log_list`, `ct.no_logs`, `ct.not_enough`.
        """
        wanted = policy.demand(seconds)
        logs = policy.candidates(self._logs().logs, not_after)
        self._shuffle(logs)
        first = policy.smallest(logs, wanted)
        if first is None:
            raise QuashError(
                "ct.no_logs", f"the log list has no {wanted.scts} logs for this lifetime (E1-E4)", Kind.UNAVAILABLE
            )
        entry = _entry(precertificate, issuers)
        with _SECONDS.time():
            got = await self._gather(entry, first, [log for log in logs if log not in first], wanted)
        return sct.encode_list(got)

    async def log_final(self, certificate: bytes, issuers: Sequence[bytes], not_after: int) -> Sct:
        """The verified SCT of the first log that takes a final certificate (E6). Raises `ct.log_list`, `ct.no_log`."""
        entry = _Entry("ct/v1/add-chain", _chain((certificate, *issuers)), sct.certificate_entry(certificate))
        logs = policy.candidates(self._logs().logs, not_after)
        self._shuffle(logs)
        for log in logs:
            if (found := await self._submit(log, entry)) is not None:
                return found
        raise QuashError("ct.no_log", f"none of {len(logs)} logs took the certificate: try again", Kind.UNAVAILABLE)

    async def _gather(self, entry: _Entry, first: Sequence[Log], spare: list[Log], wanted: policy.Demand) -> list[Sct]:
        """The first logs at once; a spare one for each that fails, and for each `hedge` seconds without enough."""
        tasks = {asyncio.create_task(self._submit(log, entry)): log for log in first}
        got: dict[Log, Sct] = {}
        try:
            while tasks:
                done, _ = await asyncio.wait(
                    tasks, timeout=self._config.hedge if spare else None, return_when=asyncio.FIRST_COMPLETED
                )
                failed = 0
                for task in done:
                    log, found = tasks.pop(task), task.result()
                    if found is None:
                        failed += 1
                    else:
                        got[log] = found
                if (chosen := policy.smallest(list(got), wanted)) is not None:
                    return [got[log] for log in chosen]
                for _ in range(failed if done else 1):
                    if spare:
                        log = spare.pop(0)
                        tasks[asyncio.create_task(self._submit(log, entry))] = log
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        raise QuashError(
            "ct.not_enough", f"{len(got)} logs gave an SCT, {wanted.scts} are needed: try again", Kind.UNAVAILABLE
        )

    async def _submit(self, log: Log, entry: _Entry) -> Sct | None:
        """The verified SCT of one log, or None: whatever a log does wrong costs its SCT and nothing else."""
        try:
            found = await self._ask(log, entry)
        except (aiohttp.ClientError, OSError, QuashError, ValueError) as error:
            _SUBMITTED.labels(log.description, type(error).__name__).inc()
            logger().warning("ct.log_failed", log=log.description, error=str(error) or type(error).__name__)
            return None
        _SUBMITTED.labels(log.description, "sct").inc()
        return found

    async def _ask(self, log: Log, entry: _Entry) -> Sct:
        headers = {"Content-Type": "application/json"}
        async with self._session.post(
            log.url + entry.path, data=entry.body, headers=headers, allow_redirects=False
        ) as response:
            if response.status != 200:
                raise QuashError("ct.log_status", f"HTTP {response.status}", Kind.UNAVAILABLE)
            body = await _read(response)
        found = sct.read_answer(body)
        _check(found, log, int(self._clock.now()))
        sct.verify(found, log.key, entry.signed)
        return found

    def _logs(self) -> LogList:
        try:
            stat = self._file.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if self._list is None or stamp != self._stamp:
                self._list, self._stamp = log_list.read(self._file.read_bytes()), stamp
        except OSError as error:
            raise QuashError("ct.log_list", f"{self._file}: {error.strerror}", Kind.UNAVAILABLE) from None
        age = int(self._clock.now()) - self._list.made_at
        _LIST_AGE.set(age)
        if age > log_list.MAX_AGE:
            raise QuashError("ct.log_list", f"{self._file} is older than 70 days: get a new one (E9)", Kind.UNAVAILABLE)
        return self._list


def _entry(precertificate: bytes, issuers: Sequence[bytes]) -> _Entry:
    signed = sct.precertificate_entry(read_certificate(issuers[0]).spki, plain(tbs_of(precertificate)))
    return _Entry("ct/v1/add-pre-chain", _chain((precertificate, *issuers)), signed)


def _chain(certificates: Sequence[bytes]) -> bytes:
    return orjson.dumps({"chain": [base64.b64encode(each).decode() for each in certificates]})


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body, in however many pieces it comes."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _MAX_ANSWER:
            raise QuashError("ct.log_answer", f"more than {_MAX_ANSWER} octets", Kind.UNAVAILABLE)
    return bytes(body)


def _check(found: Sct, log: Log, now: int) -> None:
    """It is this log's, not of the future, and a static-ct log's SCT says where its entry is (E5)."""
    if found.log_id != log.log_id:
        raise ValueError("the SCT is another log's")
    if found.timestamp > (now + _CLOCK_STEP) * 1000:
        raise ValueError("the SCT is of the future")
    if log.kind == "static" and sct.leaf_index(found.extensions) is None:
        raise ValueError("the SCT of a static-ct log has no leaf_index")
