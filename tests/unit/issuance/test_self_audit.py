"""The self-audit (F12, G50): who is sampled, who looks, what is kept."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from issuer.checks.lint import LintGate
from issuer.checks.workers import Inline
from issuer.issuance.self_audit import audit, read_quarter, sample_size
from issuer.issuance.visible import PublicAnswers
from quash.cli.self_audit import _tell
from quash.errors import QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.pki.certid import CertIdHash
from quash.pki.ocsp_response import GOOD, ResponseTemplate
from quash.pki.serials import format_serial
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from tests.support.issuing import OV_SUBJECT, Responder, World, make_csr, private_key

ZLINT = Path(sys.executable).with_name("zlint")
SAYS = "import sys, json; sys.stdin.buffer.read(); print(json.dumps({{'{code}': {{'result': '{result}'}}}}))"


def program(name: str, result: str) -> dict[str, Any]:
    """A linter that says the same of everything."""
    return {
        "name": name,
        "command": [sys.executable, "-c", SAYS.format(code=f"e_{name}", result=result)],
        "version_command": [sys.executable, "-c", f"print('{name} 7')"],
        "output": "zlint",
    }


def config_of(world: World, *linters: dict[str, Any], gate: tuple[dict[str, Any], ...] = ()) -> Config:
    changes = {"self_audit": {"linters": list(linters)}, "lint": {"external": list(gate)}}
    return Config.model_validate(world.config.model_dump() | changes)


async def order(world: World, count: int, profile: str = "tls-dv", config: Config | None = None) -> None:
    """Issues; with a configuration, behind its gate."""
    linting = {"linting": LintGate(config.lint, Inline())} if config else {}
    issuance = world.issuance(config=config, **linting)  # type: ignore[arg-type]
    subject = OV_SUBJECT if profile == "tls-ov" else ()
    for number in range(count):
        request = make_csr([f"www{number}.example.org"], key=private_key("leaf"), subject=subject)
        made = await issuance.submit("operator:ann", profile, request)
        assert (await issuance.finish(made.id, timeout=0)).state == "issued"


@pytest.mark.parametrize(
    ("population", "size"), [(0, 0), (1, 1), (33, 1), (34, 2), (100, 3), (101, 4), (1_000_000, 30_000)]
)
def test_a_sample_is_three_percent_and_at_least_one(population: int, size: int) -> None:
    """F12: max(1, 3 %), rounded up."""
    assert sample_size(population) == size


def test_a_quarter_is_of_the_calendar() -> None:
    """UTC, the end exclusive; anything else is refused."""
    start, end = (datetime.fromtimestamp(at, UTC).isoformat() for at in read_quarter("2026-Q4"))
    assert (start, end) == ("2026-10-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00")
    for text in ("2026", "2026-Q5", "Q1", "0000-Q1", "9999-Q4", "2026-Q1 "):
        with pytest.raises(QuashError, match=r"self_audit\.period|no quarter"):
            read_quarter(text)


async def test_each_issuer_s_sample_is_linted_by_who_did_not_gate_it(world: World, clock: FakeClock) -> None:
    """What gated a certificate does not audit it; another linter does, and its findings are kept with an act."""
    gate = (program("gate", "pass"),)
    config = config_of(world, program("gate", "error"), program("stranger", "error"), gate=gate)
    await order(world, 2, config=config)
    await order(world, 1, "tls-ov")  # nothing gated this one
    await clock.advance(1)
    outcome = await audit(world.owner, config, clock)
    said = [(each.certificate.issuer, each.report.linter) for each in outcome.audited]
    assert sorted(said) == [("tls-dv", "stranger"), ("tls-ov", "gate"), ("tls-ov", "stranger")]
    assert (outcome.population, outcome.sample, len(outcome.refused)) == (3, 2, 3)
    rows = await world.fetch("select linter, version, findings, refused from self_audit_result order by linter")
    assert [(row["linter"], row["version"], row["refused"]) for row in rows] == [
        ("gate", "gate 7", True),
        *[("stranger", "stranger 7", True)] * 2,
    ]
    assert rows[1]["findings"] == [{"severity": "error", "code": "e_stranger", "message": ""}]
    (act,) = await world.fetch("select actor, subject from act where action = 'self-audit'")
    subject = act["subject"] if isinstance(act["subject"], dict) else json.loads(act["subject"])
    assert (act["actor"], subject["population"], subject["sample"], subject["refused"]) == (
        *("command:self-audit", 3, 2), 3,
    )  # fmt: skip


async def test_serials_are_told_whole(world: World, clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal of 80 columns as well: whoever opens a case of a certificate copies its serial from there."""
    await order(world, 1)
    await clock.advance(1)
    outcome = await audit(world.owner, config_of(world, program("a-linter-with-a-long-name", "error")), clock)
    _tell(outcome, as_json=False)
    assert format_serial(outcome.audited[0].certificate.serial) in capsys.readouterr().out


