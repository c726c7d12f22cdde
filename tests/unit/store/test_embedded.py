"""The embedded server: private, killed without loss, refused twice on one folder, gone with whoever started it."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from quash.errors import QuashError
from quash.runtime.state import State
from quash.store.acl import R, W, X, allowed
from quash.store.embedded import SUPERUSER, EmbeddedPostgres
from quash.store.passwords import read_password
from quash.store.service_user import ServiceUser, service_user
from tests.support.postgres import folder_for_servers

FAST = {"fsync": "off"}  # a killed process loses nothing that the kernel has


@pytest.fixture(scope="module")
def initialised() -> Iterator[Path]:
    """A state folder with an initialised, stopped server, to be copied."""
    with folder_for_servers() as folder:
        EmbeddedPostgres(State(folder), settings=FAST).initialise()
        yield folder


@pytest.fixture
def state(initialised: Path, server_folder: Path) -> State:
    """A copy of it for one test."""
    folder = server_folder / "var"
    subprocess.run(["cp", "-a", str(initialised), str(folder)], check=True)
    return State(folder)


def ask(state: State, *statements: str) -> Any:
    """Runs statements as the superuser, each committed on its own, and returns the last one's value."""

    async def run() -> Any:
        conn = await asyncpg.connect(
            host=str(state.run / "pg"), user=SUPERUSER, password=read_password(state, SUPERUSER), database="postgres"
        )
        try:
            for statement in statements[:-1]:
                await conn.execute(statement)
            return await conn.fetchval(statements[-1])
        finally:
            await conn.close()

    return asyncio.run(run())


@contextlib.contextmanager
def started(postgres: EmbeddedPostgres) -> Iterator[subprocess.Popen[bytes]]:
    """The server as a supervisor starts it; killed at the end."""
    with postgres.log.open("ab") as log:
        process = subprocess.Popen(postgres.command(), stdout=log, stderr=log, **postgres.spawn_arguments())
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        until(lambda: not postgres.running())


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.02)


def test_a_killed_server_recovers_what_was_committed(state: State) -> None:
    """kill -9 in the middle of an open transaction: the next start waits for recovery and has every commit."""
    postgres = EmbeddedPostgres(state, settings=FAST)
    with started(postgres) as process:
        postgres.wait_ready(lambda: process.poll() is None)
        ask(state, "create table t (id int)", "insert into t select generate_series(1, 1000) returning 1")
        process.kill()
        process.wait()
    with started(postgres) as process:
        postgres.wait_ready(lambda: process.poll() is None)
        assert ask(state, "select count(*) from t") == 1000


def test_a_second_server_is_refused_on_the_same_folder(state: State) -> None:
    """The second one ends and says why; the first one goes on."""
    postgres = EmbeddedPostgres(state, settings=FAST)
    with postgres.run():
        second = subprocess.run(
            postgres.command(), capture_output=True, text=True, timeout=20, check=False, **postgres.spawn_arguments()
        )
        assert second.returncode != 0
        assert 'lock file "postmaster.pid" already exists' in second.stderr
        assert ask(state, "select 1") == 1


def test_commands_that_overlap_share_one_server(state: State) -> None:
    """The second command uses the server of the first, and it stops when both are done."""
    first, second = EmbeddedPostgres(state, settings=FAST), EmbeddedPostgres(state, settings=FAST)
    with first.run():
        began = ask(state, "select pg_postmaster_start_time()")
        with second.run():
            assert ask(state, "select pg_postmaster_start_time()") == began
        assert first.running()
    assert not first.running()


def test_the_command_that_started_the_server_waits_for_the_others(state: State) -> None:
    """It stops the server only when nobody else works on it any more."""
    finish = multiprocessing.get_context("fork").Event()
    starter = multiprocessing.get_context("fork").Process(target=_run_until, args=(state, finish))
    starter.start()
    postgres = EmbeddedPostgres(state, settings=FAST)
    until(postgres.running)
    with postgres.run():
        finish.set()
        time.sleep(0.3)
        assert ask(state, "select 1") == 1
        assert starter.is_alive()
    starter.join(20)
    assert starter.exitcode == 0
    assert not postgres.running()


def _run_until(state: State, finish: Any) -> None:
    with EmbeddedPostgres(state, settings=FAST).run():
        finish.wait()


def test_the_server_ends_with_a_killed_supervisor(state: State) -> None:
    """SIGKILL of its parent: the server shuts down by itself, cleanly."""
    parent = multiprocessing.get_context("fork").Process(
        target=_run_until, args=(state, multiprocessing.get_context("fork").Event())
    )
    parent.start()
    postgres = EmbeddedPostgres(state, settings=FAST)
    until(postgres.running)
    postgres.wait_ready()
    assert parent.pid is not None
    os.kill(parent.pid, signal.SIGKILL)
    parent.join(20)
    until(lambda: not postgres.running())
    assert "database system is shut down" in postgres.log.read_text()


def test_an_initialisation_that_was_interrupted_begins_again(server_folder: Path) -> None:
    """A half-made data folder and a left password file are cleared away; a whole one is never touched."""
    state = State(server_folder / "var")
    half = state.pg / "data.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18")
    (state.pg / "data.password").write_text("left")
    postgres = EmbeddedPostgres(state, settings=FAST)
    postgres.initialise()
    made = (postgres.data / "PG_VERSION").stat().st_mtime_ns
    assert {path.name for path in state.pg.iterdir()} == {"data"}
    EmbeddedPostgres(state, settings=FAST).initialise()
    assert (postgres.data / "PG_VERSION").stat().st_mtime_ns == made


