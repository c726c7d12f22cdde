"""What the CA signer demands of a TBSCertificate, whoever asks: the issuing API may be broken into, the rules may not.

Each profile is a table of extensions (D7, D14-D17); what is not in it is refused. The linters of flow 1 look at the
same certificate from outside; these checks look at it from the key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from issuer.ct.sct import decode_list
from issuer.signer import oids
from issuer.signer.tbs import TbsCertificate, read_tbs_certificate, tbs_of
from issuer.signer.tbs_writer import distribution_points
from quash.errors import Kind, QuashError
from quash.pki import der
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, SignatureAlgorithm
from quash.pki.certid import key_identifier
from quash.pki.names import name_attributes
from quash.pki.rules import DAY, SHORT_LIVED, check_dns_name, check_public_key, leaf_validity_limit
from quash.store.issuers import Issuer

SUB_CA, OCSP_SIGNER = "sub-ca", "ocsp-signer"
"""Profiles of certificates that are not leaves; every other name is a leaf profile of the issuer."""

# D3 and G33: notBefore is when the serial was reserved; a reservation that a crash left may be a little older.
MAX_BACKDATING, MAX_CLOCK_STEP = DAY, 60
_OCSP_SIGNER_DAYS, _SUB_CA_DAYS = 400, 3653  # A17: 13 months when the issuer's key is offline; D14: as a new root


@dataclass(frozen=True, slots=True)
class Authority:
    """What the signer knows of an issuer before it sees a request. `key_id`: its SKI; `policies`: those it carries."""

    issuer: Issuer
    algorithm: SignatureAlgorithm
    key_id: bytes
    not_after: int
    policies: frozenset[bytes]


def authority_of(issuer: Issuer, certificate: bytes) -> Authority:
    """Reads an issuer's certificate (DER). Raises `signer.issuer_certificate` when it is of another name or key."""
    tbs = read_tbs_certificate(tbs_of(certificate))
    if tbs.subject != issuer.subject or tbs.spki != issuer.spki:
        raise QuashError(
            "signer.issuer_certificate", f"the certificate of {issuer.name} has another name or key", Kind.INTERNAL
        )
    ski = tbs.extensions.get(oids.SUBJECT_KEY_IDENTIFIER)
    policies = tbs.extensions.get(oids.CERTIFICATE_POLICIES)
    return Authority(
        issuer=issuer,
        algorithm=SIGNATURE_ALGORITHMS[issuer.signature_algorithm],
        # An imported CA may lack the SKI: RFC 5280 4.2.1.2 method 1 is what its old certificates point to.
        key_id=_octets(ski.value) if ski else key_identifier(tbs.spki),
        not_after=tbs.not_after,
        policies=frozenset({policies.value} if policies else ()),
    )


@dataclass(frozen=True, slots=True)
class Expected:
    """What the reservation says of the certificate, beside its bytes. `crl_url` is that of its scope."""

    profile: str
    serial: bytes
    spki_sha256: bytes
    not_before: int
    not_after: int
    crl_url: str | None


@dataclass(frozen=True, slots=True)
class _Candidate:
    tbs: TbsCertificate
    authority: Authority
    expected: Expected


_Check = Callable[[bytes, _Candidate], bool]


@dataclass(frozen=True, slots=True)
class _Rule:
    """One extension of a profile; `critical` None: either."""

    required: bool
    critical: bool | None
    holds: _Check


@dataclass(frozen=True, slots=True)
class _Profile:
    """`signers`: kinds of issuer that may sign it. `max_seconds`: by the time of signing."""

    signers: frozenset[str]
    max_seconds: Callable[[int], int]
    extensions: Mapping[str, _Rule]


