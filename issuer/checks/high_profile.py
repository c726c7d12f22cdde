"""Names that a person looks at before anything is issued for them (G19, D38): the list is data, the match is simple.

A listed word counts wherever it stands as a word of its own in a name: `paypal.example.org`, `login-paypal.example.org`
and `paypal.com`, but not `repaypals.example.org`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

_WORD = re.compile(r"[a-z0-9]+")


def flagged(names: Iterable[str], words: Collection[str]) -> list[str]:
    """Those of the lower-case DNS names that contain one of the lower-case words."""
    return [name for name in names if not _words(name).isdisjoint(words)]


def _words(name: str) -> set[str]:
    return set(_WORD.findall(name))
