"""The presigner's metrics, and its alarms: an error in the log and a counter, both under the same stable code."""

from __future__ import annotations

from typing import Any

import structlog
from prometheus_client import Counter, Gauge, Histogram

SIGNED = Counter("quash_presign_records", "Records signed and fed, both CertID hashes in one.", ["lane"])
ALARMS = Counter("quash_presign_alarms", "Things that need a person, by error code.", ["code"])
BATCH_SECONDS = Histogram("quash_presign_batch_seconds", "From reading statuses to the feed's commit.", ["lane"])
CLOCK_AHEAD = Gauge("quash_presign_clock_ahead_seconds", "Own clock minus the database's.")
OLDEST = Gauge("quash_presign_oldest_answers_seconds", "Since the oldest bucket's last pass (A4: alarm at 23 h).")
LEADING = Gauge("quash_presign_leading", "1 while this process holds the presigner's lease.")
SIGNER_SECONDS = Gauge("quash_presign_signer_seconds", "That an issuer's newest OCSP signer has left.", ["issuer"])
PARTITIONS = Gauge(
    "quash_feed_partitions", "Partitions of the feed: more than a handful means that refreshes are late."
)

_log = structlog.get_logger()


def alarm(code: str, message: str, **fields: Any) -> None:
    """Tells a person: `code` is a QuashError's code, `fields` are logged and never a label."""
    ALARMS.labels(code).inc()
    _log.error("alarm", code=code, detail=message, **fields)
