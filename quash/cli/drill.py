"""`quash drill`: what is promised of bad days, shown on the running system."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import orjson
import typer

from quash.cache import environment as files
from quash.cache.layout import IssuerRow, decode_record, split_key
from quash.cache.writer import read_catalog
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
from quash.errors import Kind, QuashError
from quash.pki.certid import CertId, CertIdHash, issuer_hashes
from quash.pki.ocsp_reading import parse_response
from quash.pki.ocsp_request import build_request
from quash.runtime import control

drill_app = typer.Typer(no_args_is_help=True, add_completion=False)

HoldOption = Annotated[list[str] | None, typer.Option(help="follower, presigner or postgres; without: one by one.")]

_SETTLES_WITHIN = 30.0  # seconds from a limit until every worker shows the state behind it
_RECOVERS_WITHIN = 120.0
_POLL = 0.25
_LOOKS = 6  # in a row, each on a connection of its own, so that every worker is likely to be among them


@dataclass(frozen=True)
class Shown:
    """What strangers are told about a good, a revoked and an unknown certificate, and what a load balancer is."""

    good: str
    revoked: str
    unknown: str
    ready: bool


FRESH = Shown("good", "revoked", "unauthorized", True)
STATES = {
    "fresh": FRESH,
    "stale": Shown("good", "revoked", "try_later", True),
    "unready": Shown("good", "revoked", "try_later", False),
    "too_old": Shown("try_later", "revoked", "try_later", False),
}
"""Design, section 5: a miss is no answer any more, then no load balancer sends anybody, then `good` ends."""


@dataclass(frozen=True)
class Step:
    """One state, with what was held, and the seconds since then; `as_promised`: whether it was shown in time."""

    held: str
    state: str
    seconds: float
    shown: Shown
    as_promised: bool


@drill_app.callback()
def drills() -> None:
    """Stops parts of the running system, and looks whether it keeps its promises."""


@drill_app.command("stale")
@reports_errors
def stale(
    *,
    hold: HoldOption = None,
    longest: Annotated[float, typer.Option(help="Seconds; states that come later than this are left out.")] = 600,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Stops follower, presigner and database in turn, and looks whether each state of the cache is served as promised.

    Exit status 1 when one is not. Needs `drills.allowed`, a good and a revoked certificate, and limits that are short
    enough to wait for.
    """
    deployment = context(config, state, set_)
    if not deployment.config.drills.allowed:
        raise QuashError("drill.not_allowed", "drills.allowed is false in this configuration", Kind.REFUSED)
    wrong = asyncio.run(_stale(deployment, hold or _holdable(deployment), longest, json_))
    if wrong:
        raise QuashError("drill.failed", f"{wrong} states were not served as promised", Kind.INTERNAL)


def _holdable(deployment: Context) -> list[str]:
    return ["follower", "presigner", *([] if deployment.config.database.url else ["postgres"])]


async def _stale(deployment: Context, held: Sequence[str], longest: float, json_: bool) -> int:
    wrong = 0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        look = Look(session, deployment, _examples(deployment.state.cache))
        async for step in _drill(look, deployment, held, longest):
            wrong += not step.as_promised
            if json_:
                print_json(asdict(step))
            else:
                what = "  ".join(f"{name}: {value}" for name, value in asdict(step.shown).items())
                verdict = "as promised" if step.as_promised else "NOT AS PROMISED"
                print(f"without {step.held:10} {step.state:8} after {step.seconds:6.1f} s  {what}  {verdict}")
    return wrong


async def _drill(look: Look, deployment: Context, held: Sequence[str], longest: float) -> AsyncIterator[Step]:
    limits = deployment.config.responder
    behind = {"stale": limits.fresh_seconds, "unready": limits.unready_seconds, "too_old": limits.good_seconds}
    states = [state for state, seconds in behind.items() if seconds <= longest]
    if not states:
        raise QuashError("drill.too_long", f"responder.fresh_seconds is beyond --longest ({longest:.0f} s)")
    socket = deployment.state.run / "supervisor.sock"
    total = behind[states[-1]] + 2 * _SETTLES_WITHIN
    for name in held:
        yield await look.until(name, "fresh", time.monotonic(), _RECOVERS_WITHIN)
        began = time.monotonic()
        await control.hold(socket, name, total)
        try:
            for state in states:
                yield await look.until(name, state, began, behind[state] + _SETTLES_WITHIN)
        finally:
            await control.resume(socket, name)
        yield await look.until(name, "fresh", time.monotonic(), _RECOVERS_WITHIN)


class Look:
    """Looks at the system from outside, as relying parties and load balancers do."""

    def __init__(self, session: aiohttp.ClientSession, deployment: Context, examples: dict[str, bytes]) -> None:
        self._session = session
        self._deployment = deployment
        self._examples = examples

    async def until(self, held: str, state: str, began: float, within: float) -> Step:
        """Looks until a state is shown everywhere, or time is over."""
        in_a_row = 0
        while True:
            shown = await self._shown()
            in_a_row = in_a_row + 1 if shown == STATES[state] else 0
            seconds = time.monotonic() - began
            if in_a_row == _LOOKS or seconds > within:
                return Step(held, state, round(seconds, 1), shown, in_a_row == _LOOKS)
            if not in_a_row:
                await asyncio.sleep(_POLL)

    async def _shown(self) -> Shown:
        said = {name: await self._ask(request) for name, request in self._examples.items()}
        return Shown(said["good"], said["revoked"], said["unknown"], await self._ready())

    async def _ask(self, request: bytes) -> str:
        config = self._deployment.config.responder
        url = f"http://{config.host}:{config.port}/"
        try:
            async with self._session.post(url, data=request, headers={"Connection": "close"}) as answer:
                parsed = parse_response(await answer.read())
        except (aiohttp.ClientError, TimeoutError):
            return "silence"
        if parsed.status is None:
            return parsed.outer
        return "good" if parsed.status.reason is None else "revoked"

    async def _ready(self) -> bool:
        """Whether every responder says that it may be sent requests."""
        config = self._deployment.config.metrics
        async with self._session.get(f"http://{config.host}:{config.port}/readyz") as answer:
            reports: dict[str, Any] = orjson.loads(await answer.read())
        return all(report["ready"] for name, report in reports.items() if name.startswith("responder-"))


def _examples(cache: Path) -> dict[str, bytes]:
    """Requests about a good, a revoked and an unknown certificate; raises `drill.no_example`."""
    environment = files.open_for_reading(cache)
    found: dict[str, bytes] = {}
    try:
        with environment.env.begin() as txn:
            issuers = read_catalog(txn, environment).issuers
            for key, value in txn.cursor(db=environment.records):
                (issuer_id, serial), record = split_key(key), decode_record(value)
                if record.next_update > time.time():
                    found["good" if record.reason is None else "revoked"] = _request(issuers[issuer_id], serial)
                    found["unknown"] = _request(issuers[issuer_id], b"\1" + secrets.token_bytes(19))
                if len(found) == 3:
                    return found
    finally:
        environment.close()
    raise QuashError("drill.no_example", "issue two certificates and revoke one: a drill asks about both")


def _request(issuer: IssuerRow, serial: bytes) -> bytes:
    hashed = issuer_hashes(issuer.subject, issuer.spki, CertIdHash.SHA256)
    return build_request(CertId(CertIdHash.SHA256, *hashed, serial))
