"""The configuration: one TOML per deployment, read into frozen models that reject unknown keys.

What the rules forbid cannot be configured (G25): each limit stands beside its field with the id of its row. Secrets are
named by file path, never by value.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from quash.errors import QuashError
from quash.pki import policies
from quash.pki.rules import (
    CRL_VALIDITY_MAX_CAS,
    CRL_VALIDITY_MAX_SUBSCRIBERS,
    RESPONSE_VALIDITY_MAX,
    RESPONSE_VALIDITY_MIN,
    SHORT_LIVED,
)
from quash.runtime import profiles
from quash.runtime.profiles import ProfileKind

HOUR = 3600
DAY = 24 * HOUR

Port = Annotated[int, Field(ge=0, le=65535)]
# An issuer's name is also its OCSP path: lower case, so it never begins as the base64 of a request does, with `M`.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
# Certificates name their services by plain http alone (B17, D7); A32 keeps a GET of OCSP within 255 octets.
HttpUrl = Annotated[str, Field(pattern=r"^(http://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~-]+)*/?)?$")]
Nonce = Literal["ignore", "sign"]
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


class Live(Model):
    """What a responder may ask of the presigner: answers signed for one asker. Limits are one worker's."""

    socket: Path | None = None
    """The presigner's; empty: the one in the state folder. Where none is, several certificates are `unauthorized`."""
    in_flight: Annotated[int, Field(ge=1, le=1024)] = 8
    """Asked at once."""
    queue: Annotated[int, Field(ge=0, le=65536)] = 64
    """Waiting to be; beyond, a nonce is ignored, and several certificates are `tryLater`."""
    seconds: Annotated[float, Field(gt=0, le=10)] = 2
    """Queue and signature together, then as with a full queue (A40 is ten seconds for all of it)."""
    certificates: Annotated[int, Field(ge=1, le=250)] = 32
    """In one request (A22); more are `unauthorized`."""


class Responder(Model):
    """OCSP over HTTP."""

    host: str = "127.0.0.1"
    port: Port = 8080
    workers: Annotated[int, Field(ge=1, le=256)] = 2
    cpus: tuple[Annotated[int, Field(ge=0, le=4095)], ...] = ()
    """Each worker of `quash up` is bound to one of these, in turn; empty: the kernel places them."""
    drain_seconds: Annotated[float, Field(gt=0, le=12)] = 3
    """That a leaving worker waits for the next request of its connections, to answer it with `Connection: close`."""
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
    nonce: dict[Name, Nonce] = {}
    """By issuer, before what `issuers` says of it: for those that were imported, which stand in no `issuers`."""
    live: Live = Live()
    access_log_every: Annotated[int, Field(ge=0)] = 0
    """Every so many answers one line in the log, of fast and other answers each; 0: none. Never says who asked."""
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
    mass_limit: Annotated[int, Field(ge=0)] = 1000
    """Certificates above which a mass revocation needs a second officer, who approves exactly its set (E-3)."""
    reads_per_minute: Annotated[int, Field(ge=60)] = 6000
    """Of one operator; beyond: 429."""
    changes_per_minute: Annotated[int, Field(ge=1)] = 1200
    """Of one operator, revocations included; siblings do not count (C8)."""


class Intake(Listener):
    """The public report endpoint (C6, C14)."""

    port: Port = 8082
    certificate: Path | None = None
    """PEM chain for TLS; empty: a proxy in front speaks it. Reports may hold private keys."""
    key: Path | None = None
    behind_proxy: bool = False
    """The source of a report is the address that the proxy puts last into `X-Forwarded-For`."""
    workers: Annotated[int, Field(ge=1, le=16)] = 1
    """Processes that verify proofs."""
    proof_seconds: Annotated[float, Field(gt=0, le=60)] = 5
    """That one proof may take; then its worker is killed and the report refused."""
    per_source_hour: Annotated[int, Field(ge=1)] = 20
    """Reports of one IPv4 address or IPv6 /64; beyond: 429."""
    per_minute: Annotated[int, Field(ge=1)] = 120
    """Reports of all sources."""
    revoke_proven: bool = True
    """A proof that verifies acts at once, as an operator's does (C8); false: an operator hands it in."""


