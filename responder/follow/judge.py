"""From feed rows to one commit's changes: each kind of row by its own rule, refusals on the side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quash.cache.layout import (
    NEWER_FORMAT,
    IssuerRow,
    TemplateRow,
    decode_heartbeat,
    decode_issuer,
    decode_template,
)
from quash.cache.writer import Changes
from quash.errors import QuashError
from quash.store.feed import URGENT
from responder.follow.trust import Item, Refusal, Trust


@dataclass(slots=True)
class Verdict:
    """What a batch brings, and what of it is refused."""

    records: list[Item] = field(default_factory=list)
    issuers: list[IssuerRow] = field(default_factory=list)
    templates: list[TemplateRow] = field(default_factory=list)
    heartbeat: int | None = None
    refused: list[Refusal] = field(default_factory=list)

    def changes(self, position: bytes, *, complete: bool) -> Changes:
        return Changes(self.records, self.templates, self.issuers, self.heartbeat, position, complete)


def judge(rows: Sequence[Any], trust: Trust, now: float) -> Verdict:
    """Rows have `lane`, `kind` and `payload`. An unknown kind is refused: this node's software is too old for it.

    Raises `cache.newer_format` for a row of a later release: nothing of the batch may be applied, since a row that is
    passed over, a revocation perhaps, would never be read again.
    """
    verdict = Verdict()
    for row in rows:
        handler = _HANDLERS.get(row["kind"])
        try:
            refusal = handler(verdict, trust, row, now) if handler else Refusal("kind", row["kind"])
        except QuashError as error:
            if error.code == NEWER_FORMAT:
                raise
            refusal = Refusal("layout", error.message)
        if refusal is not None:
            verdict.refused.append(refusal)
    return verdict


def _records(verdict: Verdict, trust: Trust, row: Any, now: float) -> None:
    judgement = trust.records(row["payload"], urgent=row["lane"] == URGENT, now=now)
    verdict.records += judgement.accepted
    verdict.refused += judgement.refused


def _heartbeat(verdict: Verdict, trust: Trust, row: Any, now: float) -> Refusal | None:
    at = decode_heartbeat(row["payload"])
    refusal = trust.heartbeat(at, now)
    if refusal is None:
        verdict.heartbeat = max(at, verdict.heartbeat or 0)
    return refusal


def _issuer(verdict: Verdict, trust: Trust, row: Any, _: float) -> Refusal | None:
    issuer = decode_issuer(row["payload"])
    refusal = trust.issuer(issuer)
    if refusal is None:
        verdict.issuers.append(issuer)
    return refusal


def _template(verdict: Verdict, trust: Trust, row: Any, _: float) -> Refusal | None:
    template = decode_template(row["payload"])
    refusal = trust.template(template)
    if refusal is None:
        verdict.templates.append(template)
    return refusal


_HANDLERS: Mapping[str, Callable[[Verdict, Trust, Any, float], Refusal | None]] = {
    "records": _records,
    "heartbeat": _heartbeat,
    "issuer": _issuer,
    "template": _template,
}
