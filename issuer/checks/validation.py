"""Whether the identifiers of an order were validated for whoever orders, by a method and at a time that still count.

The seam for everything that validates: today officers record what they validated (`quash validation add`), later the
methods of BR 3.2.2.4 write the same rows. What counts for how long is the dated table (D21-D24, D50, G12-G14).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from issuer.checks import bodies
from issuer.profiles import LeafContent
from quash.errors import Kind, QuashError
from quash.pki import dated
from quash.store.validations import Validation

# D25: what these methods prove for a name holds for the names below it too; the others prove the name alone.
_PRUNED: Final = frozenset({"4", "7", "12", "13", "14", "16", "17", "21", "22"})
_EMAIL_METHODS: Final = frozenset({"3.2.2.2"})  # SBR: control of the mailbox; by its host: a DNS name's methods
_ORGANIZATION_METHODS: Final = frozenset({"3.2.2.1", "3.2.3"})  # BR and SBR: identity of a registered body (G46)
_PERSON_METHODS: Final = frozenset({"3.2.4"})  # SBR: identity of a person, whom the organization speaks for (G38)
_BR: Final = "3.2.2.4."
_CONSTRUCTED: Final = "3.2.2.4.4"  # an e-mail to a mailbox that the CA makes up of these words and the domain
_MAILBOXES: Final = ("admin", "administrator", "webmaster", "hostmaster", "postmaster")
REUSE: Final[Mapping[str, dated.Table[int]]] = MappingProxyType(
    {
        "dns": dated.DOMAIN_REUSE,
        "email": dated.MAILBOX_REUSE,
        "organization": dated.IDENTITY_REUSE,
        "person": dated.IDENTITY_REUSE,
    }
)


@dataclass(frozen=True, slots=True)
class Identifier:
    """What must have been validated. `kind`: dns, email, organization or person (the last two: `checks.bodies`)."""

    kind: str
    value: str


def identifiers(content: LeafContent) -> tuple[Identifier, ...]:
    """What somebody must have validated of a leaf: each name, and each attribute of its subject (D6, D49, G38).

    commonName alone is left out: it repeats one of the others (`checks.content`).
    """
    found = [*(Identifier("dns", name) for name in content.dns_names)]
    found += [Identifier("email", address) for address in content.mailboxes]
    subject = {key: value for key, value in content.subject.items() if key != "CN"}
    if subject:
        person = bodies.PERSON
        found.append(_body("organization", {key: value for key, value in subject.items() if key not in person}))
        if any(key in subject for key in person):
            found.append(_body("person", {key: subject[key] for key in ("C", "O", *person) if key in subject}))
    return tuple(found)


def _body(kind: str, subject: Mapping[str, str]) -> Identifier:
    """Raises `validation.required` for what no record could say unmistakably, such as an O of `Essai/L=Tunis`."""
    line = bodies.write(subject)
    try:
        clear = bodies.read(kind, line) == subject
    except QuashError:
        clear = False
    if not clear:
        raise QuashError(
            "validation.required", f"nobody can validate the {kind} {line}: write it otherwise", Kind.REFUSED
        )
    return Identifier(kind, line)


def proofs(wanted: Iterable[Identifier]) -> set[tuple[str, str]]:
    """(kind, value) of every row that could prove a name among these: itself, and for hosts the names above."""
    found = set()
    for each in wanted:
        if each.kind not in bodies.KINDS:
            found.add((each.kind, each.value))
            labels = each.value.rpartition("@")[2].split(".")
            found |= {("dns", ".".join(labels[start:])) for start in range(len(labels) - 1)}
    return found


def organizations(wanted: Iterable[Identifier]) -> set[str]:
    """`C/O` of the organizations and persons among these: a row that could prove one begins so."""
    said = (bodies.read(each.kind, each.value) for each in wanted if each.kind in bodies.KINDS)
    return {bodies.write({key: each[key] for key in ("C", "O")}) for each in said}


def check_method(kind: str, method: str, now: int) -> None:
    """Raises `validation.method` for a method that proves nothing of the kind today (D23, D24)."""
    allowed: Collection[str] = {
        "email": _EMAIL_METHODS,
        "organization": _ORGANIZATION_METHODS,
        "person": _PERSON_METHODS,
    }.get(kind, ())
    if kind == "dns":
        allowed = {_BR + number for number in dated.at(dated.DOMAIN_METHODS, now)}
    if method not in allowed:
        known = ", ".join(sorted(allowed))
        raise QuashError("validation.method", f"{method} validates no {kind} today: one of {known}", Kind.REFUSED)


def check_asked(method: str, name: str, mailbox: str | None) -> None:
    """Of a constructed e-mail the mailbox is part of the evidence (G36, BR 3.2.2.4.4). Raises `validation.mailbox`."""
    if method != _CONSTRUCTED and mailbox is None:
        return
    local, _, domain = (mailbox or "").lower().rpartition("@")
    if method != _CONSTRUCTED or local not in _MAILBOXES or domain != name:
        raise QuashError(
            "validation.mailbox",
            f"{_CONSTRUCTED}, and no other method, names the mailbox that was asked: {' or '.join(_MAILBOXES)}@{name}",
            Kind.REFUSED,
        )


def check_validated(wanted: Iterable[Identifier], found: Collection[Validation], now: int) -> None:
    """Raises `validation.required` naming every identifier that nothing proves now."""
    missing = sorted(each.value for each in wanted if not any(_proves(row, each, now) for row in found))
    if missing:
        raise QuashError(
            "validation.required",
            f"{', '.join(missing)} must be validated first (issuance.require_validation)",
            Kind.REFUSED,
        )


def _proves(row: Validation, wanted: Identifier, now: int) -> bool:
    try:
        check_method(row.kind, row.method, now)
    except QuashError:
        return False
    number = row.method.removeprefix(_BR)
    limit = dated.PERSISTENT_REUSE if row.kind == "dns" and number == "22" else REUSE[row.kind]
    if not 0 <= now - row.validated_at <= dated.at(limit, now):
        return False
    if wanted.kind in bodies.KINDS:
        return row.kind == wanted.kind and bodies.covers(row.kind, row.value, wanted.value)
    if (row.kind, row.value) == (wanted.kind, wanted.value):
        return True
    host = wanted.value.rpartition("@")[2]
    same = host == row.value
    below = host.endswith(f".{row.value}") and number in _PRUNED
    return row.kind == "dns" and (same or below)
