"""A ledger over the acts that a test writes, with a key of its own, and somebody who tampers with the database."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from issuer.audit.checkpoint_bucket import CheckpointBucket
from issuer.audit.checkpoint_file import NAME, CheckpointFile
from issuer.audit.sequencer import Sequencer
from issuer.audit.verify import Report, Verifier, export_lines, read_keys, verify_database, verify_export
from quash.keys import generate_pem_key, open_key
from quash.runtime.clock import FakeClock
from quash.runtime.config import Audit
from quash.store import acts
from quash.store.database import Pool, acquire
from quash.store.roles import ADMIN, LEDGER


@dataclass
class Ledger:
    """`pool` is of the process ledger, `writer` of the admin API, `owner` may tamper."""

    clock: FakeClock
    folder: Path
    owner: Pool
    writer: Pool
    pool: Pool
    public: bytes
    sequencers: list[Sequencer] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / NAME

    def sequencer(
        self,
        *,
        file: Path | None = None,
        pool: Pool | None = None,
        bucket: CheckpointBucket | None = None,
        **config: Any,
    ) -> Sequencer:
        key = open_key("pem:ledger.pem", self.folder, self.folder / "passphrase", logins=self.folder)
        audit = Audit.model_validate(config)
        made = Sequencer(pool or self.pool, key, CheckpointFile(file or self.file), self.clock, audit, bucket=bucket)
        self.sequencers.append(made)
        return made

    async def act(self, count: int = 1, **subject: Any) -> None:
        async with acquire(self.writer) as conn:
            for number in range(count):
                await acts.record(
                    conn, at=int(self.clock.now()), actor="operator:a", action="b", subject={"n": number, **subject}
                )

    async def links(self) -> list[tuple[int, str, int]]:
        rows = await self.owner.fetch("select position, source, source_id from ledger order by position")
        return [tuple(row) for row in rows]

    def verifier(self) -> Verifier:
        return Verifier(read_keys(self.public))

    async def verify(self) -> Report:
        async with acquire(self.owner) as conn:
            return await verify_database(conn, self.verifier(), self.file)

    async def export(self) -> list[bytes]:
        async with acquire(self.owner) as conn:
            return [line async for line in export_lines(conn)]

    def verify_lines(self, body: bytes, *files: Path) -> Report:
        path = self.folder / "export.jsonl"
        path.write_bytes(body)
        return verify_export(self.verifier(), path, files)

    @contextlib.asynccontextmanager
    async def tampering(self) -> AsyncIterator[Any]:
        """A connection that changes what nobody may; for whoever owns the database can."""
        tables = ("act", "ledger", "ledger_checkpoint", "signing_log", "system_event")
        async with self.owner.acquire() as conn:
            for table in tables:
                await conn.execute(f"alter table {table} disable trigger append_only")
            try:
                yield conn
            finally:
                for table in tables:
                    await conn.execute(f"alter table {table} enable trigger append_only")


async def make_ledger(database: Any, clock: FakeClock, folder: Path) -> Ledger:
    (folder / "passphrase").write_text("test passphrase")
    spki = generate_pem_key(folder / "ledger.pem", "ec-p256", folder / "passphrase")
    writer, pool = await database.pool(ADMIN), await database.pool(LEDGER)
    return Ledger(clock, folder, database.owner, writer, pool, _pem(spki))


def _pem(spki: bytes) -> bytes:
    return load_der_public_key(spki).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
