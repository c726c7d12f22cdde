"""Which SCTs make a certificate acceptable to Chrome and Apple together (E1-E4), and which logs to ask for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from issuer.ct.log_list import USABLE, Log
from quash.pki import dated


@dataclass(frozen=True, slots=True)
class Demand:
    """What a certificate of one lifetime needs: so many SCTs of distinct logs, at most `per_operator` counting each."""

    scts: int
    per_operator: int
    operators: int = 2  # E2, Chrome
    rfc6962: int = 1  # E4, Apple


def demand(seconds: int) -> Demand:
    """By the lifetime in seconds, inclusive: up to 180 days two SCTs of two operators, then three (E1, E2)."""
    scts = dated.at(dated.SCT_COUNT, seconds)
    return Demand(scts, scts - 1)


def satisfied(logs: Iterable[Log], wanted: Demand) -> bool:
    """Whether SCTs of these logs meet the demand."""
    distinct = {log.log_id: log for log in logs}.values()
    per_operator = Counter(log.operator for log in distinct)
    counting = sum(min(count, wanted.per_operator) for count in per_operator.values())
    return (
        counting >= wanted.scts
        and len(per_operator) >= wanted.operators
        and sum(log.kind == "rfc6962" for log in distinct) >= wanted.rfc6962
    )


def candidates(logs: Iterable[Log], not_after: int) -> list[Log]:
    """Usable logs (E3) whose shard takes a certificate that ends at `not_after` (E9)."""
    return [log for log in logs if log.state == USABLE and log.takes(not_after)]


def smallest(logs: Sequence[Log], wanted: Demand) -> tuple[Log, ...] | None:
    """The first set of exactly as many logs as SCTs are wanted that satisfies, earlier logs preferred; None: no set."""
    return next((chosen for chosen in combinations(logs, wanted.scts) if satisfied(chosen, wanted)), None)
