"""The configuration: one TOML per deployment, read into frozen models that reject unknown keys.

What the rules forbid cannot be configured (G25): each limit stands beside its field with the id of its row. Secrets are
named by file path, never by value.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from quash.errors import QuashError
from quash.pki.rules import (
    CRL_VALIDITY_MAX_CAS,
    CRL_VALIDITY_MAX_SUBSCRIBERS,
    RESPONSE_VALIDITY_MAX,
    RESPONSE_VALIDITY_MIN,
    SHORT_LIVED,
)

HOUR = 3600
DAY = 24 * HOUR

Port = Annotated[int, Field(ge=0, le=65535)]
# An issuer's name is also its OCSP path: lower case, so it never begins as the base64 of a request does, with `M`.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
# Certificates name their services by plain http alone (B17, D7); A32 keeps a GET of OCSP within 255 octets.
HttpUrl = Annotated[str, Field(pattern=r"^(http://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~-]+)*/?)?$")]
KeyKind = Literal["ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096"]


class Model(BaseModel):
    """Frozen; unknown keys are errors, so that a misspelt limit never goes unnoticed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Database(Model):
    """Where the record of status lives."""

    url: str = ""
    """Of any PostgreSQL >= 15, without user or password; empty: the embedded server in the state folder."""
    owner_url: str = ""
    """For `quash init` alone: connects as a role that may create roles and the database `url` names."""
    owner_password_file: Path | None = None
    """That role's password, where its server asks for one."""
    pool_size: Annotated[int, Field(ge=2, le=100)] = 8

    @model_validator(mode="after")
    def _no_secret(self) -> Self:
        """A configuration, and the arguments of a process, are read by many: passwords come from files."""
        for url in (self.url, self.owner_url):
            parts = urlsplit(url)
            if parts.password is not None or "password" in parse_qs(parts.query):
                raise ValueError(
                    "a database URL carries no password: roles' are in the state folder, "
                    "the owner's in database.owner_password_file"
                )
        return self


class Responder(Model):
    """OCSP over HTTP."""

    host: str = "127.0.0.1"
    port: Port = 8080
    workers: Annotated[int, Field(ge=1, le=256)] = 2
    base_url: Annotated[HttpUrl, Field(max_length=60)] = ""
    """What certificates carry before `/<issuer>`; empty: http, host and port above. At most 60 characters (A32)."""
    max_body: Annotated[int, Field(ge=1024, le=1 << 20)] = 16 * 1024
    """Octets of a POST; more is 413."""
    max_header: Annotated[int, Field(ge=1024, le=65536)] = 8 * 1024
    """Octets of a request line and header fields together; more is 414 or 431."""
    max_connections: Annotated[int, Field(ge=1, le=1 << 20)] = 4096
    """Of one worker at once; beyond, the one that waits longest for a header is closed, or else the new one."""
    max_requests: Annotated[int, Field(ge=1)] = 1000
    """On one connection; the last answer says `Connection: close`, so that clients spread over workers again."""
    header_seconds: Annotated[float, Field(gt=0, le=3600)] = 10
    """From the accepted connection, later from the first octet of a request, until its header is complete."""
    body_seconds: Annotated[float, Field(gt=0, le=3600)] = 10
    """From the header until the body is complete; longer is 408 (A40 is ten seconds for all of it)."""
    idle_seconds: Annotated[float, Field(gt=0, le=3600)] = 75
    """Between two requests of a connection."""
    stall_seconds: Annotated[float, Field(gt=0, le=3600)] = 20
    """That a client may leave answers unread when the kernel holds no more of them."""
    fast_path: bool = True
    """Answer plain requests in front of the HTTP library; false: one path for all, six times as much CPU each."""
    fresh_seconds: Annotated[int, Field(ge=2)] = 60
    """Newest applied heartbeat at most this old: misses are `unauthorized`; older: `tryLater`."""
    unready_seconds: Annotated[int, Field(ge=2)] = 2 * HOUR
    """Stale for longer: not ready, alarm."""
    good_seconds: Annotated[int, Field(ge=2)] = DAY
    """Stale for longer: `good` becomes `tryLater` too; `revoked` is served until its nextUpdate."""


class Listener(Model):
    """A TCP address."""

    host: str = "127.0.0.1"
    port: Port


class CrlOrigin(Listener):
    """CRLs and CA certificates over HTTP."""

    port: Port = 8081
    base_url: HttpUrl = ""
    """What CRLDPs and caIssuers carry before the path; empty: http, host and port above."""


