"""`quash ct`: the list of Certificate Transparency logs (E9), and what others saw in them (G16)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from issuer.ct.log_list import USABLE
from issuer.ct.refresh import refresh
from issuer.issuance.seen import BAD, Seen, compare
from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    SetOption,
    StateOption,
    context,
    reports_errors,
)
from quash.cli.local import check_initialised, on_the_state
from quash.errors import Kind, QuashError
from quash.pki.serials import format_serial
from quash.store.database import Pool, acquire

ct_app = typer.Typer(add_completion=False, no_args_is_help=True)


@ct_app.callback()
def _group() -> None:
    """Logs."""


@ct_app.command("refresh")
@reports_errors
def refresh_(config: ConfigOption = DEFAULT_CONFIG, state: StateOption = DEFAULT_STATE, set_: SetOption = None) -> None:
    """Fetch the log list and check its signature; the running issuing API takes it up. Run it daily."""
    deployment = context(config, state, set_)
    wanted = deployment.config.ct
    if not wanted.log_list:
        raise QuashError("ct.no_file", "ct.log_list says where the list goes: set it")
    found = asyncio.run(refresh(wanted, deployment.state.root / wanted.log_list))
    usable = sum(each.state == USABLE for each in found.logs)
    print(
        f"log list of {datetime.fromtimestamp(found.made_at, UTC):%Y-%m-%d}: {usable} usable logs of {len(found.logs)}"
    )


@ct_app.command("seen")
@reports_errors
def seen(
    files: Annotated[list[Path], typer.Argument(help="PEM or DER, as crt.sh or a monitor of logs gives them.")],
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
) -> None:
    """Compare certificates that others saw with our record; exit status 3 when our key signed what we do not know."""
    deployment = context(config, state, set_)
    check_initialised(deployment)
    given = [(path, der) for path in files for der in _certificates(path)]

    async def look(pool: Pool) -> list[Seen]:
        async with acquire(pool) as conn:
            return [await compare(conn, der) for _, der in given]

    found = on_the_state(deployment, look)
    for (path, _), each in zip(given, found, strict=True):
        print(f"{each.verdict:8} {each.issuer or '-':16} {format_serial(each.serial)} {path}")
    if bad := sum(each.verdict in BAD for each in found):
        raise QuashError(
            "seen.not_ours", f"{bad} with our signature are not in our record: stop issuance", Kind.REFUSED
        )


def _certificates(path: Path) -> list[bytes]:
    try:
        content = path.read_bytes()
        if b"-----BEGIN" not in content:
            return [content]
        return [each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(content)]
    except (OSError, ValueError) as error:
        raise QuashError("seen.file", f"{path}: {error}") from None
