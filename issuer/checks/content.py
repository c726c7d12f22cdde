"""From what a request asks for to what may stand in the leaf: names and subject, by the rules of its kind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from issuer.checks.csr import SigningRequest
from issuer.checks.names import check_mailbox, check_name
from issuer.checks.registries import Registries
from issuer.profiles import LeafContent
from quash.errors import Kind, QuashError
from quash.pki.algorithms import algorithm_for_spki
from quash.pki.names import build_name, check_country
from quash.runtime.config import Profile
from quash.runtime.profiles import ProfileKind

MAX_NAMES: Final = 100
_CURVES: Final = {
    "ecdsa-p256-sha256": "ec-p256",
    "ecdsa-p384-sha384": "ec-p384",
    "ecdsa-p521-sha512": "ec-p521",
}
_REGISTER_OF: Final = re.compile("(?:NTR|VAT|PSD|GOV)([A-Z]{2})")


def check_content(kind: ProfileKind, request: SigningRequest, registries: Registries | None = None) -> LeafContent:
    """The leaf's content. Raises for the first rule that the request breaks: `key.*`, `name.*`, `email.*`, `san.*`."""
    check_key_kind(kind, request.spki)
    names = _names(kind, request, registries)
    subject = _subject(kind, request)
    if kind.type == "tls":
        _check_common_names(request, names)
        return LeafContent(request.spki, names, subject)
    _check_person(subject, names)
    return LeafContent(request.spki, (), subject, names)


def check_limits(profile: Profile, content: LeafContent) -> None:
    """What the profile allows less than the rules do: names below its suffixes, its countries' organizations (G18)."""
    for name in (*content.dns_names, *content.mailboxes):
        host = name.rpartition("@")[2]
        if profile.suffixes and not any(host == suffix or host.endswith(f".{suffix}") for suffix in profile.suffixes):
            allowed = ", ".join(profile.suffixes)
            raise QuashError("name.outside_profile", f"{name} is not below {allowed} (G18)", Kind.REFUSED)
    if profile.countries and content.subject.get("C") not in profile.countries:
        allowed = ", ".join(profile.countries)
        raise QuashError(
            "subject.outside_profile", f"this profile is for organizations of {allowed} (G18)", Kind.REFUSED
        )


def check_key_kind(kind: ProfileKind, spki: bytes) -> None:
    """Raises `key.outside_profile` for what `check_public_key` lets pass and this profile does not (D40)."""
    key = load_der_public_key(spki)
    if isinstance(key, rsa.RSAPublicKey):
        name = f"rsa-{key.key_size}"
    else:
        name = _CURVES.get(algorithm_for_spki(spki).name, "")
    if not kind.takes(name):
        raise QuashError("key.outside_profile", f"this profile is for keys of {', '.join(kind.keys)}", Kind.REFUSED)


def _names(kind: ProfileKind, request: SigningRequest, registries: Registries | None) -> tuple[str, ...]:
    """Lower-case, without repetition, in the order asked for; each by D11, D12 and G27-G29, or by D49."""
    if not request.alternative_names:
        raise QuashError("san.missing", "the request needs a subjectAltName with its names (D7, D49)")
    read = _dns_name if kind.type == "tls" else _mailbox
    names = dict.fromkeys(read(name, registries) for name in request.alternative_names)
    if len(names) > MAX_NAMES:
        raise QuashError("san.too_many", f"a certificate has at most {MAX_NAMES} names: order several")
    return tuple(names)


def _dns_name(name: x509.GeneralName, registries: Registries | None) -> str:
    if isinstance(name, x509.IPAddress):
        raise QuashError("name.ip_address", f"{name.value}: name the host by a DNS name (G28)", Kind.REFUSED)
    if not isinstance(name, x509.DNSName):
        raise QuashError("san.type", "only DNS names stand in a TLS certificate (D11)", Kind.REFUSED)
    return check_name(name.value, registries)


def _mailbox(name: x509.GeneralName, registries: Registries | None) -> str:
    if not isinstance(name, x509.RFC822Name):
        raise QuashError("san.type", "only e-mail addresses stand in an S/MIME certificate (D49)", Kind.REFUSED)
    return check_mailbox(name.value, registries)


def _check_person(subject: Mapping[str, str], mailboxes: tuple[str, ...]) -> None:
    """D49, G30: commonName repeats what was validated, and the register is one of the subject's country."""
    said = [*mailboxes, subject.get("O"), " ".join(subject[key] for key in ("GN", "SN") if key in subject)]
    if "CN" in subject and subject["CN"] not in filter(None, said):
        raise QuashError("subject.common_name", "commonName repeats a mailbox, the organization or the person (D49)")
    register = _REGISTER_OF.match(subject.get("organizationIdentifier", ""))
    if register and register[1] != subject.get("C"):
        raise QuashError("subject.register", "organizationIdentifier is of a register of the subject's country (D49)")


def _check_common_names(request: SigningRequest, names: tuple[str, ...]) -> None:
    """G30. The certificate itself carries no commonName (D5, D6: NOT RECOMMENDED)."""
    for key, value in request.subject:
        if key == "CN" and not (value.isascii() and value.lower() in names):
            raise QuashError("name.cn_not_in_san", f"put the commonName {value!r} into the subjectAltName (G30)")


def _subject(kind: ProfileKind, request: SigningRequest) -> Mapping[str, str]:
    asked = [(key, value) for key, value in request.subject if key in kind.subject]
    for key, count in Counter(key for key, _ in asked).items():
        if count > 1:
            raise QuashError("subject.repeated", f"{key} stands {count} times: give it once (D13)")
    subject = dict(asked)
    for what, group in kind.needs.items():
        if not any(key in subject for key in group):
            raise QuashError(f"subject.{what}_missing", f"the request's subject needs {' or '.join(group)} (D6)")
    build_name(subject)  # refuses what no certificate may say: lengths, placeholders (D6, D13)
    if "C" in subject:
        check_country(subject["C"])
    return subject
