"""Whether the terminal that this process was started from has gone away: the kernel says so by SIGHUP, as people do."""

from __future__ import annotations

import os


class Terminal:
    """The controlling terminal at the time when this was made, if there was one."""

    def __init__(self) -> None:
        self._had_one = _has_one()

    @property
    def hung_up(self) -> bool:
        """It was there, and is no more."""
        return self._had_one and not _has_one()


def _has_one() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
