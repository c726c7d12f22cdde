"""An object store that speaks S3: the publisher's contract by conditional requests."""

from __future__ import annotations

from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError

from crlgen.publish.folder import conflict, failed
from quash.runtime.config import S3
from quash.runtime.object_store import open_bucket

_CONTENT_TYPES = {".crl": "application/pkix-crl", ".cer": "application/pkix-cert", ".json": "application/json"}  # B22
_MAX_AGE = 1800  # G1; the store cannot say stale-if-error until nextUpdate, so the cache in front must


class S3Publisher:
    """A bucket that a CDN reads. Tags are the store's ETags.

    Replacing is `If-Match`, creating `If-None-Match: *`: of two writers one gets `publish.conflict`. Nothing is
    retried, by the library neither: a repeated conditional request whose first answer was lost looks like a conflict.
    After `publish.failed` the object may be the old one or the new one; read it.
    """

    def __init__(self, config: S3) -> None:
        """Raises `publish.credentials`, `publish.endpoint`."""
        self._store = open_bucket(config)

    async def head(self, name: str) -> str | None:
        try:
            return (await obstore.head_async(self._store, name))["e_tag"]
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as error:
            raise failed(name, error) from error

    async def get(self, name: str) -> tuple[bytes, str] | None:
        try:
            found = await obstore.get_async(self._store, name)
            return bytes(await found.bytes_async()), found.meta["e_tag"] or ""
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as error:
            raise failed(name, error) from error

    async def put(self, name: str, body: bytes, replaces: str | None) -> str:
        attributes = {"Cache-Control": f"public, max-age={_MAX_AGE}"}
        if kind := _CONTENT_TYPES.get(Path(name).suffix):
            attributes["Content-Type"] = kind
        try:
            done = await obstore.put_async(
                self._store,
                name,
                body,
                attributes=attributes,
                mode="create" if replaces is None else {"e_tag": replaces},
                use_multipart=False,
            )
        except (AlreadyExistsError, PreconditionError, NotFoundError, FileExistsError, FileNotFoundError) as error:
            raise conflict(name) from error  # 404: what it should replace is gone
        except (BaseError, OSError) as error:
            raise failed(name, error) from error
        return done["e_tag"] or ""
