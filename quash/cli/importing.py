"""`quash import openssl`: take over a CA that `openssl ca` ran, also beside a running `up`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from issuer.signer.deployment import Deployment
from issuer.signer.import_openssl import Import, KeySource, Summary
from issuer.signer.import_plan import Plan, Source, make_plan
from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    Context,
    JsonOption,
    SetOption,
    StateOption,
    context,
    print_json,
    reports_errors,
)
from quash.cli.local import check_initialised, owner_pool, running_database
from quash.errors import QuashError
from quash.runtime.clock import SystemClock
from quash.runtime.config import check_name

import_app = typer.Typer(add_completion=False, no_args_is_help=True)
_SHOWN = 20  # warnings that a person is shown; --json has all
_SKIPPED = 2  # exit status while any line was skipped


@import_app.callback()
def _formats() -> None:
    """Take over an existing CA."""


@import_app.command("openssl")
@reports_errors
def openssl(
    name: Annotated[str, typer.Option("--name", help="The issuer's name here, also its OCSP path and CRL file.")],
    index: Annotated[Path, typer.Option("--index", help="The CA's index.txt.")],
    ca: Annotated[Path, typer.Option("--ca", help="The CA's certificate (PEM or DER).")],
    key: Annotated[Path | None, typer.Option("--key", help="The CA's private key (PEM).")] = None,
    key_uri: Annotated[str | None, typer.Option("--key-uri", help="The CA's key on a token: a pkcs11: URI.")] = None,
    key_passphrase_file: Annotated[
        Path | None, typer.Option("--key-passphrase-file", help="File with the passphrase of --key.")
    ] = None,
    certs: Annotated[
        Path | None, typer.Option("--certs", help="Folder of issued certificates: tells their keys.")
    ] = None,
    crl: Annotated[Path | None, typer.Option("--crl", help="The CA's last CRL: ours get greater numbers.")] = None,
    private: Annotated[
        bool, typer.Option("--private", help="A private PKI's CA: may have Ed25519; never disclosed.")
    ] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Import although lines are unreadable.")] = False,
    json: JsonOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
) -> None:
    """Import certificates and revocations, and serve OCSP and CRLs for them from now on."""
    deployment = context(config, state, set_)
    check_name(name)
    if (key is None) == (key_uri is None):
        raise QuashError("import.key_missing", "give --key FILE or --key-uri URI, and only one of them")
    check_initialised(deployment)
    source = Source(name, _read(index), _certificate(_read(ca)), certs, _read(crl) if crl else None, private)
    key_source = KeySource(
        _read(key) if key else None,
        _first_line(_read(key_passphrase_file)) if key_passphrase_file else None,
        key_uri,
    )
    with _Bar() as bar:
        plan = make_plan(source, skip_bad=skip_bad, now=int(SystemClock().now()), progress=bar.advance)
        with running_database(deployment):
            summary = asyncio.run(_run(deployment, source, plan, key_source, bar))
    print_json(summary.json()) if json else _tell(summary)
    if summary.skipped_lines:
        raise SystemExit(_SKIPPED)


async def _run(deployment: Context, source: Source, plan: Plan, key: KeySource, bar: _Bar) -> Summary:
    async with owner_pool(deployment) as pool:
        owned = Deployment(deployment.config, deployment.state, pool, SystemClock())
        return await Import(owned, source, plan, bar.advance).run(key)


class _Bar:
    """Progress on stderr, one bar a stage."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tasks:
            self._progress.stop()

    def advance(self, stage: str, done: int, total: int) -> None:
        if not self._tasks:
            self._progress.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise QuashError("import.unreadable", f"{path}: {error.strerror}") from None


def _first_line(body: bytes) -> bytes:
    """Empty for an empty file, which is then a wrong passphrase."""
    return body.partition(b"\n")[0].removesuffix(b"\r")


def _certificate(body: bytes) -> x509.Certificate:
    try:
        if b"-----BEGIN" in body:
            return x509.load_pem_x509_certificate(body)
        return x509.load_der_x509_certificate(body)
    except ValueError:
        raise QuashError("import.ca_unreadable", "--ca is not a certificate, neither PEM nor DER") from None


def _tell(summary: Summary) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for line in summary.bad_lines:
        console.print(f"bad      {line}", markup=False)
    for warning in summary.warnings[:_SHOWN]:
        console.print(f"warning  {warning}", markup=False)
    if len(summary.warnings) > _SHOWN:
        console.print(f"warning  and {len(summary.warnings) - _SHOWN} more: --json lists all")
    print(
        f"{summary.issuer}: {summary.certificates} certificates ({summary.new_certificates} new), {summary.revoked} "
        f"revoked ({summary.new_revocations} new), {summary.skipped_lines} lines skipped"
    )
    print(f"{summary.without_known_key} unexpired certificates have no known key: no sibling search finds them")
    if summary.siblings_to_revoke:
        print(f"{summary.siblings_to_revoke} certificates share a compromised key and are being revoked")
    print(f"OCSP {summary.ocsp_url}   CRL {summary.crl_url}")
