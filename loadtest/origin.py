"""`make bench-origin`: the CRL origin against nginx: whole CRLs and 304s, judged by the server's CPU time per request.

Each serves the same folder on one pinned core, one after the other, with wrk on another core; medians of the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from loadtest import page
from loadtest.system import QUASH, REPOSITORY, free_ports

_TICKS = os.sysconf("SC_CLK_TCK")
_SERVER_CORE, _CLIENT_CORE = "0", "1"
_SIZES = {"7.4 MB": 7_400_000, "7 KB": 7_000}
_NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{ access_log off; sendfile on; tcp_nopush on; etag on; open_file_cache max=100;
  types {{ application/pkix-crl crl; }} client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; root {folder}/var/crl; }} }}
"""


def _spent(pid: int) -> int:
    """Clock ticks of a process and of the children it has now."""
    pids = [pid, *(int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    return sum(sum(map(int, Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[11:13])) for each in pids)


@contextlib.contextmanager
def _server(command: list[str], url: str, folder: Path) -> Iterator[int]:
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(["taskset", "-c", _SERVER_CORE, *command], cwd=REPOSITORY, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(url).read()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(timeout=10)


def _load(pid: int, url: str, seconds: int, tag: str) -> tuple[float, float]:
    """(CPU microseconds of the server per request, requests per second)."""
    headers = ["-H", f"If-None-Match: {tag}"] if tag else []
    before = _spent(pid)
    command = ["taskset", "-c", _CLIENT_CORE, "wrk", "-t1", "-c16", f"-d{seconds}s", *headers, url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    requests = int(re.search(r"(\d+) requests in", said)[1])  # type: ignore[index]
    if "Non-2xx" in said and not tag:
        raise RuntimeError(said)
    return (_spent(pid) - before) / _TICKS / requests * 1e6, requests / seconds


def measure(folder: Path, rounds: int, seconds: int) -> str:
    """A Markdown table."""
    crl = folder / "var" / "crl"
    crl.mkdir(parents=True)
    for name, size in _SIZES.items():
        (crl / f"{name.split()[1].lower()}.crl").write_bytes(os.urandom(size))
    quash, nginx = free_ports(2)
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=nginx))
    arguments = ["--config", str(REPOSITORY / "config/demo.toml"), "--state", str(folder / "var")]
    commands = {
        "Quash": (quash, [*QUASH, "serve", "crl-origin", *arguments, "--set", f"crl_origin.port={quash}"]),
        "nginx": (nginx, ["nginx", "-c", str(folder / "nginx.conf")]),
    }
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for who, (port, command) in commands.items():
            base = f"http://127.0.0.1:{port}"
            with _server(command, f"{base}/kb.crl", folder) as pid:
                for name in _SIZES:
                    url = f"{base}/{name.split()[1].lower()}.crl"
                    with urllib.request.urlopen(url) as answer:
                        tag = answer.headers["ETag"]
                    found.setdefault((f"whole, {name}", who), []).append(_load(pid, url, seconds, ""))
                found.setdefault(("304", who), []).append(_load(pid, url, seconds, tag))
    lines = ["| what | who | CPU µs per request | requests per second of wall clock |", "|---|---|---|---|"]
    for (what, who), costs in found.items():
        cpu, rate = (statistics.median(cost[n] for cost in costs) for n in (0, 1))
        lines.append(f"| {what} | {who} | {cpu:.0f} | {rate:.0f} |")
    return "\n".join(
        [f"Medians of {rounds} rounds; load average {os.getloadavg()[1]:.1f}, so judge by CPU.", "", *lines]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="also write the table into this page")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quash-bench-", dir="/tmp") as name:
        Path(name).chmod(0o755)  # nginx's worker is another user
        text = measure(Path(name), given.rounds, given.seconds)
    print(text)
    if given.write:
        page.write(given.write, "bench-origin", text)


if __name__ == "__main__":
    main()
