"""A PKCS#11 library in this process: called by one thread at a time, one login a token, started anew after a loss.

python-pkcs11 starts a library with C_Initialize(NULL), by which an application promises to call it from one thread at a
time; SoftHSM2 then fails with CKR_GENERAL_ERROR when two threads sign at once. So one lock goes around every call. Who
wants signatures side by side takes processes (`presign.workers`), whatever the number of sessions.

A library keeps what it knew of a token that was pulled out and put back: its old objects, or none. So after any failure
the next opening starts the library anew (C_Finalize, C_Initialize). That ends the sessions of its other tokens too, and
their handles may by then mean somebody else's: `generation` tells their owners, who open again before they sign.

A wrong PIN is tried once, by whatever process of this machine (`pin`): a token locks itself after a few.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pkcs11
from pkcs11.constants import TokenFlag

from quash.keys.handle import KeyUnavailable
from quash.keys.pin import MOST, Pin, Turn
from quash.keys.uri import TokenKey, describe

RESTART_EVERY = 1.0
"""Seconds between two starts of a library: a token that stays away must not keep the others from signing."""

_PIN_ERRORS = (
    pkcs11.PinIncorrect,
    pkcs11.PinInvalid,
    pkcs11.PinLenRange,
    pkcs11.PinLocked,
    pkcs11.exceptions.PinExpired,
)


@dataclass
class _Login:
    """Whatever its number of sessions; the last to leave logs out."""

    session: pkcs11.Session
    users: int = 0


@dataclass(frozen=True)
class Opened:
    """A session below the process's login, and the generation of the library that it belongs to."""

    session: pkcs11.Session
    token: pkcs11.Token
    generation: int


class Library:
    """One shared library. `lock` is held around everything that calls it."""

    def __init__(self, path: str) -> None:
        self.lock = threading.RLock()
        self.generation = 0
        self._path = path
        self._logins: dict[bytes, _Login] = {}  # by the token's serial: token objects compare by identity
        self._failed = False
        self._started = float("-inf")

    def open(self, where: TokenKey, pin: Pin, *, writable: bool = False) -> Opened:
        """A session of its own on the token that a reference names; logs in when nobody is. Raises `KeyUnavailable`."""
        with self.lock:
            if self._failed:
                self._restart(where)
            try:
                return self._open(where, pin, writable=writable)
            except pkcs11.PKCS11Error as error:  # perhaps it came back since the library last looked
                if not self._restart(where):
                    raise unavailable(where, error) from None
            try:
                return self._open(where, pin, writable=writable)
            except pkcs11.PKCS11Error as error:
                raise unavailable(where, error) from None

    def close(self, opened: Opened) -> None:
        """Ends a session, and the login with the last one. Nothing is done to what a restart has ended."""
        with self.lock:
            if opened.generation != self.generation:
                return
            _quietly(opened.session.close)
            login = self._logins[opened.token.serial]
            login.users -= 1
            if login.users == 0:
                del self._logins[opened.token.serial]
                _quietly(login.session.close)

    def failed(self) -> None:
        """Something that was open failed: the next opening starts anew."""
        self._failed = True

    @contextmanager
    def session(self, where: TokenKey, pin: Pin, *, writable: bool = False) -> Iterator[pkcs11.Session]:
        """A session for a moment, with the library to itself. Raises `KeyUnavailable`."""
        with self.lock:
            opened = self.open(where, pin, writable=writable)
            try:
                yield opened.session
            except pkcs11.PKCS11Error as error:
                self.failed()
                raise unavailable(where, error) from None
            finally:
                self.close(opened)

    def _open(self, where: TokenKey, pin: Pin, *, writable: bool) -> Opened:
        token = self._find(where)
        login = self._logins.get(token.serial) or self._log_in(where, token, pin)
        session = token.open(rw=writable)
        login.users += 1
        return Opened(session, token, self.generation)

    def _find(self, where: TokenKey) -> pkcs11.Token:
        library = pkcs11.lib(self._path)
        found = [token for token in library.get_tokens() if _is_meant(where, library, token)]
        if not found:
            raise pkcs11.exceptions.NoSuchToken("no such token")
        if len(found) > 1:
            raise pkcs11.exceptions.MultipleTokensReturned("more than one token")
        return found[0]

    def _log_in(self, where: TokenKey, token: pkcs11.Token, pin: Pin) -> _Login:
        with pin.turn(token.serial, token.label) as turn:
            token = self._find(where)  # its flags are of before the turn: whoever logged in meanwhile changed them
            _check_tries_left(token, turn, pin)
            secret = turn.begin()
            try:
                login = _Login(token.open(user_pin=secret))
            except _PIN_ERRORS as error:
                turn.refused()
                raise KeyUnavailable(
                    f"token {token.label}: login failed ({type(error).__name__}); the PIN in {pin.file} is not tried"
                    " again by any process, put the right one there",
                    "key.login_failed",
                ) from None
            except pkcs11.PKCS11Error:
                turn.not_tried()
                raise
            turn.succeeded()
        self._logins[token.serial] = login
        return login

    def _restart(self, where: TokenKey) -> bool:
        """C_Finalize and C_Initialize; False: the last time was a moment ago."""
        if time.monotonic() < self._started + RESTART_EVERY:
            return False
        self._started = time.monotonic()
        self.generation += 1
        self._logins.clear()
        self._failed = False
        try:
            pkcs11.lib(self._path).reinitialize()
        except pkcs11.PKCS11Error as error:
            raise unavailable(where, error) from None
        return True


