"""Signing in processes of their own: refreshes, imports and mass jobs use every core; news keep this process's thread.

Each process opens the keys that it is asked to use, by the same references, and ends with this one. They are spawned:
a key handle never crosses a fork.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from quash.errors import Kind, QuashError
from quash.runtime.memory import collect_rarely
from quash.runtime.process import die_with
from quash.store.ocsp_signers import OcspSigner
from quash.store.statuses import CertificateStatus
from responder.presign.desk import Keys, OpenKey
from responder.presign.signing import Batch

_keys: Keys | None = None


class SigningCrew:
    """A `Desk` over `size` processes: as many batches are signed at once, and come back in any order.

    `open_key` is pickled for them. A process that dies spoils what the crew was signing (`presign.crew_lost`); the next
    batch starts a new crew.
    """

    def __init__(self, open_key: OpenKey, size: int) -> None:
        self._open_key = open_key
        self._size = size
        self.at_once = size + 1  # one waits, so that no process does
        self._pool: ProcessPoolExecutor | None = None

    async def sign(
        self,
        signer: OcspSigner,
        issuer_certificate: bytes,
        statuses: Sequence[CertificateStatus],
        as_of: int,
        validity: int,
    ) -> Batch:
        """Records of one issuer's statuses; see `RecordSigner.sign`."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._size, multiprocessing.get_context("spawn"), _begin, (self._open_key, os.getpid())
            )
        pool = self._pool
        try:
            columns = tuple(zip(*statuses, strict=True))  # pickled in a fifth of the time that tuples of a class take
            return await asyncio.wrap_future(pool.submit(_sign, signer, issuer_certificate, columns, as_of, validity))
        except BrokenProcessPool:
            if self._pool is pool:
                self._pool = None
                pool.shutdown(wait=False, cancel_futures=True)
            raise QuashError(
                "presign.crew_lost",
                "a signing process died: see the kernel's log; the batch is signed again",
                Kind.UNAVAILABLE,
            ) from None

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)


def _begin(open_key: OpenKey, parent: int) -> None:
    global _keys  # noqa: PLW0603 - the one thing that a signing process has
    die_with(parent)
    logging.disable(logging.CRITICAL)
    collect_rarely()
    _keys = Keys(open_key)


def _sign(
    signer: OcspSigner, issuer_certificate: bytes, columns: tuple[tuple[Any, ...], ...], as_of: int, validity: int
) -> Batch:
    assert _keys is not None  # noqa: S101 - `_begin` ran
    statuses = list(map(CertificateStatus._make, zip(*columns, strict=True)))
    try:
        return _keys.sign(signer, issuer_certificate, statuses, as_of, validity)
    except QuashError as error:
        raise _portable(error) from None


def _portable(error: QuashError) -> QuashError:
    """An error of the family that can be pickled: exceptions are made again from their `args` alone."""
    made = QuashError(error.code, error.message, error.kind)
    made.args = (error.code, error.message, error.kind)
    return made
