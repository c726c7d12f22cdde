"""The one error family: a stable dotted code, the fault's kind, and a sentence that says what to do.

The code is at once the metric label, the log field and the problem type of the APIs (RFC 9457). What a kind means in
HTTP or as an exit status is decided at the edge alone (`api` modules, `quash.cli`).
"""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """Whose fault an error is, and so what the asker can do about it."""

    INPUT = "input"  # the request is malformed: send another one
    NOT_FOUND = "not_found"  # the thing named does not exist
    FORBIDDEN = "forbidden"  # this person may not
    REFUSED = "refused"  # a rule or policy forbids it, whoever asks
    CONFLICT = "conflict"  # the state it asks to change is another one
    UNAVAILABLE = "unavailable"  # try again later: something we need is down
    INTERNAL = "internal"  # our fault


class QuashError(Exception):
    """An error with a stable code, for example `QuashError("csr.bad_signature", "…", Kind.INPUT)`.

    `code` never changes once released; `message` says what to do and contains no secret.
    """

    order_id: str | None = None
    """The order that was stored, refused for this."""
    undone: bool = False
    """It is certain that nothing was changed before: the same request may be sent again as if it never had been."""

    def __init__(self, code: str, message: str, kind: Kind = Kind.INPUT) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
