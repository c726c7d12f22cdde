"""Files that commands write into the state's folder, brought to the bucket: CRLs of offline keys, CA certificates."""

from __future__ import annotations

from collections.abc import Callable

from crlgen.publish.folder import Publisher
from quash.pki.crl import read_crl
from quash.runtime.clock import Clock
from quash.store import crls, issuers
from quash.store.crls import Scope
from quash.store.database import Pool, acquire

_EVERY = 60.0  # seconds: a sub-CA's revocation is to be seen as soon as any (G1)


class Bring:
    """Looks every minute. A CRL goes only over one with a smaller number; certificates are the database's."""

    def __init__(
        self, pool: Pool, bucket: Publisher, folder: Publisher, clock: Clock, announce: Callable[[Scope], None]
    ) -> None:
        self._pool = pool
        self._bucket = bucket
        self._folder = folder
        self._clock = clock
        self._announce = announce
        self._again_at = 0.0

    async def step(self) -> int:
        """How many files it brought. Raises what store and publisher raise, and `crl.malformed`."""
        if self._clock.monotonic() < self._again_at:
            return 0
        async with acquire(self._pool) as conn:
            scopes = [state.scope for state in await crls.states(conn, offline=True) if state.offline]
            own = {each.name: await issuers.certificate(conn, each.id) for each in await issuers.all_issuers(conn)}
        done = 0
        for name, certificate in own.items():
            if certificate is not None:
                done += await self._put(f"{name}.cer", certificate.der)
        for scope in scopes:
            found = await self._folder.get(scope.path)
            if found is not None and await self._put(scope.path, found[0]):
                self._announce(scope)
                done += 1
        self._again_at = self._clock.monotonic() + _EVERY
        return done

    async def _put(self, name: str, body: bytes) -> bool:
        there = await self._bucket.get(name)
        if there is not None and (there[0] == body or (name.endswith(".crl") and not _is_newer(body, there[0]))):
            return False
        await self._bucket.put(name, body, there[1] if there else None)
        return True


def _is_newer(body: bytes, there: bytes) -> bool:
    """By its number; dates may have gone back by order."""
    return read_crl(body).number > read_crl(there).number
