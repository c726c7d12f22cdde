"""`quash ca`: CRLs signed where the offline key is (G4, D20), and CAs of others signed from their CSRs (G17)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console

from issuer.checks.csr import decode
from issuer.signer.deployment import Deployment
from issuer.signer.elsewhere import export_tbs, import_signed
from issuer.signer.elsewhere_certificates import (
    Work,
    export_certificate,
    import_certificate,
    new_ocsp_signer,
    new_sub_ca,
)
from issuer.signer.external import External, sign_sub_ca
from issuer.signer.publish_files import to_pem
from issuer.signer.shards import change_shards
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
from quash.cli.local import on_the_state
from quash.cli.root import IssuerOption
from quash.errors import QuashError
from quash.pki.name_text import parse_name
from quash.runtime.clock import SystemClock
from quash.runtime.config import Permitted

ca_app = typer.Typer(add_completion=False, no_args_is_help=True)
T = TypeVar("T")
OcspSignerOption = Annotated[bool, typer.Option("--ocsp-signer", help="Not the CRL, but the next OCSP signer.")]
SubCaOption = Annotated[str | None, typer.Option("--sub-ca", help="Not the CRL, but this sub-CA of the configuration.")]


@ca_app.command("export-tbs")
@reports_errors
def export_tbs_(
    out: Annotated[Path, typer.Option("--out", help="Where the octets to sign go.")],
    issuer: IssuerOption = "root",
    ocsp_signer: OcspSignerOption = False,
    sub_ca: SubCaOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
) -> None:
    """Write what the issuer's key shall sign: its next CRL, or a certificate. Only what was exported last goes in."""
    work = _work(sub_ca, ocsp_signer=ocsp_signer)
    tbs = _run(
        context(config, state, set_),
        lambda each: export_certificate(each, issuer, work) if work else export_tbs(each, issuer),
    )
    out.write_bytes(tbs)
    Console(stderr=True).print(f"wrote {len(tbs)} octets to {out}: sign them with the hash of the issuer's algorithm")


@ca_app.command("import-signed")
@reports_errors
def import_signed_(
    tbs: Annotated[Path, typer.Option("--tbs", help="What export-tbs wrote.")],
    signature: Annotated[Path, typer.Option("--signature", help="Its signature; DER for ECDSA, as openssl writes it.")],
    issuer: IssuerOption = "root",
    ocsp_signer: OcspSignerOption = False,
    sub_ca: SubCaOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
) -> None:
    """Check exported octets with their signature as all others are checked, and publish or issue what they are."""
    octets, signed = _read(tbs), _read(signature)
    if (work := _work(sub_ca, ocsp_signer=ocsp_signer)) is not None:
        _run(context(config, state, set_), lambda each: import_certificate(each, issuer, work, octets, signed))
        Console(stderr=True).print(f"issued by {issuer}; quash init makes what follows from it")
        return
    made = _run(context(config, state, set_), lambda deployment: import_signed(deployment, issuer, octets, signed))
    Console(stderr=True).print(f"published CRL number {made.number} of {issuer} with {len(made.entries)} entries")


@ca_app.command("shards")
@reports_errors
def shards_(
    issuer: Annotated[str, typer.Option("--issuer", help="Name of the issuer.")],
    count: Annotated[int, typer.Option("--count", help="CRL shards of new certificates; 0: one full CRL.")],
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for the CRLs of new shards.")] = 60,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
) -> None:
    """Change an issuer's number of CRL shards, for new certificates; prints the URLs to disclose to CCADB as JSON."""
    deployment = context(config, state, set_)
    urls = _run(deployment, lambda each: change_shards(each, issuer, count, wait=wait))
    print(json.dumps(urls, indent=1))
    Console(stderr=True).print(
        f"new certificates of {issuer} go to {count} shards; set shards = {count} in the configuration, and enter the"
        " URLs above in CCADB before any of them is 7 days old in a certificate, or 4 hours in a revoked one (B24)"
    )


@ca_app.command("sign-sub-ca")
@reports_errors
def sign_sub_ca_(
    csr: Annotated[Path, typer.Option("--csr", help="The other CA's request, PEM; its subject has C, O and CN.")],
    issuer: Annotated[str, typer.Option("--issuer", help="Our CA that is made for it; its key must be here.")],
    policy: Annotated[list[str], typer.Option("--policy", help="dv or ov, or S/MIME policies; repeatable.")],
    directory: Annotated[
        list[str], typer.Option("--permitted-directory", help="C=TN, or C=TN,O=Name (RFC 4514); repeatable.")
    ],
    dns: Annotated[list[str] | None, typer.Option("--permitted-dns", help="Below this name; repeatable.")] = None,
    email: Annotated[list[str] | None, typer.Option("--permitted-email", help="At this host; .host: below.")] = None,
    by: Annotated[list[str] | None, typer.Option("--by", help="Who does this; given twice: two people do.")] = None,
    reason: Annotated[
        str, typer.Option("--high-profile-reason", help="Why an officer permits names that orders are held for.")
    ] = "",
    days: Annotated[int, typer.Option("--days", min=1)] = 1095,
    out: Annotated[Path | None, typer.Option("--out", help="Certificate and chain; empty: stdout.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
) -> None:
    """Sign a name-constrained CA of somebody else, for TLS (DNS names) or for S/MIME (mail hosts), as its parent is."""
    request = decode(_read(csr).decode("utf-8", "replace"))
    permitted = _permitted(dns or [], email or [], directory)
    asked = External(issuer, request, tuple(policy), permitted, days, tuple(by or ()), reason)
    der, chain = _run(context(config, state, set_), lambda deployment: sign_sub_ca(deployment, asked))
    pem = "".join([to_pem(der), *chain])
    if out is None:
        typer.echo(pem, nl=False)
    else:
        out.write_text(pem)


def _permitted(dns: list[str], email: list[str], directory: list[str]) -> Permitted:
    names = [parse_name(each) for each in directory]
    try:
        return Permitted.model_validate({"dns": dns, "email": email, "directory": names})
    except ValidationError as error:
        said = "; ".join(each["msg"] for each in error.errors())
        raise QuashError("external.permitted", f"not a name, a mail host or a directory name: {said}") from None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise QuashError("file.unreadable", f"{file} cannot be read: {error.strerror}") from None


def _work(sub_ca: str | None, *, ocsp_signer: bool) -> Work | None:
    """What is to be signed; None: the CRL."""
    if sub_ca and ocsp_signer:
        raise QuashError("usage", "give --ocsp-signer or --sub-ca, and only one of them")
    return new_sub_ca(sub_ca) if sub_ca else new_ocsp_signer if ocsp_signer else None


def _run(found: Context, work: Callable[[Deployment], Awaitable[T]]) -> T:
    return on_the_state(found, lambda pool: work(Deployment(found.config, found.state, pool, SystemClock())))
