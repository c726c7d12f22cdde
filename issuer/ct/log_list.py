"""The list of logs in the v3 JSON of Google and Apple (E9): who runs which log, in which state, for which notAfter."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import orjson

from quash.errors import Kind, QuashError

MAX_AGE: Final = 70 * 86_400
"""E9: Chrome enforces CT while its list is at most so old; an older list of ours may name logs that are gone."""
USABLE: Final = "usable"
"""E3: the state of logs to submit to."""


@dataclass(frozen=True, slots=True)
class Log:
    """One log. `key`: DER SPKI; `url` ends in a slash and takes `ct/v1/add-pre-chain`; times: Unix seconds, or None."""

    operator: str
    description: str
    log_id: bytes
    key: bytes
    url: str
    kind: Literal["rfc6962", "static"]
    state: str
    starts_at: int | None
    ends_at: int | None

    def takes(self, not_after: int) -> bool:
        """Whether a certificate that ends then belongs into this log's shard: start inclusive, end exclusive."""
        return (self.starts_at is None or self.starts_at <= not_after) and (
            self.ends_at is None or not_after < self.ends_at
        )


@dataclass(frozen=True, slots=True)
class LogList:
    """A whole list; `made_at`: Unix seconds."""

    made_at: int
    logs: tuple[Log, ...]


def read(text: bytes) -> LogList:
    """Reads the JSON. Raises `ct.log_list` for anything that is not such a list, or whose keys and ids disagree."""
    try:
        tree = orjson.loads(text)
        logs = [log for operator in tree["operators"] for log in _logs(operator)]
        return LogList(_time(tree["log_list_timestamp"]), tuple(logs))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise QuashError(
            "ct.log_list", f"this is no log list of version 3 ({error!r}): put a good one there", Kind.UNAVAILABLE
        ) from None


def _logs(operator: Mapping[str, Any]) -> Iterator[Log]:
    kinds: tuple[tuple[str, Literal["rfc6962", "static"], str], ...] = (
        ("logs", "rfc6962", "url"),
        ("tiled_logs", "static", "submission_url"),
    )
    for group, kind, address in kinds:
        for entry in operator.get(group, ()):
            key, log_id = base64.b64decode(entry["key"]), base64.b64decode(entry["log_id"])
            if hashlib.sha256(key).digest() != log_id:
                raise ValueError(f"{entry['description']}: its log_id is not the hash of its key")
            (state,) = entry["state"]
            interval = entry.get("temporal_interval") or {}
            yield Log(
                operator=operator["name"],
                description=entry["description"],
                log_id=log_id,
                key=key,
                url=entry[address].rstrip("/") + "/",
                kind=kind,
                state=state,
                starts_at=_time(interval["start_inclusive"]) if interval else None,
                ends_at=_time(interval["end_exclusive"]) if interval else None,
            )


def _time(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())
