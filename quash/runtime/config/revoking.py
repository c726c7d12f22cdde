"""Revocation: the admin API, reports from strangers, notices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from quash.runtime.config.model import Listener, Model, Port


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
    connections: Annotated[int, Field(ge=1)] = 200
    """Open at once; beyond, the oldest is ended."""
    connections_per_source: Annotated[int, Field(ge=1)] = 10
    """Of one IPv4 address or IPv6 /64; not behind a proxy, whose address is that of all."""
    connection_seconds: Annotated[float, Field(gt=0, le=300)] = 30
    """That a connection may last, from its TLS handshake to the last octet of its answer."""
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
