"""What every verb shares: `--config`, `--state`, `--set`, and how a failure is said."""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn, ParamSpec, TypeVar

import orjson
import typer

from quash.errors import Kind, QuashError
from quash.runtime.config import Config, load
from quash.runtime.state import State

P = ParamSpec("P")
R = TypeVar("R")

EXIT_STATUS = {
    Kind.INPUT: 2,
    Kind.NOT_FOUND: 2,
    Kind.FORBIDDEN: 3,
    Kind.REFUSED: 3,
    Kind.CONFLICT: 3,
    Kind.UNAVAILABLE: 4,
    Kind.INTERNAL: 1,
}

# Of a path that somebody named or a state folder that is not ours: bad input, not a fault of the program.
_FILE_ERRORS = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EROFS, errno.ENOSPC}

ConfigOption = Annotated[
    Path, typer.Option("--config", envvar="QUASH_CONFIG", help="Configuration of the deployment (TOML).")
]
StateOption = Annotated[Path, typer.Option("--state", envvar="QUASH_STATE", help="Folder that keeps all state.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override: key.path=value. May be repeated.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]

DEFAULT_CONFIG = Path("config/demo.toml")
DEFAULT_STATE = Path("var")


@dataclass(frozen=True)
class Context:
    """The deployment that a verb works on."""

    config: Config
    state: State


def context(config: Path, state: Path, overrides: list[str] | None) -> Context:
    """Reads the configuration; raises `config.*` errors."""
    return Context(load(config, tuple(overrides or ())), State(state))


def fail(error: QuashError) -> NoReturn:
    """Says on stderr what went wrong and what to do, and exits with the status of the error's kind."""
    print(f"error: {error.code}: {error.message}", file=sys.stderr)
    raise SystemExit(EXIT_STATUS[error.kind])


def reports_errors(verb: Callable[P, R]) -> Callable[P, R]:
    """Wraps a verb so that a `QuashError` becomes its line on stderr and its exit status; a file we may not use too."""

    @functools.wraps(verb)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return verb(*args, **kwargs)
        except QuashError as error:
            fail(error)
        except OSError as error:
            if error.errno not in _FILE_ERRORS or error.filename is None:
                raise
            fail(QuashError("file.unusable", f"{error.filename}: {error.strerror}", Kind.UNAVAILABLE))

    return wrapped


def print_json(value: object) -> None:
    """One JSON object on one line of stdout."""
    sys.stdout.write(orjson.dumps(value).decode() + "\n")
