"""Changes of the configuration are noticed by themselves, and told (G22, NSR 3.2.2), whoever made them.

At the start: what comes into force against what was in force on this host before; the difference is an act, and with it
each profile that comes or goes (F1). While running: what the files say against what is in force; a difference is a
metric with an alarm from the first look on, and an act, once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
from prometheus_client import Gauge

from quash.errors import QuashError
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.store import acts, configurations
from quash.store.database import Pool, acquire

ACTOR: Final = "process:issuer"
_BY_NAME: Final = ("kinds", "issuers", "profiles")
"""Sections whose members are parts of their own."""

_PENDING: Final = Gauge("quash_configuration_changed", "1: the files differ from what is in force, or cannot be read")


def parts(config: Config) -> Mapping[str, str]:
    """Digests by the part's name: a section, or one profile or CA (`kinds/dv`, `issuers/root`)."""
    found: dict[str, str] = {}
    for section, value in config.model_dump(mode="json").items():
        if section in _BY_NAME:
            members = value.values() if isinstance(value, Mapping) else value
            found |= {f"{section}/{each['name']}": _digest(each) for each in members}
        else:
            found[section] = _digest(value)
    return found


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, list[str]]:
    """Names of the parts that differ; empty where none does."""
    told = {
        "added": sorted(after.keys() - before.keys()),
        "changed": sorted(name for name in after.keys() & before.keys() if after[name] != before[name]),
        "removed": sorted(before.keys() - after.keys()),
    }
    return {how: names for how, names in told.items() if names}


class Watch:
    """Looks after one process's configuration. `read`: what the files say now; raises `config.*`."""

    def __init__(self, pool: Pool, config: Config, read: Callable[[], Config], host: str, clock: Clock) -> None:
        self._pool = pool
        self._in_force = parts(config)
        self._read = read
        self._host = host
        self._clock = clock
        self._told: dict[str, Any] = {}

    async def begin(self) -> bool:
        """Whether what comes into force differs from what was; then it is an act."""
        async with acquire(self._pool) as conn, conn.transaction():
            found = changes(await configurations.newest(conn, self._host), self._in_force)
            if found:
                act_id = await acts.record(
                    conn,
                    at=int(self._clock.now()),
                    actor=ACTOR,
                    action="configuration.in_force",
                    subject={"host": self._host, **found},
                )
                await configurations.add(conn, self._host, self._in_force, act_id)
        return bool(found)

    async def look(self) -> bool:
        """Whether the files differ from what is in force; each difference is an act, the first time."""
        try:
            found: dict[str, Any] = changes(self._in_force, parts(self._read()))
        except QuashError as error:
            found = {"unreadable": error.code}
        _PENDING.set(bool(found))
        if found and found != self._told:
            async with acquire(self._pool) as conn:
                await acts.record(
                    conn,
                    at=int(self._clock.now()),
                    actor=ACTOR,
                    action="configuration.changed",
                    subject={"host": self._host, **found},
                )
        self._told = found
        return bool(found)


def _digest(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()
