"""`quash job`: mass revocations, from their preview to their end, and emergency switches of signers.

`quash revoke` and `quash signer switch` make them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from quash.cli import switches
from quash.cli.approve import tell_proposal
from quash.cli.client import Api, read_file
from quash.cli.common import (
    JsonOption,
    print_json,
)
from quash.cli.rehearsal import rehearse
from quash.cli.verbs import asks_admin
from quash.errors import Kind, QuashError

job_app = typer.Typer(no_args_is_help=True, add_completion=False)

NumberArgument = Annotated[int, typer.Argument(help="Number of the mass revocation.")]
JobArgument = Annotated[str, typer.Argument(help="Number of a mass revocation, or switch-NUMBER.")]
PerSecondOption = Annotated[
    float | None, typer.Option("--per-second", help="Pace: at most so many certificates a second.")
]
FinishByOption = Annotated[
    str | None, typer.Option("--finish-by", help="Pace: evenly, so that all is published by then (RFC 3339).")
]
PATH: Final = "/v1/mass-revocations"
_PART: Final = 10_000
_POLL: Final = 0.5  # seconds
_REST: Final = (
    9  # times what an answer took: what of millions is unsigned is counted anew for each, beside their signing
)
_OVER: Final = ("done", "aborted")
_TOLD: Final = 20  # serials that are named in an error
_GATHERED_WITHIN: Final = 3600.0
_TIMEOUT: Final = 120.0


@job_app.command("list")
@asks_admin()
def list_(
    api: Api,
    *,
    json_: JsonOption = False,
) -> None:
    """Lists switches of signers and mass revocations, each newest first."""
    for each in (*_pages(api, switches.PATH, "switches"), *_pages(api, PATH, "mass_revocations")):
        if json_:
            print_json(each)
        elif "buckets" in each:
            print(switches.line(each))
        else:
            of = "?" if each["certificates"] is None else each["certificates"]
            progress = f"{each['state']:10} {each['done']} of {of}"
            print(f"{each['id']:>10} {progress}, {each['reason']}, {each['created_at']}")


def _pages(api: Api, path: str, name: str) -> Iterator[dict[str, Any]]:
    page = api.get(path)
    yield from page[name]
    while page["before"] is not None:
        page = api.get(f"{path}?before={page['before']}")
        yield from page[name]


@job_app.command("show")
@asks_admin()
def show(
    api: Api,
    job: JobArgument,
    *,
    json_: JsonOption = False,
) -> None:
    """Shows one: its preview, and how far it is."""
    if switches.is_switch(job):
        switches.tell(api, job, as_json=json_)
    else:
        tell(api.get(f"{PATH}/{_number(job)}"), as_json=json_)


@job_app.command("watch")
@asks_admin()
def watch(
    api: Api,
    job: JobArgument,
) -> None:
    """Follows one with a progress bar until it is over and signed; to stop watching does not stop it."""
    follow(api, job)


def _number(job: str) -> int:
    try:
        return int(job)
    except ValueError:
        raise QuashError("mass.unknown", f"{job!r} is no job: give a number, or switch-NUMBER") from None


@job_app.command("export")
@asks_admin()
def export(
    api: Api,
    number: NumberArgument,
    out: Annotated[Path, typer.Option("--out", help="A line `issuer serial` each.")],
) -> None:
    """Writes the set to a file, whose SHA-256 is the one that the second officer approves."""
    after, digest = "", hashlib.sha256()
    with out.open("wb") as file:
        while after is not None:
            page = api.get(f"{PATH}/{number}/certificates?after={after}")
            file.write(page["lines"].encode())
            digest.update(page["lines"].encode())
            after = page["after"]
    print(digest.hexdigest())


@job_app.command("start")
@asks_admin()
def start(
    api: Api,
    number: NumberArgument,
    *,
    json_: JsonOption = False,
) -> None:
    """Starts one that was previewed; above the limit this is a proposal to the second officer."""
    begin(api, number, as_json=json_)


def _command(name: str, what: str) -> None:
    def command(api: Api, number: NumberArgument, *, json_: JsonOption = False) -> None:
        tell(api.post(f"{PATH}/{number}/{name}", {}), as_json=json_)

    command.__doc__ = what
    job_app.command(name)(asks_admin()(command))


job_app.command("rehearse")(rehearse)
_command("pause", "Pauses before the next batch.")
_command("resume", "Goes on with a paused one.")
_command("abort", "Ends one for ever before its next batch; what is revoked stays revoked.")


@job_app.command("pace")
@asks_admin()
def set_pace(
    api: Api,
    number: NumberArgument,
    *,
    per_second: PerSecondOption = None,
    finish_by: FinishByOption = None,
    json_: JsonOption = False,
) -> None:
    """Sets the pace from the next batch on; without an option: as fast as it can."""
    tell(api.post(f"{PATH}/{number}/pace", pace_of(per_second, finish_by)), as_json=json_)


def pace_of(per_second: float | None, finish_by: str | None) -> dict[str, Any]:
    """A pace as the API takes it."""
    given = {"per_second": per_second, "finish_by": None if finish_by is None else period(finish_by)}
    return {name: value for name, value in given.items() if value is not None}


def prepare(
    api: Api, asked: dict[str, Any], serials: Mapping[str | None, Sequence[str]], *, skip_unknown: bool = False
) -> Any:
    """Makes a mass revocation, sends its list if it has one (by issuer; None: of whoever), and waits for its preview.

    Raises `mass.unknown_serials`, `mass.ambiguous_serials`; nothing is revoked, and the draft is aborted.
    """
    number = api.post(PATH, asked)["id"]
    if asked.get("list"):
        try:
            for issuer, some in serials.items():
                _send(api, number, some, issuer, skip_unknown=skip_unknown)
        except BaseException:
            api.post(f"{PATH}/{number}/abort", {})
            raise
        api.post(f"{PATH}/{number}/gather", {})
    deadline = time.monotonic() + _GATHERED_WITHIN
    while (job := api.get(f"{PATH}/{number}"))["state"] == "gathering":
        if time.monotonic() > deadline:
            raise QuashError("mass.not_gathered", "the set is not complete yet: quash job show tells", Kind.UNAVAILABLE)
        time.sleep(_POLL)
    return job


def _send(api: Api, number: int, serials: Sequence[str], issuer: str | None, *, skip_unknown: bool) -> None:
    for begin_ in range(0, len(serials), _PART):
        body = {"serials": list(serials[begin_ : begin_ + _PART]), "issuer": issuer}
        said = api.post(f"{PATH}/{number}/certificates", body, timeout=_TIMEOUT)
        if said["ambiguous"]:
            raise QuashError(
                "mass.ambiguous_serials", f"several issuers have {_some(said['ambiguous'])}: name one with --issuer"
            )
        if said["unknown"] and not skip_unknown:
            raise QuashError(
                "mass.unknown_serials",
                f"no certificate has {_some(said['unknown'])}: correct the list, or leave them out with --skip-unknown",
            )


def _some(serials: Sequence[str]) -> str:
    more = f" and {len(serials) - _TOLD} more" if len(serials) > _TOLD else ""
    return ", ".join(serials[:_TOLD]) + more


def begin(api: Api, number: int, *, as_json: bool) -> bool:
    """Starts it; False: a second officer must approve first, which is said."""
    said = api.post(f"{PATH}/{number}/start", {})
    if "proposed_by" in said:
        tell_proposal(said, as_json=as_json)
        return False
    tell(said, as_json=as_json)
    return True


def follow(api: Api, number: int | str) -> Any:
    """A progress bar on stderr until it is over and, of a mass revocation, all is signed; returns how it ended."""
    path = switches.path(str(number)) if switches.is_switch(str(number)) else f"{PATH}/{_number(str(number))}"
    job, took = _timed(api, path)
    total = "buckets" if "buckets" in job else "certificates"
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[eta]}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(job["state"], total=job[total], eta="")
        while job["state"] not in _OVER or job.get("to_sign"):
            signing = job["state"] in _OVER
            progress.update(
                task,
                completed=job["done"] - (job["to_sign"] if signing else 0),
                total=job[total],
                description="signing" if signing else job["state"],
                eta=_time_left(job),
            )
            time.sleep(max(_POLL, _REST * took))
            job, took = _timed(api, path)
        progress.update(task, completed=job["done"], description=job["state"], eta="")
    return job


def _timed(api: Api, path: str) -> tuple[Any, float]:
    """The job, and the seconds that the answer took."""
    began = time.monotonic()
    return api.get(path), time.monotonic() - began


def _time_left(job: Mapping[str, Any]) -> str:
    """Until it is done and, at the measured rate, signed; empty: nobody can tell, or it stands still."""
    known = [job["seconds_left"]] if job["state"] not in _OVER else []
    if None in known:
        return ""
    known += [each for each in (job.get("signing_seconds"),) if each is not None]
    return f"{switches.duration(max(known))} left" if known else ""


def tell(job: dict[str, Any], *, as_json: bool) -> None:
    """Prints a mass revocation, its preview, and what to do next."""
    if as_json:
        print_json(job)
        return
    print(f"mass revocation {job['id']}: {job['state']}, {job['reason']}, {job['done']} of {job['certificates']} done")
    if job["to_sign"]:
        print(f"  {job['to_sign']} of them are yet to be signed for OCSP: quash job watch {job['id']} follows that")
    preview = job["preview"]
    if preview is None:
        return
    for issuer, count in preview["issuers"].items():
        print(f"  {issuer}: {count} certificates")
    print(f"  siblings among them: {job['siblings']}; revoked already: {preview['revoked_before']}")
    if job["exempt"]:
        print(f"  exempt by officers' decision: {job['exempt']}")
    for each in preview["exempt"]:
        print(f"    {each['issuer']} {each['serial']}: exemption {each['exemption']}")
    for each in preview["scopes"]:
        print(f"  CRL {each['issuer']} {each['scope']}: {each['entries']} entries, {each['bytes'] / 1e6:.1f} MB then")
    if job["signing_seconds"] is not None:
        print(f"  signing: {switches.duration(job['signing_seconds'])} at the rate measured last")
    print(f"  SHA-256 of the set: {job['sha256']}")
    if job["max_per_second"] is not None or job["finish_by"] is not None:
        wanted = f"by {job['finish_by']}" if job["finish_by"] else f"{job['max_per_second']:g} a second"
        print(f"  pace: {wanted}; expected {job['expected_at'] or '-'}{', LATE' if job['late'] else ''}")
    if job["state"] == "ready":
        officers = "; two officers must agree" if job["needs_approval"] else ""
        print(f"  to begin: quash job start {job['id']}{officers}")


def period(text: str) -> str:
    """One end of a period as the API takes it: RFC 3339, or a date, which means its first moment in UTC."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise QuashError("mass.bad_time", f"{text!r}: give a date or a time as RFC 3339") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()


def serials_of(file: Path) -> list[str]:
    """The serials of a file, one a line; empty lines and those that begin with # say nothing."""
    lines = (line.strip() for line in read_file(file).decode("utf-8", "replace").splitlines())
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise QuashError("mass.empty_list", f"{file} names no certificate")
    return found