async def test_a_period_begins_where_the_last_one_ended(world: World, clock: FakeClock) -> None:
    """BR 8.7: nothing is left between two samples; without anything new there is nothing to audit."""
    config = config_of(world, program("stranger", "pass"))
    await order(world, 2)
    await clock.advance(1)
    first = await audit(world.owner, config, clock)
    with pytest.raises(QuashError, match="nothing was issued"):
        await audit(world.owner, config, clock)
    await order(world, 1)
    await clock.advance(1)
    second = await audit(world.owner, config, clock)
    assert (first.population, second.population, second.since) == (2, 1, first.until)
    moment = datetime.fromtimestamp(clock.now(), UTC)
    whole = await audit(world.owner, config, clock, f"{moment.year}-Q{(moment.month + 2) // 3}")
    assert whole.population == 3


def quarter_of(clock: FakeClock) -> str:
    moment = datetime.fromtimestamp(clock.now(), UTC)
    return f"{moment.year}-Q{(moment.month + 2) // 3}"


async def test_a_quarter_that_still_runs_ends_with_the_audit(world: World, clock: FakeClock) -> None:
    """F12: what is issued afterwards is in the next audit's population, not in none."""
    config = config_of(world, program("stranger", "pass"))
    await order(world, 1)
    await clock.advance(1)
    first = await audit(world.owner, config, clock, quarter_of(clock))
    assert (first.population, first.until) == (1, int(clock.now()))
    await order(world, 1)
    await clock.advance(1)
    second = await audit(world.owner, config, clock)
    assert (second.population, second.since) == (1, first.until)


async def test_a_quarter_begins_where_the_last_audit_ended(world: World, clock: FakeClock) -> None:
    """BR 8.7: a quarter that nobody audited is in the next audit's population."""
    config = config_of(world, program("stranger", "pass"))
    await order(world, 1)
    await clock.advance(1)
    first = await audit(world.owner, config, clock)
    await order(world, 1)
    clock.step(200 * 86_400)
    await order(world, 1)
    await clock.advance(1)
    second = await audit(world.owner, config, clock, quarter_of(clock))
    assert (second.population, second.since) == (2, first.until)


async def test_what_an_order_has_yet_to_finish_is_left_to_the_next_audit(world: World, clock: FakeClock) -> None:
    """A certificate that was reserved before an audit and signed after it is in some population."""
    config = config_of(world, program("stranger", "pass"))
    await order(world, 1)
    await clock.advance(1)

    async def passed(step: str) -> None:
        if step == "reserve":
            raise RuntimeError("the process ends here")

    issuance = world.issuance()
    late = await issuance.submit("operator:ann", "tls-dv", make_csr(["late.example.org"], key=private_key("leaf")))
    with pytest.raises(RuntimeError, match="ends here"):
        await world.issuance(passed=passed).finish(late.id, timeout=0)
    await clock.advance(1)
    first = await audit(world.owner, config, clock)
    assert (await issuance.finish(late.id, timeout=0)).state == "issued"
    await clock.advance(1)
    assert (first.population, (await audit(world.owner, config, clock)).population) == (1, 1)


async def test_what_was_not_committed_yet_is_left_to_the_next_audit(world: World, clock: FakeClock) -> None:
    """Signed in time, by the signer's clock, and written down while the audit counted: it is in the next population."""
    config = config_of(world, program("stranger", "pass"))
    await order(world, 2)
    (row,) = await world.fetch("select * from signing_log order by id desc limit 1")
    await clock.advance(1)
    columns = "state, profile, der, spki_sha256, not_before, not_after, shard, bucket, created_at"
    async with world.owner.acquire() as conn:
        await conn.execute(
            f"insert into certificate (issuer_id, serial, {columns}) select issuer_id, $2, {columns} from certificate"
            " where serial = $1",
            *(row["serial"], b"\x7f"),
        )
        slow = conn.transaction()
        await slow.start()
        await conn.execute(
            "insert into signing_log (at, kind, issuer_id, serial, tbs_sha256, der) values ($1, $2, $3, $4, $5, $6)",
            *(row["at"], row["kind"], row["issuer_id"], b"\x7f", row["tbs_sha256"], row["der"]),
        )
        first = await audit(world.owner, config, clock)
        await slow.commit()
    await clock.advance(1)
    second = await audit(world.owner, config, clock)
    assert (first.population, second.population) == (2, 1)
    with pytest.raises(QuashError, match="nothing was issued"):
        await audit(world.owner, config, clock)


