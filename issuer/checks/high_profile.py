"""Names that a person looks at before anything is issued for them (G19, D38): the list is data, the match is simple.

Of TLS the DNS names, of S/MIME the mailboxes' hosts, of both the organization. A listed word counts wherever it stands
as a word of its own: `paypal.example.org`, `login-paypal.example.org` and `paypal.com`, not `repaypals.example.org`.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from issuer.profiles import LeafContent

_WORD = re.compile(r"[a-z0-9]+")


def flagged(content: LeafContent, words: Collection[str]) -> list[str]:
    """Those of the names in a leaf that contain one of the lower-case words."""
    names = [
        *content.dns_names,
        *content.mailboxes,
        *(content.subject[key] for key in ("O",) if key in content.subject),
    ]
    return [name for name in names if not _words(name.rpartition("@")[2]).isdisjoint(words)]


def _words(name: str) -> set[str]:
    return set(_WORD.findall(name.lower()))
