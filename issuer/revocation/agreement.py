"""Agreement: what the database says of a certificate is what both CertID hashes and its CRL say (A20, A26, B14, B16).

Asked as relying parties ask: over HTTP, signatures verified. A part of all certificates is looked at over and over, the
newest revocations each time; `quash crl verify` looks at as many as wanted, with the same rules.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
from prometheus_client import Counter, Gauge

from issuer.issuance.visible import Heard, PublicAnswers
from quash.errors import Kind, QuashError
from quash.pki import der
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, verify
from quash.pki.crl import Crl, entry, read_crl
from quash.pki.ocsp_response import GOOD, Status
from quash.pki.serials import format_serial
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.runtime.log import logger
from quash.store import issuers, statements
from quash.store.database import Pool, acquire
from quash.store.issuers import Issuer
from quash.store.statements import Statement

SAMPLE = 20
"""Certificates of each kind that one look takes."""
_EVERY = 60.0  # seconds
_SETTLED = 60
"""Seconds after which what was recorded must be out: far above what publishing takes, far below G1."""
_LOOK_AGAIN = 15.0  # seconds after which what disagreed is looked at once more
_REST = 50.0  # times what a look took: many large CRLs are looked at more rarely
_NAMED = 20  # serials that an alarm names
_MAX_CRL = 1 << 30

_CHECKED = Counter("quash_agreement_checked_total", "Certificates whose status was compared with what is published")
_DISAGREE = Gauge("quash_agreement_disagreements", "Certificates that the last look found published otherwise (alarm)")
_UNANSWERED = Gauge(
    "quash_agreement_unanswered", "Certificates that could not be compared: responder or origin is away"
)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A certificate of which something else is published than the database says. `unanswered`: nobody could say."""

    issuer: str
    serial: bytes
    what: str
    unanswered: bool = False

    def __str__(self) -> str:
        return f"{self.issuer} {format_serial(self.serial)}: {self.what}"


def status_of(said: Statement) -> Status:
    """What OCSP must answer."""
    return GOOD if said.reason is None or said.revoked_at is None else Status(said.reason, said.revoked_at)


def compare_ocsp(said: Statement, heard: Iterable[Heard]) -> list[Disagreement]:
    """One for each answer that is not the database's."""
    wanted = status_of(said)
    return [
        Disagreement(
            said.issuer,
            said.serial,
            f"{each.algorithm.name} OCSP at {each.url} says {_words(each.status) if each.status else each.why},"
            f" the database {_words(wanted)}",
            unanswered=not each.answered,
        )
        for each in heard
        if each.status != wanted
    ]


def compare_crl(said: Statement, this_update: int, find: Callable[[bytes], bytes | None]) -> list[Disagreement]:
    """What the CRL of its scope says; `find` gives a serial's whole entry on it, None when it has none.

    An entry may be gone when the certificate had ended before the CRL was made (B13).
    """
    if said.misnamed:
        return [Disagreement(said.issuer, said.serial, f"its CRLDP does not name the CRL {said.path} (B16)")]
    found = find(said.serial)
    if said.reason is None or said.revoked_at is None:
        wrong = f"it is on the CRL {said.path}, the database says good" if found else ""
    elif found is None:
        ended = said.not_after < this_update
        wrong = "" if ended else f"the database says {_words(status_of(said))}, it is not on the CRL {said.path}"
    else:
        differs = found != entry(said.serial, said.revoked_at, said.reason)
        wrong = f"its entry on the CRL {said.path} has another reason or date than the database" if differs else ""
    return [Disagreement(said.issuer, said.serial, wrong)] if wrong else []


def _words(status: Status) -> str:
    return "good" if status.reason is None else f"revoked for reason {status.reason} at {status.revoked_at}"


def entry_in(revoked: bytes) -> Callable[[bytes], bytes | None]:
    """A serial's entry among joined ones, found in their octets: of use for a few serials, of many make a mapping."""

    def find(serial: bytes) -> bytes | None:
        name = der.tlv(der.INTEGER, serial)
        at = revoked.find(name)
        while at >= 0:
            start = at - 2  # entries are shorter than 128 octets
            if start >= 0 and revoked[start] == der.SEQUENCE:
                return revoked[start : at + revoked[start + 1]]
            at = revoked.find(name, at + 1)
        return None

    return find


def read_verified(body: bytes, issuer: Issuer) -> Crl:
    """A CRL of this issuer. Raises `crl.malformed`, `crl.other_issuer`, `signature.invalid`."""
    crl = read_crl(body)
    if crl.issuer != issuer.subject:
        raise QuashError("crl.other_issuer", f"it is not a CRL of {issuer.name}", Kind.REFUSED)
    algorithm = SIGNATURE_ALGORITHMS[issuer.signature_algorithm]
    verify(issuer.spki, algorithm, algorithm.decode(crl.signature), crl.tbs)
    return crl


