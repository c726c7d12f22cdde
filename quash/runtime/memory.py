"""Memory of processes that copy whole CRLs, and of those that handle certificates by thousands."""

from __future__ import annotations

import ctypes
import gc

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of malloc.h
_ALL = 1 << 30
_COLLECT_AFTER = (50_000, 20, 20)  # Python's own: 700, 10, 10


def keep_freed_memory() -> None:
    """From now on, freed memory stays with this process, also for its other threads. Without glibc: nothing changes.

    A CRL of a million entries has 49 MB, which glibc by itself maps anew for each copy and unmaps after it. The kernel
    then clears and maps page after page, which costs four times as much as the copying.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _ALL), (_ARENA_MAX, 1)):
            mallopt(parameter, value)


def collect_rarely() -> None:
    """What there is now is never looked through for cyclic garbage again, and what comes is, more rarely.

    Thousands of rows at once, none of them garbage, have Python look through them again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