async def test_what_a_demonstration_exempts_is_told_apart(world: World, clock: FakeClock) -> None:
    """The audit applies the gate's exemptions, and says which finding stands by one."""
    exempt = [{"code": "e_stranger", "message": ""}]
    config = config_of(world, program("stranger", "error"))
    config = Config.model_validate(config.model_dump() | {"lint": {"exempt": exempt}})
    await order(world, 1)
    await clock.advance(1)
    (audited,) = (await audit(world.owner, config, clock)).audited
    assert (audited.report.refusing, [each.code for each in audited.report.standing]) == ((), ["e_stranger"])


async def test_without_a_linter_that_had_no_say_nothing_is_audited(world: World, clock: FakeClock) -> None:
    """An audit by the gate itself, or by a program that is missing, is none."""
    gate = (program("gate", "pass"),)
    missing = {**program("missing", "pass"), "command": ["no-such-linter"]}
    config = config_of(world, *gate, missing, gate=gate)
    await order(world, 1, config=config)
    await clock.advance(1)
    with pytest.raises(QuashError, match="had no say") as error:
        await audit(world.owner, config, clock)
    assert error.value.code == "self_audit.no_linter"
    assert await world.fetch("select from self_audit") == []


async def test_what_responders_say_of_the_sample_is_linted_too(world: World, clock: FakeClock) -> None:
    """A42, D47: pkilint on the answers of both hashes, kept like any result; silence is told and breaks no rule."""
    config = config_of(world, program("stranger", "pass"))
    await order(world, 1)
    await order(world, 1, "tls-ov")
    dv, ov = (row["serial"] for row in await world.fetch("select serial from certificate order by issuer_id"))
    await clock.advance(1)
    certificates = {name: await world.certificate_of(name) for name in world.hierarchy}
    async with Responder(world.hierarchy, certificates, clock).serving() as responder:
        responder.says[dv] = GOOD
        async with PublicAnswers([responder.url], clock) as asked:
            outcome = await audit(world.owner, config, clock, responders=asked)
    said = {each.certificate.serial: each.report for each in outcome.audited if each.report.linter == "pkilint-ocsp"}
    assert (said[dv].findings, said[dv].refusing) == ((), ())
    assert [(each.severity, each.code) for each in said[ov].findings] == [("info", "no_answer")] * 2
    assert said[ov].refusing == ()
    assert responder.requests == 4
    rows = await world.fetch("select from self_audit_result where linter = 'pkilint-ocsp' and not refused")
    assert len(rows) == 2


async def test_an_answer_that_breaks_a_rule_refuses(world: World) -> None:
    """pkilint finds an answer that ends before it begins, beside one that does not."""
    gate = LintGate(world.config.lint, Inline())
    issuer, now = world.hierarchy["tls-dv"], int(world.clock.now())
    template = ResponseTemplate(
        issuer_subject=issuer.subject,
        issuer_spki=issuer.spki,
        signer_certificate=await world.certificate_of("tls-dv"),
        algorithm=SIGNATURE_ALGORITHMS[issuer.signature_algorithm],
    )
    good, broken = (
        template.response(CertIdHash.SHA256, b"\1" * 16, GOOD, now, now + seconds, b"\1" * 64)
        for seconds in (3600, -3600)
    )
    assert (await gate.answers([good])).refusing == ()
    report = await gate.answers([good, broken])
    assert [each.code for each in report.refusing] == ["pkix.ocsp_negative_validity_period"]


async def test_debian_s_zlint_finds_nothing_in_what_we_issue(world: World, clock: FakeClock) -> None:
    """The default linter, on real certificates of both profiles that pkilint gated."""
    await order(world, 1, config=world.config)
    await order(world, 1, "tls-ov", config=world.config)
    await clock.advance(1)
    outcome = await audit(world.owner, world.config, clock)
    assert [each.report.linter for each in outcome.audited] == ["zlint", "zlint"]
    assert [each.report.refusing for each in outcome.audited] == [(), ()]
    assert all(each.certificate.gated_by == ("pkilint",) for each in outcome.audited)
    assert ZLINT.exists()