class Sampler:
    """Looks at a sample again and again; `disagreements` is what the last look found. An async context manager."""

    def __init__(self, pool: Pool, config: Config, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._base = config.crl_base
        self._answers = PublicAnswers(config.visible_at, clock)
        self._next_at = 0.0
        self._suspects: list[tuple[int, bytes]] = []
        self._named: list[str] = []
        self.disagreements: Sequence[Disagreement] = ()

    async def __aenter__(self) -> Sampler:
        await self._answers.__aenter__()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._answers.__aexit__(None, None, None)

    async def step(self) -> int:
        """Looks, when it is time; returns at how many certificates. Raises `store.unavailable`.

        What disagrees is looked at once more after a while: between reading the database and asking, it may have been
        revoked. What disagrees then is an alarm, until a look finds it mended.
        """
        began = self._clock.monotonic()
        if began < self._next_at:
            return 0
        now = int(self._clock.now())
        async with acquire(self._pool) as conn:
            drawn = await statements.sample(conn, now, SAMPLE)
            drawn += await statements.of(conn, self._suspects)
            known = {issuer.id: issuer for issuer in await issuers.all_issuers(conn)}
            own = {each: await issuers.certificate(conn, each) for each in known}
        certificates = {each: found.der for each, found in own.items() if found is not None}
        settled = {(each.issuer_id, each.serial): each for each in drawn if each.since + _SETTLED <= now}
        said = [each for each in settled.values() if each.issuer_id in certificates]
        found = await self._compare_ocsp(said, known, certificates)
        for path in sorted({each.path or "" for each in said}):  # one CRL at a time: each may have 50 MB
            found += await self._compare_crl(path, [each for each in said if (each.path or "") == path], known)
        self._judge(found, {each.name: each.id for each in known.values()})
        pause = _LOOK_AGAIN if self._suspects else _EVERY
        self._next_at = self._clock.monotonic() + max(pause, _REST * (self._clock.monotonic() - began))
        _CHECKED.inc(len(said))
        return len(said)

    async def _compare_ocsp(
        self, said: Sequence[Statement], known: Mapping[int, Issuer], certificates: Mapping[int, bytes]
    ) -> list[Disagreement]:
        now = self._clock.now()
        asked = [each for each in said if each.answered and each.not_after >= now]
        heard = await asyncio.gather(
            *(self._answers.ask(known[each.issuer_id], certificates[each.issuer_id], each.serial) for each in asked)
        )
        return [found for each, answers in zip(asked, heard, strict=True) for found in compare_ocsp(each, answers)]

    async def _compare_crl(
        self, path: str, said: Sequence[Statement], known: Mapping[int, Issuer]
    ) -> list[Disagreement]:
        if not path:
            lost = [each for each in said if each.reason is not None]
            return [Disagreement(each.issuer, each.serial, "revoked, but no CRL shows its shard") for each in lost]
        try:
            body = await self._fetch(f"{self._base}/{path}")
            crl = await asyncio.to_thread(read_verified, body, known[said[0].issuer_id])
        except QuashError as error:
            away = error.kind is Kind.UNAVAILABLE
            return [Disagreement(each.issuer, each.serial, f"CRL {path}: {error}", unanswered=away) for each in said]
        found = await asyncio.to_thread(
            lambda: [compare_crl(each, crl.this_update, entry_in(crl.revoked)) for each in said]
        )
        return [each for some in found for each in some]

    async def _fetch(self, url: str) -> bytes:
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status != 200 or (response.content_length or 0) > _MAX_CRL:
                    raise QuashError("crl.not_served", f"{url} answers HTTP {response.status}", Kind.UNAVAILABLE)
                return await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise QuashError("crl.not_served", f"{url}: {error or type(error).__name__}", Kind.UNAVAILABLE) from None

    def _judge(self, found: Sequence[Disagreement], ids: Mapping[str, int]) -> None:
        before = set(self._suspects)
        wrong = [each for each in found if not each.unanswered]
        self._suspects = list(dict.fromkeys((ids[each.issuer], each.serial) for each in wrong))
        self.disagreements = [each for each in wrong if (ids[each.issuer], each.serial) in before]
        _DISAGREE.set(len({(each.issuer, each.serial) for each in self.disagreements}))
        _UNANSWERED.set(len({(each.issuer, each.serial) for each in found if each.unanswered}))
        named = [str(each) for each in self.disagreements[:_NAMED]]
        if named and named != self._named:
            logger().error("agreement.failed", count=len(self.disagreements), certificates=named)
        elif self._named and not named:
            logger().info("agreement.restored")
        self._named = named
