"""When a bucket is due again (A3, A4), so that the load is flat over the cycle."""

from __future__ import annotations

from quash.pki.rules import REFRESH_MARGIN


def next_due(*, began: int, bucket: int, bucket_count: int, every: int, validity: int) -> int:
    """When a bucket whose pass began at `began` is due again: later than that, by at most `every` seconds.

    Each bucket has its own slot in the cycle, so buckets that were passed together (at init, after an outage) spread
    out again within one cycle. `validity` is the shortest that the pass signed: near the end of the signer's
    certificate it is cut (A5), and half of it, less the time in which it comes out, is then sooner than the slot (A2,
    A3).
    """
    slot = bucket * every // bucket_count
    wait = every - (began - slot) % every
    return began + max(1, min(wait, validity // 2 - REFRESH_MARGIN))
