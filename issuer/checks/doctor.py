"""What of the issuing back-end's helpers is on this machine, and whether what the configuration names works."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, Literal

from issuer.checks import adapters
from issuer.checks.blocklist import Blocklist
from issuer.checks.registries import Registries
from issuer.ct.submit import CtLogs
from quash.errors import QuashError
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.runtime.state import State

_LINTERS: Final = ("zlint", "certlint", "cablint", "x509lint", "pkimetal")
"""Programs that can be configured under `lint.external` (D48)."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`ok`, `absent` (nobody asked for it) or `bad` (the configuration counts on it)."""

    what: str
    state: Literal["ok", "absent", "bad"]
    detail: str


async def examine(config: Config, state: State, clock: Clock) -> AsyncIterator[Diagnosis]:
    """Looks at each helper in turn; starts the configured linters once, for their version."""
    for package in ("pkilint", "badkeys", "publicsuffixlist"):
        yield Diagnosis(package, "ok", version(package))
    for linter in config.lint.external:
        try:
            yield Diagnosis(linter.name, "ok", f"{await adapters.version(linter)} ({adapters.found_at(linter)})")
        except QuashError as error:
            yield Diagnosis(linter.name, "bad", str(error))
    configured = {linter.command[0].rpartition("/")[2] for linter in config.lint.external}
    for name in _LINTERS:
        if name not in configured:
            where = adapters.find_program(name)
            yield Diagnosis(name, "absent", f"{where}: add it to lint.external" if where else "not on this machine")
    for each in config.checks.blocklists:
        try:
            yield Diagnosis(f"blocklist {each.name}", "ok", f"{len(Blocklist(each.file, each.kind))} keys")
        except QuashError as error:
            yield Diagnosis(f"blocklist {each.name}", "bad", str(error))
    yield _names(config, state, clock)
    yield _logs(config, state, clock)


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
