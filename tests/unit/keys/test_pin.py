"""A wrong PIN is tried once by all processes of a machine together, across restarts (G43): real ones lock after three.

Logins are counted at the token's door, by OpenSC's spy between the process and SoftHSM2.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from quash.keys import KeyUnavailable, open_key, pin
from quash.keys.pin import Pin
from tests.support.small_disk import fill, small_disk
from tests.support.softhsm import MODULE, PIN, Spy, Token, make_token

WRONG = "1234"


@dataclass(frozen=True)
class Door:
    """A token with a key `k`, processes that log in to it, and how often anybody did."""

    token: Token
    logins: Path

    @property
    def spy(self) -> Spy:
        return Spy(self.logins.parent / "spy.log")

    @property
    def calls(self) -> int:
        return self.spy.calls("C_Login")

    @property
    def record(self) -> Path:
        (found,) = self.logins.iterdir()
        return found

    def start(self, count: int) -> list[str]:
        """So many processes open the key at the same moment: what each of them got."""
        environment = os.environ | self.spy.environment
        code = _OPEN.format(ref=self.spy.ref(self.token.key("k")), logins=str(self.logins))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        begun = [
            subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, **pipes) for _ in range(count)
        ]
        for each in begun:
            assert each.stdout is not None
            assert each.stdout.readline() == "there\n"
        for each in begun:
            assert each.stdin is not None
            each.stdin.write("now\n")
            each.stdin.flush()
        return [each.communicate(timeout=60)[0].strip() for each in begun]

    def prove_by_hand(self) -> None:
        where = ("--module", MODULE, "--token-label", self.token.label, "--login", "--pin", PIN)
        subprocess.run(["pkcs11-tool", *where, "--list-objects"], check=True, capture_output=True)


_OPEN = """
from pathlib import Path
from quash.errors import QuashError
from quash.keys import open_key
print("there", flush=True)
input()
try:
    open_key({ref!r}, Path("/"), None, logins=Path({logins!r})).sign(b"x")
    print("opened")
except QuashError as error:
    print(error.code)
"""


@pytest.fixture
def door(tmp_path: Path) -> Door:
    token = make_token()
    token.make_key("k")
    (tmp_path / "run").mkdir()
    return Door(token, tmp_path / "run")


def test_processes_that_start_together(door: Door) -> None:
    """One try by four at once, none by those that are started again, and the right PIN works at once and for all."""
    door.token.put_pin(WRONG)
    assert door.start(4) == ["key.login_failed"] * 4
    assert door.calls == 1
    assert door.start(2) == ["key.login_failed"] * 2
    assert door.calls == 1
    door.token.put_pin(PIN)
    assert door.start(2) == ["opened"] * 2
    assert door.calls == 3


def test_a_file_that_always_looks_new(door: Door) -> None:
    """As a service manager's credentials do: two tries in all, then a person's proof, who is told how."""
    for _ in range(4):
        door.token.put_pin(WRONG)
        answer = door.start(1)
    assert answer == ["key.pin_suspect"]
    assert door.calls == pin.MOST
    door.token.put_pin(PIN)
    assert door.start(1) == ["key.pin_suspect"]
    door.prove_by_hand()
    door.record.unlink()
    assert door.start(1) == ["opened"]


def test_somebody_elses_failure(door: Door) -> None:
    """The token counts a failed login that is none of ours: it may have been this PIN, so a person proves it first."""
    where = ("--token", door.token.label, "--pin", WRONG, "--label", "x", "--id", "77")
    subprocess.run(["softhsm2-util", "--import", "/dev/null", *where], check=False, capture_output=True)
    assert open_code(door) == "key.pin_suspect"
    door.prove_by_hand()
    assert open_code(door) == "opened"


def test_what_is_written_down(door: Door) -> None:
    """The record says nothing of the PIN, and the error says what to do, and where."""
    door.token.put_pin(WRONG)
    for _ in range(2):
        with pytest.raises(KeyUnavailable, match="put the right one there") as caught:
            open_key(door.token.key("k"), Path("/"), None, logins=door.logins)
        assert str(door.token.pin_file) in str(caught.value)
        assert WRONG not in str(caught.value)
    told = door.record.read_bytes()
    assert WRONG.encode() not in told
    assert not any(hashlib.new(name, WRONG.encode()).hexdigest().encode() in told for name in ("sha256", "sha1", "md5"))
    assert door.record.stat().st_mode & 0o022 == 0


def test_the_right_pin_by_now(door: Door) -> None:
    """The token's PIN was changed to what the file says: the file is touched, as the error says."""
    door.token.put_pin("9999-later")
    assert open_code(door) == "key.login_failed"
    where = ("--module", MODULE, "--token-label", door.token.label, "--login", "--pin", PIN)
    subprocess.run(["pkcs11-tool", *where, "--change-pin", "--new-pin", "9999-later"], check=True, capture_output=True)
    assert door.start(1) == ["key.login_failed"]
    door.token.pin_file.touch()
    assert door.start(1) == ["opened"]


