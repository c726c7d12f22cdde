"""What may still stop the second signature, of a final TBS whose precertificate the public knows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from issuer.checks.lint import LintGate
from issuer.checks.workers import Inline
from issuer.ct.double import LogDouble
from issuer.ct.submit import CtLogs
from issuer.issuance.issue import Issuance
from issuer.issuance.means import Logging
from issuer.revocation import kill_switch
from issuer.revocation.find import Target
from issuer.revocation.revoke import Request, revoke
from issuer.signer import oids
from quash.errors import QuashError
from quash.pki import der
from quash.pki.reasons import Reason
from quash.runtime.config import ExternalLinter, Lint
from quash.store import acts
from quash.store.database import acquire
from quash.store.operators import Operator
from quash.store.orders import Order
from quash.store.roles import ADMIN
from tests.support.issuing import World, make_csr

Logs = tuple[CtLogs, dict[str, LogDouble]]
BOB = Operator(b"\1" * 32, "bob", "Bob Example", "officer", "active", None)


def issuance(world: World, client: CtLogs, **more: Any) -> Issuance:
    return world.issuance(logging=Logging(world.signer.sign_precertificate, client), **more)


async def ordered(use_case: Issuance) -> Order:
    return (await use_case.order("operator:ann", "tls-dv", make_csr(), by=None, timeout=0)).order


async def signed(world: World) -> list[str]:
    return [each["kind"] for each in await world.fetch("select kind from signing_log order by id")]


def objecting_to(folder: Path, extension: str) -> LintGate:
    """pkilint, and a program that finds an error in certificates with `extension` and a notice in every other."""
    program = folder / "linter.py"
    program.write_text(
        "import sys\n"
        f"found = bytes.fromhex('{der.oid(extension).hex()}') in sys.stdin.buffer.read()\n"
        "print('E: not like this' if found else 'N: looked at')\n"
    )
    own = ExternalLinter(
        name="own",
        command=(sys.executable, str(program)),
        output="lines",
        version_command=(sys.executable, "-c", "print('own 7')"),
    )
    return LintGate(Lint(level="error", external=(own,)), Inline())


async def linted(world: World) -> list[tuple[str, str, list[str], bool]]:
    """Document, linter, what it said, and whether that refused it."""
    rows = await world.fetch("select document, linter, findings, refused from lint_result order by id")
    return [
        (row["document"], row["linter"], [each["code"] for each in row["findings"]], row["refused"]) for row in rows
    ]


PRECERTIFICATE_LINTED = [
    ("dv-precertificate", "pkilint", [], False),
    ("dv-precertificate", "own", ["looked at"], False),
]


async def test_a_final_tbs_that_a_linter_refuses_is_never_signed(
    world: World, logs: Logs, database: Any, tmp_path: Path
) -> None:
    """D19, G6: found only with its SCTs in place: one signature, findings kept, and its serial is revoked (A8)."""
    client, doubles = logs
    use_case = issuance(world, client, linting=objecting_to(tmp_path, oids.SCT_LIST))
    order = await ordered(use_case)
    assert (order.state, order.code) == ("refused", "lint.refused")
    assert "dv-certificate" in (order.detail or "")
    assert "not like this" in (order.detail or "")
    assert await linted(world) == [
        *PRECERTIFICATE_LINTED,
        ("dv-certificate", "pkilint", [], False),
        ("dv-certificate", "own", ["not like this"], True),
    ]
    assert all(len(double.entries) == 1 for double in doubles.values())
    # No bytes are left that could be signed, whoever asks.
    (row,) = await world.fetch("select issuer_id, serial, state, tbs from certificate")
    assert (row["serial"], row["state"], row["tbs"]) == (order.serial, "precertificate", None)
    with pytest.raises(QuashError, match=r"signer\.not_reserved"):
        await world.signer.sign_certificate(row["issuer_id"], row["serial"])
    assert await use_case.step() == 0
    assert await signed(world) == ["precertificate"]
    # The presigner heard of it at T2 and of its end; like any other it can be revoked for a graver reason (B25).
    assert [each["serial"] for each in await world.fetch("select serial from outbox")] == [order.serial] * 2
    async with acquire(await database.pool(ADMIN)) as conn:
        graver = Request(Target("tls-dv", order.serial), Reason.keyCompromise)
        await revoke(conn, world.clock, graver, actor="operator:bob", batch=10)
    reasons = [each["reason"] for each in await world.fetch("select reason from revocation order by version")]
    assert reasons == [Reason.superseded, Reason.keyCompromise]


async def test_a_precertificate_that_a_linter_refuses_leaves_nothing_but_findings(
    world: World, logs: Logs, tmp_path: Path
) -> None:
    """D47, G6: refused before T1: no serial is committed, no log hears of it, no key signs."""
    client, doubles = logs
    use_case = issuance(world, client, linting=objecting_to(tmp_path, oids.CT_POISON))
    order = await ordered(use_case)
    assert (order.state, order.code, order.serial) == ("refused", "lint.refused", None)
    assert await linted(world) == [
        ("dv-precertificate", "pkilint", [], False),
        ("dv-precertificate", "own", ["not like this"], True),
    ]
    assert await use_case.step() == 0
    assert await signed(world) == []
    assert await world.fetch("select from certificate") == []
    assert not any(double.entries for double in doubles.values())


@pytest.mark.parametrize("issuer", [None, "tls-dv"])
@pytest.mark.parametrize("point", ["precommit", "log", "final"])
async def test_a_stop_behind_t2_leaves_the_precertificate_alone(
    world: World, logs: Logs, database: Any, point: str, issuer: str | None
) -> None:
    """G21, A8: the second signature is refused by API and CA signer; lifting helps the next order, not this one's."""
    client, _ = logs
    admin = await database.pool(ADMIN)
    said: list[str] = []

    async def stop(step: str) -> None:
        if step != point:
            return
        async with acquire(admin) as conn:
            await kill_switch.stop(conn, BOB, issuer, "drill", 1)
        if point == "final":
            # The bytes are committed: an issuing API that was broken into would ask for their signature now.
            (row,) = await world.fetch("select issuer_id, serial from certificate where tbs is not null")
            with pytest.raises(QuashError) as error:
                await world.signer.sign_certificate(row["issuer_id"], row["serial"])
            said.append(error.value.code)

    order = await ordered(issuance(world, client, passed=stop))
    assert (order.state, order.code) == ("refused", "issuance.stopped")
    assert said == (["signer.stopped"] if point == "final" else [])
    assert [each["reason"] for each in await world.fetch("select reason from revocation")] == [Reason.superseded]
    assert [each["serial"] for each in await world.fetch("select serial from outbox")] == [order.serial] * 2

    async with acquire(admin) as conn, conn.transaction():
        act = await acts.record(conn, at=2, actor="operator:bob", action=kill_switch.LIFT, subject={})
        await kill_switch.lift(conn, {"issuer": issuer}, 2, act)
    later = issuance(world, client)
    assert await later.step() == 0
    assert await signed(world) == ["precertificate"]
    assert (await ordered(later)).state == "issued"
