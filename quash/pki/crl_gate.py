"""The gate before publishing: reads a finished CRL as a stranger would and refuses what must never go out.

CRLs of online and of offline keys pass through it. It believes neither whoever assembled the list nor whoever signed
it: it works on the octets that would be published, on what is published now, and on numbers asked of the database for
this purpose. What it refuses never replaces the published CRL, which stays. pkilint (`quash.pki.crl_lint`) is asked
beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from quash.errors import Kind, QuashError
from quash.pki import der
from quash.pki.algorithms import SignatureAlgorithm, verify
from quash.pki.crl import ENTRIES, Crl, cut_entries, read_crl, read_entry, serial_of
from quash.pki.reasons import Reason
from quash.pki.rules import check_crl_validity

MAX_CLOCK_STEP = 300
"""Seconds that the clock may be behind the thisUpdate of the published CRL."""
_LEAP_DAY = b"0229"
_FEW = 16  # serials that are looked for one by one: each costs 20 ms among a million entries, a set of all 750 ms
"""In the octets of a date that `ENTRIES` takes in every year."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What every CRL of a scope must say. `issuer`, `spki`: DER; `authority_key_id`: the issuer's SKI.

    `not_after`: Unix seconds, of the issuer's certificate that ends last.
    """

    issuer: bytes
    spki: bytes
    algorithm: SignatureAlgorithm
    authority_key_id: bytes
    idp_urls: tuple[str, ...]
    only: Literal["user", "ca"] | None
    not_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the new CRL must say. `entries` is the database's own count, `now` the clock's Unix seconds.

    `goes_back`: a person has ordered that it replaces one from the future, so its thisUpdate need not rise.
    """

    number: int
    this_update: int
    next_update: int
    entries: int
    now: float
    goes_back: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """What the gate remembers of the CRL that is out: `entries` are whole entries joined, `count` how many."""

    number: int
    this_update: int
    entries: bytes
    count: int


def _refuse(code: str, message: str) -> QuashError:
    return QuashError(code, message, Kind.REFUSED)


def read(data: bytes, terms: Terms, known: bytes = b"") -> Crl:
    """A CRL that is this scope's own and whose signature verifies (B1, B7, B14, B15, B20).

    `known`: joined entries of the published CRL, which passed here before.
    Raises `crl.malformed`, `crl.other_algorithm`, `crl.other_issuer`, `crl.other_key_id`, `crl.other_idp`,
    `crl.beyond_issuer`, `signature.invalid`.
    """
    crl = read_crl(data, known)
    if crl.algorithm != terms.algorithm.identifier:
        raise _refuse("crl.other_algorithm", "the CRL is signed with another algorithm than the issuer's")
    if crl.issuer != terms.issuer:
        raise _refuse("crl.other_issuer", "the CRL names another issuer")
    if crl.authority_key_id != terms.authority_key_id:
        raise _refuse("crl.other_key_id", "the CRL's authorityKeyIdentifier is not the issuer's SKI")
    # B15: a shard's IDP is critical and carries the URL of the CRLDP byte for byte; a full CRL has none (B14).
    if (crl.idp_urls, crl.idp_critical, crl.only) != (terms.idp_urls, bool(terms.idp_urls), terms.only):
        raise _refuse("crl.other_idp", f"the CRL's IDP is {crl.idp_urls}, the scope's {terms.idp_urls}")
    if crl.next_update > terms.not_after:
        raise _refuse("crl.beyond_issuer", "the CRL's nextUpdate is after the end of the issuer's certificate")
    verify(terms.spki, terms.algorithm, terms.algorithm.decode(crl.signature), crl.tbs)
    return crl


def check_clock(this_update: int, now: float) -> None:
    """Raises `crl.clock_went_back` when a CRL newer than the published one would be dated in the future."""
    if this_update > now + MAX_CLOCK_STEP:
        raise _refuse(
            "crl.clock_went_back",
            "the clock is more than 5 minutes behind the published CRL: set it right or, if that CRL is from the"
            " future, order another with quash crl replace-future",
        )


