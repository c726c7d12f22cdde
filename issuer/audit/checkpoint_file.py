"""The checkpoints outside the database: one line each, appended and never rewritten.

Copy the file to where the database's administrators cannot reach (append-only storage, another machine): whatever was
chained before its last line cannot change unnoticed any more.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from issuer.audit.chain import Checkpoint

NAME: Final = "checkpoints.jsonl"


class CheckpointFile:
    """One writer at a time: the holder of the ledger's lease."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def last(self) -> Checkpoint | None:
        """The newest checkpoint; cuts off what a crash left of a line. Raises `ledger.malformed`, OSError."""
        if not self.path.exists():
            return None
        body = self.path.read_bytes()
        whole = body[: body.rfind(b"\n") + 1]
        if whole != body:
            os.truncate(self.path, len(whole))
        lines = whole.splitlines()
        return Checkpoint.parse(lines[-1]) if lines else None

    def append(self, line: bytes) -> None:
        """Returns when the line is on the disk. Raises OSError."""
        new = not self.path.exists()
        with self.path.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if new:
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
