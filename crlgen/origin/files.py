"""The files that the origin serves: which names are served, and what each file's headers say.

Everything derived from a file's octets is computed once per state of the file. A file is opened once per answer and
read through that handle, so an answer is whole although the publisher renames a new file over it meanwhile.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from quash.errors import QuashError
from quash.pki.crl import read_crl

# B22, RFC 5280 4.2.2.1
CONTENT_TYPES = {".crl": "application/pkix-crl", ".cer": "application/pkix-cert", ".json": "application/json"}
# The arrays for CCADB have a path of their own outside (B23).
_WELL_KNOWN = re.compile(r"/\.well-known/(ccadb/[A-Za-z0-9][A-Za-z0-9-]*(\.json))", re.ASCII)
# Plain names only, nothing decoded: a path with `..`, `%`, `//` or a hidden part names no file.
_PATH = re.compile(r"/((?:[A-Za-z0-9][A-Za-z0-9._-]*/)*[A-Za-z0-9][A-Za-z0-9._-]*(\.crl|\.cer))", re.ASCII)


@dataclass(frozen=True, slots=True)
class Meta:
    """What an answer says about a file. Times are Unix seconds; `next_update` is None for certificates."""

    content_type: str
    size: int
    etag: str
    last_modified: int
    next_update: int | None


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that was opened for one answer; `state` changes with its octets, `modified` is in Unix seconds."""

    name: str
    suffix: str
    file: io.FileIO
    state: tuple[int, int, int]
    modified: int


class Files:
    """The files below one folder, with what is known about each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[tuple[int, int, int], Meta]] = {}

    def open(self, path: str) -> Opened | None:
        """The file that a request path (without query) names; None when there is none. No octet of it is read."""
        match = _PATH.fullmatch(path) or _WELL_KNOWN.fullmatch(path)
        if not match:
            return None
        name, suffix = match.groups()
        try:
            # No symbolic link is followed, and opening a FIFO that somebody left there must not hang.
            fd = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._known.pop(name, None)
            return None
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            return None
        return Opened(
            name, suffix, io.FileIO(fd), (found.st_ino, found.st_mtime_ns, found.st_size), int(found.st_mtime)
        )

    def known(self, opened: Opened) -> Meta | None:
        """What is known of a file in this state; None: `read` it, in a thread."""
        known = self._known.get(opened.name)
        return known[1] if known is not None and known[0] == opened.state else None

    def read(self, opened: Opened) -> Meta:
        """Reads a file that is new or has changed, and remembers what its answers say. Blocks on the disk."""
        body = opened.file.readall()
        meta = _describe(opened.suffix, body, opened.modified)
        self._known[opened.name] = (opened.state, meta)
        return meta


def _describe(suffix: str, body: bytes, modified: int) -> Meta:
    """Last-Modified of a CRL is its thisUpdate, the same on every origin; a file we cannot read has its own time."""
    next_update = None
    if suffix == ".crl":
        try:
            crl = read_crl(body)
            modified, next_update = crl.this_update, crl.next_update
        except QuashError:
            next_update = modified  # damaged: the builder replaces it within seconds, so let nobody keep it
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    return Meta(CONTENT_TYPES[suffix], len(body), etag, modified, next_update)
