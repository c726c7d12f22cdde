"""Fetching the lists of names, by explicit command: what does not read as such a list, or is older, changes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import aiohttp

from issuer.checks.registries import ROOT_ZONE, SUFFIXES, read_list
from quash.errors import Kind, QuashError
from quash.runtime.config import Names

_MOST: Final = 16 << 20
_TIMEOUT: Final = aiohttp.ClientTimeout(total=120)


async def refresh(config: Names, folder: Path) -> Mapping[str, int]:
    """Fetches both lists into `folder`; returns when each was published (Unix seconds).

    Raises `names.unreachable`, `names.malformed`, `names.older`.
    """
    folder.mkdir(mode=0o755, exist_ok=True)
    found = {}
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        for name, url in ((SUFFIXES, config.public_suffixes_url), (ROOT_ZONE, config.root_zone_url)):
            text = (await _fetch(session, url)).decode("utf-8", "replace")
            published = read_list(name, text).published
            path = folder / name
            if path.exists() and read_list(name, path.read_text(encoding="utf-8")).published > published:
                raise QuashError("names.older", f"{url} is older than what is there: it was kept", Kind.REFUSED)
            fresh = path.with_suffix(".new")
            fresh.write_text(text, encoding="utf-8")
            os.replace(fresh, path)
            found[name] = published
    return found


async def _fetch(session: aiohttp.ClientSession, url: str) -> bytes:
    try:
        async with session.get(url) as response:
            body = await response.content.read(_MOST)
            while chunk := await response.content.read(_MOST - len(body) + 1):
                body += chunk
                if len(body) > _MOST:
                    break
            if response.status != 200 or len(body) > _MOST:
                raise QuashError("names.unreachable", f"{url}: HTTP {response.status}", Kind.UNAVAILABLE)
            return body
    except (aiohttp.ClientError, TimeoutError) as error:
        said = str(error) or type(error).__name__
        raise QuashError("names.unreachable", f"{url}: {said}", Kind.UNAVAILABLE) from None