def _check_tries_left(token: pkcs11.Token, turn: Turn, pin: Pin) -> None:
    """Whether a login may be tried at all; the last tries before a lock-out are a person's."""
    if token.flags & TokenFlag.USER_PIN_LOCKED:
        raise KeyUnavailable(
            f"token {token.label}: its PIN is locked; the token's security officer must set it anew", "key.pin_locked"
        )
    if turn.refused_at is not None:
        raise KeyUnavailable(
            f"token {token.label}: the PIN in {pin.file} was refused at {turn.refused_at} and is not tried again; put"
            " the right one there, or touch the file if it is right by now",
            "key.login_failed",
        )
    if turn.spent:
        raise KeyUnavailable(
            f"token {token.label}: {MOST} logins failed; log in once by hand with the PIN in {pin.file} (pkcs11-tool"
            f" --login), then remove {turn.path}",
            "key.pin_suspect",
        )
    # Somebody's login failed: on another machine with this very file, perhaps. We know better only when it was one of
    # ours, and the file is another one since.
    low = token.flags & TokenFlag.USER_PIN_COUNT_LOW and not turn.refused_before
    if low or token.flags & TokenFlag.USER_PIN_FINAL_TRY:
        raise KeyUnavailable(
            f"token {token.label}: the last login failed; check the PIN in {pin.file}, then log in once by hand"
            " with it (pkcs11-tool --login), which clears the token's count",
            "key.pin_suspect",
        )


_libraries: dict[str, Library] = {}
_libraries_lock = threading.Lock()


def library(path: str) -> Library:
    """The process's one `Library` of a path."""
    with _libraries_lock:
        return _libraries.setdefault(path, Library(path))


def unavailable(where: TokenKey, error: Exception) -> KeyUnavailable:
    return KeyUnavailable(f"{describe(where)}: {type(error).__name__}; is the token there and initialised?")


def _version(library: Any) -> str:
    major, minor = library.library_version
    return f"{major}.{minor}"


_TOKEN_ATTRIBUTES: Mapping[str, Callable[[Any, pkcs11.Token], str]] = {
    "token": lambda _, token: str(token.label),
    "serial": lambda _, token: token.serial.decode("utf-8", "replace").strip(),
    "manufacturer": lambda _, token: str(token.manufacturer_id),
    "model": lambda _, token: str(token.model),
    "slot-id": lambda _, token: str(token.slot.slot_id),
    "slot-description": lambda _, token: str(token.slot.slot_description),
    "slot-manufacturer": lambda _, token: str(token.slot.manufacturer_id),
    "library-manufacturer": lambda library, _: str(library.manufacturer_id),
    "library-description": lambda library, _: str(library.library_description),
    "library-version": lambda library, _: _version(library),
}
"""RFC 7512 section 2.3: attributes of the path that say which token."""


def _is_meant(where: TokenKey, library: Any, token: pkcs11.Token) -> bool:
    return all(_TOKEN_ATTRIBUTES[name](library, token).rstrip() == value for name, value in where.token)


def _quietly(close: Callable[[], None]) -> None:
    """A token that is gone cannot be closed, and need not be."""
    try:
        close()
    except pkcs11.PKCS11Error:
        return
