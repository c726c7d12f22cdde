"""SoftHSM2 tokens: made, filled, pulled out and put back.

The library reads its configuration once a process, so all tokens of a run lie in one folder; tests take tokens of their
own from it.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from quash.keys import KeyKind, KeyUnavailable, ensure_successor
from quash.keys.library import RESTART_EVERY

T = TypeVar("T")
MODULE = "/usr/lib/softhsm/libsofthsm2.so"
SPY = next(Path("/usr/lib").rglob("pkcs11-spy.so"), Path("/none"))
PIN = "4711-softhsm"
_numbers = itertools.count(1)


@cache
def _home() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="quash-softhsm-", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "tokens").mkdir()
    (folder / "logins").mkdir()
    conf = folder / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(conf)
    return folder


def logins() -> Path:
    """Where the processes of a run tell each other of refused PINs."""
    return _home() / "logins"


@dataclass(frozen=True)
class Token:
    """An initialised token. `pin_file` holds its PIN."""

    label: str
    folder: Path
    pin_file: Path

    @property
    def uri(self) -> str:
        """The token alone, as `keys.*_token` has it."""
        return (
            f"pkcs11:token={quote(self.label)}?module-path={quote(MODULE)}&pin-source=file:{quote(str(self.pin_file))}"
        )

    def key(self, label: str) -> str:
        """The reference of a key."""
        return self.uri.replace("?", f";object={quote(label)}?", 1)

    def make_key(self, label: str, kind: KeyKind = "ec-p256") -> str:
        """Has a key pair made, as `quash init` does; the reference of the key."""
        return patiently(lambda: ensure_successor(self.uri, label, kind, Path("/"), None, logins=logins()))

    def load(self, pem: Path, label: str, number: int) -> None:
        """Puts an unencrypted PKCS#8 key on the token."""
        where = ("--token", self.label, "--pin", PIN, "--label", label, "--id", f"{number:02x}")
        subprocess.run(["softhsm2-util", "--import", pem, *where], check=True, capture_output=True)

    def put_pin(self, secret: str) -> None:
        """Another PIN's file, in place of the one there was."""
        draft = self.pin_file.with_suffix(".new")
        draft.touch(0o600)
        draft.write_text(secret + "\n")
        draft.rename(self.pin_file)

    def pull_out(self) -> None:
        self.folder.rename(self._away)

    def put_back(self) -> None:
        self._away.rename(self.folder)

    @contextmanager
    def away(self) -> Iterator[None]:
        self.pull_out()
        try:
            yield
        finally:
            self.put_back()

    @property
    def _away(self) -> Path:
        return self.folder.parents[1] / f"away-{self.folder.name}"


@dataclass(frozen=True)
class Spy:
    """OpenSC's spy between SoftHSM2 and the processes that have `environment`: what they call stands in `log`."""

    log: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"PKCS11SPY": MODULE, "PKCS11SPY_OUTPUT": str(self.log)}

    def ref(self, ref: str) -> str:
        """The same key, through the spy."""
        return ref.replace(quote(MODULE), quote(str(SPY)))

    def calls(self, function: str) -> int:
        """By all of them so far."""
        return self.log.read_text().count(f": {function}\n") if self.log.exists() else 0


def patiently(work: Callable[[], T]) -> T:
    """As processes do, that try again: a library finds a token that is new to it only when it is started anew."""
    deadline = time.monotonic() + 20 * RESTART_EVERY
    while True:
        try:
            return work()
        except KeyUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def make_token() -> Token:
    """A new token with a label of its own."""
    home, label = _home(), f"quash-{next(_numbers)}"
    before = set((home / "tokens").iterdir())
    pins = ("--pin", PIN, "--so-pin", f"so-{PIN}")
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", label, *pins], check=True, capture_output=True
    )
    (folder,) = set((home / "tokens").iterdir()) - before
    pin_file = home / f"{label}.pin"
    pin_file.write_text(PIN + "\n")
    return Token(label, folder, pin_file)
