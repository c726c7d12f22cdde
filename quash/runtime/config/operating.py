"""Running it: metrics, the ledger, who may ask on sockets, test sites, drills."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from quash.runtime.config.model import DAY, HOUR, Listener, Model, Name, Port
from quash.runtime.config.storage import S3

User = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]*$")] | Annotated[int, Field(ge=0)]


class Metrics(Listener):
    port: Port = 9090


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
    subject: dict[Annotated[str, Field(pattern="^(C|ST|L|O)$")], str] = Field(default_factory=dict)
    """What is asked for beside the name, where the profile is of organizations."""


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
