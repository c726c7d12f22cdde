"""What the CA signer demands of a TBSCertificate, whoever asks: the issuing API may be broken into, the rules may not.

The linters of flow 1 look at the same certificate from outside; these checks look at it from the key.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from issuer.signer import oids
from issuer.signer.authority import Authority
from issuer.signer.certificate_profiles import LEAVES, PROFILES, SUB_CAS, SUBJECTS, Profile
from issuer.signer.extension_rules import Candidate, Expected
from issuer.signer.extension_values import read_policies
from issuer.signer.tbs import TbsCertificate
from quash.errors import Kind, QuashError
from quash.pki.names import name_attributes
from quash.pki.rules import DAY, RSA_MIN_BITS, SHORT_LIVED, check_public_key

# D3 and G33: notBefore is when the serial was reserved; a reservation that a crash left may be a little older.
MAX_BACKDATING, MAX_CLOCK_STEP = DAY, 60
# D1: RFC 5280 allows 20 octets; a positive serial of 8 has 63 bits, one fewer than must be random.
SERIAL_OCTETS = range(9, 21)


def check_certificate(tbs: TbsCertificate, authority: Authority, expected: Expected, now: int) -> None:
    """Raises `tbs.*` unless this is what was reserved, of this authority, and within the rules at `now`."""
    _check_reserved(tbs, authority, expected)
    _check_serial(tbs.serial)
    profile = _profile(expected.profile, authority)
    _check_validity(tbs, authority, profile, now)
    check_public_key(tbs.spki, private=authority.algorithm.name == "ed25519")
    _check_size(tbs.spki, profile)
    candidate = Candidate(tbs, authority, expected)
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


def _check_serial(serial: bytes) -> None:
    """D1, as far as one serial shows it: whoever reserved it may not have drawn it from `new_serial`."""
    if serial[0] & 0x80 or len(serial) not in SERIAL_OCTETS:
        bounds = f"{SERIAL_OCTETS.start} to {SERIAL_OCTETS.stop - 1} octets"
        raise _refuse("serial", f"its serial is not a positive number of {bounds} (D1)")


def _profile(name: str, authority: Authority) -> Profile:
    issuer = authority.issuer
    if name not in PROFILES and name not in issuer.profiles:
        raise _refuse("profile", f"{issuer.name} does not offer the profile {name}")
    profile = PROFILES.get(name) or _leaf(authority)
    if issuer.kind not in profile.signers:
        raise _refuse("profile", f"an issuer of kind {issuer.kind} signs no certificate of profile {name} (D14)")
    if name in SUB_CAS and (authority.path_length == 0 or authority.constraints is not None):
        raise _refuse("profile", f"no CA may stand below {issuer.name} (D15)")
    return profile


def _leaf(authority: Authority) -> Profile:
    """What leaves of an issuer are, by the one trust purpose that its own certificate names (D15, D17)."""
    found = [profile for purpose, profile in LEAVES.items() if purpose in authority.purposes]
    if len(found) != 1:
        raise _refuse("profile", f"{authority.issuer.name} is neither for TLS nor for S/MIME alone")
    return found[0]


def _check_size(spki: bytes, profile: Profile) -> None:
    if profile.rsa_bits == RSA_MIN_BITS:
        return  # `check_public_key` saw to it
    key = load_der_public_key(spki)
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < profile.rsa_bits:
        raise _refuse("public_key", f"RSA keys of such a CA have {profile.rsa_bits} bits (D51)")


def _check_validity(tbs: TbsCertificate, authority: Authority, profile: Profile, now: int) -> None:
    if not now - MAX_BACKDATING <= tbs.not_before <= now + MAX_CLOCK_STEP:
        raise _refuse("validity", "notBefore is not the time of signing (D3, G33); check the clocks, reserve again")
    if not 0 < tbs.not_after - tbs.not_before + 1 <= profile.max_seconds(now):
        raise _refuse("validity", "it is valid for longer than the rules allow (D2, A17)")
    if tbs.not_after > authority.not_after:
        raise _refuse("validity", f"it outlives the certificate of {authority.issuer.name}")


def _check_subject(candidate: Candidate) -> None:
    """G26: never an OU. Leaves have the attributes of their policy. Whether the rest is well made linters say."""
    names = {name for name, _ in name_attributes(candidate.tbs.subject)}
    found = candidate.tbs.extensions.get(oids.CERTIFICATE_POLICIES)
    is_leaf = candidate.expected.profile not in PROFILES
    allowed = [SUBJECTS[oid] for oid in read_policies(found.value) if oid in SUBJECTS] if found and is_leaf else []
    if "OU" in names or not all(names <= each for each in allowed):
        raise _refuse("subject", "its subject has an attribute that its profile forbids (D5, D6, D49)")
    if candidate.authority.constraints is not None:
        candidate.authority.constraints.check_subject(candidate.tbs.subject)


def _check_extensions(profile: Profile, candidate: Candidate) -> None:
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


def _is_short(candidate: Candidate) -> bool:
    """D4: a leaf that ends within 7 days may go without revocation information."""
    return candidate.tbs.not_after - candidate.tbs.not_before + 1 <= SHORT_LIVED


def _refuse(what: str, message: str) -> QuashError:
    return QuashError(f"tbs.{what}", f"the certificate was not signed: {message}", Kind.REFUSED)
