"""CRLs: when they are made, where they go, who hands them out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from quash.pki.rules import CRL_VALIDITY_MAX_CAS, CRL_VALIDITY_MAX_SUBSCRIBERS
from quash.runtime.config.model import DAY, HOUR, HttpUrl, Listener, Model, Port
from quash.runtime.config.storage import S3


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


class CrlOrigin(Listener):
    """CRLs and CA certificates over HTTP."""

    port: Port = 8081
    base_url: HttpUrl = ""
    """What CRLDPs and caIssuers carry before the path; empty: http, host and port above."""
