"""What no profile file may say: one row a rule, with the id of its requirement (G25)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from quash.pki import policies

if TYPE_CHECKING:
    from quash.runtime.profiles import ProfileKind

_LEAF_KEYS: Final = frozenset({"rsa-2048", "rsa-3072", "rsa-4096", "ec-p256", "ec-p384", "ec-p521"})
_CA_KEYS: Final = _LEAF_KEYS - {"ec-p521"}  # which our keys are not made of
_CAS: Final = frozenset({"tls-ca", "smime-ca"})
_PUBLIC_LEAVES: Final = frozenset({"tls", "smime"})
_OTHER_LEAVES: Final = frozenset({"operator", "ocsp-signer"})
_ALL: Final = _PUBLIC_LEAVES | _OTHER_LEAVES | _CAS | {"root"}
_TYPES: Final = {  # the only names of these types: the CA signer knows them
    "operator-client": "operator",
    "ocsp-signer": "ocsp-signer",
    "sub-ca": "tls-ca",
    "sub-ca-constrained": "tls-ca",
    "smime-sub-ca": "smime-ca",
    "smime-sub-ca-constrained": "smime-ca",
}
_SUBJECTS: Final = {  # D49, by validation level
    "mailbox": {"CN"},
    "organization": {"C", "ST", "L", "O", "organizationIdentifier", "CN"},
    "sponsor": {"C", "ST", "L", "O", "organizationIdentifier", "GN", "SN", "CN"},
}


@dataclass(frozen=True, slots=True)
class Rule:
    """`broken` looks at a profile of one of `types`."""

    row: str
    types: Collection[str]
    says: str
    broken: Callable[[ProfileKind], object]


def _only(profile: ProfileKind, allowed: Collection[str]) -> bool:
    return set(profile.policies) <= set(allowed)


def _level(profile: ProfileKind) -> str:
    return profile.policies[0].split("-")[1]


def _usages(profile: ProfileKind) -> list[set[str]]:
    return [set(each) for each in profile.usage.values()]


def _is_used_for(profile: ProfileKind, *bits: str) -> bool:
    """Whether keys of both families are for these, and nothing else."""
    return set(profile.usage) == {"rsa", "ec"} and all(each == set(bits) for each in _usages(profile))


def _names_somebody(profile: ProfileKind) -> bool:
    return bool(profile.subject or profile.needs)


def _repeats(profile: ProfileKind) -> bool:
    lists = (profile.keys, profile.policies, profile.purposes, profile.subject, profile.revocation, profile.constraints)
    return any(len(set(each)) < len(each) for each in (*lists, *profile.usage.values(), *profile.needs.values()))


def _needs_what_never_enters(profile: ProfileKind) -> bool:
    return any(not group or set(group) - set(profile.subject) for group in profile.needs.values())


def _is_unbound(profile: ProfileKind) -> bool:
    """Whether the file's name promises constraints that it does not demand."""
    return profile.name.endswith("-constrained") and not profile.constraints


def _needs(profile: ProfileKind, *wanted: frozenset[str]) -> bool:
    """Whether for each group a need names only its members, all of which may enter."""
    groups = [set(each) for each in profile.needs.values()]
    return all(any(group <= each and group <= set(profile.subject) for group in groups) for each in wanted)


def _half(profile: ProfileKind, kind: str) -> bool:
    """Whether it demands some constraints but not just these two."""
    return bool(profile.constraints) and set(profile.constraints) != {kind, "directory"}


_ORGANIZATION: Final = (frozenset({"O"}), frozenset({"C"}), frozenset({"ST", "L"}))
_IDENTIFIED: Final = (frozenset({"O"}), frozenset({"organizationIdentifier"}))
_COUNTRY: Final = frozenset({"C"})
_PERSON: Final = (frozenset({"GN"}), frozenset({"SN"}))
_STRICT_USAGE: Final = {"rsa": {"digitalSignature", "keyEncipherment"}, "ec": {"digitalSignature", "keyAgreement"}}