def check_certificate(tbs: TbsCertificate, authority: Authority, expected: Expected, now: int) -> None:
    """Raises `tbs.*` unless this is what was reserved, of this authority, and within the rules at `now`."""
    _check_reserved(tbs, authority, expected)
    profile = _profile(expected.profile, authority.issuer)
    _check_validity(tbs, authority, profile, now)
    check_public_key(tbs.spki)
    candidate = _Candidate(tbs, authority, expected)
    _check_subject(candidate)
    _check_extensions(profile, candidate)


def _check_reserved(tbs: TbsCertificate, authority: Authority, expected: Expected) -> None:
    facts = {
        "serial": (tbs.serial, expected.serial),
        "issuer": (tbs.issuer, authority.issuer.subject),
        "algorithm": (tbs.algorithm, authority.algorithm.identifier),
        "validity": ((tbs.not_before, tbs.not_after), (expected.not_before, expected.not_after)),
        "public_key": (hashlib.sha256(tbs.spki).digest(), expected.spki_sha256),
    }
    for fact, (found, reserved) in facts.items():
        if found != reserved:
            raise _refuse(fact, f"its {fact.replace('_', ' ')} is not what was reserved")


def _profile(name: str, issuer: Issuer) -> _Profile:
    if name not in _PROFILES and name not in issuer.profiles:
        raise _refuse("profile", f"{issuer.name} does not offer the profile {name}")
    profile = _PROFILES.get(name, _LEAF)
    if issuer.kind not in profile.signers:
        raise _refuse("profile", f"an issuer of kind {issuer.kind} signs no certificate of profile {name} (D14)")
    return profile


def _check_validity(tbs: TbsCertificate, authority: Authority, profile: _Profile, now: int) -> None:
    if not now - MAX_BACKDATING <= tbs.not_before <= now + MAX_CLOCK_STEP:
        raise _refuse("validity", "notBefore is not the time of signing (D3, G33); check the clocks, reserve again")
    if not 0 < tbs.not_after - tbs.not_before + 1 <= profile.max_seconds(now):
        raise _refuse("validity", "it is valid for longer than the rules allow (D2, A17)")
    if tbs.not_after > authority.not_after:
        raise _refuse("validity", f"it outlives the certificate of {authority.issuer.name}")


def _check_subject(candidate: _Candidate) -> None:
    """G26: never an OU; D5: a DV leaf names nobody. Whether the rest is well made is the linters' question."""
    names = {name for name, _ in name_attributes(candidate.tbs.subject)}
    policies = candidate.tbs.extensions.get(oids.CERTIFICATE_POLICIES)
    domain_validated = policies is not None and policies.value == _POLICIES[oids.POLICY_DV]
    is_leaf = candidate.expected.profile not in _PROFILES
    if "OU" in names or (is_leaf and domain_validated and not names <= {"C", "CN"}):
        raise _refuse("subject", "its subject has an attribute that its profile forbids (D5, D6)")


def _check_extensions(profile: _Profile, candidate: _Candidate) -> None:
    found, rules = candidate.tbs.extensions, profile.extensions
    for oid, rule in rules.items():
        if rule.required and oid not in found and not (oid == oids.CRL_DISTRIBUTION_POINTS and _is_short(candidate)):
            raise _refuse("extension", f"extension {oid} is missing")
    for oid, extension in found.items():
        if oid not in rules:
            raise _refuse("extension", f"extension {oid} does not belong there")
        if rules[oid].critical not in (None, extension.critical):
            raise _refuse("extension", f"extension {oid} has the wrong criticality")
        if not rules[oid].holds(extension.value, candidate):
            raise _refuse("extension", f"extension {oid} does not say what its profile demands")


def _is_short(candidate: _Candidate) -> bool:
    """D4: a leaf that ends within 7 days may go without revocation information."""
    seconds = candidate.tbs.not_after - candidate.tbs.not_before + 1
    return candidate.expected.profile not in _PROFILES and seconds <= SHORT_LIVED


def _refuse(what: str, message: str) -> QuashError:
    return QuashError(f"tbs.{what}", f"the certificate was not signed: {message}", Kind.REFUSED)


