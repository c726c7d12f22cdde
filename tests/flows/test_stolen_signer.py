"""An OCSP signer whose key is proven to be known to others: replaced without anybody having to ask for it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from issuer.revocation.compromise import Ground, revoke_key
from quash.pki.certificate import read_certificate
from quash.runtime.clock import FakeClock
from quash.store.database import acquire
from tests.support.flows import running
from tests.support.initialising import quick_config

GROUND = Ground("anybody:intake", "key.proof", {}, "proof")


async def test_a_proof_replaces_the_signer(database: Any, clock: FakeClock, tmp_path: Path) -> None:
    """The proof revokes its certificate, blocks the key, orders a switch and opens a case; all is signed anew (A17)."""
    async with running(database, tmp_path, clock, quick_config(database.config, presign={"buckets": 2})) as site:
        await site.step()
        key = site.key(await site.issue())
        (row,) = await site.fetch(
            "select s.certificate from ocsp_signer s join issuer i on i.id = s.issuer_id where i.name = 'tls-dv'"
        )
        stolen = read_certificate(row["certificate"])
        number = int.from_bytes(stolen.serial, "big")
        assert site.node.ask(key).signer == number
        async with acquire(site.admin) as conn:
            spki_sha256 = hashlib.sha256(stolen.spki).digest()
            done = await revoke_key(conn, clock, spki_sha256, GROUND, revoked_at=None, batch=10)
        assert (done.blocked, done.revoked) == (True, 1)
        (order,) = await site.fetch("select a.actor, a.action from signer_switch s join act a on a.id = s.act_id")
        assert tuple(order) == ("anybody:intake", "signer.switch")
        (case,) = await site.fetch("select id, summary from revocation_case")
        assert "an OCSP signer of tls-dv" in case["summary"]
        for _ in range(3):
            await site.step()
            await clock.advance(61)
        said = site.node.ask(key)
        assert (said.word, said.signer == number) == ("good", False)
        assert site.node.ask(("tls-dv", stolen.serial)).word == "revoked"
        again = site.key(await site.issue())
        await site.step()
        assert site.node.ask(again).signer == said.signer
        async with acquire(site.admin) as conn:
            await revoke_key(conn, clock, spki_sha256, GROUND, revoked_at=None, batch=10)
        assert len(await site.fetch("select from signer_switch")) == 1
