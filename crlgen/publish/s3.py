"""An object store that speaks S3: the publisher's contract by conditional requests."""

from __future__ import annotations

import configparser
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError
from obstore.store import S3Store

from crlgen.publish.folder import Publisher, conflict, failed
from quash.errors import QuashError
from quash.runtime.config import S3

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

_CONTENT_TYPES = {".crl": "application/pkix-crl", ".cer": "application/pkix-cert", ".json": "application/json"}  # B22
_MAX_AGE = 1800  # G1; the store cannot say stale-if-error until nextUpdate, so the cache in front must
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class S3Publisher:
    """A bucket that a CDN reads. Tags are the store's ETags.

    Replacing is `If-Match`, creating `If-None-Match: *`: of two writers one gets `publish.conflict`. Nothing is
    retried, by the library neither: a repeated conditional request whose first answer was lost looks like a conflict.
    After `publish.failed` the object may be the old one or the new one; read it.
    """

    def __init__(self, config: S3) -> None:
        """Raises `publish.credentials`, `publish.endpoint`."""
        self._store = S3Store(
            config.bucket,
            prefix=config.prefix or None,
            config=_settings(config),
            client_options=_client(config),
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=config.timeout)},
        )

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


class WithCopy:
    """A publisher whose files are also kept beside, for our own processes that look at what is published.

    The first is the truth and is written first; the copy follows, whatever state it was in.
    """

    def __init__(self, truth: Publisher, copy: Publisher) -> None:
        self._truth = truth
        self._copy = copy

    async def head(self, name: str) -> str | None:
        return await self._truth.head(name)

    async def get(self, name: str) -> tuple[bytes, str] | None:
        return await self._truth.get(name)

    async def put(self, name: str, body: bytes, replaces: str | None) -> str:
        tag = await self._truth.put(name, body, replaces)
        await self._copy.put(name, body, await self._copy.head(name))
        return tag


def _settings(config: S3) -> S3Config:
    settings: S3Config = {"region": config.region, "conditional_put": "etag"}
    if config.endpoint:
        settings["endpoint"] = config.endpoint
        settings["virtual_hosted_style_request"] = False
    if config.credentials_file is not None:
        settings["access_key_id"], settings["secret_access_key"] = _credentials(config.credentials_file)
    return settings


def _client(config: S3) -> ClientConfig:
    url = urlsplit(config.endpoint)
    if url.scheme == "http" and url.hostname not in _LOOPBACK:
        raise QuashError("publish.endpoint", "the object store must be reached by https, except on this machine")
    return {"allow_http": url.scheme == "http", "timeout": timedelta(seconds=config.timeout)}


def _credentials(file: Path) -> tuple[str, str]:
    """Key id and secret from the default profile of a file as the AWS command line keeps it."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
        return parser["default"]["aws_access_key_id"], parser["default"]["aws_secret_access_key"]
    except (OSError, KeyError, configparser.Error, UnicodeDecodeError):
        raise QuashError(
            "publish.credentials",
            f"{file} needs a section [default] with aws_access_key_id and aws_secret_access_key",
        ) from None
