"""What the CRL builder measures."""

from __future__ import annotations

from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram

from quash.store.crls import Scope

_SCOPE = ["issuer", "scope"]
PUBLISHED = Counter("quash_crl_published", "CRLs published, by what made them due.", ["why"])
ALARMS = Counter("quash_crl_alarms", "CRLs that were refused or failed, and damaged files, by error code.", ["code"])
BUILD_SECONDS = Histogram("quash_crl_build_seconds", "From reading the revocations to the published file.")
MISSING = Gauge("quash_crl_missing", "1 while a scope has a CRL due that cannot be published.", _SCOPE)
LATE = Gauge("quash_crl_late_seconds", "Seconds since a CRL is due that is not out (G1, B3, B5); 0: none is.", _SCOPE)
NEXT_UPDATE = Gauge("quash_crl_next_update_timestamp", "nextUpdate of the published CRL, Unix seconds.", _SCOPE)
ENTRIES = Gauge("quash_crl_entries", "Entries of the published CRL.", _SCOPE)
SIZE = Gauge("quash_crl_size_bytes", "Octets of the published CRL (B21: alarm at 8 MB).", _SCOPE)
FORECAST = Gauge(
    "quash_crl_forecast_bytes", "Octets of the CRL if every unexpired certificate of it were revoked (B21).", _SCOPE
)
DISCLOSE_BY = Gauge("quash_crl_disclose_by_timestamp", "When CCADB must know a URL that it was not told (B24).", _SCOPE)
OFFLINE_BY = Gauge(
    "quash_offline_renewal_timestamp",
    "When something ends, or must be signed, that needs an offline key: alarm 60 days before (B2, G4).",
    ["issuer", "what"],
)
LEADING = Gauge("quash_crl_leading", "1 while this process holds the builder's lease.")


class _Standing(Protocol):
    """What there is to say of a published CRL; `size` in octets."""

    @property
    def next_update(self) -> int: ...
    @property
    def entries(self) -> int: ...
    @property
    def size(self) -> int | None: ...


def published(scope: Scope, crl: _Standing, why: str, seconds: float) -> None:
    """A CRL went out."""
    PUBLISHED.labels(why).inc()
    BUILD_SECONDS.observe(seconds)
    MISSING.labels(scope.issuer, scope.scope).set(0)
    standing(scope, crl)


def standing(scope: Scope, crl: _Standing) -> None:
    """This CRL is out: just published, or found so at start."""
    labels = (scope.issuer, scope.scope)
    NEXT_UPDATE.labels(*labels).set(crl.next_update)
    ENTRIES.labels(*labels).set(crl.entries)
    SIZE.labels(*labels).set(crl.size or 0)
