"""Names that a person looks at before anything is issued for them (G19, D38): the list is data, the match is simple.

Of TLS the DNS names, of S/MIME the mailboxes' hosts, of both the organization. A listed word counts wherever it stands
as a word of its own, with or without accents: `paypal.example.org`, `login-paypal.example.org` and `paypal.com`, not
`repaypals.example.org`.

An organization that is not written in plain Latin letters (once accents are off) is looked at as well: the list's words
would not be found in Arabic, and a Cyrillic o in Google looks like a Latin one. No table of look-alikes is ever
whole; an officer has eyes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

from issuer.profiles import LeafContent
from quash.pki.folding import fold

_WORD = re.compile(r"[a-z0-9]+")
_READ = ("L", "N", "S")  # Unicode's categories of what is read as letters, digits and symbols


def flagged(content: LeafContent, words: Collection[str]) -> list[str]:
    """Those of the names in a leaf that contain one of the folded words, and an organization that hides from them."""
    names = {name: name for name in content.dns_names} | {each: each.rpartition("@")[2] for each in content.mailboxes}
    found = [name for name, host in names.items() if _has(host, words)]
    organization = content.subject.get("O", "")
    if words and (_has(organization, words) or _is_foreign(organization)):
        found.append(organization)
    return found


def _has(text: str, words: Collection[str]) -> bool:
    return not set(_WORD.findall(fold(text))).isdisjoint(words)


def _is_foreign(text: str) -> bool:
    """Whether anything readable in it is not ASCII, as it stands or once it is folded."""
    signs = (each for each in text if unicodedata.category(each).startswith("S") and not each.isascii())
    return any(signs) or any(not each.isascii() and unicodedata.category(each)[0] in _READ for each in fold(text))
