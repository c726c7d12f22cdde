"""Deployments and what `quash init` did to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509

from issuer.signer.deployment import Deployment
from issuer.signer.hierarchy import make_hierarchy
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config, load
from quash.runtime.state import State
from quash.store.database import Pool

DEMO = Path(__file__).parents[2] / "config" / "demo.toml"


def demo_config(database: Config) -> Config:
    """The demo's configuration, on the database of another one."""
    return load(DEMO).model_copy(update={"database": database.database})


def quick_config(database: Config, **changes: Any) -> Config:
    """The demo without its RSA issuer; `changes` as sections of the file."""
    demo = demo_config(database).model_dump()
    demo["issuers"] = [each for each in demo["issuers"] if each["name"] != "tls-ov"]
    demo["profiles"] = [each for each in demo["profiles"] if each["name"] != "tls-ov"]
    del demo["testsite"]
    return Config.model_validate(demo | changes)


@dataclass
class Made:
    """A deployment; `make` runs init on it and remembers what it said."""

    deployment: Deployment
    clock: FakeClock
    said: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, config: Config, folder: Path, pool: Pool, clock: FakeClock) -> Made:
        return cls(Deployment(config, State(folder), pool, clock), clock)

    @property
    def state(self) -> State:
        return self.deployment.state

    async def make(self, config: Config | None = None) -> list[str]:
        each, self.said = self.deployment, []
        await make_hierarchy(config or each.config, each.state, each.pool, each.clock, self.said.append)
        return self.said

    async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        async with self.deployment.pool.acquire() as conn:
            return [tuple(row) for row in await conn.fetch(sql, *arguments)]

    def certificate(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.state.certs / f"{name}.pem").read_bytes())

    def files(self) -> dict[str, bytes]:
        """Every file of the state by its path."""
        root = self.state.root
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    async def rows(self) -> dict[str, list[Any]]:
        """Every row of the tables that init writes, leases aside: init takes one each time."""
        tables = (
            "issuer",
            "issuer_certificate",
            "certificate",
            "ocsp_signer",
            "operator",
            "crl_scope",
            "crl",
            "bucket",
        )
        return {
            table: sorted(await self.fetch(f"select {table}::text from {table}"))
            for table in (*tables, "outbox", "act", "signing_log")
        }
