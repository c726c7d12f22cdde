"""Memory of processes that copy whole CRLs: what they free is kept for the next one.

A million entries are 49 MB, which glibc by itself maps anew for each copy and unmaps after it. The kernel then clears
and maps page after page, which costs four times as much as the copying.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of malloc.h
_ALL = 1 << 30


def keep_freed_memory() -> None:
    """From now on, freed memory stays with this process, also for its other threads. Without glibc: nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _ALL), (_ARENA_MAX, 1)):
            mallopt(parameter, value)
