"""`quash job rehearse`: a mass revocation's very set, revoked on a scratch system, every stage timed (BR 5.7.1.2, C17).

A dry fire: what is signed is signed by throw-away keys into a scratch folder; the live deployment is only read, by its
API. Every stage is the real code on this machine, beside whatever else it does.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from quash.cli.client import DEFAULT_OPERATOR, Api, AsOption
from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    Context,
    JsonOption,
    SetOption,
    StateOption,
    context,
    print_json,
    reports_errors,
)
from quash.errors import QuashError

if TYPE_CHECKING:
    from quash.cli.scratch import Scratch

PATH: Final = "/v1/mass-revocations"
_POLL: Final = 0.2  # seconds
_LONGEST: Final = 24 * 3600.0
_SIGNED, _APPLIED = "quash_presign_records_total", "quash_follower_records_applied_total"
Stages = dict[str, float]


@reports_errors
def rehearse(
    number: Annotated[int, typer.Argument(help="Number of the mass revocation, whose set must be complete.")],
    *,
    most: Annotated[int | None, typer.Option("--most", min=1, help="Only so many of the set; scaled up.")] = None,
    scratch: Annotated[Path | None, typer.Option("--scratch", help="Where the scratch folder is made.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
    json_: JsonOption = False,
) -> None:
    """Rehearses one on a scratch system with throw-away keys, times every stage, and says how long it will take."""
    deployment = context(config, state, set_)
    api = Api(deployment, deployment.config.admin, as_)
    job = api.get(f"{PATH}/{number}")
    if not job["certificates"]:
        raise QuashError("rehearsal.no_set", "the set is empty or not complete yet: see quash job show")
    lines = list(_lines(api, number, most or job["certificates"]))
    with tempfile.TemporaryDirectory(prefix="quash-rehearsal-", dir=scratch, ignore_cleanup_errors=True) as folder:
        stages = _run(Path(folder), deployment, lines, job["reason"])
    tell(api, job, len(lines), stages, as_json=json_)


def _lines(api: Api, number: int, most: int) -> Iterator[str]:
    """`issuer serial` of each certificate of the set."""
    after: str | None = ""
    while after is not None and most > 0:
        page = api.get(f"{PATH}/{number}/certificates?after={after}")
        some = page["lines"].splitlines()[:most]
        yield from some
        most, after = most - len(some), page["after"]


def _run(folder: Path, deployment: Context, lines: list[str], reason: str) -> Stages:
    # A whole deployment: database driver and processes, which other verbs do without.
    from quash.cli.scratch import Scratch  # noqa: PLC0415

    names = sorted({line.split()[0] for line in lines})
    with Scratch(folder, deployment.config, names) as system:
        return asyncio.run(_measure(system, lines, reason))


async def _measure(system: Scratch, lines: list[str], reason: str) -> Stages:
    """Seconds: of loading and preview each, and of the other stages since the start of the job."""
    from quash.cli.scratch import all_published, load  # noqa: PLC0415

    conn = await system.connect()
    try:
        began = time.monotonic()
        count = await load(conn, lines)
        stages: Stages = {"loaded": time.monotonic() - began}
        scratch = context(system.config, system.state.root, system.overrides)
        api = Api(scratch, scratch.config.admin)
        signed, applied = await system.metric(_SIGNED), await system.metric(_APPLIED)
        began = time.monotonic()
        job = await asyncio.to_thread(_prepared, api, lines, reason)
        stages["previewed"] = time.monotonic() - began
        began = time.monotonic()
        await asyncio.to_thread(api.post, f"{PATH}/{job['id']}/start", {})

        async def over() -> bool:
            return bool(await conn.fetchval("select state = 'done' from mass_job where id = $1", job["id"]))

        async def reached(name: str, least: float) -> bool:
            return bool(await system.metric(name) >= least)

        waits: tuple[tuple[str, Callable[[], Awaitable[bool]]], ...] = (
            ("revoked", over),
            ("signed", lambda: reached(_SIGNED, signed + count)),
            ("cached", lambda: reached(_APPLIED, applied + count)),
            ("published", lambda: all_published(conn)),
        )
        for name, done in waits:
            while not await done():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(_POLL)
            stages[name] = time.monotonic() - began
    finally:
        conn.terminate()
    return stages


def _prepared(api: Api, lines: list[str], reason: str) -> Any:
    """The same set as a list, by issuer: several may have given out a serial."""
    from quash.cli.job import prepare  # noqa: PLC0415 - which has this verb

    by_issuer: dict[str | None, list[str]] = {}
    for line in lines:
        name, serial = line.split()
        by_issuer.setdefault(name, []).append(serial)
    return prepare(api, {"list": True, "reason": reason}, by_issuer)


_SAID: Final = {
    "previewed": "set completed and previewed",
    "revoked": "revoked in the database",
    "signed": "signed, both hashes, in the feed",
    "cached": "in a node's cache",
    "published": "CRLs published",
}


def tell(api: Api, job: dict[str, Any], rehearsed: int, stages: Stages, *, as_json: bool) -> None:
    """Prints the stages, what they mean for the whole set, and whether that is in time."""
    scale = job["certificates"] / rehearsed
    forecast = scale * max(stages[name] for name in ("revoked", "signed", "cached", "published"))
    visible_at, deadline = datetime.now(UTC) + timedelta(seconds=forecast), _deadline(api, job)
    late = deadline is not None and visible_at > datetime.fromisoformat(deadline)
    said = {
        "mass_revocation": job["id"],
        "certificates": job["certificates"],
        "rehearsed": rehearsed,
        "stages": {name: round(stages[name], 2) for name in _SAID},
        "forecast_seconds": round(forecast, 2),
        "live_signing_seconds": job["signing_seconds"],
        "expected_at": visible_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "deadline": deadline,
        "late": late,
    }
    if as_json:
        print_json(said)
        return
    print(f"mass revocation {job['id']}: {rehearsed} of {job['certificates']} certificates rehearsed, none touched")
    for name, text in _SAID.items():
        print(f"  {text:34} after {stages[name]:8.1f} s  {rehearsed / max(stages[name], 0.001):10.0f} certificates/s")
    print(f"started now, all of it would be visible at {said['expected_at']}, after {forecast:.0f} s")
    if job["signing_seconds"] is not None:
        print(f"  signing alone: {job['signing_seconds']:.0f} s at the rate that the live presigner measured last")
    if deadline is not None:
        print(f"  due {deadline}: {'LATE' if late else 'in time'}")


def _deadline(api: Api, job: dict[str, Any]) -> str | None:
    """By which moment the job's case, or its pace, wants everything published."""
    if "case" in job["selection"]:
        return str(api.get(f"/v1/cases/{job['selection']['case']}")["publish_by"])
    return job["finish_by"]  # type: ignore[no-any-return]