def _octets(value: bytes) -> bytes:
    start, end = der.only(value, der.OCTET_STRING)
    return value[start:end]


def _is(*values: bytes) -> _Check:
    return lambda value, _: value in values


def _authority_key(value: bytes, candidate: _Candidate) -> bool:
    return value == der.tlv(der.SEQUENCE, der.tlv(0x80, candidate.authority.key_id))


def _any_octets(value: bytes, _: _Candidate) -> bool:
    return 8 <= len(_octets(value)) <= 32


def _crl_url(value: bytes, candidate: _Candidate) -> bool:
    """B15, B16: the URL of the very scope that will carry the entry; one point, no reasons, no cRLIssuer (B17)."""
    url = candidate.expected.crl_url
    return url is not None and value == distribution_points(url)


def _access(value: bytes, candidate: _Candidate) -> bool:
    """D7: ocsp and caIssuers only, each once, by http; OCSP under the issuer's own path (G45)."""
    urls: dict[bytes, bytes] = {}
    for tag, _, start, end in der.children(value, *der.only(value, der.SEQUENCE)):
        if tag != der.SEQUENCE:
            return False
        _, method = der.expect(value, start, der.OID, end)
        begin, stop = der.expect(value, method, 0x86, end)
        if value[start:method] in urls or stop != end:
            return False
        urls[value[start:method]] = value[begin:stop]
    ocsp, ca_issuers = der.oid(oids.AD_OCSP), der.oid(oids.AD_CA_ISSUERS)
    path = f"/{candidate.authority.issuer.ocsp_path}".encode()
    return (
        urls.keys() <= {ocsp, ca_issuers}
        and all(map(_HTTP_URL.fullmatch, urls.values()))
        and urls.get(ocsp, path).endswith(path)
    )


def _dns_names(value: bytes, candidate: _Candidate) -> bool:
    """D11, G27-G29: DNS names, each by the rules, and at least one; critical exactly when the subject is empty (D7)."""
    names = []
    for tag, _, start, end in der.children(value, *der.only(value, der.SEQUENCE)):
        if tag != 0x82:
            return False
        names.append(value[start:end].decode("ascii", "replace"))
    for name in names:
        check_dns_name(name)
    critical = candidate.tbs.extensions[oids.SUBJECT_ALT_NAME].critical
    return bool(names) and critical == (candidate.tbs.subject == _EMPTY_NAME)


def _sct_list(value: bytes, _: _Candidate) -> bool:
    """E7: SCTs of version 1, at least one, in an OCTET STRING. Their logs the signer cannot judge."""
    try:
        return bool(decode_list(_octets(value)))
    except QuashError:
        return False


def _leaf_usage(value: bytes, candidate: _Candidate) -> bool:
    """D8: digitalSignature; RSA keys may also encipher keys. Never keyCertSign nor cRLSign."""
    return value == _DIGITAL_SIGNATURE or (value == _SIGN_AND_ENCIPHER and _RSA_OID in candidate.tbs.spki[:24])


def _leaf_policy(value: bytes, candidate: _Candidate) -> bool:
    """D7: exactly one reserved policy, and the one that the issuer's own certificate carries, if any (D15)."""
    carried = candidate.authority.policies & _POLICIES_VALUES
    return value in (carried or _POLICIES_VALUES)


def _sequence_of_oid(dotted: str) -> bytes:
    return der.tlv(der.SEQUENCE, der.oid(dotted))


_HTTP_URL = re.compile(rb"http://[!-~]+")
_EMPTY_NAME = bytes.fromhex("3000")
_RSA_OID = bytes.fromhex("06092a864886f70d010101")
_DIGITAL_SIGNATURE, _SIGN_AND_ENCIPHER = bytes.fromhex("03020780"), bytes.fromhex("030205a0")
_POLICIES = MappingProxyType(
    {dotted: der.tlv(der.SEQUENCE, _sequence_of_oid(dotted)) for dotted in (oids.POLICY_DV, oids.POLICY_OV)}
)
_POLICIES_VALUES = frozenset(_POLICIES.values())
_NOT_CA = bytes.fromhex("3000")

