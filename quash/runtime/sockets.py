"""Unix sockets that a process listens on: left behind by a crash they are replaced, in use they are not."""

from __future__ import annotations

import socket
from pathlib import Path

from quash.errors import Kind, QuashError


def clear_socket(path: Path) -> None:
    """Removes a socket file at which nobody listens any more; raises `process.running` where somebody does.

    Taking a living process's socket away would leave it running and unreachable: for ever, to its supervisor.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:  # its queue is full: alive, if not well
            pass
    name = path.name.partition(".")[0]
    raise QuashError(
        "process.running", f"a process {name} is at work in this state folder already: stop it first", Kind.UNAVAILABLE
    )
