"""A file system that is really full: no double of `write` fails where a disk does."""

from __future__ import annotations

import errno
import io
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own, which only root may mount."""
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    options = f"size={size},uid={os.getuid()}"
    subprocess.run([*root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run([*root, "umount", "--lazy", folder], check=True)


def grow(folder: Path, size: str) -> None:
    """More room on it."""
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*root, "mount", "-o", f"remount,size={size}", folder], check=True)


def fill(ballast: io.FileIO) -> None:
    """Until nothing more goes in."""
    try:
        while True:
            ballast.write(bytes(4096))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
