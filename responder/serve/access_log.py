"""A sample of the answers as structured log lines, for people who look into something.

No line says who asked: what an address asks about tells where it goes.
"""

from __future__ import annotations

from typing import Any

from responder.serve.answer import SIGNED, Answer


class AccessLog:
    """Every `every`th answer of the fast path and of the others, each counted apart; 0: none."""

    def __init__(self, log: Any, every: int) -> None:
        self._log = log
        self.every = every
        self._left = {"fast": every, "full": every}

    def wants(self, path: str) -> bool:
        """Whether this answer of `fast` or `full` is one for the log; to be asked once for each."""
        if not self.every:
            return False
        self._left[path] -= 1
        if self._left[path]:
            return False
        self._left[path] = self.every
        return True

    def write(self, **fields: Any) -> None:
        self._log.info("ocsp.answer", one_of=self.every, **fields)


def described(source: str, method: str, answer: Answer, now: float) -> dict[str, Any]:
    """The fields of one answer's line; `age`: seconds since thisUpdate of a signed one."""
    return {
        "source": source,
        "method": method,
        "status": answer.status,
        "outcome": answer.outcome,
        "cause": answer.cause,
        "issuer": answer.issuer,
        "hash": answer.hash,
        "serial": answer.serial.hex(),
        "age": int(now) - answer.this_update if answer.outcome in SIGNED else None,
        "octets": len(answer.body),
    }
