"""The three commands that `quash up` prints to copy: issue, ask, revoke and ask again."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from quash.cli.common import Context

_TOUR = """
1. issue     openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tour.key -subj / \\
               -addext subjectAltName=DNS:tour.example.org -out tour.csr && \\
             {quash} issue --profile {profile} --csr tour.csr --out tour.pem{options}
2. ask       {ask}
3. revoke    {quash} revoke --cert tour.pem --reason keyCompromise --wait{options} && \\
             {ask}
"""


def tour(deployment: Context, arguments: list[str]) -> str:
    """The commands for this deployment's first DV profile; empty when it has none."""
    profile = next((p for p in deployment.config.profiles if p.kind == "dv"), None)
    if profile is None:
        return ""
    certs = _relative(deployment.state.certs)
    ask = (
        f"openssl ocsp -no_nonce -issuer {shlex.quote(f'{certs}/{profile.issuer}.pem')} -cert tour.pem \\\n"
        f"               -CAfile {shlex.quote(f'{certs}/chain.pem')} "
        f"-url {deployment.config.ocsp_base}/{profile.issuer}"
    )
    options = " " + shlex.join(arguments) if arguments != _DEFAULT_ARGUMENTS else ""
    return _TOUR.format(quash=_quash(), profile=profile.name, ask=ask, options=options)


_DEFAULT_ARGUMENTS = ["--config", "config/demo.toml", "--state", "var"]


def _quash() -> str:
    return shlex.quote(_relative(Path(sys.argv[0])) if sys.argv[0].endswith("quash") else "quash")


def _relative(path: Path) -> str:
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
