"""What of the issuing back-end's helpers is on this machine, and whether what the configuration names works."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, Literal

from issuer.checks import adapters
from issuer.checks.blocklist import Blocklist
from issuer.checks.registries import Registries
from issuer.ct.submit import CtLogs
from quash.errors import QuashError
from quash.runtime.clock import Clock
from quash.runtime.config import Config, ExternalLinter
from quash.runtime.state import State

_LINTERS: Final = ("zlint", "certlint", "cablint", "x509lint", "pkimetal")
"""Programs that can be configured under `lint.external` (D48)."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`ok`, `absent` (nobody asked for it, or nothing depends on it) or `bad` (the configuration counts on it)."""

    what: str
    state: Literal["ok", "absent", "bad"]
    detail: str


async def examine(config: Config, state: State, clock: Clock) -> AsyncIterator[Diagnosis]:
    """Looks at each helper in turn; has the configured linters look at a sample."""
    for package in ("pkilint", "badkeys", "publicsuffixlist"):
        yield Diagnosis(package, "ok", version(package))
    for linter in config.lint.external:
        yield await _linter(linter)
    for linter in config.self_audit.linters:
        if linter not in config.lint.external:
            yield await _auditor(config, linter)
    linters = (*config.lint.external, *config.self_audit.linters)
    # By its name too: cablint may be run by ruby, pkimetal is asked by curl.
    configured = {name for each in linters for name in (each.name, each.command[0].rpartition("/")[2])}
    for name in _LINTERS:
        if name not in configured:
            where = adapters.find_program(name)
            yield Diagnosis(name, "absent", f"{where}: add it to lint.external" if where else "not on this machine")
    if not config.checks.blocklists:
        yield Diagnosis("blocklists", "absent", "checks.blocklists is empty: Debian's and other known keys pass (D42)")
    for each in config.checks.blocklists:
        try:
            yield Diagnosis(f"blocklist {each.name}", "ok", f"{len(Blocklist(each.file, each.kind))} keys")
        except QuashError as error:
            yield Diagnosis(f"blocklist {each.name}", "bad", str(error))
    yield _names(config, state, clock)
    yield _logs(config, state, clock)
    for root in _without_sites(config):
        yield Diagnosis(f"test sites of {root}", "absent", "testsite.sites names none of this root (F13)")


async def _linter(linter: ExternalLinter) -> Diagnosis:
    try:
        return Diagnosis(linter.name, "ok", f"{await adapters.try_out(linter)} ({adapters.found_at(linter)})")
    except QuashError as error:
        return Diagnosis(linter.name, "bad", str(error))


async def _auditor(config: Config, linter: ExternalLinter) -> Diagnosis:
    """Issuance does without it, but an audit does not; a demonstration may have none."""
    if adapters.found_at(linter) is None and not config.issuance.require_validation:
        return Diagnosis(linter.name, "absent", "not on this machine: quash self-audit needs it (F12)")
    return await _linter(linter)


def _without_sites(config: Config) -> Iterator[str]:
    """Roots above a CA that issues for TLS."""
    parents = {each.name: each.parent for each in config.issuers}
    shown = {each.root for each in config.testsite.sites}
    for profile in config.profiles:
        if config.kinds[profile.kind].type != "tls":
            continue
        root = profile.issuer
        while (above := parents[root]) is not None:
            root = above
        if root not in shown:
            shown.add(root)
            yield root


def _names(config: Config, state: State, clock: Clock) -> Diagnosis:
    try:
        registries = Registries(state.root / "names")
        registries.check_age(config.names.max_age_days * 86_400, int(clock.now()))
    except QuashError as error:
        # Where nothing is validated, old names do no harm.
        return Diagnosis("names", "bad" if config.issuance.require_validation else "absent", error.message)
    return Diagnosis("names", "ok", ", ".join(registries.published))


def _logs(config: Config, state: State, clock: Clock) -> Diagnosis:
    if not config.ct.log_list:
        return Diagnosis("ct logs", "bad" if config.ct.required else "absent", "ct.log_list is empty (E6)")
    try:
        CtLogs(config.ct, state.root / config.ct.log_list, clock).check()
    except QuashError as error:
        return Diagnosis("ct logs", "bad", str(error))
    return Diagnosis("ct logs", "ok", config.ct.log_list)
