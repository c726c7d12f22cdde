"""What the CRL builder measures."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from crlgen.build.make import Made
from quash.store.crls import Scope

_SCOPE = ["issuer", "scope"]
PUBLISHED = Counter("quash_crl_published", "CRLs published, by what made them due.", ["why"])
ALARMS = Counter("quash_crl_alarms", "CRLs that were refused or failed, and damaged files, by error code.", ["code"])
BUILD_SECONDS = Histogram("quash_crl_build_seconds", "From reading the revocations to the published file.")
MISSING = Gauge("quash_crl_missing", "1 while a scope has a CRL due that cannot be published.", _SCOPE)
NEXT_UPDATE = Gauge("quash_crl_next_update_timestamp", "nextUpdate of the published CRL, Unix seconds.", _SCOPE)
ENTRIES = Gauge("quash_crl_entries", "Entries of the published CRL.", _SCOPE)
SIZE = Gauge("quash_crl_size_bytes", "Octets of the published CRL (B21: alarm at 8 MB).", _SCOPE)
LEADING = Gauge("quash_crl_leading", "1 while this process holds the builder's lease.")


def published(scope: Scope, crl: Made, why: str, seconds: float) -> None:
    """A CRL went out."""
    labels = (scope.issuer, scope.scope)
    PUBLISHED.labels(why).inc()
    BUILD_SECONDS.observe(seconds)
    MISSING.labels(*labels).set(0)
    NEXT_UPDATE.labels(*labels).set(crl.next_update)
    ENTRIES.labels(*labels).set(crl.entries)
    SIZE.labels(*labels).set(crl.size)
