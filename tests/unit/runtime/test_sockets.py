"""Unix sockets of a crashed process are replaced, those of a living one are left alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import socket
import struct
from pathlib import Path

import pytest

from quash.errors import QuashError
from quash.runtime import rpc
from quash.runtime.config import Config
from quash.runtime.process import Process, health_endpoint
from quash.runtime.sockets import clear_socket
from quash.runtime.state import State


async def echo(header: rpc.Header, body: bytes) -> tuple[rpc.Header, bytes]:
    return header, body


async def test_a_living_process_keeps_its_sockets(server_folder: Path) -> None:
    """A second one is refused, for requests and for health, and the first is asked on as if nothing had happened."""
    process = Process("ca-signer", Config(), State(server_folder))
    path = process.state.run / "ca-signer.sock"
    server = await rpc.serve(path, echo, max_body=10)
    async with server, health_endpoint(process):
        with pytest.raises(QuashError, match=r"process\.running"):
            await rpc.serve(path, echo, max_body=10)
        with pytest.raises(QuashError, match=r"process\.running"):
            async with health_endpoint(Process("ca-signer", Config(), State(server_folder))):
                pass
        assert await rpc.call(path, {"said": 1}, b"x", timeout=5) == ({"said": 1}, b"x")
        reader, writer = await asyncio.open_unix_connection(process.health_socket)
        writer.write(b"GET /livez HTTP/1.0\r\n\r\n")
        assert b"200" in await reader.readline()
        writer.close()


async def test_lines_stay_open_between_requests_and_are_made_anew_after_a_restart(server_folder: Path) -> None:
    """As many as requests are under way; a process that was started again gets a new one at once."""
    path, met = server_folder / "x.sock", set()

    async def who(header: rpc.Header, body: bytes) -> tuple[rpc.Header, bytes]:
        met.add(asyncio.current_task())  # each connection has its task
        await asyncio.sleep(header["seconds"])
        return header, body

    with contextlib.closing(rpc.Lines(path)) as lines:
        for _ in range(2):
            met.clear()
            async with await rpc.serve(path, who, max_body=10):
                for _ in range(3):
                    await lines.call({"seconds": 0}, timeout=5)
                assert len(met) == 1
                await asyncio.gather(*(lines.call({"seconds": 0.1}, b"x", timeout=5) for _ in range(3)))
                assert len(met) == 3
                for task in met:
                    task.cancel()
            await asyncio.sleep(0.1)
        with pytest.raises(QuashError, match=r"rpc\.unavailable"):
            await lines.call({"seconds": 0}, timeout=5)


async def test_an_answer_that_nobody_waited_for_reaches_nobody_else(server_folder: Path) -> None:
    """A line whose request was given up is not used again: its answer would be taken for the next one's."""
    path = server_folder / "x.sock"

    async def slow(header: rpc.Header, body: bytes) -> tuple[rpc.Header, bytes]:
        await asyncio.sleep(header["seconds"])
        return header, body

    async with await rpc.serve(path, slow, max_body=10):  # from Python 3.12 on it waits for the lines to be closed
        with contextlib.closing(rpc.Lines(path)) as lines:
            await lines.call({"seconds": 0}, b"warm", timeout=5)
            with pytest.raises(QuashError, match=r"rpc\.unavailable"):
                await lines.call({"seconds": 0.2}, b"late", timeout=0.05)
            assert await lines.call({"seconds": 0.3}, b"mine", timeout=5) == ({"seconds": 0.3}, b"mine")


def test_a_stale_socket_is_removed(server_folder: Path) -> None:
    """What a killed process left; and a path where there is nothing."""
    path = server_folder / "x.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    clear_socket(path)
    assert not path.exists()
    clear_socket(path)


def test_a_full_queue_is_a_living_process(server_folder: Path) -> None:
    """One that was stopped, say, and answers nobody."""
    path = server_folder / "x.sock"
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(path))
        stopped.listen(0)
        waiting = []
        for _ in range(3):
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(str(path))
        with pytest.raises(QuashError, match=r"process\.running"):
            clear_socket(path)
        for each in waiting:
            each.close()
    assert path.exists()


async def test_a_socket_is_for_its_own_user_and_those_it_was_told_of(server_folder: Path) -> None:
    """Whoever else gets as far as the socket is hung up on; a user whom the machine does not know is said."""
    path = State(server_folder).run / "ca-signer.sock"
    async with await rpc.serve(path, echo, max_body=10):
        assert path.stat().st_mode & 0o777 == 0o600
    path.unlink(missing_ok=True)
    with pytest.raises(QuashError, match=r"rpc\.no_user: .* quash-nobody-at-all"):
        await rpc.serve(path, echo, max_body=10, users=["quash-nobody-at-all"])
    server_folder.chmod(0o755)
    async with await rpc.serve(path, echo, max_body=10, users=[os.getuid(), "daemon"]):
        assert path.stat().st_mode & 0o777 == 0o660
        path.chmod(0o666)
        assert await rpc.call(path, {"said": 1}, timeout=5) == ({"said": 1}, b"")
        if os.getuid() == 0:  # nobody else can be two more users
            assert await asked_as(pwd.getpwnam("daemon").pw_uid, path) != b""
            assert await asked_as(pwd.getpwnam("nobody").pw_uid, path) == b""


async def asked_as(uid: int, path: Path) -> bytes:
    """What is answered to another user; the kernel notes who we are when we connect."""
    with socket.socket(socket.AF_UNIX) as sock:
        os.seteuid(uid)
        try:
            sock.connect(str(path))
        finally:
            os.seteuid(0)
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        try:
            writer.write(struct.pack(">IQ", 2, 0) + b"{}")
            return await asyncio.wait_for(reader.read(100), 5)
        except ConnectionError:
            return b""
        finally:
            writer.close()
