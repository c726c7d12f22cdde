"""What explicit commands work on."""

from __future__ import annotations

from dataclasses import dataclass

from issuer.signer.key_files import KeyFiles
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store.database import Pool


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment as its owner sees it. `pool` is of the role quash_owner, with room for four connections."""

    config: Config
    state: State
    pool: Pool
    clock: Clock

    @property
    def files(self) -> KeyFiles:
        return KeyFiles(self.config, self.state)

    def now(self) -> int:
        """Unix seconds."""
        return int(self.clock.now())
