"""The presigner's metrics, and its alarms: an error in the log and a counter, both under the same stable code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import structlog
from prometheus_client import Counter, Gauge, Histogram

from quash.store.signer_switches import SignerSwitch

SIGNED = Counter("quash_presign_records", "Records signed and fed, both CertID hashes in one.", ["lane"])
ALARMS = Counter("quash_presign_alarms", "Things that need a person, by error code.", ["code"])
BATCH_SECONDS = Histogram("quash_presign_batch_seconds", "From reading statuses to the feed's commit.", ["lane"])
CLOCK_AHEAD = Gauge("quash_presign_clock_ahead_seconds", "Own clock minus the database's.")
OLDEST = Gauge("quash_presign_oldest_answers_seconds", "Since the oldest bucket's last pass.")
OLDEST_LIMIT = Gauge(
    "quash_presign_oldest_answers_limit_seconds", "What that may be at most: 23 h, or less by presign.validity (A4)."
)
LEADING = Gauge("quash_presign_leading", "1 while this process holds the presigner's lease.")
KEY_PROBLEMS = Gauge(
    "quash_presign_key_problems", "Issuers whose OCSP key this process cannot use, also while it stands by."
)
SIGNER_SECONDS = Gauge("quash_presign_signer_seconds", "That an issuer's newest OCSP signer has left.", ["issuer"])
SWITCH_LEFT = Gauge("quash_presign_switch_left", "Buckets that emergency switches have yet to sign anew.", ["issuer"])
SWITCH_LEFT_SECONDS = Gauge(
    "quash_presign_switch_left_seconds", "Until that is done, at the rate so far; absent: nobody can tell.", ["issuer"]
)
PARTITIONS = Gauge(
    "quash_feed_partitions", "Partitions of the feed: more than a handful means that refreshes are late."
)

_log = structlog.get_logger()


def switches(under_way: Iterable[SignerSwitch], now: float) -> None:
    """How far emergency switches are, of each issuer the newest; done: none is told of."""
    SWITCH_LEFT.clear()
    SWITCH_LEFT_SECONDS.clear()
    for each in under_way:
        SWITCH_LEFT.labels(each.issuer).set(each.buckets - each.done)
        left = each.seconds_left(now)
        if left is not None:
            SWITCH_LEFT_SECONDS.labels(each.issuer).set(left)


def alarm(code: str, message: str, **fields: Any) -> None:
    """Tells a person: `code` is a QuashError's code, `fields` are logged and never a label."""
    ALARMS.labels(code).inc()
    _log.error("alarm", code=code, detail=message, **fields)
