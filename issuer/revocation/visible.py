"""When a revocation became visible: measured from the commit by asking as strangers do, for `--wait`.

OCSP: every responder of `issuance.visible_at` says `revoked` with our date and reason, to both CertID hashes. CRL: the
database says that a published CRL covers the revocation, and the file that the origin serves lists it. Nothing is
stored: a process that starts anew measures from the second of the act. A certificate that stood revoked already, asked
for by name, is measured from the question: its commit may be a year ago and says nothing about how fast we are.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
from prometheus_client import Histogram

from issuer.issuance.visible import PublicAnswers
from issuer.revocation.agreement import entry_in, read_verified
from issuer.revocation.find import Target, find_one
from issuer.revocation.revoke import REVOKE
from quash.errors import Kind, QuashError
from quash.pki import crl as crl_format
from quash.pki.ocsp_response import Status
from quash.pki.reasons import Reason
from quash.pki.serials import parse_serial
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.runtime.log import logger
from quash.store import acts, certificates, crls, issuers, jobs, revocations
from quash.store.acts import Act
from quash.store.crls import Scope
from quash.store.database import Connection, Pool, acquire
from quash.store.issuers import Issuer
from quash.store.revocations import Revocation

_PAGE = 1000
_REMEMBERED = 1000
_ASKED_AT_ONCE = 16
_FIRST_WAIT, _LONGEST_WAIT, _GROWTH = 0.005, 0.25, 1.25  # seconds; the pause is the error of the measurement
_LONGEST_CRL_WAIT = 1.0  # beside a mass revocation dozens wait for the next CRL, each with a question to the database
_GIVE_UP = 900.0  # seconds; whoever still asks then starts anew
_MAX_CRL = 1 << 30
_FEW = 20  # entries up to which looking each up costs less than to cut a large CRL apart

_SECONDS = Histogram(
    "quash_revocation_visible_seconds",
    "From a revocation's commit until relying parties see it, where somebody waited for it",
    ["where"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200),  # G1: 2 hours, ideally 30 min
)


@dataclass(slots=True)
class Visibility:
    """Milliseconds from the commit until the last certificate of the revocation was visible; None: not yet."""

    ocsp_visible_ms: int | None = None
    crl_published_ms: int | None = None

    @property
    def complete(self) -> bool:
        return self.ocsp_visible_ms is not None and self.crl_published_ms is not None


_Key = tuple[int, Target | None]
"""An act, and the certificate that was named with it."""


@dataclass(frozen=True, slots=True)
class _Watch:
    visibility: Visibility
    task: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class _Stopwatch:
    """`exact`: it was started at the commit. What a question started is told to the asker and kept out of metrics."""

    began: float
    exact: bool


class Watches:
    """Measures revocations, each in a task of its own, and remembers the newest thousand. Use as a context manager."""

    def __init__(self, pool: Pool, config: Config, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._crl_base = config.crl_base
        self._answers = PublicAnswers(config.visible_at, clock)
        self._slots = asyncio.Semaphore(_ASKED_AT_ONCE)
        self._watches: OrderedDict[_Key, _Watch] = OrderedDict()

    async def __aenter__(self) -> Watches:
        await self._answers.__aenter__()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [watch.task for watch in self._watches.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()
        await self._answers.__aexit__(None, None, None)

    def start(self, act_id: int) -> Visibility:
        """Measures a revocation that has just committed."""
        return self._start((act_id, None), _Stopwatch(self._clock.monotonic(), exact=True))

    def _start(self, key: _Key, watch: _Stopwatch) -> Visibility:
        under_way = self._watches.get(key)
        if under_way is not None and not under_way.task.done():
            return under_way.visibility
        visibility = Visibility()
        task = asyncio.create_task(self._watch(key, watch, visibility))
        self._watches[key] = _Watch(visibility, task)
        self._watches.move_to_end(key)
        if len(self._watches) > _REMEMBERED:
            _, oldest = self._watches.popitem(last=False)
            oldest.task.cancel()
        return visibility

    def find(self, act: Act, named: Target | None = None) -> Visibility:
        """What is known of a revocation; measuring starts when nothing is, for example after a restart.

        `named`: as of `target_of`, a certificate that stood revoked already.
        """
        known = self._watches.get((act.id, named))
        if known is not None and known.visibility.complete:
            return known.visibility
        committed_ago = max(0.0, self._clock.now() - act.at) if named is None else 0.0
        return self._start((act.id, named), _Stopwatch(self._clock.monotonic() - committed_ago, exact=False))

    async def _watch(self, key: _Key, watch: _Stopwatch, visibility: Visibility) -> None:
        act_id, _ = key
        try:
            async with asyncio.timeout(_GIVE_UP):
                await self._wait_for_job(act_id)
                await asyncio.gather(self._ocsp(key, watch, visibility), self._crl(key, watch, visibility))
        except TimeoutError:
            logger().warning("revocation.not_visible", act=act_id, after_seconds=_GIVE_UP)
        except QuashError as error:  # the database is away; whoever asks again starts anew
            logger().warning("revocation.not_measured", act=act_id, code=error.code)
        except Exception:  # noqa: BLE001 - nobody awaits this task: the log must have it
            logger().exception("revocation.not_measured", act=act_id)

    async def _wait_for_job(self, act_id: int) -> None:
        while True:
            async with acquire(self._pool) as conn:
                job = await jobs.find_by_act(conn, act_id)
            if job is None or job.state == "done":
                return
            await self._clock.sleep(_LONGEST_WAIT)

    async def _ocsp(self, key: _Key, watch: _Stopwatch, visibility: Visibility) -> None:
        async for page, issuers_by_id in self._pages(*key):
            await asyncio.gather(*(self._says_revoked(each, *issuers_by_id[each.issuer_id]) for each in page))
        visibility.ocsp_visible_ms = self._since(watch, "ocsp")

    async def _says_revoked(self, revocation: Revocation, issuer: Issuer, issuer_certificate: bytes) -> None:
        status, wait = Status(revocation.reason, revocation.revoked_at), _FIRST_WAIT
        while True:
            async with self._slots:
                if await self._answers.say(issuer, issuer_certificate, revocation.serial, status):
                    return
            await self._clock.sleep(wait)
            wait = min(wait * _GROWTH, _LONGEST_WAIT)

    async def _crl(self, key: _Key, watch: _Stopwatch, visibility: Visibility) -> None:
        async for page, issuers_by_id in self._pages(*key):
            by_scope: dict[Scope, list[Revocation]] = {}
            for revocation in page:
                by_scope.setdefault(await self._covering(revocation), []).append(revocation)
            for scope, listed in by_scope.items():
                await self._lists(scope, issuers_by_id[scope.issuer_id][0], listed)
        visibility.crl_published_ms = self._since(watch, "crl")

    async def _covering(self, revocation: Revocation) -> Scope:
        """Waits until a published CRL covers the revocation, and says of which scope."""
        wait = _FIRST_WAIT
        while True:
            async with acquire(self._pool) as conn:
                if await crls.is_covered(conn, revocation.issuer_id, revocation.serial):
                    scope = await crls.find_scope(conn, revocation.issuer_id, revocation.shard)
                    assert scope is not None  # noqa: S101 - a CRL of it was just found
                    return scope
            await self._clock.sleep(wait)
            wait = min(wait * _GROWTH, _LONGEST_CRL_WAIT)

    async def _lists(self, scope: Scope, issuer: Issuer, listed: Sequence[Revocation]) -> None:
        wanted = {crl_format.entry(each.serial, each.revoked_at, each.reason) for each in listed}
        while True:
            try:
                body = await self._fetch(f"{self._crl_base}/{scope.path}")
                # A CRL may have a million entries: not in the loop that serves the API.
                if await asyncio.to_thread(_lists_all, body, issuer, wanted):
                    return
            except (aiohttp.ClientError, TimeoutError, QuashError) as error:
                logger().debug("revocation.crl_not_seen", scope=scope.path, error=str(error))
            await self._clock.sleep(_LONGEST_WAIT)

    async def _fetch(self, url: str) -> bytes:
        async with self._session.get(url, allow_redirects=False) as response:
            if response.status != 200 or (response.content_length or 0) > _MAX_CRL:
                raise QuashError("crl.not_served", f"{url} answers HTTP {response.status}", Kind.UNAVAILABLE)
            return await response.read()

    async def _pages(
        self, act_id: int, named: Target | None
    ) -> AsyncIterator[tuple[list[Revocation], Mapping[int, tuple[Issuer, bytes]]]]:
        """The revocations that the act caused, page by page, with their issuers and one certificate of each."""
        async with acquire(self._pool) as conn:
            issuers_by_id = await _issuers(conn)
            found = await find_one(conn, target_of(await acts.get(conn, act_id), named))
            own = (found.certificate.issuer_id, found.certificate.serial)
            itself = await revocations.latest_of(conn, [own])
        yield itself, issuers_by_id
        key, after = found.certificate.spki_sha256, None
        compromised = itself[0].reason == Reason.keyCompromise
        while compromised and key is not None:
            async with acquire(self._pool) as conn:
                page = await certificates.siblings(conn, key, int(self._clock.now()), _PAGE, after)
                if not page:
                    return
                after = (page[-1].issuer_id, page[-1].serial)
                revoked = await revocations.latest_of(conn, [(each.issuer_id, each.serial) for each in page])
            yield revoked, issuers_by_id

    def _since(self, watch: _Stopwatch, where: str) -> int:
        seconds = self._clock.monotonic() - watch.began
        if watch.exact:
            _SECONDS.labels(where).observe(seconds)
        return round(seconds * 1000)


def target_of(act: Act | None, named: Target | None = None) -> Target:
    """The certificate that an act revoked; of one that revoked many (an import, a mass job, siblings), the `named` one.

    Raises `revocation.unknown` for what is no such act. Whether the act is that of the named one, the caller knows.
    """
    if act is not None and named is not None:
        return named
    if act is None or act.action != REVOKE or "serial" not in act.subject:
        raise QuashError("revocation.unknown", "no revocation of one certificate has this number", Kind.NOT_FOUND)
    return Target(act.subject["issuer"], parse_serial(act.subject["serial"]))


def _lists_all(body: bytes, issuer: Issuer, wanted: set[bytes]) -> bool:
    """Whether this CRL has all these entries. Raises `crl.malformed`, `crl.other_issuer`, `signature.invalid`."""
    crl = read_verified(body, issuer)
    if len(wanted) > _FEW:
        return wanted.issubset(crl.entries)
    find = entry_in(crl.revoked)
    return all(find(crl_format.serial_of(each)) == each for each in wanted)


async def _issuers(conn: Connection) -> Mapping[int, tuple[Issuer, bytes]]:
    known = {}
    for issuer in await issuers.all_issuers(conn):
        certificate = await issuers.certificate(conn, issuer.id)
        if certificate is not None:
            known[issuer.id] = (issuer, certificate.der)
    return known
