"""`quash ca`: CRLs signed where the offline key is (G4, D20): the octets go out, the signature comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from issuer.signer.deployment import Deployment
from issuer.signer.elsewhere import export_tbs, import_signed
from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    Context,
    SetOption,
    StateOption,
    context,
    reports_errors,
)
from quash.cli.local import owner_pool, running_database
from quash.cli.root import IssuerOption
from quash.errors import QuashError
from quash.runtime.clock import SystemClock

ca_app = typer.Typer(add_completion=False, no_args_is_help=True)
T = TypeVar("T")


@ca_app.command("export-tbs")
@reports_errors
def export_tbs_(
    out: Annotated[Path, typer.Option("--out", help="Where the octets to sign go.")],
    issuer: IssuerOption = "root",
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
) -> None:
    """Write the TBSCertList of the issuer's next CRL. Each export takes a number; only the last can be imported."""
    tbs = _run(context(config, state, set_), lambda deployment: export_tbs(deployment, issuer))
    out.write_bytes(tbs)
    Console(stderr=True).print(f"wrote {len(tbs)} octets to {out}: sign them with the hash of the issuer's algorithm")


@ca_app.command("import-signed")
@reports_errors
def import_signed_(
    tbs: Annotated[Path, typer.Option("--tbs", help="What export-tbs wrote.")],
    signature: Annotated[Path, typer.Option("--signature", help="Its signature; DER for ECDSA, as openssl writes it.")],
    issuer: IssuerOption = "root",
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
) -> None:
    """Check an exported CRL with its signature as every CRL is checked, and publish it."""
    octets, signed = _read(tbs), _read(signature)
    made = _run(context(config, state, set_), lambda deployment: import_signed(deployment, issuer, octets, signed))
    Console(stderr=True).print(f"published CRL number {made.number} of {issuer} with {len(made.entries)} entries")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise QuashError("file.unreadable", f"{file} cannot be read: {error.strerror}") from None


def _run(found: Context, work: Callable[[Deployment], Awaitable[T]]) -> T:
    async def run() -> T:
        async with owner_pool(found) as pool:
            return await work(Deployment(found.config, found.state, pool, SystemClock()))

    with running_database(found):
        return asyncio.run(run())
