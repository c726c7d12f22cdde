"""The CRL builder against a model: whatever happens in whatever order, the published sets are the model's.

Certificates are issued, revoked, upgraded, they expire; transactions commit late; shards are added; the builder crashes
anywhere, loses its lease, and another one goes on. After every CRL: its number rose, it lists what it must and nothing
else (B7, B13, B14, B16, B25), in the very octets of the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from issuer.signer.deployment import Deployment
from issuer.signer.shards import change_shards
from quash.errors import QuashError
from quash.pki.crl import entry, read_entry
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.store import crls
from quash.store.database import acquire
from tests.support.crl_bench import DAY, Bench, Ca

HOUR = 3600
BASE = "http://crl.example.test"
SETTINGS = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    "derandomize": True,
}


class Crash(BaseException):
    """The process dies here."""


@dataclass
class Certificate:
    serial: bytes
    shard: int | None
    not_after: int
    reason: int | None = None
    revoked_at: int = 0
    shown: bool = False  # on a regular CRL made after it ended: it may go (B13)


@dataclass
class Model:
    """One issuer. `late`: open transactions with what becomes true when they commit."""

    bench: Bench
    ca: Ca
    shards: int = 0
    certificates: list[Certificate] = field(default_factory=list)
    late: list[tuple[Any, Certificate, int]] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    published: int = 0

    def now(self) -> int:
        return int(self.bench.clock.now())

    def pick(self, n: int, *, revoked: bool) -> Certificate | None:
        busy = [certificate for _, certificate, _ in self.late]
        found = [each for each in self.certificates if (each.reason is not None) == revoked and each not in busy]
        return found[n % len(found)] if found else None

    async def issue(self, n: int) -> None:
        shard = n % self.shards if self.shards else None
        not_after = self.now() + (90 * DAY, HOUR, 30 * HOUR)[n % 3]
        serial = await self.bench.certificate(self.ca, not_after=not_after, shard=shard)
        self.certificates.append(Certificate(serial, shard, not_after))

    async def revoke(self, n: int) -> None:
        if (found := self.pick(n, revoked=False)) is not None:
            found.reason, found.revoked_at = (0, 1, 3, 4, 5, 9)[n % 6], self.now()
            await self.bench.revoke(self.ca, found.serial, found.reason)

    async def upgrade(self, n: int) -> None:
        """B25: to keyCompromise, with the date moved back."""
        found = self.pick(n, revoked=True)
        if found is not None and found.reason != 1 and found.not_after >= self.now():
            found.reason, found.revoked_at = 1, found.revoked_at - n % 100
            await self.bench.revoke(self.ca, found.serial, 1, at=found.revoked_at)

    async def begin(self, n: int) -> None:
        """A revocation that takes its transaction number now and commits whenever."""
        if (found := self.pick(n, revoked=False)) is not None and len(self.late) < 3:
            conn = await self.bench.database.connection()
            transaction = conn.transaction()
            await transaction.start()
            await self.bench.revoke(self.ca, found.serial, 4, conn=conn)
            self.late.append((transaction, found, self.now()))

    async def commit(self, n: int) -> None:
        if self.late:
            transaction, found, at = self.late.pop(n % len(self.late))
            if n % 4 == 3:
                await transaction.rollback()
                return
            await transaction.commit()
            found.reason, found.revoked_at = 4, at

    async def wait(self, n: int) -> None:
        await self.bench.clock.advance((1, 7, HOUR, DAY, 26 * HOUR)[n % 5])

    async def reshard(self, n: int) -> None:
        """Another number of shards for new certificates, by the command itself; those there were stay (B16).

        Nothing changes for certificates before the CRLs are out (B18): half of the time somebody repeats it.
        """
        for _ in range(1 + n // 30):
            config = Config.model_validate({"crl_origin": {"base_url": BASE}})
            deployment = Deployment(config, cast(Any, None), self.bench.database.owner, self.bench.clock)
            code = ""
            try:
                await change_shards(deployment, self.ca.name, n % 3, wait=0)
            except QuashError as error:
                code = error.code
            if not code:
                self.shards = n % 3
                return
            assert code == "shards.not_published"
            await self.settle()

    async def crash(self, n: int) -> None:
        """The builder dies around one of its writes, and is started anew."""
        function, after = ("reserve", "signed", "published")[n % 3], n % 2
        original = getattr(crls, function)

        async def dying(*arguments: Any, **named: Any) -> None:
            if after:
                await original(*arguments, **named)
                if arguments[0].is_in_transaction():
                    await arguments[0].execute("commit")
            raise Crash

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(crls, function, dying)
            with contextlib.suppress(Crash):
                await self.bench.builder.step()
                await self.bench.clock.advance(3)
                await self.bench.builder.step()
        await self.bench.crash()

    async def usurp(self, n: int) -> None:
        """Another builder takes the lease while this one signs; the first notices at its next write."""
        sign = self.bench.signer.sign_crl

        async def usurped(*arguments: Any) -> bytes:
            await self.bench.database.owner.execute("update lease set fence = fence + 1 where name = 'crl-builder'")
            return await sign(*arguments)

        self.bench.signer.sign_crl = usurped  # type: ignore[method-assign]
        await self.bench.builder.step()
        await self.bench.clock.advance(3)
        await self.bench.builder.step()
        self.bench.signer.sign_crl = sign  # type: ignore[method-assign]

    async def settle(self) -> None:
        """The builder works until nothing is due; every CRL on the way is looked at."""
        for _ in range(4):
            await self.bench.clock.advance(3)
            await self.bench.builder.step()
            await self.look(whole=False)
        await self.look(whole=True)
        assert self.bench.builder.problems == {}

    async def look(self, *, whole: bool) -> None:
        async with acquire(self.bench.database.owner) as conn:
            states = [state for state in await crls.states(conn) if state.scope.issuer_id == self.ca.id]
        union = set[bytes]()
        for state in states:
            path = state.scope.path
            if not self.bench.path(path).exists():
                assert not whole, f"{path} was never published"
                continue
            crl = self.bench.read(path)
            before = self.numbers.get(path, 0)
            assert crl.number >= before
            listed = {read_entry(each)[0]: each for each in crl.entries}
            assert len(listed) == len(crl.entries)
            mine = [each for each in self.certificates if each.shard == state.scope.shard]
            union |= set(listed)
            if whole:
                self._compare(mine, listed)
                # Beside shards each says that it is not complete (B14, B15); alone, the full one has no IDP.
                assert crl.idp_urls == ((state.scope.url,) if len(states) > 1 else ())
            assert set(listed) <= {each.serial for each in mine if each.reason is not None}
            if crl.number > before:
                self.published += 1
                assert state.published is not None
                if state.published.number == crl.number and state.published.scheduled:
                    for each in mine:
                        each.shown |= each.not_after < crl.this_update and each.serial in listed
            self.numbers[path] = crl.number
        if whole:  # and together the full CRL and the shards have them all (B14)
            assert {each.serial for each in self.certificates if each.reason is not None and not each.shown} <= union

    def _compare(self, mine: list[Certificate], listed: dict[bytes, bytes]) -> None:
        for each in mine:
            if each.reason is None:
                assert each.serial not in listed
            elif not each.shown or each.serial in listed:
                assert listed.get(each.serial) == entry(each.serial, each.revoked_at, each.reason)

    async def close(self) -> None:
        while self.late:
            await self.late.pop()[0].rollback()


OPERATIONS = ("issue", "issue", "revoke", "revoke", "upgrade", "begin", "commit", "wait", "reshard", "crash", "usurp")
# Histories that lost entries elsewhere, or would here if one thought were forgotten; they are played each time.
LATE_COMMIT = [
    *[("revoke", 0, True), ("issue", 0, True), ("revoke", 0, True), ("issue", 0, False)],  # entries are kept by now
    *[("begin", 0, False), ("revoke", 1, True), ("commit", 0, True)],
]
EXPIRY = [
    *[("issue", 1, False), ("issue", 0, False), ("issue", 0, False), ("revoke", 0, True), ("wait", 2, False)],
    *[("wait", 2, False), ("revoke", 1, True), ("wait", 3, True), ("revoke", 2, True)],
]
RESHARDED = [
    *[("issue", 0, True), ("reshard", 32, False), ("issue", 0, False), ("issue", 3, True), ("reshard", 31, False)],
    *[("revoke", 2, True), ("upgrade", 0, True), ("revoke", 0, True), ("crash", 5, False), ("usurp", 0, True)],
]
SCRIPTS = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 59), st.booleans()), min_size=4, max_size=30)


@contextlib.asynccontextmanager
async def world(database: Any, clock: FakeClock, folder: Path) -> AsyncIterator[Model]:
    """A new issuer, alone: those of former examples are taken offline."""
    await database.owner.execute("update issuer set key_ref = null")
    bench = Bench(database, clock, folder, Config())
    await bench.start()
    name = f"ca{await database.owner.fetchval('select count(*) from issuer')}"
    bench._serial = 0x1000 + int(name[2:]) * 1000
    model = Model(bench, await bench.issuer(name))
    try:
        yield model
    finally:
        await model.close()
        await bench.builder.close()
        await bench.pool.close()


async def play(model: Model, script: list[tuple[str, int, bool]]) -> None:
    for n in range(3):
        await model.issue(n)
    for operation, n, settle in script:
        await getattr(model, operation)(n)
        if settle:
            await model.settle()
    for n in range(len(model.late)):
        await model.commit(n)
    await model.settle()
    await model.bench.clock.advance(DAY)
    await model.settle()
    assert model.published > 0


@example(script=LATE_COMMIT)
@example(script=EXPIRY)
@example(script=RESHARDED)
@given(script=SCRIPTS)
@settings(max_examples=4, **SETTINGS)  # type: ignore[arg-type]
async def test_published_sets_are_the_models(
    database: Any, clock: FakeClock, tmp_path: Path, script: list[tuple[str, int, bool]]
) -> None:
    """A few histories for every day."""
    async with world(database, clock, tmp_path) as model:
        await play(model, script)


@pytest.mark.long
@given(script=SCRIPTS)
@settings(max_examples=150, **{**SETTINGS, "derandomize": False})  # type: ignore[arg-type]
async def test_published_sets_are_the_models_in_many_histories(
    database: Any, clock: FakeClock, tmp_path: Path, script: list[tuple[str, int, bool]]
) -> None:
    """Many more, other ones each time."""
    async with world(database, clock, tmp_path) as model:
        await play(model, script)