class Notices(Model):
    """Who is told what (C17, C18), by mail and webhook; without either, notices wait and are listed."""

    smtp_host: str = ""
    smtp_port: Port = 587
    smtp_tls: Literal["starttls", "tls", "none"] = "starttls"
    """none: a relay on this machine alone."""
    smtp_user: str = ""
    smtp_password_file: Path | None = None
    sender: str = "revocation@localhost"
    webhook: Annotated[str, Field(pattern=r"^(https?://.*)?$")] = ""
    """Gets a POST of `{"notice", "case", "account", "template", "subject", "text"}` for each subscriber's account."""
    webhook_token_file: Path | None = None
    """Sent as `Authorization: Bearer`."""
    escalate_to: tuple[str, ...] = ()
    """Addresses that hear of cases nobody picked up in time (G39), and of deadlines that will be missed."""
    progress_from: Annotated[int, Field(ge=1)] = 100
    """Certificates from which a case is a mass event: its subscribers and reporter hear of progress (C17, C18)."""
    progress_hours: Annotated[int, Field(ge=1, le=168)] = 6
    """Between two such notices, while certificates are left."""
    explanation_url: Annotated[str, Field(pattern=r"^(https?://.*)?$")] = ""
    """A page about incidents that ACME clients are shown (C21, ARI's explanationURL); `{case}`: the case's number."""
    timeout: Annotated[float, Field(gt=0, le=120)] = 15
    """Seconds for one notice."""

    @model_validator(mode="after")
    def _relay_here(self) -> Self:
        if self.smtp_tls == "none" and self.smtp_host not in ("", "localhost", "127.0.0.1", "::1"):
            raise ValueError("notices.smtp_tls: none is for a relay on this machine alone (F11)")
        return self


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


class Names(Model):
    """Which names exist (D11, D12); both lists are fetched by `quash names refresh` alone."""

    public_suffixes_url: str = "https://publicsuffix.org/list/public_suffix_list.dat"
    root_zone_url: str = "https://data.iana.org/TLD/tlds-alpha-by-domain.txt"
    max_age_days: Annotated[int, Field(ge=1, le=366)] = 90
    """Older: an alarm, and where identifiers are validated the issuing API is not ready (G48)."""


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


class Presign(Model):
    """Flow 4 and the first answers."""

    validity: Annotated[int, Field(ge=RESPONSE_VALIDITY_MIN, le=RESPONSE_VALIDITY_MAX - 1)] = 2 * DAY - 1
    """nextUpdate - thisUpdate, seconds; intervals are inclusive, hence the odd second (A1, A4, G3)."""
    refresh_every: Annotated[int, Field(ge=HOUR, le=23 * HOUR)] = 20 * HOUR
    """A4; G3 wants a new answer every day."""
    workers: Annotated[int, Field(ge=0, le=256)] = 2
    """Processes that sign large refreshes, imports and mass jobs, started when there is enough to do; one a core."""
    live_queue: Annotated[int, Field(ge=1, le=65536)] = 256
    """Answers for one asker (nonces, several certificates) that wait to be signed; more are refused at once."""
    buckets: Annotated[int, Field(ge=1, le=65536)] = 64
    """Of an issuer that `init` makes: slices of its serials that are refreshed one after the other."""
    feed_format: Literal[1, 2] = 1
    """Of issuers and signers in the feed. 2 only when every node runs a release that reads it (docs/upgrade.md)."""

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