_MUST_BE_OURS = _Rule(True, False, _authority_key)
_MAY_POINT_HERE = _Rule(False, False, _access)
_MUST_LIST_HERE = _Rule(True, False, _crl_url)

_LEAF = _Profile(
    signers=frozenset({"sub-ca"}),  # D14: a root signs no leaf; an imported CA is served, not used
    max_seconds=leaf_validity_limit,
    extensions={
        oids.AUTHORITY_KEY_IDENTIFIER: _MUST_BE_OURS,
        oids.AUTHORITY_INFORMATION_ACCESS: _MAY_POINT_HERE,
        oids.CRL_DISTRIBUTION_POINTS: _MUST_LIST_HERE,
        oids.KEY_USAGE: _Rule(True, True, _leaf_usage),
        oids.EXTENDED_KEY_USAGE: _Rule(True, False, _is(_sequence_of_oid(oids.SERVER_AUTH))),  # D10
        oids.BASIC_CONSTRAINTS: _Rule(False, True, _is(_NOT_CA)),
        oids.CERTIFICATE_POLICIES: _Rule(True, False, _leaf_policy),
        oids.SUBJECT_ALT_NAME: _Rule(True, None, _dns_names),
        oids.SUBJECT_KEY_IDENTIFIER: _Rule(False, False, _any_octets),
        # Which of the two belongs there, `CaSigner` knows (D18).
        oids.CT_POISON: _Rule(False, True, _is(bytes.fromhex("0500"))),
        oids.SCT_LIST: _Rule(False, False, _sct_list),
    },
)
_PROFILES: Mapping[str, _Profile] = MappingProxyType(
    {
        OCSP_SIGNER: _Profile(  # A14-A17
            signers=frozenset({"root", "sub-ca", "imported"}),
            max_seconds=lambda _: _OCSP_SIGNER_DAYS * DAY,
            extensions={
                oids.AUTHORITY_KEY_IDENTIFIER: _MUST_BE_OURS,
                oids.SUBJECT_KEY_IDENTIFIER: _Rule(False, False, _any_octets),
                oids.KEY_USAGE: _Rule(True, True, _is(_DIGITAL_SIGNATURE)),
                oids.EXTENDED_KEY_USAGE: _Rule(True, False, _is(_sequence_of_oid(oids.OCSP_SIGNING))),
                oids.BASIC_CONSTRAINTS: _Rule(False, True, _is(_NOT_CA)),
                oids.OCSP_NOCHECK: _Rule(True, False, _is(bytes.fromhex("0500"))),
            },
        ),
        SUB_CA: _Profile(  # D15
            signers=frozenset({"root"}),
            max_seconds=lambda _: _SUB_CA_DAYS * DAY,
            extensions={
                oids.AUTHORITY_KEY_IDENTIFIER: _MUST_BE_OURS,
                oids.AUTHORITY_INFORMATION_ACCESS: _MAY_POINT_HERE,
                oids.CRL_DISTRIBUTION_POINTS: _MUST_LIST_HERE,
                oids.SUBJECT_KEY_IDENTIFIER: _Rule(True, False, _any_octets),
                oids.KEY_USAGE: _Rule(True, True, _is(bytes.fromhex("03020106"))),
                oids.EXTENDED_KEY_USAGE: _Rule(True, False, _is(_sequence_of_oid(oids.SERVER_AUTH))),
                oids.BASIC_CONSTRAINTS: _Rule(True, True, _is(bytes.fromhex("30060101ff020100"))),
                oids.CERTIFICATE_POLICIES: _Rule(True, False, _is(*_POLICIES.values())),
            },
        ),
    }
)
