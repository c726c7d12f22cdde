"""The checkpoints in a bucket: one object each, created and never replaced.

Give the ledger's process the right to create objects there and to list them, nobody the right to delete, and let the
bucket keep versions or lock objects: then whoever owns the database and this machine cannot change what was signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from quash.errors import Kind, QuashError
from quash.runtime.config import S3
from quash.runtime.object_store import open_bucket
from quash.store.ledger import CheckpointRow

_NAME: Final = "checkpoint-{:012}.json"
CONTRADICTED: Final = "ledger.contradicts_checkpoint"


class CheckpointBucket:
    """One writer at a time: the holder of the ledger's lease. Raises `publish.credentials`, `publish.endpoint`."""

    def __init__(self, config: S3) -> None:
        self._store = open_bucket(config)

    async def last(self) -> int:
        """The greatest number in the bucket; 0: none. Raises `ledger.bucket_unavailable`."""
        try:
            newest = 0
            async for page in obstore.list(self._store):
                newest = max(newest, *(_number(meta["path"]) for meta in page))
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error
        return newest

    async def append(self, rows: Sequence[CheckpointRow]) -> None:
        """Raises `ledger.contradicts_checkpoint` when a number has another line, `ledger.bucket_unavailable`."""
        for row in rows:
            name, line = _NAME.format(row.number), row.line.encode()
            try:
                await obstore.put_async(self._store, name, line, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError) as error:
                if await self._get(name) != line:
                    message = f"the bucket has another checkpoint {row.number}: find out which of them was forged"
                    raise QuashError(CONTRADICTED, message, Kind.CONFLICT) from error
            except (BaseError, OSError) as error:
                raise _unavailable(error) from error

    async def lines(self) -> list[bytes]:
        """All of them, in the order of their numbers. Raises `ledger.bucket_unavailable`."""
        try:
            names = [meta["path"] async for page in obstore.list(self._store) for meta in page]
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error
        return [await self._get(name) for name in sorted(names) if _number(name)]

    async def _get(self, name: str) -> bytes:
        try:
            return bytes(await (await obstore.get_async(self._store, name)).bytes_async())
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error


def _number(path: str) -> int:
    """Of an object; 0: it is none of ours."""
    digits = path.rpartition("/")[2].removeprefix("checkpoint-").removesuffix(".json")
    return int(digits) if digits.isdecimal() and path.endswith(_NAME.format(int(digits))) else 0


def _unavailable(error: Exception) -> QuashError:
    return QuashError("ledger.bucket_unavailable", f"the bucket for checkpoints: {error}"[:300], Kind.UNAVAILABLE)