class Permitted(Model):
    """Name constraints of a sub-CA (D16, D17, G17, G18); addresses are excluded wherever DNS names are constrained."""

    dns: tuple[Annotated[str, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)*$")], ...] = ()
    """Names that are one of these or below one."""
    email: tuple[Annotated[str, Field(pattern=r"^\.?[a-z0-9-]+(\.[a-z0-9-]+)*$")], ...] = ()
    """Mailboxes at these hosts; with a leading dot at any host below (SBR 7.1.5)."""
    directory: tuple[dict[Literal["C", "ST", "L", "O"], str], ...] = ()
    """Subjects that begin so."""

    @property
    def kinds(self) -> set[str]:
        """Which of the three say anything."""
        return {kind for kind in ("dns", "email", "directory") if getattr(self, kind)}


class Issuer(Model):
    """One CA of the hierarchy that `quash init` makes."""

    name: Name
    kind: Literal["root", "sub-ca"]
    profile: Name | None = None
    """Of `config/profiles`: what the rules say of such a CA; empty: `root` or `sub-ca`."""
    parent: Name | None = None
    key: KeyKind
    subject: dict[Literal["C", "O", "CN"], str]
    """C, O and CN; OU cannot be written (G4)."""
    days: Annotated[int, Field(ge=1, le=9132)]
    """D14: a root 2922 to 9132 days."""
    shards: Annotated[int, Field(ge=0, le=4096)] = 0
    """CRL shards of its certificates; 0: one full CRL."""
    max_age: Annotated[int, Field(ge=1, le=3600)] = 1800
    """Seconds that caches may keep an OCSP answer (A36, G1)."""
    nonce: Nonce = "ignore"
    """`sign`: whoever sends a nonce gets an OCSP answer of its own, from no cache (A27)."""
    policy: tuple[str, ...] = ()
    """Of a sub-CA: what its certificates are, by the names of `quash.pki.policies`; for TLS one alone (D15)."""
    path_length: Annotated[int, Field(ge=0, le=2)] = 0
    """CAs that may stand below a sub-CA before a leaf."""
    permitted: Permitted = Permitted()
    ocsp_signer: OcspSigner = OcspSigner()

    @field_validator("policy", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else () if value is None else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if set(self.subject) != {"C", "O", "CN"}:
            raise ValueError(f"issuer {self.name}: subject needs C, O and CN (D14, D15)")
        if (self.kind == "root") != (self.parent is None):
            raise ValueError(f"issuer {self.name}: a root has no parent, a sub-ca has one")
        return self

    @property
    def profile_name(self) -> str:
        """The profile that it has, said or not."""
        return self.profile or self.kind


class Profile(Model):
    """What an order names: an issuer and the kind of leaf it makes. It can only narrow that kind (G25)."""

    name: Name
    issuer: Name
    kind: Name
    """Of `config/profiles`."""
    days: Annotated[int, Field(ge=1)] | None = None
    """Empty: those of its kind. Limited again at issuance by the dated table (D2, D-4)."""
    short_lived: bool = False
    """Without CRLDP and OCSP: nobody need revoke what ends within 7 days (D4)."""
    suffixes: tuple[Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")], ...] = ()
    """Names must be one of these or below one; empty: any (G18)."""
    countries: tuple[Annotated[str, Field(pattern="^[A-Z]{2}$")], ...] = ()
    """C of the subject must be one of these; empty: any (G18)."""

    def check(self, kind: ProfileKind | None) -> None:
        """Raises ValueError unless it narrows its kind."""
        if kind is None or kind.type not in profiles.LEAVES:
            raise ValueError(f"profile {self.name}: {self.kind} is no kind of leaf in config/profiles")
        days = self.days or kind.days
        if days > kind.days:
            raise ValueError(f"profile {self.name}: {self.kind} allows {kind.days} days")
        if self.short_lived and (kind.type != "tls" or days * DAY > SHORT_LIVED):
            raise ValueError(f"profile {self.name}: short-lived is TLS of at most {SHORT_LIVED // DAY} days (D4)")
        if self.countries and "C" not in kind.subject:
            raise ValueError(f"profile {self.name}: a {self.kind} certificate names no country (D5)")


class Audit(Model):
    """The ledger (F1, F7, G24)."""

    checkpoint_key: str = "pem:ledger/checkpoint.pem"
    """Of the process `ledger` alone; `init` makes the default one."""
    checkpoint_rows: Annotated[int, Field(ge=1)] = 1000
    """A checkpoint is signed after so many rows,"""
    checkpoint_seconds: Annotated[int, Field(ge=1, le=31 * DAY)] = 300
    """or so many seconds after the last one when there is any new row (F7: at the latest 31 days)."""
    s3: S3 | None = None
    """A bucket that gets each checkpoint as well: where nobody may delete, least of all whoever runs this machine."""


class Keys(Model):
    """Where private keys are. PEM files are encrypted; their passphrases are read from files."""

    ca_token: Annotated[str, Field(pattern=r"^pkcs11:")] | None = None
    """Where new CA keys are made: the RFC 7512 URI of a token, such as `pkcs11:token=quash-ca?module-path=/path/of.so`
    `&pin-source=file:/path/of/pin`. Empty: PEM files below `keys/ca`. A key that exists stays where it is."""
    ocsp_token: Annotated[str, Field(pattern=r"^pkcs11:")] | None = None
    """The same of OCSP signers' keys; it must be another token, with a PIN of its own (design 2)."""
    ca_passphrase_file: Path | None = None
    """Empty: `secrets/ca.passphrase` in the state folder, made by `init`."""
    ocsp_passphrase_file: Path | None = None
    """Empty: `secrets/ocsp.passphrase`."""
    offline_passphrase_file: Path | None = None
    """Of the root's key; empty: `secrets/offline.passphrase`. Move both away after `init`."""
    ledger_passphrase_file: Path | None = None
    """Of the key that signs the ledger's checkpoints; empty: `secrets/ledger.passphrase`."""


User = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]*$")] | Annotated[int, Field(ge=0)]


class Sockets(Model):
    """System users, by name or id, that may ask a process on its Unix socket; beside them only its own user, and root.

    For processes that are services with users of their own. Their sockets then belong to the group of the folder `run`.
    """

    ca_signer: tuple[User, ...] = ()
    """Those of the issuing API and the CRL builder."""
    presigner: tuple[User, ...] = ()
    """That of the responder workers."""


class TestSite(Model):
    """Three sites of one root: `valid.`, `revoked.` and `expired.` before the domain."""

    root: Name
    profile: Name
    """What they are ordered as."""
    expired_profile: Name | None = None
    """A profile of few days for the one that is to expire; empty: `profile`, so that it comes when that has ended."""
    domain: Annotated[str, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$")]


class TestSites(Listener):
    """`quash testsite` (F13)."""

    port: Port = 8444
    operator: Name = "operator"
    """Orders and revokes; its files are in the folder `operators`."""
    renew_days: Annotated[int, Field(ge=1, le=30)] = 30
    """F13: renewed at least so often."""
    sites: tuple[TestSite, ...] = ()


class Drills(Model):
    """`quash drill`, which stops processes of the running system."""

    allowed: bool = False
    longest: Annotated[float, Field(gt=0, le=2 * DAY)] = HOUR
    """Seconds for which a process may be stopped; then it is started again by itself."""


class Config(Model):
    """Everything a deployment sets."""

    database: Database = Database()
    responder: Responder = Responder()
    crl_origin: CrlOrigin = CrlOrigin()
    issuer: IssuerApi = IssuerApi()
    admin: Admin = Admin()
    intake: Intake = Intake()
    notices: Notices = Notices()
    metrics: Metrics = Metrics()
    issuance: Issuance = Issuance()
    names: Names = Names()
    checks: Checks = Checks()
    lint: Lint = Lint()
    self_audit: SelfAudit = SelfAudit()
    ct: Ct = Ct()
    ct_log: CtLog = CtLog()
    presign: Presign = Presign()
    crl: Crl = Crl()
    publish: Publish = Publish()
    audit: Audit = Audit()
    keys: Keys = Keys()
    sockets: Sockets = Sockets()
    testsite: TestSites = TestSites()
    drills: Drills = Drills()
    company: str = ""
    """Stands in the commonName of every CA (G35); empty: the first word of its O."""
    kinds: Mapping[str, ProfileKind] = Field(default_factory=profiles.shipped)
    """The files of `config/profiles`, and of a folder `profiles` beside this file, which go before."""
    issuers: tuple[Issuer, ...] = ()
    profiles: tuple[Profile, ...] = ()

    @model_validator(mode="after")
    def _hierarchy(self) -> Self:
        """Each CA within its profile, and below a parent that may have it."""
        by_name = {issuer.name: issuer for issuer in self.issuers}
        if len(by_name) != len(self.issuers):
            raise ValueError("issuers: a name stands twice")
        for issuer in self.issuers:
            check_ca(issuer, self.kinds.get(issuer.profile_name))
            company = self.company or issuer.subject["O"].split()[0]
            if company.lower() not in issuer.subject["CN"].lower():
                raise ValueError(f"issuer {issuer.name}: {company} stands in the CN of each CA (G35)")
            _check_signer(issuer, self.kinds["ocsp-signer"])
            if issuer.parent is not None:
                _check_below(issuer, by_name)
        return self

    @model_validator(mode="after")
    def _relations(self) -> Self:
        names = [issuer.name for issuer in self.issuers]
        if not self.ct.required and self.issuance.require_validation:
            raise ValueError("ct.required: only where issuance.require_validation is false may logs be missing (E6)")
        if self.lint.exempt and self.issuance.require_validation:
            raise ValueError("lint.exempt: only where issuance.require_validation is false, in a demonstration")
        for profile in self.profiles:
            profile.check(self.kinds.get(profile.kind))
            if profile.issuer not in names:
                raise ValueError(f"profile {profile.name}: issuer {profile.issuer} is not configured")
            _check_offers(next(each for each in self.issuers if each.name == profile.issuer), self.kinds[profile.kind])
        return self

    @model_validator(mode="after")
    def _test_sites(self) -> Self:
        """Each root's sites are ordered from a CA below it."""
        parents, below = {each.name: each.parent for each in self.issuers}, {each.name: each for each in self.profiles}
        for site in self.testsite.sites:
            for name in filter(None, (site.profile, site.expired_profile)):
                above = below[name].issuer if name in below else None
                while above is not None and above != site.root:
                    above = parents.get(above)
                if above is None:
                    raise ValueError(f"testsite of {site.root}: {name} is no profile of a CA below it (F13)")
        return self

    @property
    def nonce_signers(self) -> frozenset[str]:
        """The names of the issuers whose nonces are signed."""
        own = {issuer.name: issuer.nonce for issuer in self.issuers}
        return frozenset(name for name, nonce in {**own, **self.responder.nonce}.items() if nonce == "sign")

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


def check_ca(issuer: Issuer, kind: ProfileKind | None) -> None:
    """Raises ValueError unless the CA narrows its profile."""

    def refuse(why: str) -> ValueError:
        return ValueError(f"issuer {issuer.name}: {why}")

    if kind is None or (kind.type == "root") != (issuer.kind == "root") or kind.type in profiles.LEAVES:
        raise refuse(f"{issuer.profile_name} is no profile of a {issuer.kind} in config/profiles")
    if issuer.key not in kind.keys:
        raise refuse(f"{issuer.profile_name} has a key of {', '.join(kind.keys)} (D14, D51)")
    if issuer.days > kind.days:
        raise refuse(f"{issuer.profile_name} lasts {kind.days} days at most (D14, D15)")
    if not set(issuer.policy) <= set(kind.policies) or (issuer.kind == "sub-ca") != bool(issuer.policy):
        raise refuse(f"policy is of {', '.join(kind.policies) or 'no root'} (D15, D17)")
    if len(issuer.policy) > 1 and (kind.type == "tls-ca" or policies.ANY in issuer.policy):
        raise refuse("one TLS policy, or any alone (D15)")
    wanted = {"tls-ca": {"dns", "directory"}, "smime-ca": {"email", "directory"}}.get(kind.type, set())
    if issuer.permitted.kinds not in (wanted, set() if not kind.constraints else wanted):
        raise refuse(f"permitted has {' and '.join(sorted(wanted)) or 'nothing'} (D16, D17)")


def _check_signer(issuer: Issuer, kind: ProfileKind) -> None:
    signer = issuer.ocsp_signer
    if signer.days > kind.days or not kind.takes(signer.key):
        raise ValueError(f"issuer {issuer.name}: an OCSP signer has {kind.days} days, a key of {', '.join(kind.keys)}")


def _check_below(issuer: Issuer, by_name: Mapping[str, Issuer]) -> None:
    parent = by_name.get(issuer.parent or "")
    if parent is None:
        raise ValueError(f"issuer {issuer.name}: parent {issuer.parent} is not configured")
    if parent.kind == "sub-ca" and (parent.path_length <= issuer.path_length or parent.permitted.kinds):
        raise ValueError(f"issuer {issuer.name}: {parent.name} has no path_length left, or constrains names (D15)")
    above, seen = parent, {issuer.name}
    while above.parent is not None and above.name not in seen:
        seen.add(above.name)
        above = by_name.get(above.parent, issuer)
    if above.kind != "root":
        raise ValueError(f"issuer {issuer.name}: there is no root above it")


def _check_offers(issuer: Issuer, kind: ProfileKind) -> None:
    """A leaf's policy is one that its issuer carries (D15)."""
    if issuer.kind != "root" and issuer.path_length:
        raise ValueError(f"issuer {issuer.name}: CAs stand below it, so it issues no leaves")
    if issuer.policy and not {kind.policies[0], policies.ANY} & set(issuer.policy):
        raise ValueError(f"issuer {issuer.name}: it is for {', '.join(issuer.policy)}, not for {kind.name} (D15, G18)")


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
    tree.setdefault("kinds", {**profiles.shipped(), **profiles.read(path.parent / "profiles")})
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
