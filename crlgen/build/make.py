"""Flow 3 for one scope, as a recipe."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Final

from crlgen.build import entries, lint
from crlgen.build.entries import EntrySet
from crlgen.build.lint import Linter, WholeLint
from crlgen.build.schedule import Memory, is_scheduled
from crlgen.build.signer import CrlSigner
from crlgen.build.terms import terms_of
from crlgen.publish.folder import Publisher
from quash.errors import Kind, QuashError
from quash.pki import crl_gate
from quash.pki.crl import certificate_list, tbs_cert_list
from quash.pki.crl_gate import Expected, Published, Terms
from quash.runtime.clock import Clock
from quash.runtime.config import Crl as CrlConfig
from quash.store import crl_entries, crls
from quash.store.database import Pool, acquire
from quash.store.leases import Lease

RETIRED: Final = "crl.issuer_expired"


@dataclass(frozen=True, slots=True)
class Made:
    """A CRL that went out; `size` in octets."""

    next_update: int
    entries: int
    size: int


@dataclass(frozen=True, slots=True)
class Workshop:
    """Makes one CRL at a time."""

    pool: Pool
    signer: CrlSigner
    publisher: Publisher
    clock: Clock
    config: CrlConfig
    linter: Linter | None = None
    afterwards: WholeLint | None = None

    async def make(self, state: crls.ScopeState, memory: Memory, lease: Lease, tag: str | None) -> Made:
        """Makes and publishes a CRL over the file in state `tag`; `memory` holds it when this returns.

        A crash anywhere skips a number and repeats none (B7): before step 3 nothing is signed, between 3 and 6 the
        published CRL stays, and after 6 `files.look` recognises the new one and completes its record.
        Raises the codes of the gate, the CA signer, the publisher and the lease; nothing is published then.
        """
        scope = state.scope
        # 1. What must the CRL say, and list? One snapshot of the database, closed at once.
        async with acquire(self.pool) as conn:
            terms = await terms_of(conn, scope)
        memory.entries = found = await entries.current(self.pool, scope, state.regular, memory.entries)
        expected = self._expect(state, memory.published, found, terms)
        # 2. Take the number, for good, before anything is signed.
        await self._take_number(state, found, expected, lease)
        # 3. Have it signed, while pkilint looks at its frame, what is new, and a sample of the rest.
        tbs = self._tbs(terms, found, expected)
        raw_signature, _ = await asyncio.gather(
            self.signer.sign_crl(scope.issuer_id, scope.scope, tbs),
            self._lint(tbs, terms, found, memory.published, expected.number),
        )
        body = certificate_list(tbs, terms.algorithm, raw_signature)
        # 4. Read it back as a stranger would, beside what is published.
        await self._pass_gate(state, memory, terms, expected, body)
        # 5. Remember its octets, while the lease still holds.
        digest = (await asyncio.to_thread(hashlib.sha256, body)).digest()
        async with acquire(self.pool) as conn, conn.transaction():
            await lease.check(conn)
            await crls.signed(conn, scope, expected.number, digest, len(body))
        # 6. Publish.
        new_tag = await self.publisher.put(scope.path, body, replaces=tag)
        # 7. Record that it is out.
        async with acquire(self.pool) as conn:
            await crls.published(conn, scope, expected.number, int(self.clock.now()))
        memory.published = Published(expected.number, expected.this_update, found.encoded, found.count)
        memory.seen, memory.good, memory.looked_at = (new_tag, expected.number), True, self.clock.monotonic()
        if self.afterwards is not None and is_scheduled(state, expected.now, self.config.every):
            self.afterwards.add(scope.path, tbs, found.encoded, terms.algorithm)
        return Made(expected.next_update, found.count, len(body))

    def _expect(self, state: crls.ScopeState, published: Published | None, found: EntrySet, terms: Terms) -> Expected:
        """Number and thisUpdate rise above all that was taken or published (B7), nextUpdate ends with the issuer.

        Raises `crl.clock_went_back`, `crl.issuer_expired`.
        """
        newest = state.newest
        numbers = [newest.number if newest else 0, published.number if published else 0]
        times = [newest.this_update if newest else 0, published.this_update if published else 0]
        now = self.clock.now()
        goes_back = state.may_go_back and max(times) > now + crl_gate.MAX_CLOCK_STEP
        this_update = int(now) if goes_back else max(int(now), max(times) + 1)
        crl_gate.check_clock(this_update, now)
        if this_update >= terms.not_after:
            raise QuashError(RETIRED, f"{state.scope.issuer} has ended: import its renewed certificate", Kind.REFUSED)
        return Expected(
            number=max(numbers) + 1,
            this_update=this_update,
            next_update=min(this_update + self.config.validity, terms.not_after),
            entries=found.expected,
            now=now,
            goes_back=goes_back,
        )

    async def _take_number(self, state: crls.ScopeState, found: EntrySet, expected: Expected, lease: Lease) -> None:
        async with acquire(self.pool) as conn, conn.transaction():
            await lease.check(conn)
            await crls.reserve(
                conn,
                state.scope,
                number=expected.number,
                this_update=expected.this_update,
                next_update=expected.next_update,
                entries=found.count,
                covers=found.covers,
                scheduled=is_scheduled(state, expected.now, self.config.every),
            )

    async def _pass_gate(
        self, state: crls.ScopeState, memory: Memory, terms: Terms, expected: Expected, body: bytes
    ) -> None:
        try:
            known = memory.published.entries if memory.published else b""
            crl = await asyncio.to_thread(crl_gate.read, body, terms, known)
            lost = await asyncio.to_thread(crl_gate.check, crl, expected, memory.published)
            if lost:
                async with acquire(self.pool) as conn:
                    crl_gate.refuse_lost(lost, await crl_entries.may_go(conn, state.scope, state.regular, lost))
        except QuashError:
            memory.entries = None  # what is kept encoded may be what is wrong: the next try reads everything anew
            raise

    async def _lint(self, tbs: bytes, terms: Terms, found: EntrySet, published: Published | None, number: int) -> None:
        if self.linter is None:
            return
        chosen = await asyncio.to_thread(lint.choose, found.encoded, published.entries if published else b"", number)
        crl_gate.refuse_findings(await self.linter.lint(lint.twin(tbs, chosen, terms.algorithm)))

    def _tbs(self, terms: Terms, found: EntrySet, expected: Expected) -> bytes:
        return tbs_cert_list(
            algorithm=terms.algorithm,
            issuer=terms.issuer,
            this_update=expected.this_update,
            next_update=expected.next_update,
            entries=(found.encoded,),
            authority_key_id=terms.authority_key_id,
            number=expected.number,
            idp_urls=terms.idp_urls,
            only=terms.only,
        )