def check(crl: Crl, expected: Expected, previous: Published | None, *, subscribers: bool = True) -> list[bytes]:
    """Compares a new CRL, as read, with what is expected of it and with the published one.

    Returns the serials of entries that are gone, for the caller to ask the database about (B13) and `refuse_lost`.
    Raises `crl.number_not_rising`, `crl.clock_went_back`, `crl.other_times`, `crl.validity`, `crl.count_differs`,
    `crl.entry_twice`, `crl.reason_downgraded`, `crl.date_moved`, `crl.malformed`.
    """
    if crl.number != expected.number or (previous and crl.number <= previous.number):
        raise _refuse("crl.number_not_rising", f"CRL number {crl.number} does not follow the published one (B7)")
    check_clock(crl.this_update, expected.now)
    times = (crl.this_update, crl.next_update)
    rises = previous is None or times[0] > previous.this_update or expected.goes_back
    if times != (expected.this_update, expected.next_update) or not rises:
        raise _refuse("crl.other_times", "the CRL's times are not those that were set, or go back")
    check_crl_validity(*times, subscribers=subscribers)
    return _compare(previous, crl.revoked, expected.entries)


def refuse_lost(lost: list[bytes], may_go: set[bytes]) -> None:
    """Raises `crl.entry_lost` when an entry is gone that must still be shown (B13)."""
    if missing := [serial.hex() for serial in lost if serial not in may_go]:
        raise _refuse("crl.entry_lost", f"{len(missing)} published entries would be lost, the first {missing[0]}")


def refuse_findings(findings: Sequence[str]) -> None:
    """Raises `crl.lint` when pkilint has any."""
    if findings:
        raise _refuse("crl.lint", f"pkilint refuses it: {'; '.join(findings[:5])}")


def _compare(previous: Published | None, revoked: bytes, expected: int) -> list[bytes]:
    """The common case, entries added at the end of what is published, costs one comparison of memory."""
    if previous is not None and revoked.startswith(previous.entries):
        added = _well_formed(revoked[len(previous.entries) :])
        _count(previous.count + len(added), expected)
        for example in _examples(added):
            read_entry(example)
        _check_new(_serials(added), previous.entries)
        return []
    current = _well_formed(revoked)
    for example in _examples([entry for entry in current if _LEAP_DAY in entry]):
        read_entry(example)
    _count(len(current), expected)
    _serials(current)
    return [] if previous is None else _compare_sets(set(cut_entries(previous.entries)), set(current))


def _compare_sets(old: set[bytes], current: set[bytes]) -> list[bytes]:
    new = {serial_of(entry): entry for entry in current - old}
    lost = []
    for entry in old - current:
        serial, revoked_at, reason = read_entry(entry)
        if serial in new:
            _check_upgrade(serial, (revoked_at, reason), new[serial])
        else:
            lost.append(serial)
    return lost


def _well_formed(revoked: bytes) -> list[bytes]:
    """Entries cut apart that are just a serial, a time and perhaps an allowed reason (B8, B10, B11, B19)."""
    if not ENTRIES.fullmatch(revoked):
        raise _refuse("crl.malformed", "an entry is not of our profile (B8-B11)")
    return cut_entries(revoked)


def _count(entries: int, expected: int) -> None:
    if entries != expected:
        raise _refuse("crl.count_differs", f"{entries} entries, the database counts {expected}")


def _serials(entries: list[bytes]) -> set[bytes]:
    """Theirs, each once."""
    serials = set(map(serial_of, entries))
    if len(serials) != len(entries):
        raise _refuse("crl.entry_twice", "a serial stands twice on the CRL")
    return serials


def _check_new(added: set[bytes], published: bytes) -> None:
    """None of the serials that were added is published already: another one would be missing, by the count.

    Few are looked for in the octets; what is found there, perhaps within another serial, decides nothing yet.
    """
    if len(added) <= _FEW and not any(der.tlv(der.INTEGER, serial) in published for serial in added):
        return
    if not added.isdisjoint(map(serial_of, cut_entries(published))):
        raise _refuse("crl.entry_twice", "a serial stands twice on the CRL")


def _examples(entries: list[bytes]) -> Iterable[bytes]:
    """One entry of each shape: they differ in their serials and in little else."""
    return {entry[:4] + entry[4 + entry[3] :]: entry for entry in entries}.values()


def _check_upgrade(serial: bytes, old: tuple[int, int], entry: bytes) -> None:
    """A published entry changes only to keyCompromise, and its date only back, and only then (B25, C16)."""
    _, revoked_at, reason = read_entry(entry)
    if reason != old[1] and reason != Reason.keyCompromise:
        raise _refuse("crl.reason_downgraded", f"serial {serial.hex()}: reason {old[1]} would become {reason}")
    if revoked_at > old[0] or (revoked_at < old[0] and reason != Reason.keyCompromise):
        raise _refuse("crl.date_moved", f"serial {serial.hex()}: the revocation date would move")
