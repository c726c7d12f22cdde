"""The profiles of certificates, each a table of extensions (D7, D14-D17); what is not in it is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from issuer.signer import extension_rules as must
from issuer.signer import oids
from quash.pki.policies import EMAIL, TLS
from quash.pki.rules import DAY, EMAIL_VALIDITY, RSA_MIN_BITS, leaf_validity_limit

SUB_CA, OCSP_SIGNER = "sub-ca", "ocsp-signer"
CONSTRAINED_SUB_CA, EMAIL_SUB_CA, CONSTRAINED_EMAIL_SUB_CA = (
    "sub-ca-constrained",
    "smime-sub-ca",
    "smime-sub-ca-constrained",
)
"""Profiles of certificates that are not leaves; every other name is a leaf profile of the issuer."""
_OCSP_SIGNER_DAYS, _SUB_CA_DAYS = 400, 3653  # A17: 13 months when the issuer's key is offline; D14: as a new root


@dataclass(frozen=True, slots=True)
class Rule:
    """One extension of a profile; `critical` None: either."""

    required: bool
    critical: bool | None
    holds: must.Check


@dataclass(frozen=True, slots=True)
class Profile:
    """`signers`: kinds of issuer that may sign it. `max_seconds`: by the time of signing. `may_be_short`: see D4."""

    signers: frozenset[str]
    max_seconds: Callable[[int], int]
    extensions: Mapping[str, Rule]
    may_be_short: bool = False
    rsa_bits: int = RSA_MIN_BITS


_NOT_CA = bytes.fromhex("3000")
_MUST_BE_OURS = Rule(True, False, must.authority_key)
_MAY_POINT_HERE = Rule(False, False, must.access)
_MUST_LIST_HERE = Rule(True, False, must.crl_url)
_TLS_LEAF = Profile(
    signers=frozenset({"sub-ca"}),  # D14: a root signs no leaf; an imported CA is served, not used
    max_seconds=leaf_validity_limit,
    extensions={
        oids.AUTHORITY_KEY_IDENTIFIER: _MUST_BE_OURS,
        oids.AUTHORITY_INFORMATION_ACCESS: _MAY_POINT_HERE,
        oids.CRL_DISTRIBUTION_POINTS: _MUST_LIST_HERE,
        oids.KEY_USAGE: Rule(True, True, must.leaf_usage),
        oids.EXTENDED_KEY_USAGE: Rule(True, False, must.be(must.sequence_of_oid(oids.SERVER_AUTH))),  # D10
        oids.BASIC_CONSTRAINTS: Rule(False, True, must.be(_NOT_CA)),
        oids.CERTIFICATE_POLICIES: Rule(True, False, must.one_policy_of(TLS)),
        oids.SUBJECT_ALT_NAME: Rule(True, None, must.dns_names),
        oids.SUBJECT_KEY_IDENTIFIER: Rule(False, False, must.any_octets),
        # Which of the two belongs there, `CaSigner` knows (D18).
        oids.CT_POISON: Rule(False, True, must.be(bytes.fromhex("0500"))),
        oids.SCT_LIST: Rule(False, False, must.sct_list),
    },
    may_be_short=True,
)
_EMAIL_LEAF = Profile(  # D49
    signers=frozenset({"sub-ca"}),
    max_seconds=lambda _: EMAIL_VALIDITY,
    extensions={
        oids.AUTHORITY_KEY_IDENTIFIER: _MUST_BE_OURS,
        oids.AUTHORITY_INFORMATION_ACCESS: _MAY_POINT_HERE,
        oids.CRL_DISTRIBUTION_POINTS: _MUST_LIST_HERE,
        oids.KEY_USAGE: Rule(True, True, must.email_usage),
        oids.EXTENDED_KEY_USAGE: Rule(True, False, must.email_purposes),
        oids.BASIC_CONSTRAINTS: Rule(False, True, must.be(_NOT_CA)),
        oids.CERTIFICATE_POLICIES: Rule(True, False, must.one_policy_of(EMAIL)),
        oids.SUBJECT_ALT_NAME: Rule(True, None, must.mailboxes),
        oids.SUBJECT_KEY_IDENTIFIER: Rule(False, False, must.any_octets),
    },
)
LEAVES: Mapping[str, Profile] = MappingProxyType({oids.SERVER_AUTH: _TLS_LEAF, oids.EMAIL_PROTECTION: _EMAIL_LEAF})


def _sub_ca(purpose: str, policies: Mapping[str, str], names: str, *, constrained: bool, rsa_bits: int) -> Profile:
    """D15 to D17: a CA of one trust purpose; below it leaves, or CAs of the same one."""
    return Profile(
        signers=frozenset({"root", "sub-ca"}),
        max_seconds=lambda _: _SUB_CA_DAYS * DAY,
        extensions={
            oids.AUTHORITY_KEY_IDENTIFIER: _MUST_BE_OURS,
            oids.AUTHORITY_INFORMATION_ACCESS: _MAY_POINT_HERE,
            oids.CRL_DISTRIBUTION_POINTS: _MUST_LIST_HERE,
            oids.SUBJECT_KEY_IDENTIFIER: Rule(True, False, must.any_octets),
            oids.KEY_USAGE: Rule(True, True, must.be(bytes.fromhex("03020106"))),
            oids.EXTENDED_KEY_USAGE: Rule(True, False, must.purpose(purpose)),
            oids.BASIC_CONSTRAINTS: Rule(True, True, must.fits_below),
            oids.CERTIFICATE_POLICIES: Rule(True, False, must.policies_of(policies)),
            oids.NAME_CONSTRAINTS: Rule(constrained, True, must.constraints_on(names)),
        },
        rsa_bits=rsa_bits,
    )


_TLS_CA = partial(_sub_ca, oids.SERVER_AUTH, TLS, "dns", rsa_bits=RSA_MIN_BITS)
_EMAIL_CA = partial(_sub_ca, oids.EMAIL_PROTECTION, EMAIL, "email", rsa_bits=4096)  # D51
SUB_CAS: Mapping[str, Profile] = MappingProxyType(
    {
        SUB_CA: _TLS_CA(constrained=False),
        CONSTRAINED_SUB_CA: _TLS_CA(constrained=True),
        EMAIL_SUB_CA: _EMAIL_CA(constrained=False),
        CONSTRAINED_EMAIL_SUB_CA: _EMAIL_CA(constrained=True),
    }
)
PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        OCSP_SIGNER: Profile(  # A14-A17
            signers=frozenset({"root", "sub-ca", "imported", "private"}),
            max_seconds=lambda _: _OCSP_SIGNER_DAYS * DAY,
            extensions={
                oids.AUTHORITY_KEY_IDENTIFIER: _MUST_BE_OURS,
                oids.SUBJECT_KEY_IDENTIFIER: Rule(False, False, must.any_octets),
                oids.KEY_USAGE: Rule(True, True, must.be(must.DIGITAL_SIGNATURE)),
                oids.EXTENDED_KEY_USAGE: Rule(True, False, must.be(must.sequence_of_oid(oids.OCSP_SIGNING))),
                oids.BASIC_CONSTRAINTS: Rule(False, True, must.be(_NOT_CA)),
                oids.OCSP_NOCHECK: Rule(True, False, must.be(bytes.fromhex("0500"))),
            },
        ),
        **SUB_CAS,
    }
)

_ORGANIZATION = frozenset({"C", "ST", "L", "O", "CN", "postalCode", "street"})
_IDENTIFIED = frozenset({"C", "ST", "L", "O", "organizationIdentifier", "CN"})
SUBJECTS: Mapping[str, frozenset[str]] = MappingProxyType(  # D5, D6, D49: attributes that a leaf may have
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