class IssuerApi(Listener):
    port: Port = 8442


class Admin(Listener):
    port: Port = 8443
    sibling_batch: Annotated[int, Field(ge=1, le=1000)] = 1000
    """Siblings revoked in the transaction of their cause; more become a job."""
    reads_per_minute: Annotated[int, Field(ge=60)] = 6000
    """Of one operator; beyond: 429."""
    changes_per_minute: Annotated[int, Field(ge=1)] = 1200
    """Of one operator, revocations included; siblings do not count (C8)."""


class Metrics(Listener):
    port: Port = 9090


class Issuance(Model):
    """Flow 1."""

    require_validation: bool = True
    """Identifiers must have been validated; the demo alone says false."""
    visible_at: tuple[str, ...] = ()
    """Responders that must answer `good` for both CertID hashes before a release; empty: `responder.base_url`."""
    visible_timeout: Annotated[int, Field(ge=1, le=900)] = 60
    """A7 allows 15 minutes."""
    high_profile: tuple[Annotated[str, Field(pattern="^[a-z0-9]+$")], ...] = ()
    """Words that hold an order for an officer when a name contains one, as a word of its own (G19, D38)."""
    resume_seconds: Annotated[int, Field(ge=60, le=DAY)] = HOUR
    """A reservation that a crash left is signed on when younger, else its serial is revoked."""


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
    """A program that reads a DER certificate at its standard input and prints what it finds (D48, G6, G7)."""

    name: Name
    command: Annotated[tuple[str, ...], Field(min_length=1)]
    """For example `["zlint", "-format", "der", "-"]`."""
    output: Literal["zlint", "lines"]
    """zlint: zlint's JSON; lines: `E: message` and the like, as certlint, cablint and x509lint print."""
    version_command: tuple[str, ...] = ()
    """Empty: the program with `-version`. The first line of its output is recorded with each result."""
    timeout: Annotated[float, Field(gt=0, le=60)] = 10
    """Seconds."""


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


class Ct(Model):
    """Certificate Transparency (E1-E9)."""

    log_list: str = ""
    """File with the logs in v3 JSON, updated daily (E9); a relative path is below the state folder; empty: none."""
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


