"""One process that runs many `quash` commands one after the other: a fresh interpreter for each takes a second."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass
class Said:
    """What a command said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Of the one line on stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def code(self) -> str:
        """Of the one line `error: <code>: <what to do>` on stderr."""
        (line,) = self.err.splitlines()
        word, code, message = line.split(": ", 2)
        assert word == "error"
        assert message
        return code


class CommandLine:
    """Use as an async context manager."""

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.command_line", stdin=pipe, stdout=pipe
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def run(self, *arguments: str, patch: Mapping[str, object] | None = None) -> Said:
        """One command. `patch`: "module:NAME" -> value, for constants such as a time-out."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"arguments": arguments, "patch": patch or {}}).encode() + b"\n")
        return Said(**json.loads(await self._process.stdout.readline()))


def _serve() -> None:
    from quash.cli.main import main  # noqa: PLC0415 - of the child alone

    for line in sys.stdin:
        command = json.loads(line)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.ExitStack() as stack:
            for name, value in command["patch"].items():
                _patch(stack, name, value)
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            try:
                main(command["arguments"])
                status: Any = 0
            except SystemExit as end:
                status = end.code or 0
        print(json.dumps({"status": status, "out": out.getvalue(), "err": err.getvalue()}), flush=True)  # noqa: T201


def _patch(stack: contextlib.ExitStack, name: str, value: object) -> None:
    module_name, attribute = name.split(":")
    module = importlib.import_module(module_name)
    stack.callback(setattr, module, attribute, getattr(module, attribute))
    setattr(module, attribute, value)


if __name__ == "__main__":
    _serve()
