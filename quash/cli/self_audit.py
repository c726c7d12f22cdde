"""`quash self-audit`: each quarter a sample of what was issued, looked at by a linter that did not gate it (F12)."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from issuer.issuance.self_audit import Outcome, audit, told
from issuer.issuance.visible import PublicAnswers
from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    JsonOption,
    SetOption,
    StateOption,
    context,
    print_json,
    reports_errors,
)
from quash.cli.local import check_initialised, on_the_state
from quash.errors import Kind, QuashError
from quash.pki.serials import format_serial
from quash.runtime.clock import SystemClock
from quash.store import self_audits
from quash.store.database import Pool, acquire
from quash.store.self_audits import SelfAudit

_SERIAL = 32  # hexadecimal digits of what we issue


@reports_errors
def self_audit(
    period: Annotated[str | None, typer.Argument(help="Like 2026-Q3; else since the last audit.")] = None,
    *,
    quarter: Annotated[bool, typer.Option("--quarter", help="Draw a new sample; else list the audits.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Samples 3 % of each issuer's certificates, at least one; exit status 3 when a linter finds anything in them."""
    deployment = context(config, state, set_)
    check_initialised(deployment)
    if period is not None and not quarter:
        raise QuashError("usage", "a period goes with --quarter")
    if not quarter:
        _list(on_the_state(deployment, _audits), as_json=json_)
        return

    async def draw(pool: Pool) -> Outcome:
        clock = SystemClock()
        async with PublicAnswers(deployment.config.visible_at, clock) as responders:
            return await audit(pool, deployment.config, clock, period, responders=responders)

    outcome = on_the_state(deployment, draw)
    _tell(outcome, as_json=json_)
    if outcome.refused:
        message = f"{len(outcome.refused)} of {outcome.sample} certificates break a rule: open a case for each (C2)"
        raise QuashError("self_audit.findings", message, Kind.REFUSED)


async def _audits(pool: Pool) -> list[SelfAudit]:
    async with acquire(pool) as conn:
        return list(await self_audits.all_audits(conn))


def _list(audits: list[SelfAudit], *, as_json: bool) -> None:
    for each in audits:
        if as_json:
            print_json(asdict(each))
        else:
            period = f"{_day(each.since)} to {_day(each.until)}"
            print(f"audit {each.id}: {period}, {each.sample} of {each.population}, {each.refused} break a rule")


def _tell(outcome: Outcome, *, as_json: bool) -> None:
    """One line of JSON, or a table, for each certificate and linter, then the whole."""
    serials = Column("serial", no_wrap=True, min_width=_SERIAL)  # to be copied into a case
    table = Table("issuer", serials, "linter", "version", "findings", "exempt")
    for each in outcome.audited:
        serial = format_serial(each.certificate.serial)
        report = each.report
        if as_json:
            print_json(
                {
                    "audit": outcome.id,
                    "issuer": each.certificate.issuer,
                    "serial": serial,
                    "gated_by": each.certificate.gated_by,
                    "linter": report.linter,
                    "version": report.version,
                    "findings": report.as_json(),
                    "refused": bool(report.refusing),
                    "standing": [finding.as_json() for finding in report.standing],
                }
            )
        else:
            table.add_row(
                *(each.certificate.issuer, serial, report.linter, report.version),
                told(report.refusing) or "none",
                told(report.standing),
            )
    if not as_json:
        Console(soft_wrap=True).print(table)
        print(
            f"audit {outcome.id}: {outcome.sample} of {outcome.population} certificates of"
            f" {_day(outcome.since)} to {_day(outcome.until)}, {len(outcome.refused)} break a rule"
        )


def _day(at: int) -> str:
    return "the beginning" if at == 0 else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"