def test_folders_are_the_servers_alone(state: State) -> None:
    """Data and sockets can be entered by the server's user alone, who reads nothing else of the state."""
    postgres = EmbeddedPostgres(state, settings=FAST)
    with postgres.run():
        for folder in (postgres.data, postgres.socket_folder):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        sock = postgres.socket_folder / ".s.PGSQL.5432"
        assert stat.S_IMODE(sock.stat().st_mode) == 0o700
        user = service_user()
        if user is not None:
            assert {postgres.data.stat().st_uid, sock.stat().st_uid} == {user.uid}
            assert not allowed(state.secrets, user.uid, user.gid, X)
            assert not allowed(state.root.parent, user.uid, user.gid, R)


def test_a_state_below_private_folders_gets_ways_and_no_more(initialised: Path, server_folder: Path) -> None:
    """Folders that only we may enter stay unreadable to everybody: at most x, for the server's user, is added."""
    private = server_folder / "private"
    inner = private / "inner"
    inner.mkdir(parents=True)
    for folder in (private, inner):
        folder.chmod(0o700)
    subprocess.run(["cp", "-a", str(initialised), str(inner / "var")], check=True)
    state = State(inner / "var")
    with EmbeddedPostgres(state, settings=FAST).run():
        assert ask(state, "select 1") == 1
    user = service_user()
    for folder in (private, inner):
        assert folder.stat().st_mode & 0o777 == (0o710 if user else 0o700)
        assert not allowed(folder, 54321, 54321, X)
        if user is not None:
            assert not allowed(folder, user.uid, user.gid, R)
            assert not allowed(folder, user.uid, user.gid, W)


def test_a_file_system_without_access_lists_is_refused_with_what_to_do(
    server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`store.unreachable` names the folder and the command that helps."""
    folder = server_folder / "closed"
    folder.mkdir()
    folder.chmod(0o700)

    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", unsupported)
    with pytest.raises(QuashError, match="chmod o\\+x") as refused:
        ServiceUser(54321, 54321).reach(folder / "data")
    assert refused.value.code == "store.unreachable"


def test_programs_that_were_installed_privately_can_be_used(server_folder: Path) -> None:
    """An installation under umask 077: the server's user may read and run what is public anyway, and write nothing."""
    tree = server_folder / "pginstall"
    (tree / "bin").mkdir(parents=True)
    program, data = tree / "bin" / "postgres", tree / "postgres.bki"
    program.touch()
    data.touch()
    for path, mode in ((program, 0o700), (data, 0o600), (tree / "bin", 0o700), (tree, 0o700)):
        path.chmod(mode)
    user = ServiceUser(54321, 54321)
    user.use(tree)
    assert allowed(program, user.uid, user.gid, R | X)
    assert allowed(data, user.uid, user.gid, R)
    assert not allowed(data, user.uid, user.gid, X)
    assert not allowed(program, user.uid, user.gid, W)
    assert not allowed(tree, 54322, 54322, R)


def test_a_long_path_of_the_state_is_no_obstacle(initialised: Path, server_folder: Path) -> None:
    """Unix socket paths end at 107 octets; the state's own may be longer."""
    deep = server_folder / ("d" * 80) / ("e" * 80)
    deep.mkdir(parents=True)
    subprocess.run(["cp", "-a", str(initialised), str(deep / "var")], check=True)
    state = State(deep / "var")
    try:
        with EmbeddedPostgres(state, settings=FAST).run():
            assert ask(state, "select 1") == 1
    finally:
        shutil.rmtree(state.run, ignore_errors=True)


def test_a_server_that_cannot_start_says_why(state: State) -> None:
    """`store.not_started` carries the server's own last words."""
    postgres = EmbeddedPostgres(state, settings={**FAST, "shared_buffers": "nonsense"})

    def start() -> None:
        with postgres.run():
            pass

    with pytest.raises(QuashError, match="shared_buffers") as refused:
        start()
    assert refused.value.code == "store.not_started"


def test_a_number_that_went_to_another_process_is_not_a_running_server(state: State) -> None:
    """After a crash the old process number may be anybody's: here it is ours."""
    postgres = EmbeddedPostgres(state, settings=FAST)
    (postgres.data / "postmaster.pid").write_text(f"{os.getpid()}\n" + "x\n" * 6 + "ready\n")
    assert not postgres.running()


def test_an_ordinary_user_runs_its_own_server(server_folder: Path) -> None:
    """Nothing needs root: the server runs as whoever starts it. As root, we try it as the server's user."""
    user = service_user()
    home = server_folder / "home"
    home.mkdir()
    if user is not None:
        EmbeddedPostgres(State(server_folder / "roots"), settings=FAST)._open_ways()  # to the programs
        user.reach(home / "var")
        user.own(home)
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()
    child = context.Process(target=_as_ordinary, args=(user, home / "var", said))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    uid, answer = said.get()
    assert uid != 0
    assert answer == "postgres"


def _as_ordinary(user: ServiceUser | None, folder: Path, said: Any) -> None:
    if user is not None:
        os.setgroups([])
        os.setgid(user.gid)
        os.setuid(user.uid)
    state = State(folder)
    with EmbeddedPostgres(state, settings=FAST).run():
        said.put((state.pg.joinpath("data").stat().st_uid, ask(state, "select current_user::text")))