class Presign(Model):
    """Flow 4 and the first answers."""

    validity: Annotated[int, Field(ge=RESPONSE_VALIDITY_MIN, le=RESPONSE_VALIDITY_MAX - 1)] = 2 * DAY - 1
    """nextUpdate - thisUpdate, seconds; intervals are inclusive, hence the odd second (A1, A4, G3)."""
    refresh_every: Annotated[int, Field(ge=HOUR, le=23 * HOUR)] = 20 * HOUR
    """A4; G3 wants a new answer every day."""
    workers: Annotated[int, Field(ge=0, le=256)] = 2
    """Processes that sign large refreshes, imports and mass jobs, started when there is enough to do; one a core."""
    buckets: Annotated[int, Field(ge=1, le=65536)] = 64
    """Of an issuer that `init` makes: slices of its serials that are refreshed one after the other."""

    @model_validator(mode="after")
    def _refreshed_in_time(self) -> Self:
        """A3: a new answer at the latest at half the validity, and 8 hours before nextUpdate."""
        if self.refresh_every > min(self.validity // 2, self.validity - 8 * HOUR):
            raise ValueError("presign.refresh_every must be at most half of presign.validity and leave 8 hours (A3)")
        return self


class Crl(Model):
    """Flow 3."""

    every: Annotated[int, Field(ge=60, le=4 * DAY)] = DAY
    """Regular schedule, seconds (B3: 4 days when certificates may lack OCSP)."""
    validity: Annotated[int, Field(ge=HOUR, le=CRL_VALIDITY_MAX_SUBSCRIBERS - 1)] = 4 * DAY - 1
    """nextUpdate - thisUpdate, seconds (B2)."""
    coalesce: Annotated[float, Field(ge=0, le=600)] = 0.2
    """A scope that became dirty waits this long for more of the burst, seconds."""
    root_validity: Annotated[int, Field(ge=DAY, le=CRL_VALIDITY_MAX_CAS - 1)] = 183 * DAY - 1
    """Of CRLs that the root signs by explicit command (B2, G4)."""

    @model_validator(mode="after")
    def _overlap(self) -> Self:
        if self.validity < 2 * self.every:
            raise ValueError(
                "crl.validity must be at least twice crl.every, so that one late CRL never lets the last one expire"
            )
        return self


class S3(Model):
    """An object store that a CDN reads; CRLs go there by conditional requests."""

    bucket: Annotated[str, Field(min_length=1)]
    prefix: str = ""
    """Before every name, without slashes around."""
    region: str = "us-east-1"
    endpoint: str = ""
    """Of a store that is not Amazon's; https, except on this machine."""
    credentials_file: Path | None = None
    """As the AWS command line keeps it, section [default]; empty: the environment or the machine's role."""
    timeout: Annotated[float, Field(gt=0, le=600)] = 30
    """Seconds for one request."""


class Purge(Model):
    """A webhook that makes the caches in front forget what was replaced (G1)."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    """Gets a POST of `{"urls": [...], "tags": [...]}`."""
    token_file: Path | None = None
    """Sent as `Authorization: Bearer`."""
    batch: Annotated[int, Field(ge=1, le=10_000)] = 30
    """URLs in one request; CDNs allow 30 to 1000."""
    per_second: Annotated[float, Field(gt=0, le=10_000)] = 5
    """Requests; one by one per URL was the peers' bottleneck."""
    ocsp: bool = False
    """Also the GET URLs of OCSP answers that a revocation changed."""
    timeout: Annotated[float, Field(gt=0, le=600)] = 10


class Publish(Model):
    """Where CRLs go besides the folder `crl` of the state."""

    s3: S3 | None = None
    purge: tuple[Purge, ...] = ()


class OcspSigner(Model):
    """The delegated OCSP signer of one issuer (A13-A17)."""

    key: KeyKind = "ec-p256"
    days: Annotated[int, Field(ge=1, le=400)] = 30
    """Online issuers: 30 days; the root's is 13 months, since its key is offline."""


class Issuer(Model):
    """One CA of the hierarchy that `quash init` makes."""

    name: Name
    kind: Literal["root", "sub-ca"]
    parent: Name | None = None
    key: KeyKind
    subject: dict[Literal["C", "O", "CN"], str]
    """C, O and CN (G35: the company's name in every CA's name); OU cannot be written (G4)."""
    days: Annotated[int, Field(ge=1, le=9132)]
    """D14: a root 2922 to 9132 days."""
    shards: Annotated[int, Field(ge=0, le=4096)] = 0
    """CRL shards of its certificates; 0: one full CRL."""
    max_age: Annotated[int, Field(ge=1, le=3600)] = 1800
    """Seconds that caches may keep an OCSP answer (A36, G1)."""
    policy: Literal["dv", "ov"] | None = None
    """The one reserved policy OID of a sub-CA (D15)."""
    ocsp_signer: OcspSigner = OcspSigner()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if set(self.subject) != {"C", "O", "CN"}:
            raise ValueError(f"issuer {self.name}: subject needs C, O and CN (D14, D15)")
        if (self.kind == "root") != (self.parent is None):
            raise ValueError(f"issuer {self.name}: a root has no parent, a sub-ca has one")
        return self


class Profile(Model):
    """What an order names: an issuer and the kind of leaf it makes. It can only narrow the rules (G25)."""

    name: Name
    issuer: Name
    kind: Literal["dv", "ov"]
    days: Annotated[int, Field(ge=1, le=398)] = 199
    """Limited again at issuance by the dated table of `quash.pki.rules` (D2, D-4)."""
    short_lived: bool = False
    """Without CRLDP and OCSP: nobody need revoke what ends within 7 days (D4)."""
    suffixes: tuple[Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")], ...] = ()
    """Names must be one of these or below one; empty: any (G18)."""
    countries: tuple[Annotated[str, Field(pattern="^[A-Z]{2}$")], ...] = ()
    """C of the subject must be one of these; empty: any (G18)."""

    @model_validator(mode="after")
    def _narrower(self) -> Self:
        if self.short_lived and self.days * DAY > SHORT_LIVED:
            raise ValueError(f"profile {self.name}: short-lived is at most {SHORT_LIVED // DAY} days (D4)")
        if self.countries and self.kind == "dv":
            raise ValueError(f"profile {self.name}: a dv certificate names no country (D5)")
        return self


class Audit(Model):
    """The ledger (F1, F7, G24)."""

    checkpoint_key: str = "pem:ledger/checkpoint.pem"
    """Of the process `ledger` alone; `init` makes the default one."""
    checkpoint_rows: Annotated[int, Field(ge=1)] = 1000
    """A checkpoint is signed after so many rows,"""
    checkpoint_seconds: Annotated[int, Field(ge=1, le=31 * DAY)] = 300
    """or so many seconds after the last one when there is any new row (F7: at the latest 31 days)."""


class Keys(Model):
    """Where private keys are. PEM files are encrypted; their passphrases are read from files."""

    ca_passphrase_file: Path | None = None
    """Empty: `secrets/ca.passphrase` in the state folder, made by `init`."""
    ocsp_passphrase_file: Path | None = None
    """Empty: `secrets/ocsp.passphrase`."""
    offline_passphrase_file: Path | None = None
    """Of the root's key; empty: `secrets/offline.passphrase`. Move both away after `init`."""
    ledger_passphrase_file: Path | None = None
    """Of the key that signs the ledger's checkpoints; empty: `secrets/ledger.passphrase`."""


class Config(Model):
    """Everything a deployment sets."""

    database: Database = Database()
    responder: Responder = Responder()
    crl_origin: CrlOrigin = CrlOrigin()
    issuer: IssuerApi = IssuerApi()
    admin: Admin = Admin()
    metrics: Metrics = Metrics()
    issuance: Issuance = Issuance()
    checks: Checks = Checks()
    lint: Lint = Lint()
    ct: Ct = Ct()
    ct_log: CtLog = CtLog()
    presign: Presign = Presign()
    crl: Crl = Crl()
    publish: Publish = Publish()
    audit: Audit = Audit()
    keys: Keys = Keys()
    issuers: tuple[Issuer, ...] = ()
    profiles: tuple[Profile, ...] = ()

    @model_validator(mode="after")
    def _relations(self) -> Self:
        names = [issuer.name for issuer in self.issuers]
        if len(set(names)) != len(names):
            raise ValueError("issuers: a name stands twice")
        for issuer in self.issuers:
            if issuer.parent is not None and issuer.parent not in names:
                raise ValueError(f"issuer {issuer.name}: parent {issuer.parent} is not configured")
        if not self.ct.required and self.issuance.require_validation:
            raise ValueError("ct.required: only where issuance.require_validation is false may logs be missing (E6)")
        if self.lint.exempt and self.issuance.require_validation:
            raise ValueError("lint.exempt: only where issuance.require_validation is false, in a demonstration")
        for profile in self.profiles:
            if profile.issuer not in names:
                raise ValueError(f"profile {profile.name}: issuer {profile.issuer} is not configured")
        return self

    @property
    def ocsp_base(self) -> str:
        """The URL that certificates carry before `/<issuer>`."""
        return self.responder.base_url.rstrip("/") or f"http://{self.responder.host}:{self.responder.port}"

    @property
    def crl_base(self) -> str:
        """The URL that CRLDPs and caIssuers carry before the path."""
        return self.crl_origin.base_url.rstrip("/") or f"http://{self.crl_origin.host}:{self.crl_origin.port}"

    @property
    def visible_at(self) -> tuple[str, ...]:
        """The responders that are asked, as a stranger would, whether an answer is out."""
        return self.issuance.visible_at or (self.ocsp_base,)


def load(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """Reads a configuration and applies `key.path=value` overrides; raises `config.*` errors that name the key."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise QuashError("config.missing", f"{path} does not exist; name one with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise QuashError("config.syntax", f"{path}: {error}") from None
    for override in overrides:
        _set(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise QuashError("config.invalid", f"{path}: {_explain(error)}") from None


def check_name(name: str) -> None:
    """Raises `config.name` when an issuer cannot be called that."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise QuashError("config.name", f"{name!r}: a name has lower-case letters, digits and hyphens") from None


def _set(tree: dict[str, Any], override: str) -> None:
    key, sep, text = override.partition("=")
    if not sep or not key:
        raise QuashError("config.override", f"--set takes key.path=value, not {override!r}")
    *folders, leaf = key.split(".")
    for folder in folders:
        child = tree.setdefault(folder, {})
        if not isinstance(child, dict):
            raise QuashError("config.override", f"--set {key}: {folder} is not a table")
        tree = child
    tree[leaf] = _value(text)


def _value(text: str) -> Any:
    """A TOML value where the text is one (numbers, booleans, lists), else the text itself."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(str(part) for part in e['loc']) or 'file'}: {e['msg']}" for e in error.errors())
