"""A terminal that hangs up is told from somebody who sends SIGHUP."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time

PROGRAM = """
import os, signal, sys
from quash.runtime.terminal import Terminal
terminal, out = Terminal(), int(sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
os.write(out, b"ready\\n")
for _ in range(2):
    signal.sigwait([signal.SIGHUP])
    os.write(out, b"hung up\\n" if terminal.hung_up else b"told\\n")
"""


def test_a_hangup_is_told_from_a_signal() -> None:
    """While the terminal is there SIGHUP is somebody's word; when it closes, it is its end."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM, str(write)])
    os.close(write)
    try:
        assert _line(read) == b"ready\n"
        os.kill(pid, signal.SIGHUP)
        assert _line(read) == b"told\n"
        os.close(terminal)
        assert _line(read) == b"hung up\n"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)


def _line(read: int) -> bytes:
    line, deadline = b"", time.monotonic() + 30
    while not line.endswith(b"\n"):
        assert select.select([read], [], [], deadline - time.monotonic())[0]
        line += os.read(read, 1)
    return line
