"""Files that commands write into the state's folder, brought to the bucket: CRLs of offline keys, CA certificates."""

from __future__ import annotations

from crlgen.publish.folder import Publisher
from quash.errors import QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, verify
from quash.pki.crl import read_crl
from quash.runtime.clock import Clock
from quash.store import crls, issuers
from quash.store.database import Pool, acquire
from quash.store.issuers import Issuer

_EVERY = 60.0  # seconds: a sub-CA's revocation is to be seen as soon as any (G1)


class Bring:
    """Looks every minute. Of an issuer's CRLs in folder and bucket the one with the greater number replaces the other.

    One that the issuer's key did not sign, or that is damaged, replaces nothing and is replaced. Certificates are the
    database's. Writes are conditional, so builders of several machines may do this for their folders at once.
    """

    def __init__(self, pool: Pool, bucket: Publisher, folder: Publisher, clock: Clock) -> None:
        self._pool = pool
        self._bucket = bucket
        self._folder = folder
        self._clock = clock
        self._again_at = 0.0

    async def step(self) -> int:
        """How many files it wrote. Raises what store and publisher raise."""
        if self._clock.monotonic() < self._again_at:
            return 0
        async with acquire(self._pool) as conn:
            known = {each.id: each for each in await issuers.all_issuers(conn)}
            own = {each.name: await issuers.certificate(conn, each.id) for each in known.values()}
            scopes = [state.scope for state in await crls.states(conn, offline=True) if state.offline]
        done = 0
        for name, certificate in own.items():
            if certificate is not None:
                done += await self._put_certificate(f"{name}.cer", certificate.der)
        for scope in scopes:
            done += await self._agree(scope.path, known[scope.issuer_id])
        self._again_at = self._clock.monotonic() + _EVERY
        return done

    async def _put_certificate(self, name: str, der: bytes) -> bool:
        there = await self._bucket.get(name)
        if there is not None and there[0] == der:
            return False
        await self._bucket.put(name, der, there[1] if there else None)
        return True

    async def _agree(self, path: str, issuer: Issuer) -> bool:
        here, there = await self._folder.get(path), await self._bucket.get(path)
        ours, theirs = _number(here, issuer), _number(there, issuer)
        if here is not None and ours > theirs:
            await self._bucket.put(path, here[0], there[1] if there else None)
        elif there is not None and theirs > ours:
            await self._folder.put(path, there[0], here[1] if here else None)
        return ours != theirs


def _number(found: tuple[bytes, str] | None, issuer: Issuer) -> int:
    """A CRL's number, not its date, which may have gone back by order; -1 where there is none of this issuer."""
    if found is None:
        return -1
    algorithm = SIGNATURE_ALGORITHMS[issuer.signature_algorithm]
    try:
        crl = read_crl(found[0])
        verify(issuer.spki, algorithm, algorithm.decode(crl.signature), crl.tbs)
    except QuashError:
        return -1
    return crl.number
