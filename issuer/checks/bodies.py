"""Whom a subject names, as one line: `TN/Essai`, with more of the organization `TN/Essai/L=Tunis`, or a person of it.

Officers record such lines, leaves need them. A record covers what it says and nothing else: the place of one body and
the register of another of the same name prove no third.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

from quash.errors import QuashError

ORGANIZATION: Final = ("ST", "L", "organizationIdentifier")
PERSON: Final = ("GN", "SN")
_BEHIND: Final = re.compile(f"/(?=(?:{'|'.join((*ORGANIZATION, *PERSON))})=)")
_UNKNOWN: Final = re.compile("/[A-Za-z]+=")
_MORE: Final[Mapping[str, tuple[str, ...]]] = {"organization": ORGANIZATION, "person": PERSON}
KINDS: Final = frozenset(_MORE)


def write(subject: Mapping[str, str]) -> str:
    """C, O and what stands behind them, always in the same order."""
    more = (f"/{key}={subject[key]}" for key in (*ORGANIZATION, *PERSON) if key in subject)
    return f"{subject['C']}/{subject['O']}{''.join(more)}"


def read(kind: str, text: str) -> dict[str, str]:
    """The attributes that such a line says, in NFC as certificates have them. Raises `validation.<kind>`."""
    country, slash, rest = unicodedata.normalize("NFC", text).partition("/")
    name, *more = _BEHIND.split(rest)
    said = [tuple(each.split("=", 1)) for each in more]
    keys = [key for key, _ in said]
    if not slash or _UNKNOWN.search(f"/{name}") or len(set(keys)) < len(keys) or set(keys) - set(_MORE[kind]):
        raise _malformed(kind)
    if kind == "person" and set(keys) != set(PERSON):
        raise _malformed(kind)
    return {"C": country, "O": name, **dict(said)}


def covers(kind: str, recorded: str, wanted: str) -> bool:
    """Whether a record says all that is wanted, of the same organization."""
    try:
        return read(kind, wanted).items() <= read(kind, recorded).items()
    except QuashError:
        return False


def _malformed(kind: str) -> QuashError:
    form = {
        "organization": "country and name, then ST, L, organizationIdentifier as far as validated: TN/Essai/L=Tunis",
        "person": "the organization's country and name, then GN and SN: TN/Essai/GN=Amel/SN=Ben Salah",
    }
    return QuashError(f"validation.{kind}", f"say {form[kind]}")
