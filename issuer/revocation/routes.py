"""What every group of the admin API's routes shares: who may ask, what a body may say, pool and clock."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, StringConstraints

from quash.runtime.clock import Clock
from quash.store.database import Pool
from quash.store.operators import ROLES

EVERYONE: Final = ROLES
"""Of the CA's own staff."""
MAY_REVOKE: Final = ("operator", "officer")
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class Body(BaseModel):
    """Unknown names are errors, so that a misspelt one never changes the meaning."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Routes:
    """The handlers of some routes; each begins with who may ask."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    @property
    def _now(self) -> int:
        """Unix seconds, as everything is recorded."""
        return int(self._clock.now())
