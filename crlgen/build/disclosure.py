"""What CCADB is told: the CRL URLs in unexpired certificates, as one JSON array for each issuer (B23)."""

from __future__ import annotations

import json

from crlgen.publish.folder import Publisher
from quash.runtime.clock import Clock
from quash.store import crls, issuers
from quash.store.database import Pool, acquire

_EVERY = 600.0  # seconds; CCADB wants a URL within 7 days of its first certificate (B24)


class Disclosure:
    """Keeps `ccadb/<issuer>.json` published, which the origin serves below `/.well-known/`."""

    def __init__(self, pool: Pool, publisher: Publisher, clock: Clock) -> None:
        self._pool = pool
        self._publisher = publisher
        self._clock = clock
        self._again_at = 0.0

    async def step(self) -> int:
        """Publishes every array that changed; returns how many. Raises what store and publisher raise."""
        if self._clock.monotonic() < self._again_at:
            return 0
        now, urls = int(self._clock.now()), dict[str, list[str]]()
        async with acquire(self._pool) as conn:
            private = {each.id for each in await issuers.all_issuers(conn) if each.kind == "private"}
            for state in await crls.states(conn, offline=True):
                if state.scope.issuer_id in private:
                    continue
                found = await crls.urls_in_use(conn, state.scope, now)
                urls.setdefault(state.scope.issuer, []).extend(found)
        done = 0
        for issuer, found in urls.items():
            done += await self._publish(f"ccadb/{issuer}.json", array(found))
        self._again_at = self._clock.monotonic() + _EVERY
        return done

    async def _publish(self, name: str, body: bytes) -> bool:
        before = await self._publisher.get(name)
        if before is not None and before[0] == body:
            return False
        await self._publisher.put(name, body, before[1] if before else None)
        return True


def array(urls: list[str]) -> bytes:
    """The JSON array; before the first certificate it holds one empty text (B23)."""
    return json.dumps(list(dict.fromkeys(urls)) or [""], indent=1).encode() + b"\n"
