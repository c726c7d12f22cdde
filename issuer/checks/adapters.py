"""Linters that are programs of others (D48, G6, G7): run with a time limit, their output read into our findings.

A program that is missing, fails, or says what nobody understands refuses the certificate: a configured linter that
does not speak is no linter.
"""

from __future__ import annotations

import shutil
import ssl
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import orjson

from issuer.checks import programs, sample
from issuer.checks.findings import SEVERITIES, Finding
from quash.errors import Kind, QuashError
from quash.runtime.config import ExternalLinter

_MAX_OUTPUT: Final = 1 << 20
_ZLINT: Final[Mapping[str, str | None]] = MappingProxyType(
    {"info": "info", "notice": "notice", "warn": "warning", "error": "error", "fatal": "fatal"}
    | dict.fromkeys(("pass", "NA", "NE", "reserved"))
)
_LETTERS: Final[Mapping[str, str]] = MappingProxyType(
    {"B": "fatal", "F": "fatal", "E": "error", "W": "warning", "N": "notice", "I": "info"}
)

_PKIMETAL: Final[Mapping[str, str]] = MappingProxyType(  # what it says of itself is `meta`; a linter's own fault, `bug`
    {each: each for each in SEVERITIES} | {"meta": "info", "debug": "info", "bug": "fatal"}
)


def read_zlint(output: bytes) -> list[Finding]:
    """zlint's JSON: an object of lint name -> `{"result": ..., "details": ...}`. Raises ValueError, KeyError."""
    results: Any = orjson.loads(output)
    if not isinstance(results, dict) or not results:
        raise ValueError("not zlint's JSON")
    found = []
    for name, result in results.items():
        if (severity := _ZLINT[result["result"]]) is not None:
            found.append(Finding(severity, name, result.get("details", "")))
    return found


def read_lines(output: bytes) -> list[Finding]:
    """Lines such as `E: message`, as certlint, cablint and x509lint print them; no line at all is no finding.

    The first two append a tab and the name of the file, which is no part of what they found. None has codes: what it
    says is the name of the rule.
    """
    found = []
    for line in filter(None, map(str.strip, output.decode("utf-8", "replace").splitlines())):
        letter, _, message = line.partition(":")
        found.append(Finding(_LETTERS[letter], message.partition("\t")[0].strip(), ""))
    return found


def read_pkimetal(output: bytes) -> list[Finding]:
    """pkimetal's JSON: a list of `{"Linter": ..., "Severity": ..., "Finding": ...}`, some with `Code` and `Field`."""
    results: Any = orjson.loads(output)
    if not isinstance(results, list):
        raise TypeError("not pkimetal's JSON")
    return [
        Finding(
            _PKIMETAL[each["Severity"]],
            each.get("Code") or each["Finding"],
            f"{each['Linter']}: {each['Finding']} {each.get('Field') or ''}".strip(),
        )
        for each in results
    ]


_READERS: Final[Mapping[str, Callable[[bytes], list[Finding]]]] = MappingProxyType(
    {"zlint": read_zlint, "pkimetal": read_pkimetal, "lines": read_lines}
)
_WRITERS: Final[Mapping[str, Callable[[bytes], bytes]]] = MappingProxyType(
    {"der": bytes, "pem": lambda der: ssl.DER_cert_to_PEM_cert(der).encode()}
)


async def findings(linter: ExternalLinter, der: bytes) -> list[Finding]:
    """What the program says of a certificate (DER) at its standard input. Raises `lint.unavailable`, `lint.timeout`."""
    status, output = await _run(linter, linter.command, _WRITERS[linter.encoding](der))
    try:
        found = _READERS[linter.output](output)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _unavailable(linter, f"exit status {status}, and nothing that one understands") from None
    if status and not found:  # some end so when they found something; who says nothing at all has crashed
        raise _unavailable(linter, f"exit status {status}, and no finding")
    return found


async def version(linter: ExternalLinter) -> str:
    """The first line that its version command prints, recorded with every result. Raises as `findings` does.

    Without one nobody could tell which certificates a faulty release let pass (D48, G48): it is no linter then.
    """
    status, output = await _run(linter, linter.version_command or (linter.command[0], "-version"), b"")
    lines = output.decode("utf-8", "replace").strip().splitlines()
    if status or not lines:
        raise _unavailable(linter, "its version command fails or prints nothing")
    return lines[0][:100]


async def try_out(linter: ExternalLinter) -> str:
    """Has it look at a sample certificate; returns its version. Raises `lint.unavailable`, `lint.timeout`."""
    await findings(linter, sample.CERTIFICATE)
    return await version(linter)


def found_at(linter: ExternalLinter) -> str | None:
    """Where on this machine its program is, or None."""
    return find_program(linter.command[0])


Identity = tuple[int, int, int]
"""Device, inode and time of change of a program's file."""


def identity(linter: ExternalLinter) -> Identity:
    """Changes with its program. Raises `lint.unavailable`."""
    try:
        found = Path(found_at(linter) or linter.command[0]).stat()
    except OSError as error:
        raise _unavailable(linter, error.strerror or type(error).__name__) from None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def find_program(name: str) -> str | None:
    """Where on this machine a linter's program is, or None; beside our own interpreter is good too."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    return None if found is None else str(Path(found).absolute())  # it runs in another folder


async def _run(linter: ExternalLinter, command: tuple[str, ...], given: bytes) -> tuple[int, bytes]:
    """Exit status and output. Raises `lint.unavailable`, `lint.timeout`."""
    program = find_program(command[0])
    if program is None:
        raise _unavailable(linter, f"there is no program {command[0]}")
    try:
        return await programs.run(
            (program, *command[1:]), given, seconds=linter.timeout, most=_MAX_OUTPUT, memory=linter.memory << 20
        )
    except TimeoutError:
        raise QuashError("lint.timeout", f"{linter.name} took longer than {linter.timeout:g} s", Kind.REFUSED) from None
    except OSError as error:
        raise _unavailable(linter, f"{error.strerror or type(error).__name__}: {error.filename or program}") from None
    except programs.TooMuchError:
        raise _unavailable(linter, f"more than {_MAX_OUTPUT} octets of output") from None


def _unavailable(linter: ExternalLinter, why: str) -> QuashError:
    return QuashError("lint.unavailable", f"the linter {linter.name} does not work: {why}", Kind.UNAVAILABLE)