RULES: Final = (
    # Any
    Rule("G26", {"tls", "smime", "operator", "ocsp-signer"}, "no OU", lambda p: "OU" in p.subject),
    Rule("D40", _PUBLIC_LEAVES, "RSA of 2048 bits or more, or P-256, P-384, P-521", lambda p: set(p.keys) - _LEAF_KEYS),
    Rule("D40", _CAS, "RSA of 2048 bits or more, or P-256, P-384", lambda p: set(p.keys) - _CA_KEYS),
    Rule("D7", {*_PUBLIC_LEAVES, "operator", "ocsp-signer"}, "a leaf constrains no names", lambda p: p.constraints),
    Rule("D40", _OTHER_LEAVES, "RSA of 2048 bits or more, or P-256, P-384, P-521", lambda p: set(p.keys) - _LEAF_KEYS),
    Rule("G25", _ALL, "nothing stands twice", _repeats),
    Rule(
        "G25",
        _ALL,
        "a type that the CA signer knows by its name has that name",
        lambda p: _TYPES.get(p.name, p.type) != p.type or (p.type in _TYPES.values() and p.name not in _TYPES),
    ),
    # TLS leaves
    Rule("D2", {"tls"}, "a leaf lasts 398 days at most", lambda p: p.days > 398),
    Rule("D7", {"tls"}, "exactly one policy, dv or ov", lambda p: len(p.policies) != 1 or not _only(p, policies.TLS)),
    Rule("D4", {"tls"}, "without CRL and OCSP 7 days at most", lambda p: not p.revocation and p.days > 7),
    Rule("D5", {"tls"}, "a dv subject is empty", lambda p: p.policies == ("dv",) and (p.subject or p.needs)),
    Rule("D6", {"tls"}, "no person in an ov subject", lambda p: {"GN", "SN"} & set(p.subject)),
    Rule("D6", {"tls"}, "an ov subject has no commonName", lambda p: "CN" in p.subject),
    Rule(
        "D6", {"tls"}, "ov needs O, C, and ST or L", lambda p: p.policies == ("ov",) and not _needs(p, *_ORGANIZATION)
    ),
    Rule("D6", {"tls"}, "an ov subject has C, ST, L and O alone", lambda p: set(p.subject) - {"C", "ST", "L", "O"}),
    Rule("D6", {"tls"}, "needs are of attributes that enter", _needs_what_never_enters),
    Rule("B17", {"tls"}, "a CRL, beside OCSP or alone", lambda p: p.revocation and "crl" not in p.revocation),
    Rule("D8", {"tls"}, "a leaf signs", lambda p: not all("digitalSignature" in each for each in _usages(p))),
    Rule(
        "D8",
        {"tls"},
        "RSA keys may encipher keys besides, nothing else",
        lambda p: set(p.usage.get("rsa", ())) - {"digitalSignature", "keyEncipherment"},
    ),
    Rule("D8", {"tls"}, "EC keys sign only", lambda p: set(p.usage.get("ec", ())) - {"digitalSignature"}),
    Rule("D8", _PUBLIC_LEAVES, "usage for RSA and for EC keys", lambda p: set(p.usage) != {"rsa", "ec"}),
    Rule("D10", {"tls"}, "serverAuth alone", lambda p: p.purposes != ("serverAuth",)),
    # S/MIME leaves
    Rule("D49", {"smime"}, "825 days at most", lambda p: p.days > 825),
    Rule(
        "D49",
        {"smime"},
        "exactly one policy, of an S/MIME level and generation",
        lambda p: len(p.policies) != 1 or not _only(p, policies.EMAIL),
    ),
    Rule("D49", {"smime"}, "a CRL, for S/MIME has no short-lived leaves", lambda p: "crl" not in p.revocation),
    Rule("D49", {"smime"}, "emailProtection", lambda p: "emailProtection" not in p.purposes),
    Rule(
        "D49",
        {"smime"},
        "strict is emailProtection alone",
        lambda p: p.policies[0].endswith("strict") and len(p.purposes) > 1,
    ),
    Rule(
        "D49",
        {"smime"},
        "multipurpose is for clientAuth besides, nothing else",
        lambda p: set(p.purposes) - {"emailProtection", "clientAuth"},
    ),
    Rule(
        "D49",
        {"smime"},
        "keys sign, and encipher (RSA) or agree on (EC) keys",
        lambda p: any(
            not {"digitalSignature"} <= set(usages) <= _STRICT_USAGE[family] for family, usages in p.usage.items()
        ),
    ),
    Rule("D49", {"smime"}, "RSA, P-256 or P-384: linters know no other", lambda p: "ec-p521" in p.keys),
    Rule(
        "D49", {"smime"}, "attributes of its level alone", lambda p: set(p.subject) - _SUBJECTS[_level(p)]
    ),
    Rule(
        "D49",
        {"smime"},
        "O and organizationIdentifier, except for mailboxes",
        lambda p: _level(p) != "mailbox" and not _needs(p, *_IDENTIFIED),
    ),
    Rule(
        "D49",
        {"smime"},
        "C, except for mailboxes",
        lambda p: _level(p) != "mailbox" and not _needs(p, _COUNTRY),
    ),
    Rule("D49", {"smime"}, "needs are of attributes that enter", _needs_what_never_enters),
    Rule("D49", {"smime"}, "emailProtection stands first", lambda p: p.purposes[0] != "emailProtection"),
    Rule(
        "D49", {"smime"}, "a person has GN and SN", lambda p: _level(p) == "sponsor" and not _needs(p, *_PERSON)
    ),
    # Operators
    Rule("F6", {"operator"}, "clientAuth alone", lambda p: p.purposes != ("clientAuth",)),
    Rule("F6", {"operator"}, "no public policy", lambda p: p.policies),
    Rule("F9", {"operator"}, "397 days at most", lambda p: p.days > 397),
    Rule("F6", {"operator"}, "signing alone", lambda p: not _is_used_for(p, "digitalSignature")),
    Rule("F6", {"operator"}, "its subject is its name", _names_somebody),
    Rule("F6", {"operator"}, "it points to no status: the APIs ask the database", lambda p: p.revocation),
    Rule("G20", {"operator"}, "P-256, of which the first ones are", lambda p: "ec-p256" not in p.keys),
    # OCSP signers
    Rule("A14", {"ocsp-signer"}, "OCSPSigning alone", lambda p: p.purposes != ("OCSPSigning",)),
    Rule("A14", {"ocsp-signer"}, "signing alone", lambda p: not _is_used_for(p, "digitalSignature")),
    Rule("A15", {"ocsp-signer"}, "it says nocheck, and points to no status", lambda p: p.revocation),
    Rule("A16", {"ocsp-signer"}, "no policy", lambda p: p.policies),
    Rule("A17", {"ocsp-signer"}, "400 days at most", lambda p: p.days > 400),
    Rule("A17", {"ocsp-signer"}, "its name is of its issuer", _names_somebody),
    # Roots
    Rule("D14", {"root"}, "2922 to 3653 days", lambda p: not 2922 <= p.days <= 3653),
    Rule("D14", {"root"}, "P-384 or RSA-4096", lambda p: set(p.keys) - {"ec-p384", "rsa-4096"}),
    Rule("D14", {"root"}, "no EKU", lambda p: p.purposes),
    Rule("D14", {"root"}, "no policy", lambda p: p.policies),
    Rule("B17", {"root"}, "nobody revokes a root by its own CRL", lambda p: p.revocation),
    Rule("D16", {"root"}, "a root constrains no names", lambda p: p.constraints),
    # Sub-CAs
    Rule("D14", {*_CAS, "root"}, "keyCertSign and cRLSign", lambda p: not _is_used_for(p, "keyCertSign", "cRLSign")),
    Rule("D14", {*_CAS, "root"}, "its name is of the configuration", _names_somebody),
    Rule("D15", _CAS, "ten years at most", lambda p: p.days > 3653),
    Rule("B17", _CAS, "a CRL", lambda p: "crl" not in p.revocation),
    Rule("D15", _CAS, "OCSP besides", lambda p: "ocsp" not in p.revocation),
    Rule("D15", {"tls-ca"}, "serverAuth alone", lambda p: p.purposes != ("serverAuth",)),
    Rule("D15", {"tls-ca"}, "policies dv, ov or any", lambda p: not _only(p, {*policies.TLS, policies.ANY})),
    Rule("D16", {"tls-ca"}, "constraints of dns and directory", lambda p: _half(p, "dns")),
    Rule("D16", {"tls-ca"}, "a constrained CA has constraints", _is_unbound),
    Rule("D17", {"smime-ca"}, "emailProtection, never serverAuth", lambda p: p.purposes != ("emailProtection",)),
    Rule("D17", {"smime-ca"}, "policies of S/MIME or any", lambda p: not _only(p, {*policies.EMAIL, policies.ANY})),
    Rule("D17", {"smime-ca"}, "constraints of email and directory", lambda p: _half(p, "email")),
    Rule("D17", {"smime-ca"}, "a constrained CA has constraints", _is_unbound),
    Rule("D51", {"smime-ca"}, "RSA of 4096 bits", lambda p: {"rsa-2048", "rsa-3072"} & set(p.keys)),
    Rule("D15", _CAS, "policies", lambda p: not p.policies),
)  # fmt: skip


def broken_rule(profile: ProfileKind) -> str | None:
    """What the first broken rule says, with its id; None: the profile only narrows."""
    found = (rule for rule in RULES if profile.type in rule.types and rule.broken(profile))
    return next((f"{rule.says} ({rule.row})" for rule in found), None)
