"""The lists that say which names exist: public suffixes and the root zone, refreshed files that go before what ships.

`quash names refresh` fetches both into the state folder; a running process takes a new file up by itself. Without one,
the public suffix list of the installed package serves for both: its ICANN section names every top-level domain (D12,
G28). Special-use names of RFC 6761's registry are few and stand here. IP addresses need no list: none is certified.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Final

from prometheus_client import Gauge
from publicsuffixlist import PublicSuffixList

from quash.errors import Kind, QuashError

SUFFIXES, ROOT_ZONE = "public_suffix_list.dat", "tlds-alpha-by-domain.txt"
"""File names, as their publishers call them, in the folder `names` of the state."""

# IANA, "Special-Use Domain Names" (RFC 6761), and `internal`, which ICANN reserved in 2024; `example.com` and its like
# are documentation, not private: whoever holds them may have certificates.
SPECIAL_USE: Final = frozenset(
    {
        *("alt", "example", "internal", "invalid", "local", "localhost", "onion", "test"),
        *("6tisch.arpa", "eap.arpa", "eap-noob.arpa", "home.arpa", "ipv4only.arpa", "resolver.arpa", "service.arpa"),
    }
)

_FORMS: Final[Mapping[str, tuple[re.Pattern[str], str]]] = {
    SUFFIXES: (re.compile(r"^// VERSION: (\d{4}-\d\d-\d\d)_", re.MULTILINE), "%Y-%m-%d"),
    ROOT_ZONE: (re.compile(r"^# Version \d+, Last Updated \w{3} (\w{3} +\d+ [\d:]{8} \d{4}) UTC"), "%b %d %H:%M:%S %Y"),
}
_FEWEST: Final = {SUFFIXES: 5000, ROOT_ZONE: 1000}
_ICANN: Final = re.compile(r"// ===BEGIN ICANN DOMAINS===\n(.*)// ===END ICANN DOMAINS===", re.DOTALL)
_AGE: Final = Gauge("quash_names_list_published_seconds", "When the list in use was published, Unix time", ["list"])


@dataclass(frozen=True, slots=True)
class NameList:
    """One list: its rules or top-level domains as lines, and when it was published (Unix seconds)."""

    lines: tuple[str, ...]
    published: int


def read_list(name: str, text: str) -> NameList:
    """Reads a list as its publisher writes it. Raises `names.malformed` for anything else, above all half a file."""
    pattern, form = _FORMS[name]
    said = pattern.search(text[:4096])
    body = text
    if name == SUFFIXES:
        section = _ICANN.search(text)
        body = section[1] if section else ""
    lines = tuple(line.strip() for line in body.splitlines() if line.strip() and line[:1] not in "/#")
    if said is None or len(lines) < _FEWEST[name] or not text.endswith("\n"):
        raise QuashError("names.malformed", f"this is no whole {name}")
    published = datetime.strptime(" ".join(said[1].split()), form).replace(tzinfo=UTC)
    return NameList(lines, int(published.timestamp()))


class Registries:
    """Both lists as they are now: files of `folder` where there are, else what ships. A changed one is read again."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._stamps: tuple[int, ...] = (-1,)
        self._read()

    def check(self, name: str) -> None:
        """Refuses a DNS name (lower-case, well formed) that nobody could hold: D11, D12, G28.

        Raises `name.special_use`, `name.unknown_tld`, `name.no_public_suffix`, `name.public_suffix`.
        """
        self._read()
        labels = name.split(".")
        tails = {".".join(labels[start:]) for start in range(len(labels))}
        if special := tails & SPECIAL_USE:
            raise _refuse("special_use", f"{name} is below {special.pop()}, which belongs to everybody (RFC 6761)")
        suffix = self._suffixes.publicsuffix(name)
        if suffix is None:
            raise _refuse("no_public_suffix", f"{name} is under no registry's suffix: it may be an internal name")
        if labels[-1] not in self._tlds:
            raise _refuse("unknown_tld", f"{labels[-1]} is no longer in the root zone (D11)")
        if suffix == name:
            raise _refuse("public_suffix", f"{name} belongs to its registry (D12)")

    @property
    def published(self) -> Mapping[str, int]:
        """When each list was published, Unix seconds."""
        self._read()
        return {SUFFIXES: self._suffixes_published, ROOT_ZONE: self._tlds_published}

    def check_age(self, limit: int, now: int) -> None:
        """Raises `names.outdated` for a list older than `limit` seconds: names come and go (G48)."""
        for name, published in self.published.items():
            if now - published > limit:
                days = (now - published) // 86_400
                raise QuashError(
                    "names.outdated", f"{name} is {days} days old: run quash names refresh", Kind.UNAVAILABLE
                )

    def _read(self) -> None:
        stamps = tuple(self._stamp(name) for name in (SUFFIXES, ROOT_ZONE))
        if stamps == self._stamps:
            return
        suffixes = read_list(SUFFIXES, self._text(SUFFIXES))
        self._suffixes = PublicSuffixList(self._text(SUFFIXES).splitlines(), accept_unknown=False, only_icann=True)
        self._suffixes_published = suffixes.published
        self._tlds = frozenset(_ascii(rule.rpartition(".")[2]) for rule in suffixes.lines)
        self._tlds_published = suffixes.published
        if stamps[1]:
            zone = read_list(ROOT_ZONE, self._text(ROOT_ZONE))
            self._tlds, self._tlds_published = frozenset(map(str.lower, zone.lines)), zone.published
        self._stamps = stamps
        _AGE.labels(SUFFIXES).set(self._suffixes_published)
        _AGE.labels(ROOT_ZONE).set(self._tlds_published)

    def _stamp(self, name: str) -> int:
        """When our own file was written, in nanoseconds; 0: there is none."""
        try:
            return (self._folder / name).stat().st_mtime_ns if self._folder else 0
        except FileNotFoundError:
            return 0

    def _text(self, name: str) -> str:
        if self._stamp(name) and self._folder:
            return (self._folder / name).read_text(encoding="utf-8")
        return files("publicsuffixlist").joinpath(name).read_text(encoding="utf-8")


def _ascii(label: str) -> str:
    return label if label.isascii() else label.encode("idna").decode("ascii")


def _refuse(what: str, message: str) -> QuashError:
    return QuashError(f"name.{what}", message, Kind.REFUSED)
