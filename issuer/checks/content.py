"""From what a request asks for to what may stand in the leaf: names and subject, by the rules of its kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from cryptography import x509

from issuer.checks.csr import SigningRequest
from issuer.checks.names import check_name
from issuer.profiles import LeafContent, LeafKind
from quash.errors import Kind, QuashError
from quash.pki.names import build_name
from quash.runtime.config import Profile

MAX_NAMES: Final = 100


def check_content(kind: LeafKind, request: SigningRequest) -> LeafContent:
    """The leaf's content, or the first rule that the request breaks (`name.*`, `san.*`, `subject.*`)."""
    names = _dns_names(request)
    _check_common_names(request, names)
    return LeafContent(request.spki, names, _subject(kind, request))


def check_limits(profile: Profile, content: LeafContent) -> None:
    """What the profile allows less than the rules do: names below its suffixes, its countries' organizations (G18)."""
    for name in content.dns_names:
        if profile.suffixes and not any(name == suffix or name.endswith(f".{suffix}") for suffix in profile.suffixes):
            allowed = ", ".join(profile.suffixes)
            raise QuashError("name.outside_profile", f"{name} is not below {allowed} (G18)", Kind.REFUSED)
    if profile.countries and content.subject.get("C") not in profile.countries:
        allowed = ", ".join(profile.countries)
        raise QuashError(
            "subject.outside_profile", f"this profile is for organizations of {allowed} (G18)", Kind.REFUSED
        )


def _dns_names(request: SigningRequest) -> tuple[str, ...]:
    """Lower-case, without repetition, in the order asked for; each by D11, D12 and G27-G29."""
    if not request.alternative_names:
        raise QuashError("san.missing", "the request needs a subjectAltName with the DNS names (D7)")
    names = dict.fromkeys(_dns_name(name) for name in request.alternative_names)
    if len(names) > MAX_NAMES:
        raise QuashError("san.too_many", f"a certificate has at most {MAX_NAMES} names: order several")
    return tuple(names)


def _dns_name(name: x509.GeneralName) -> str:
    if isinstance(name, x509.IPAddress):
        raise QuashError("name.ip_address", f"{name.value}: name the host by a DNS name (G28)", Kind.REFUSED)
    if not isinstance(name, x509.DNSName):
        raise QuashError("san.type", "only DNS names stand in a TLS certificate (D11)", Kind.REFUSED)
    lower = name.value.lower()
    check_name(lower)
    return lower


def _check_common_names(request: SigningRequest, names: tuple[str, ...]) -> None:
    """G30. The certificate itself carries no commonName (D5, D6: NOT RECOMMENDED)."""
    for key, value in request.subject:
        if key == "CN" and value.lower() not in names:
            raise QuashError("name.cn_not_in_san", f"put the commonName {value!r} into the subjectAltName (G30)")


def _subject(kind: LeafKind, request: SigningRequest) -> Mapping[str, str]:
    asked = [(key, value) for key, value in request.subject if key in kind.may]
    for key, count in Counter(key for key, _ in asked).items():
        if count > 1:
            raise QuashError("subject.repeated", f"{key} stands {count} times: give it once (D13)")
    subject = dict(asked)
    for what, group in kind.needs.items():
        if not any(key in subject for key in group):
            raise QuashError(f"subject.{what}_missing", f"the request's subject needs {' or '.join(group)} (D6)")
    build_name(subject)  # refuses what no certificate may say: lengths, placeholders, country codes (D6, D13)
    return subject
