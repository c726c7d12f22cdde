"""What the CA signer demands of a TBSCertificate, whoever asks: the issuing API may be broken into, the rules may not.

Each profile is a table of extensions (D7, D14-D17); what is not in it is refused. The linters of flow 1 look at the
same certificate from outside; these checks look at it from the key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from issuer.ct.sct import decode_list
from issuer.signer import oids
from issuer.signer.tbs import TbsCertificate, read_tbs_certificate, tbs_of
from issuer.signer.tbs_writer import distribution_points, last_but
from quash.errors import Kind, QuashError
from quash.pki import der
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, SignatureAlgorithm
from quash.pki.certid import key_identifier
from quash.pki.name_constraints import NameConstraints, read_name_constraints
from quash.pki.names import name_attributes
from quash.pki.policies import EMAIL, NAMES, TLS
from quash.pki.rules import (
    DAY,
    EMAIL_VALIDITY,
    RSA_MIN_BITS,
    SHORT_LIVED,
    check_dns_name,
    check_mailbox,
    check_public_key,
    leaf_validity_limit,
)
from quash.store.issuers import Issuer

SUB_CA, OCSP_SIGNER = "sub-ca", "ocsp-signer"
CONSTRAINED_SUB_CA, EMAIL_SUB_CA, CONSTRAINED_EMAIL_SUB_CA = (
    "sub-ca-constrained",
    "smime-sub-ca",
    "smime-sub-ca-constrained",
)
"""Profiles of certificates that are not leaves; every other name is a leaf profile of the issuer."""

# D3 and G33: notBefore is when the serial was reserved; a reservation that a crash left may be a little older.
MAX_BACKDATING, MAX_CLOCK_STEP = DAY, 60
_OCSP_SIGNER_DAYS, _SUB_CA_DAYS = 400, 3653  # A17: 13 months when the issuer's key is offline; D14: as a new root


@dataclass(frozen=True, slots=True)
class Authority:
    """What the signer knows of an issuer before it sees a request, all of it from the issuer's own certificate.

    `key_id`: its SKI; `policies` and `purposes`: dotted, empty where it limits neither; `path_length`: CAs that may
    stand below it, None: any number.
    """

    issuer: Issuer
    algorithm: SignatureAlgorithm
    key_id: bytes
    not_after: int
    policies: frozenset[str] = frozenset()
    purposes: frozenset[str] = frozenset()
    path_length: int | None = None
    constraints: NameConstraints | None = None

    def carries(self, policies: Iterable[str]) -> bool:
        """Whether certificates below may be of these policies (D15)."""
        return not self.policies or oids.ANY_POLICY in self.policies or self.policies.issuperset(policies)


def authority_of(issuer: Issuer, certificate: bytes) -> Authority:
    """Reads an issuer's certificate (DER). Raises `signer.issuer_certificate` when it is of another name or key."""
    tbs = read_tbs_certificate(tbs_of(certificate))
    if issuer.signature_algorithm == "ed25519" and issuer.kind != "private":
        raise QuashError(
            "key.algorithm_not_supported",
            f"{issuer.name} is of no private PKI: its key cannot be Ed25519",
            Kind.REFUSED,
        )
    if tbs.subject != issuer.subject or tbs.spki != issuer.spki:
        raise QuashError(
            "signer.issuer_certificate", f"the certificate of {issuer.name} has another name or key", Kind.INTERNAL
        )
    ski = tbs.extensions.get(oids.SUBJECT_KEY_IDENTIFIER)
    policies = tbs.extensions.get(oids.CERTIFICATE_POLICIES)
    purposes = tbs.extensions.get(oids.EXTENDED_KEY_USAGE)
    basic = tbs.extensions.get(oids.BASIC_CONSTRAINTS)
    # An imported CA's are as they are; it signs nothing that they would bear on.
    constraints = tbs.extensions.get(oids.NAME_CONSTRAINTS) if not issuer.taken_over else None
    return Authority(
        issuer=issuer,
        algorithm=SIGNATURE_ALGORITHMS[issuer.signature_algorithm],
        # An imported CA may lack the SKI: RFC 5280 4.2.1.2 method 1 is what its old certificates point to.
        key_id=_octets(ski.value) if ski else key_identifier(tbs.spki),
        not_after=tbs.not_after,
        policies=frozenset(_policies(policies.value) if policies else ()),
        purposes=frozenset(_purposes(purposes.value) if purposes else ()),
        path_length=_path_length(basic.value) if basic else None,
        constraints=read_name_constraints(constraints.value) if constraints else None,
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
    """`signers`: kinds of issuer that may sign it. `max_seconds`: by the time of signing. `may_be_short`: see D4."""

    signers: frozenset[str]
    max_seconds: Callable[[int], int]
    extensions: Mapping[str, _Rule]
    may_be_short: bool = False
    rsa_bits: int = RSA_MIN_BITS


def check_certificate(tbs: TbsCertificate, authority: Authority, expected: Expected, now: int) -> None:
    """Raises `tbs.*` unless this is what was reserved, of this authority, and within the rules at `now`."""
    _check_reserved(tbs, authority, expected)
    profile = _profile(expected.profile, authority)
    _check_validity(tbs, authority, profile, now)
    check_public_key(tbs.spki, private=authority.algorithm.name == "ed25519")
    _check_size(tbs.spki, profile)
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


def _profile(name: str, authority: Authority) -> _Profile:
    issuer = authority.issuer
    if name not in _PROFILES and name not in issuer.profiles:
        raise _refuse("profile", f"{issuer.name} does not offer the profile {name}")
    profile = _PROFILES.get(name) or _leaf(authority)
    if issuer.kind not in profile.signers:
        raise _refuse("profile", f"an issuer of kind {issuer.kind} signs no certificate of profile {name} (D14)")
    if name in _SUB_CAS and (authority.path_length == 0 or authority.constraints is not None):
        raise _refuse("profile", f"no CA may stand below {issuer.name} (D15)")
    return profile


def _leaf(authority: Authority) -> _Profile:
    """What leaves of an issuer are, by the one trust purpose that its own certificate names (D15, D17)."""
    found = [profile for purpose, profile in _LEAVES.items() if purpose in authority.purposes]
    if len(found) != 1:
        raise _refuse("profile", f"{authority.issuer.name} is neither for TLS nor for S/MIME alone")
    return found[0]


def _check_size(spki: bytes, profile: _Profile) -> None:
    key = load_der_public_key(spki)
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < profile.rsa_bits:
        raise _refuse("public_key", f"RSA keys of such a CA have {profile.rsa_bits} bits (D51)")


def _check_validity(tbs: TbsCertificate, authority: Authority, profile: _Profile, now: int) -> None:
    if not now - MAX_BACKDATING <= tbs.not_before <= now + MAX_CLOCK_STEP:
        raise _refuse("validity", "notBefore is not the time of signing (D3, G33); check the clocks, reserve again")
    if not 0 < tbs.not_after - tbs.not_before + 1 <= profile.max_seconds(now):
        raise _refuse("validity", "it is valid for longer than the rules allow (D2, A17)")
    if tbs.not_after > authority.not_after:
        raise _refuse("validity", f"it outlives the certificate of {authority.issuer.name}")


def _check_subject(candidate: _Candidate) -> None:
    """G26: never an OU. Leaves have the attributes of their policy. Whether the rest is well made linters say."""
    names = {name for name, _ in name_attributes(candidate.tbs.subject)}
    found = candidate.tbs.extensions.get(oids.CERTIFICATE_POLICIES)
    is_leaf = candidate.expected.profile not in _PROFILES
    allowed = [_SUBJECTS[oid] for oid in _policies(found.value) if oid in _SUBJECTS] if found and is_leaf else []
    if "OU" in names or not all(names <= each for each in allowed):
        raise _refuse("subject", "its subject has an attribute that its profile forbids (D5, D6, D49)")
    if candidate.authority.constraints is not None:
        candidate.authority.constraints.check_subject(candidate.tbs.subject)


def _check_extensions(profile: _Profile, candidate: _Candidate) -> None:
    found, rules = candidate.tbs.extensions, profile.extensions
    for oid, rule in rules.items():
        short = oid == oids.CRL_DISTRIBUTION_POINTS and profile.may_be_short and _is_short(candidate)
        if rule.required and oid not in found and not short:
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
    return candidate.tbs.not_after - candidate.tbs.not_before + 1 <= SHORT_LIVED


def _refuse(what: str, message: str) -> QuashError:
    return QuashError(f"tbs.{what}", f"the certificate was not signed: {message}", Kind.REFUSED)


def _octets(value: bytes) -> bytes:
    start, end = der.only(value, der.OCTET_STRING)
    return value[start:end]


def _policies(value: bytes) -> list[str]:
    """OIDs of CertificatePolicies; qualifiers are not looked at."""
    found = []
    for _, _, start, end in der.children(value, *der.only(value, der.SEQUENCE)):
        begin, stop = der.expect(value, start, der.OID, end)
        found.append(der.read_oid(value[begin:stop]))
    return found


def _purposes(value: bytes) -> list[str]:
    """OIDs of ExtKeyUsage."""
    return [der.read_oid(value[start:end]) for _, _, start, end in der.children(value, *der.only(value, der.SEQUENCE))]


def _path_length(value: bytes) -> int | None:
    """Of BasicConstraints; 0 for what is no CA."""
    fields = [(tag, value[start:end]) for tag, _, start, end in der.children(value, *der.only(value, der.SEQUENCE))]
    if fields[:1] != [(der.BOOLEAN, b"\xff")]:
        return 0
    return der.read_integer(fields[1][1]) if len(fields) > 1 else None


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
    if candidate.authority.constraints is not None:
        candidate.authority.constraints.check_dns(names)
    return bool(names) and _critical_when_alone(candidate)


def _mailboxes(value: bytes, candidate: _Candidate) -> bool:
    """D49: e-mail addresses, each by the rules, and at least one."""
    found = []
    for tag, _, start, end in der.children(value, *der.only(value, der.SEQUENCE)):
        if tag != 0x81:
            return False
        found.append(value[start:end].decode("ascii", "replace"))
    for address in found:
        check_mailbox(address)
    if candidate.authority.constraints is not None:
        candidate.authority.constraints.check_email(found)
    return bool(found) and _critical_when_alone(candidate)


def _critical_when_alone(candidate: _Candidate) -> bool:
    critical = candidate.tbs.extensions[oids.SUBJECT_ALT_NAME].critical
    return critical == (candidate.tbs.subject == _EMPTY_NAME)


def _sct_list(value: bytes, _: _Candidate) -> bool:
    """E7: SCTs of version 1, at least one, in an OCTET STRING. Their logs the signer cannot judge."""
    try:
        return bool(decode_list(_octets(value)))
    except QuashError:
        return False


def _leaf_usage(value: bytes, candidate: _Candidate) -> bool:
    """D8: digitalSignature; RSA keys may also encipher keys. Never keyCertSign nor cRLSign."""
    return value == _DIGITAL_SIGNATURE or (value == _SIGN_AND_ENCIPHER and _RSA_OID in candidate.tbs.spki[:24])


def _email_usage(value: bytes, candidate: _Candidate) -> bool:
    """D49: digitalSignature, and with it keyEncipherment (RSA) or keyAgreement (EC)."""
    both = _SIGN_AND_ENCIPHER if _RSA_OID in candidate.tbs.spki[:24] else _SIGN_AND_AGREE
    return value in (_DIGITAL_SIGNATURE, both)


def _email_purposes(value: bytes, candidate: _Candidate) -> bool:
    """D49: emailProtection; a multipurpose certificate may also log in."""
    policies = candidate.tbs.extensions.get(oids.CERTIFICATE_POLICIES)
    strict = policies is None or any(_is_strict(oid) for oid in _policies(policies.value))
    return value in (_PURPOSE_EMAIL, *(() if strict else (_PURPOSES_EMAIL_AND_CLIENT,)))


def _is_strict(oid: str) -> bool:
    return NAMES.get(oid, "").endswith("strict")


def _one_policy_of(reserved: Mapping[str, str]) -> _Check:
    """D7, D49: exactly one reserved policy, without qualifiers, and one that the issuer's certificate carries (D15)."""
    values = {_policy_value([oid]): oid for oid in reserved.values()}
    return lambda value, candidate: value in values and candidate.authority.carries([values[value]])


def _policies_of(reserved: Mapping[str, str]) -> _Check:
    """D15, D17: reserved policies of one purpose, or any alone, which the parent carries."""

    def holds(value: bytes, candidate: _Candidate) -> bool:
        found = _policies(value)
        known = found == [oids.ANY_POLICY] or set(found) <= set(reserved.values())
        return bool(found) and known and value == _policy_value(found) and candidate.authority.carries(found)

    return holds


def _policy_value(found: Iterable[str]) -> bytes:
    return der.tlv(der.SEQUENCE, *map(_sequence_of_oid, found))


def _purpose(oid: str) -> _Check:
    """One purpose, and where the parent names any, the parent's (D17)."""
    wanted = _sequence_of_oid(oid)
    return lambda value, candidate: (
        value == wanted and (not candidate.authority.purposes or oid in candidate.authority.purposes)
    )


def _fits_below(value: bytes, candidate: _Candidate) -> bool:
    """D15: a CA with a path length, which is less than the parent's."""
    length, above = _path_length(value), candidate.authority.path_length
    if length is None or not 0 <= length <= _LONGEST_PATH or value != last_but(length):
        return False
    return above is None or length < above


def _constraints_on(kind: str) -> _Check:
    """D16, D17: names of this kind and directory names, none of another kind."""

    def holds(value: bytes, _: _Candidate) -> bool:
        found = read_name_constraints(value)
        has = {"dns": bool(found.dns), "email": bool(found.email)}
        return bool(found.directory) and has == {each: each == kind for each in has}

    return holds


def _sequence_of_oid(dotted: str) -> bytes:
    return der.tlv(der.SEQUENCE, der.oid(dotted))


_HTTP_URL = re.compile(rb"http://[!-~]+")
_EMPTY_NAME = bytes.fromhex("3000")
_RSA_OID = bytes.fromhex("06092a864886f70d010101")
_DIGITAL_SIGNATURE, _SIGN_AND_ENCIPHER = bytes.fromhex("03020780"), bytes.fromhex("030205a0")
_SIGN_AND_AGREE = bytes.fromhex("03020388")
_PURPOSE_EMAIL = _sequence_of_oid(oids.EMAIL_PROTECTION)
_PURPOSES_EMAIL_AND_CLIENT = der.tlv(der.SEQUENCE, der.oid(oids.EMAIL_PROTECTION), der.oid(oids.CLIENT_AUTH))
_LONGEST_PATH = 2
_ORGANIZATION = frozenset({"C", "ST", "L", "O", "CN", "postalCode", "street"})
_IDENTIFIED = frozenset({"C", "ST", "L", "O", "organizationIdentifier", "CN"})
_SUBJECTS: Mapping[str, frozenset[str]] = MappingProxyType(  # D5, D6, D49: attributes that a leaf may have
    {
        oids.POLICY_DV: frozenset({"C", "CN"}),
        oids.POLICY_OV: _ORGANIZATION,
        **{
            oid: {
                "mailbox": frozenset({"CN"}),
                "organization": _IDENTIFIED,
                "sponsor": _IDENTIFIED | {"GN", "SN"},
            }[name.split("-")[1]]
            for name, oid in EMAIL.items()
        },
    }
)
_NOT_CA = bytes.fromhex("3000")

_MUST_BE_OURS = _Rule(True, False, _authority_key)
_MAY_POINT_HERE = _Rule(False, False, _access)
_MUST_LIST_HERE = _Rule(True, False, _crl_url)

_TLS_LEAF = _Profile(
    signers=frozenset({"sub-ca"}),  # D14: a root signs no leaf; an imported CA is served, not used
    max_seconds=leaf_validity_limit,
    extensions={
        oids.AUTHORITY_KEY_IDENTIFIER: _MUST_BE_OURS,
        oids.AUTHORITY_INFORMATION_ACCESS: _MAY_POINT_HERE,
        oids.CRL_DISTRIBUTION_POINTS: _MUST_LIST_HERE,
        oids.KEY_USAGE: _Rule(True, True, _leaf_usage),
        oids.EXTENDED_KEY_USAGE: _Rule(True, False, _is(_sequence_of_oid(oids.SERVER_AUTH))),  # D10
        oids.BASIC_CONSTRAINTS: _Rule(False, True, _is(_NOT_CA)),
        oids.CERTIFICATE_POLICIES: _Rule(True, False, _one_policy_of(TLS)),
        oids.SUBJECT_ALT_NAME: _Rule(True, None, _dns_names),
        oids.SUBJECT_KEY_IDENTIFIER: _Rule(False, False, _any_octets),
        # Which of the two belongs there, `CaSigner` knows (D18).
        oids.CT_POISON: _Rule(False, True, _is(bytes.fromhex("0500"))),
        oids.SCT_LIST: _Rule(False, False, _sct_list),
    },
    may_be_short=True,
)
_EMAIL_LEAF = _Profile(  # D49
    signers=frozenset({"sub-ca"}),
    max_seconds=lambda _: EMAIL_VALIDITY,
    extensions={
        oids.AUTHORITY_KEY_IDENTIFIER: _MUST_BE_OURS,
        oids.AUTHORITY_INFORMATION_ACCESS: _MAY_POINT_HERE,
        oids.CRL_DISTRIBUTION_POINTS: _MUST_LIST_HERE,
        oids.KEY_USAGE: _Rule(True, True, _email_usage),
        oids.EXTENDED_KEY_USAGE: _Rule(True, False, _email_purposes),
        oids.BASIC_CONSTRAINTS: _Rule(False, True, _is(_NOT_CA)),
        oids.CERTIFICATE_POLICIES: _Rule(True, False, _one_policy_of(EMAIL)),
        oids.SUBJECT_ALT_NAME: _Rule(True, None, _mailboxes),
        oids.SUBJECT_KEY_IDENTIFIER: _Rule(False, False, _any_octets),
    },
)
_LEAVES: Mapping[str, _Profile] = MappingProxyType({oids.SERVER_AUTH: _TLS_LEAF, oids.EMAIL_PROTECTION: _EMAIL_LEAF})


def _sub_ca(purpose: str, policies: Mapping[str, str], names: str, *, constrained: bool, rsa_bits: int) -> _Profile:
    """D15 to D17: a CA of one trust purpose; below it leaves, or CAs of the same one."""
    return _Profile(
        signers=frozenset({"root", "sub-ca"}),
        max_seconds=lambda _: _SUB_CA_DAYS * DAY,
        extensions={
            oids.AUTHORITY_KEY_IDENTIFIER: _MUST_BE_OURS,
            oids.AUTHORITY_INFORMATION_ACCESS: _MAY_POINT_HERE,
            oids.CRL_DISTRIBUTION_POINTS: _MUST_LIST_HERE,
            oids.SUBJECT_KEY_IDENTIFIER: _Rule(True, False, _any_octets),
            oids.KEY_USAGE: _Rule(True, True, _is(bytes.fromhex("03020106"))),
            oids.EXTENDED_KEY_USAGE: _Rule(True, False, _purpose(purpose)),
            oids.BASIC_CONSTRAINTS: _Rule(True, True, _fits_below),
            oids.CERTIFICATE_POLICIES: _Rule(True, False, _policies_of(policies)),
            oids.NAME_CONSTRAINTS: _Rule(constrained, True, _constraints_on(names)),
        },
        rsa_bits=rsa_bits,
    )


_TLS_CA = partial(_sub_ca, oids.SERVER_AUTH, TLS, "dns", rsa_bits=RSA_MIN_BITS)
_EMAIL_CA = partial(_sub_ca, oids.EMAIL_PROTECTION, EMAIL, "email", rsa_bits=4096)  # D51
_SUB_CAS: Mapping[str, _Profile] = MappingProxyType(
    {
        SUB_CA: _TLS_CA(constrained=False),
        CONSTRAINED_SUB_CA: _TLS_CA(constrained=True),
        EMAIL_SUB_CA: _EMAIL_CA(constrained=False),
        CONSTRAINED_EMAIL_SUB_CA: _EMAIL_CA(constrained=True),
    }
)
_PROFILES: Mapping[str, _Profile] = MappingProxyType(
    {
        OCSP_SIGNER: _Profile(  # A14-A17
            signers=frozenset({"root", "sub-ca", "imported", "private"}),
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
        **_SUB_CAS,
    }
)
