"""pkilint before publishing: the frame of the real CRL with every new entry and a sample of the others.

An entry costs pkilint half a millisecond, so a million would take eight minutes: those that were published before are
sampled, another two hundred each time. The whole of each regularly scheduled CRL is linted afterwards (`WholeLint`).
That each entry has the one shape that is allowed, the gate sees by itself (`quash.pki.crl.ENTRIES`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from crlgen.build import metrics
from crlgen.build.linting import PREFIX
from quash.errors import Kind, QuashError
from quash.pki.algorithms import SignatureAlgorithm
from quash.pki.crl import ENTRY, certificate_list, cut_entries, with_entries

SAMPLE: Final = 200
MOST_NEW: Final = 400
"""New entries that are all linted before publishing; of more, one of each shape (all but the serial) and a sample."""
_TIMEOUT: Final = 60.0
_COMMAND: Final = (sys.executable, "-m", "crlgen.build.linting")


class Linter(Protocol):
    """Says what is wrong with a CRL in DER; nothing: an empty list. Raises `crl.lint_unavailable`."""

    async def lint(self, body: bytes) -> list[str]: ...


class LintWorker:
    """pkilint in a child process, started when first asked, and again after it died or took too long."""

    def __init__(self, timeout: float = _TIMEOUT) -> None:
        self._timeout = timeout
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def lint(self, body: bytes) -> list[str]:
        async with self._lock:
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._ask(body)
            except (OSError, EOFError, ValueError, TimeoutError):
                await self._kill()
                raise QuashError(
                    "crl.lint_unavailable", "pkilint died or took too long; it is started anew", Kind.UNAVAILABLE
                ) from None
            except asyncio.CancelledError:  # its answer would be taken for the next one's
                await self._kill()
                raise

    async def close(self) -> None:
        await self._kill()

    async def _ask(self, body: bytes) -> list[str]:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *_COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24
            )
        reader, writer = self._process.stdout, self._process.stdin
        assert reader is not None  # noqa: S101 - pipes were asked for
        assert writer is not None  # noqa: S101
        if writer.is_closing():  # it died while it had nothing to do; uvloop writes to no closed pipe
            raise EOFError
        writer.write(len(body).to_bytes(PREFIX, "big") + body)
        await writer.drain()
        said: list[str] = json.loads(await reader.readuntil())
        return said

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def twin(tbs: bytes, entries: Iterable[bytes], algorithm: SignatureAlgorithm) -> bytes:
    """The frame of a TBSCertList with these entries, under a signature that is none."""
    return certificate_list(with_entries(tbs, entries), algorithm, b"\x01" * (algorithm.raw_size or 256))


def choose(revoked: bytes, published: bytes, number: int) -> list[bytes]:
    """The entries to lint before publishing. `number` moves the sample on, so that in time it meets all."""
    new = cut_entries(revoked[len(published) :]) if revoked.startswith(published) else []
    if len(new) > MOST_NEW:  # a mass revocation: they are alike, and another CRL comes in some seconds
        shapes = {entry[:4] + entry[4 + entry[3] :]: entry for entry in new}
        new = list(shapes.values())[:MOST_NEW] + new[:: len(new) // SAMPLE + 1]
    return list(dict.fromkeys((*new, *_sample(revoked, number))))


def _sample(revoked: bytes, number: int) -> Iterator[bytes]:
    """At most `SAMPLE` entries, evenly spread, found without cutting all apart: the next whole one from each point."""
    stride = max(1, len(revoked) // SAMPLE)
    for start in range(number * 7919 % stride, len(revoked), stride):
        if match := ENTRY.search(revoked, start):
            yield match[0]


@dataclass(slots=True)
class _Waiting:
    """A published CRL, linted up to `offset` of its joined entries."""

    frame: bytes
    revoked: bytes
    algorithm: SignatureAlgorithm
    offset: int = 0

    def piece(self) -> tuple[list[bytes], int]:
        """The next entries, and where the ones after them begin."""
        found: list[bytes] = []
        offset = self.offset
        while len(found) < SAMPLE and (match := ENTRY.match(self.revoked, offset)):
            found.append(match[0])
            offset = match.end()
        return found, offset


class WholeLint:
    """Lints whole CRLs piece by piece, after they were published; what it finds is an alarm and a problem."""

    def __init__(self, linter: Linter) -> None:
        self._linter = linter
        self._waiting: dict[str, _Waiting] = {}
        self.problems: dict[str, str] = {}

    def add(self, path: str, tbs: bytes, revoked: bytes, algorithm: SignatureAlgorithm) -> None:
        """Takes a CRL; a newer one of the same path replaces it."""
        self._waiting[path] = _Waiting(with_entries(tbs, ()), revoked, algorithm)
        self.problems.pop(path, None)

    async def step(self) -> int:
        """Lints the next piece; returns how many entries it had. After `crl.lint_unavailable` it comes again."""
        if not self._waiting:
            return 0
        path, crl = next(iter(self._waiting.items()))
        piece, after = crl.piece()
        findings = await self._linter.lint(twin(crl.frame, piece, crl.algorithm)) if piece else []
        crl.offset = after
        if findings:
            metrics.ALARMS.labels("crl.lint").inc()
            self.problems[path] = f"crl.lint: the published CRL does not please pkilint: {'; '.join(findings[:5])}"
        if (findings or not piece) and self._waiting.get(path) is crl:
            del self._waiting[path]
        return len(piece)