def test_a_full_disk(door: Door) -> None:
    """No PIN is tried that could not be remembered as refused; with room it is."""
    with small_disk(door.logins, "64k"):
        with (door.logins / "ballast").open("wb", buffering=0) as ballast:
            fill(ballast)
            assert open_code(door) == "key.login_record"
        (door.logins / "ballast").unlink()
        assert open_code(door) == "opened"


def open_code(door: Door) -> str:
    try:
        open_key(door.token.key("k"), Path("/"), None, logins=door.logins).close()
    except KeyUnavailable as error:
        return error.code
    return "opened"


@pytest.fixture
def place(tmp_path: Path) -> Pin:
    (tmp_path / "run").mkdir()
    (tmp_path / "pin").write_text(PIN + "\n")
    return Pin(tmp_path / "pin", tmp_path / "run")


def test_a_login_that_never_ended(place: Pin) -> None:
    """Killed while the token was asked, it counts: a library that crashes on a PIN must not spend them all."""
    for _ in range(pin.MOST):
        with place.turn(b"serial", "a") as turn:
            assert not turn.spent
            turn.begin()
    with place.turn(b"serial", "a") as turn:
        assert turn.spent
    with place.turn(b"other", "b") as turn:
        assert not turn.spent


def test_a_token_that_was_away(place: Pin) -> None:
    """It has not looked at the PIN: as often as it likes."""
    for _ in range(2 * pin.MOST):
        with place.turn(b"serial", "a") as turn:
            assert not turn.spent
            turn.begin()
            turn.not_tried()


def test_a_token_that_hangs(place: Pin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for its turn gives up after some seconds and says why."""
    monkeypatch.setattr(pin, "WAIT", 0.1)
    with place.turn(b"serial", "a"), refused("key.login_busy"), place.turn(b"serial", "a"):
        pass


@pytest.mark.parametrize("body", [b"{", b'{"tries": 1}', b"[]", b"\0"])
def test_a_damaged_record(place: Pin, body: bytes) -> None:
    """Nobody knows what it told: a person proves the PIN and removes it."""
    with place.turn(b"serial", "a"):
        pass
    (record,) = place.records.iterdir()
    record.write_bytes(body)
    with refused("key.login_record"), place.turn(b"serial", "a"):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
def test_whose_record_it_is(shared: Path) -> None:
    """Made by root's command it is the service's, who has the PIN; a stranger's is believed by nobody."""
    place = Pin(shared / "pin", shared)
    (shared / "pin").write_text(PIN + "\n")
    (shared / "pin").chmod(0o400)
    os.chown(shared / "pin", 4711, 4711)
    with place.turn(b"serial", "a") as turn:
        turn.begin()
        turn.refused()
    (record,) = shared.glob("login-*")
    assert (record.stat().st_uid, record.stat().st_mode & 0o777) == (4711, 0o600)
    with user(4711), place.turn(b"serial", "a") as turn:
        assert turn.refused_at is not None
        turn.succeeded()
    with place.turn(b"serial", "a") as turn:  # as root again, in a folder where the kernel protects others' files
        assert turn.refused_at is None
    os.chown(record, 4712, 4712)
    with refused("key.login_record"), place.turn(b"serial", "a"):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
def test_a_pin_that_is_given_away_later(shared: Path) -> None:
    """`quash init` by root with a PIN of root's, who gives it to the service afterwards: the service has its turn."""
    place = Pin(shared / "pin", shared)
    (shared / "pin").write_text(PIN + "\n")
    (shared / "pin").chmod(0o400)
    with place.turn(b"serial", "a") as turn:
        turn.begin()
        turn.succeeded()
    os.chown(shared / "pin", 4711, 4711)
    with user(4711), place.turn(b"serial", "a") as turn:
        turn.begin()
        turn.refused()
    (record,) = shared.glob("login-*")
    os.chown(record, 0, 0)
    with user(4711), refused("key.login_record", "remove it"), place.turn(b"serial", "a"):
        pass


def test_who_waited_for_a_record_that_was_removed(place: Pin) -> None:
    """Two that lock different files under one name would both try the PIN: the one that waited takes the new file."""
    with ThreadPoolExecutor() as waiting:
        with place.turn(b"serial", "a") as turn:
            turn.begin()
            later = waiting.submit(_take_turn, place)
            time.sleep(0.1)
            turn.path.unlink()
        assert later.result(timeout=5) == turn.path.stat().st_ino


def _take_turn(place: Pin) -> int:
    with place.turn(b"serial", "a") as turn:
        turn.begin()
        return os.fstat(turn._descriptor).st_ino


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder where everybody may write, and nobody may remove another's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o1777)
        yield Path(name)


@contextmanager
def user(uid: int) -> Iterator[None]:
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def refused(code: str, remedy: str = "") -> Iterator[None]:
    with pytest.raises(KeyUnavailable, match=remedy or None) as caught:
        yield
    assert caught.value.code == code


def test_locks_end_with_their_process(place: Pin) -> None:
    """A turn is an flock: it cannot be left behind."""
    with place.turn(b"serial", "a"):
        (record,) = place.records.iterdir()
        with record.open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with record.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
