"""Issuance: its API, the checks before it, Certificate Transparency, the audit after it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from quash.pki.folding import fold
from quash.runtime.config.model import DAY, HOUR, Listener, Model, Name, Port

_PLAIN: Final = re.compile("[a-z0-9]+")


def _word(text: str) -> str:
    """A word as names are searched for it. Raises ValueError for what could not be found in any."""
    folded = fold(text)
    if not _PLAIN.fullmatch(folded):
        raise ValueError(f"{text!r} is not one word of Latin letters and digits")
    return folded


Word = Annotated[str, AfterValidator(_word)]


class IssuerApi(Listener):
    port: Port = 8442
    reads_per_minute: Annotated[int, Field(ge=60)] = 60_000
    """Of one operator; beyond: 429."""
    changes_per_minute: Annotated[int, Field(ge=1)] = 12_000
    """Of one operator, orders above all; many times what one machine issues, so that it stops loops gone wild alone."""


class Issuance(Model):
    """Flow 1."""

    require_validation: bool = True
    """Identifiers must have been validated; the demo alone says false."""
    visible_at: tuple[str, ...] = ()
    """Responders that must answer `good` for both CertID hashes before a release; empty: `responder.base_url`."""
    visible_timeout: Annotated[int, Field(ge=1, le=900)] = 60
    """A7 allows 15 minutes."""
    high_profile: tuple[Word, ...] = ()
    """Words that hold an order for an officer when a name contains one, as a word of its own (G19, D38).

    Accents and capitals make no difference.
    """
    resume_seconds: Annotated[int, Field(ge=60, le=DAY)] = HOUR
    """A reservation that a crash left is signed on when younger, else its serial is revoked."""


class Names(Model):
    """Which names exist (D11, D12); both lists are fetched by `quash names refresh` alone."""

    public_suffixes_url: str = "https://publicsuffix.org/list/public_suffix_list.dat"
    root_zone_url: str = "https://data.iana.org/TLD/tlds-alpha-by-domain.txt"
    max_age_days: Annotated[int, Field(ge=1, le=366)] = 90
    """Older: an alarm, and where identifiers are validated nothing is issued (G48)."""


class Blocklist(Model):
    """A file of keys that are refused (D42, D45): `issuer.checks.blocklist` has the two formats."""

    name: Name
    file: Path
    kind: Literal["spki", "badkeys"] = "spki"


class PwnedKeys(Model):
    """A service that is asked for each key (G9)."""

    url: str = ""
    """`<url>/<sha256 of the SPKI>` answers 200 for a compromised key, 404 for any other; empty: nobody is asked."""
    timeout: Annotated[float, Field(gt=0, le=60)] = 5
    """Seconds."""
    fail_closed: bool = True
    """Without an answer no certificate; false: with a warning in the log."""


class Checks(Model):
    """Worker processes for what is slow or sees hostile bytes first: weak keys, linters."""

    workers: Annotated[int, Field(ge=1, le=64)] = 2
    """Processes of one issuing API; each has 150 MB or so."""
    timeout: Annotated[float, Field(gt=0, le=60)] = 10
    """Seconds that one check may take; then its worker is killed and the order refused."""
    blocklists: tuple[Blocklist, ...] = ()
    pwnedkeys: PwnedKeys = PwnedKeys()


class ExternalLinter(Model):
    """A program that reads a certificate at its standard input and prints what it finds (D48, G6, G7)."""

    name: Name
    command: Annotated[tuple[str, ...], Field(min_length=1)]
    """For example `["zlint", "-format", "der", "-"]`; to one that wants a file the input is `/dev/stdin`."""
    encoding: Literal["der", "pem"] = "der"
    """What it is given; x509lint reads PEM alone."""
    output: Literal["zlint", "pkimetal", "lines"]
    """zlint, pkimetal: their JSON; lines: `E: message` and the like, as certlint, cablint and x509lint print."""
    version_command: tuple[str, ...] = ()
    """Empty: the program with `-version`. The first line of its output is recorded with each result."""
    timeout: Annotated[float, Field(gt=0, le=60)] = 10
    """Seconds."""
    memory: Annotated[int, Field(ge=64, le=1 << 20)] = 4096
    """MiB of address space, of which Go and Java reserve more than they use."""


class LintExemption(Model):
    """One finding that a demonstration lives with."""

    code: str
    message: str
    """Regular expression that the whole message must match."""


class Lint(Model):
    """Linting before each signature of a CA key (D47). pkilint always; others as configured."""

    level: Literal["notice", "warning", "error"] = "warning"
    """Findings at or above refuse; nobody may ask for less than errors (G25)."""
    external: tuple[ExternalLinter, ...] = ()
    exempt: tuple[LintExemption, ...] = ()
    """Only where nothing is validated: see `Config`."""


class SelfAudit(Model):
    """The quarterly look at what was issued (F12)."""

    linters: tuple[ExternalLinter, ...] = (
        ExternalLinter(name="zlint", command=("zlint", "-format", "der", "-"), output="zlint"),
    )
    """Programs that look at the sample; of a certificate those alone that had no say when it was issued."""


class Ct(Model):
    """Certificate Transparency (E1-E9)."""

    log_list: str = ""
    """File with the logs in v3 JSON, updated daily (E9); a relative path is below the state folder; empty: none."""
    list_url: Annotated[str, Field(pattern=r"^(https?://.*)?$")] = ""
    """Where `quash ct refresh` gets that file from,"""
    signature_url: Annotated[str, Field(pattern=r"^(https?://.*)?$")] = ""
    """and its detached signature,"""
    list_key: Path | None = None
    """by this key of its publisher (PEM)."""
    required: bool = True
    """Without logs no TLS certificate (E6); only where nothing is validated, in a demonstration, may this be false."""
    timeout: Annotated[float, Field(gt=0, le=60)] = 10
    """Seconds that one log has for its SCT."""
    hedge: Annotated[float, Field(gt=0, le=60)] = 1
    """Seconds after which a further log is asked beside those that have not answered."""


class CtLog(Listener):
    """Three logs of two operators for demonstrations: real signatures, real trees, no promise to keep anything."""

    port: Port = 0
    enabled: bool = False
    demonstration: bool = False
    """They may stand beside `issuance.require_validation`: what is issued here, nobody is to trust."""
