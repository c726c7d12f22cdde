"""A bucket of an object store that speaks S3, as the configuration names it."""

from __future__ import annotations

import configparser
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.store import S3Store

from quash.errors import QuashError
from quash.runtime.config import S3

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def open_bucket(config: S3) -> S3Store:
    """Writes are conditional where the caller says so, and nothing is retried: a repeated conditional request whose

    first answer was lost looks like a conflict. Raises `publish.credentials`, `publish.endpoint`.
    """
    return S3Store(
        config.bucket,
        prefix=config.prefix or None,
        config=_settings(config),
        client_options=_client(config),
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=config.timeout)},
    )


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
