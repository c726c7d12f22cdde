"""The responder, and what signs its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from quash.pki.rules import REFRESH_MARGIN, RESPONSE_VALIDITY_MAX, RESPONSE_VALIDITY_MIN
from quash.runtime.config.model import DAY, HOUR, HttpUrl, Model, Name, Nonce, Port


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
    nonce: dict[Name, Nonce] = Field(default_factory=dict)
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
        """A2, A3: a new answer is out before half of the validity; from 16 hours on that leaves the 8 hours as well."""
        most = self.validity // 2 - REFRESH_MARGIN
        if self.refresh_every > most:
            raise ValueError(
                f"presign.refresh_every must be at most {most}: half of presign.validity, less half an hour in which"
                " the new answers come out (A2, A3)"
            )
        return self
