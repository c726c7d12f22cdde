"""From a request to what may stand in a leaf: one broken thing per case for each kind of leaf."""

from __future__ import annotations

import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from issuer.checks import csr
from issuer.checks.content import check_content
from quash.errors import QuashError
from quash.runtime.profiles import ProfileKind, shipped
from tests.support.issuing import make_csr, private_key
from tests.support.shipped import ORGANIZATION, PERSON, REGISTERED, mail_csr

DV, OV = shipped()["dv"], shipped()["ov"]
MAILBOX, BODY, SPONSOR = (shipped()[f"smime-{level}-strict"] for level in ("mailbox", "organization", "sponsor"))
EC_ONLY = ProfileKind.model_validate(DV.model_dump() | {"keys": ("ec-p256",)})
LARGE = ProfileKind.model_validate(DV.model_dump() | {"keys": ("rsa-3072",)})


def cn(value: str) -> tuple[tuple[x509.ObjectIdentifier, str], ...]:
    return ((NameOID.COMMON_NAME, value),)


COUNTRY_ZZ = (NameOID.COUNTRY_NAME, "ZZ")
CASES: dict[str, tuple[ProfileKind, str, str | None]] = {
    "dv": (DV, make_csr(), None),
    "dv with a repeated name": (DV, make_csr(["A.example.org", "a.example.org"]), None),
    "ov": (OV, make_csr(subject=ORGANIZATION), None),
    "mailbox": (MAILBOX, mail_csr("a@example.org", subject=cn("a@example.org")), None),
    "organization": (BODY, mail_csr("a@example.org", subject=(*REGISTERED, *cn("Société d'Essai"))), None),
    "sponsor": (SPONSOR, mail_csr("a@example.org", subject=(*PERSON, *cn("Amel Ben Salah"))), None),
    "D7: no name": (DV, make_csr(()), "san.missing"),
    "D7: 101 names": (DV, make_csr([f"n{n}.example.org" for n in range(101)]), "san.too_many"),
    "D11: a mailbox for TLS": (DV, mail_csr("a@example.org"), "san.type"),
    "G28: an address": (
        DV,
        make_csr((), others=[x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]),
        "name.ip_address",
    ),
    "G30: a CN outside the SAN": (DV, make_csr(subject=cn("other.example.org")), "name.cn_not_in_san"),
    "D6: no organization": (OV, make_csr(subject=ORGANIZATION[:2]), "subject.organization_missing"),
    "D6: no country": (OV, make_csr(subject=ORGANIZATION[1:]), "subject.country_missing"),
    "D6: a country that is none": (OV, make_csr(subject=(COUNTRY_ZZ, *ORGANIZATION[1:])), "name.country"),
    "D6: no place": (OV, make_csr(subject=(ORGANIZATION[0], ORGANIZATION[2])), "subject.locality_missing"),
    "D13: two organizations": (OV, make_csr(subject=(*ORGANIZATION, ORGANIZATION[2])), "subject.repeated"),
    "D40: RSA where a profile wants EC": (EC_ONLY, make_csr(key=private_key("rsa-leaf")), "key.outside_profile"),
    "D40: RSA that a profile finds small": (LARGE, make_csr(key=private_key("rsa-leaf")), "key.outside_profile"),
    "D40: a curve that a profile lacks": (
        EC_ONLY,
        make_csr(key=ec.generate_private_key(ec.SECP384R1())),
        "key.outside_profile",
    ),
    "D49: a name in S/MIME": (MAILBOX, make_csr(), "san.type"),
    "D49: no mailbox": (MAILBOX, mail_csr(), "san.missing"),
    "D49: a CN of somebody": (MAILBOX, mail_csr("a@example.org", subject=cn("Amel")), "subject.common_name"),
    "D49: no register": (BODY, mail_csr("a@example.org", subject=ORGANIZATION), "subject.identifier_missing"),
    "D49: another country's register": (
        BODY,
        mail_csr("a@example.org", subject=(*ORGANIZATION, (NameOID.ORGANIZATION_IDENTIFIER, "NTRFR-1"))),
        "subject.register",
    ),
    "D49: a register that is none": (
        BODY,
        mail_csr("a@example.org", subject=(*ORGANIZATION, (NameOID.ORGANIZATION_IDENTIFIER, "B2412342"))),
        "name.attribute_value",
    ),
    "D49: a person without surname": (
        SPONSOR,
        mail_csr("a@example.org", subject=(*REGISTERED, (NameOID.GIVEN_NAME, "Amel"))),
        "subject.surname_missing",
    ),
    "D49: a mailbox nowhere": (MAILBOX, mail_csr("a@example.local"), "name.special_use"),
}


@pytest.mark.parametrize("case", CASES)
def test_content(case: str) -> None:
    """The first six are right; each other is refused with its code."""
    kind, pem, code = CASES[case]
    request = csr.read(csr.decode(pem))
    if code is None:
        content = check_content(kind, request)
        assert (bool(content.dns_names), bool(content.mailboxes)) == (kind.type == "tls", kind.type == "smime")
        assert set(content.subject) <= set(kind.subject)
        return
    with pytest.raises(QuashError) as error:
        check_content(kind, request)
    assert error.value.code == code


def test_the_number_of_cases() -> None:
    """A case that gets lost is noticed."""
    assert (len(CASES), sum(code is None for *_, code in CASES.values())) == (27, 6)


def test_what_a_profile_does_not_name_stays_out() -> None:
    """G26: an OU of the request is not refused, it does not enter."""
    units = ((NameOID.ORGANIZATIONAL_UNIT_NAME, "PKI"), (NameOID.STREET_ADDRESS, "1, rue"), *ORGANIZATION)
    request = csr.read(csr.decode(make_csr(subject=units)))
    assert set(check_content(OV, request).subject) == {"C", "L", "O"}
