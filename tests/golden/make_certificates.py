"""Makes tests/golden/certificates with pyca alone; nothing of Quash takes part. Run by hand, when a case is added.

    python tests/golden/make_certificates.py

What stands below is what the rules and the founding documents want of each hierarchy and profile that ships, written
down by hand. `cases.json` says what a test needs to make the same certificate with Quash: the request, serial, moment.
Keys are thrown away.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AuthorityInformationAccessOID as Access
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose
from cryptography.x509.oid import NameOID

FOLDER = Path(__file__).parent / "certificates"
INIT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ORDERED = datetime(2026, 11, 22, 8, 30, 15, tzinfo=UTC)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Name = Sequence[tuple[str, str]]
Extensions = list[tuple[x509.ExtensionType, bool]]

OIDS = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "organizationIdentifier": NameOID.ORGANIZATION_IDENTIFIER,
    "SN": NameOID.SURNAME,
    "GN": NameOID.GIVEN_NAME,
    "CN": NameOID.COMMON_NAME,
}
POLICIES = {
    "any": "2.5.29.32.0",
    "dv": "2.23.140.1.2.1",
    "ov": "2.23.140.1.2.2",
    "mailbox-multipurpose": "2.23.140.1.5.1.2",
    "mailbox-strict": "2.23.140.1.5.1.3",
    "organization-multipurpose": "2.23.140.1.5.2.2",
    "organization-strict": "2.23.140.1.5.2.3",
    "sponsor-multipurpose": "2.23.140.1.5.3.2",
    "sponsor-strict": "2.23.140.1.5.3.3",
}
ALL_MAIL = tuple(each for each in POLICIES if "-" in each)
SERVICES = {  # OCSP, CRLs and CA certificates
    "demo": ("http://127.0.0.1:8080", "http://127.0.0.1:8081"),
    "trustcor": ("http://ocsp.trustcor.ca", "http://crl.trustcor.ca"),
    "tuntrust": ("http://va.tuntrust.tn", "http://crl.tuntrust.tn"),
}

TRUSTCOR, TUNTRUST = "TrustCor Systems S. de R.L.", "Agence Nationale de Certification Electronique"


def ca_name(country: str, organization: str, common_name: str) -> Name:
    return (("C", country), ("O", organization), ("CN", common_name))


@dataclass
class Ca:
    """One CA; `key`, `certificate` are filled in. `pathlen` None: a root."""

    config: str
    name: str
    parent: str | None
    subject: Name
    kind: str
    days: int
    policies: tuple[str, ...] = ()
    mail: bool = False
    pathlen: int | None = 0
    dns: tuple[str, ...] = ()
    email: tuple[str, ...] = ()
    country: str | None = None
    external: bool = False
    key: Key | None = None
    certificate: x509.Certificate | None = None


CAS = (
    Ca("demo", "root", None, ca_name("TN", "Quash Demo", "Quash Demo Root CA R1"), "p384", 3652, pathlen=None),
    Ca("demo", "tls-dv", "root", ca_name("TN", "Quash Demo", "Quash Demo DV TLS CA 1"), "p256", 1095, ("dv",)),
    Ca("demo", "tls-ov", "root", ca_name("TN", "Quash Demo", "Quash Demo OV TLS CA 1"), "rsa", 1095, ("ov",)),
    Ca("trustcor", "ca1", None, ca_name("PA", TRUSTCOR, "TrustCor RootCert CA-1 R2"), "p384", 3652, pathlen=None),
    Ca("trustcor", "ca1-tls", "ca1", ca_name("PA", TRUSTCOR, "TrustCor DV TLS CA 1"), "p256", 1095, ("dv",)),
    Ca("trustcor", "ca1-mail", "ca1", ca_name("PA", TRUSTCOR, "TrustCor DV Secure Mail CA 1"), "p256", 1095,
       ("mailbox-multipurpose", "mailbox-strict"), mail=True),
    Ca("trustcor", "ca2", None, ca_name("PA", TRUSTCOR, "TrustCor RootCert CA-2 R2"), "p384", 3652, pathlen=None),
    Ca("trustcor", "ca2-tls", "ca2", ca_name("PA", TRUSTCOR, "TrustCor OV TLS CA 1"), "p256", 1095, ("ov",)),
    Ca("trustcor", "ca2-mail", "ca2", ca_name("PA", TRUSTCOR, "TrustCor OV Secure Mail CA 1"), "p256", 1095,
       ("organization-multipurpose", "organization-strict", "sponsor-multipurpose", "sponsor-strict"), mail=True),
    Ca("trustcor", "eca1", None, ca_name("PA", TRUSTCOR, "TrustCor ECA-1 R2"), "p384", 3652, pathlen=None),
    Ca("trustcor", "eca1-tls", "eca1", ca_name("PA", TRUSTCOR, "TrustCor External TLS CA 1"), "p384", 2190,
       ("any",), pathlen=1),
    Ca("trustcor", "eca1-mail", "eca1", ca_name("PA", TRUSTCOR, "TrustCor External Secure Mail CA 1"), "p384", 2190,
       ("any",), mail=True, pathlen=1),
    # CAs of somebody else, from their own requests (G17).
    Ca("trustcor", "external-tls", "eca1-tls", ca_name("DE", "Example GmbH", "Example TLS CA 1"), "p256", 365,
       ("ov",), dns=("example.org",), country="DE", external=True),
    Ca("trustcor", "external-mail", "eca1-mail", ca_name("DE", "Example GmbH", "Example Mail CA 1"), "p384", 365,
       ("mailbox-strict",), mail=True, email=("example.org", ".example.org"), country="DE", external=True),
    Ca("tuntrust", "root", None, ca_name("TN", TUNTRUST, "TunTrust Root CA R2"), "rsa-4096", 3652, pathlen=None),
    Ca("tuntrust", "services", "root", ca_name("TN", TUNTRUST, "TunTrust Services CA 1"), "p384", 1095,
       ("ov",), dns=("tn",), country="TN"),
    Ca("tuntrust", "qualified", "root", ca_name("TN", TUNTRUST, "TunTrust Qualified CA 1"), "p384", 1095,
       ("organization-strict", "sponsor-strict"), mail=True, email=(".tn",), country="TN"),
)  # fmt: skip


@dataclass(frozen=True)
class Leaf:
    """What one profile of a configuration issues. `days`: of validity; `asked`: what the request's subject says."""

    config: str
    profile: str
    issuer: str
    policy: str
    days: int
    names: tuple[str, ...]
    asked: Name = ()
    subject: Name = ()
    short: bool = False
    client: bool = False


WEB = ("www.example.org", "example.org")
OV = (("C", "TN"), ("L", "Tunis"), ("O", "Société d'Essai"))
OV_ASKED = (("O", "Société d'Essai"), ("L", "Tunis"), ("C", "TN"), ("CN", "www.example.org"))
BODY = (*OV, ("organizationIdentifier", "NTRTN-B2412342"))
PERSON = (*BODY, ("SN", "Ben Salah"), ("GN", "Amel"))
LEAVES = (
    # A commonName of the request enters no TLS certificate; DV has no subject at all (D5, D6).
    Leaf("demo", "tls-dv", "tls-dv", "dv", 199, WEB, (("CN", "www.example.org"), ("O", "Ignored"))),
    Leaf("demo", "tls-dv-day", "tls-dv", "dv", 1, ("a.example.org",)),
    Leaf("demo", "tls-ov", "tls-ov", "ov", 199, WEB, OV_ASKED, OV),
    Leaf("trustcor", "tls-dv", "ca1-tls", "dv", 199, WEB),
    Leaf("trustcor", "tls-dv-week", "ca1-tls", "dv", 7, WEB, short=True),
    Leaf("trustcor", "tls-ov", "ca2-tls", "ov", 199, WEB, OV_ASKED, OV),
    Leaf("trustcor", "mail-dv", "ca1-mail", "mailbox-strict", 730, ("amel@example.org",)),
    Leaf("trustcor", "mail-dv-multipurpose", "ca1-mail", "mailbox-multipurpose", 730,
         ("amel@example.org", "a.b@example.org"), (("CN", "amel@example.org"),), (("CN", "amel@example.org"),),
         client=True),
    Leaf("trustcor", "mail-organization", "ca2-mail", "organization-strict", 730, ("info@example.org",), BODY, BODY),
    Leaf("trustcor", "mail-organization-multipurpose", "ca2-mail", "organization-multipurpose", 730,
         ("info@example.org",), BODY, BODY, client=True),
    Leaf("trustcor", "mail-sponsor", "ca2-mail", "sponsor-strict", 730, ("amel@example.org",), PERSON[::-1], PERSON),
    Leaf("trustcor", "mail-sponsor-multipurpose", "ca2-mail", "sponsor-multipurpose", 730, ("amel@example.org",),
         (*PERSON, ("CN", "Amel Ben Salah")), (*PERSON, ("CN", "Amel Ben Salah")), client=True),
    Leaf("tuntrust", "tls-ov", "services", "ov", 199, ("www.example.tn",), OV, OV),
    Leaf("tuntrust", "mail-organization", "qualified", "organization-strict", 730, ("info@example.tn",), BODY, BODY),
    Leaf("tuntrust", "mail-sponsor", "qualified", "sponsor-strict", 730, ("amel@example.tn",), PERSON, PERSON),
    Leaf("trustcor", "tls-ov-day", "ca2-tls", "ov", 1, WEB, OV_ASKED, OV),
    Leaf("tuntrust", "tls-ov-day", "services", "ov", 1, ("www.example.tn",), OV, OV),
)  # fmt: skip

GERMAN, FRENCH = (("C", "DE"), ("O", "Example GmbH")), (("C", "FR"), ("O", "Exemple SA"))
# What a constrained CA's key could sign without us: CA, what is outside its constraints, names, subject.
STRANGERS = (
    (("trustcor", "external-tls"), "nothing", ("www.example.org", "example.org"), GERMAN),
    (("trustcor", "external-tls"), "dns", ("www.example.org", "www.example.net"), GERMAN),
    (("trustcor", "external-tls"), "label", ("notexample.org",), GERMAN),
    (("trustcor", "external-tls"), "address", ("www.example.org", "192.0.2.1"), GERMAN),
    (("trustcor", "external-tls"), "subject", ("www.example.org",), FRENCH),
    (("trustcor", "external-mail"), "nothing", ("a@example.org", "a@mail.example.org"), GERMAN),
    (("trustcor", "external-mail"), "mailbox", ("a@example.net",), GERMAN),
    (("trustcor", "external-mail"), "subject", ("a@example.org",), FRENCH),
    (("tuntrust", "services"), "dns", ("www.example.org",), OV),
    (("tuntrust", "services"), "address", ("www.example.tn", "2001:db8::1"), OV),
    (("tuntrust", "services"), "subject", ("www.example.tn",), FRENCH),
    (("tuntrust", "qualified"), "mailbox", ("a@example.org",), BODY),
    (("tuntrust", "qualified"), "subject", ("a@example.tn",), FRENCH),
)

cases: dict[str, dict[str, object]] = {}
_serials = iter(range(1, 1000))


def new_key(kind: str) -> Key:
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, 4096 if kind == "rsa-4096" else 2048)
    return ec.generate_private_key({"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}[kind])


def x509_name(name: Name) -> x509.Name:
    """pyca writes a country as PrintableString and the rest as UTF8String, which is D13 (B1)."""
    return x509.Name([x509.NameAttribute(OIDS[key], value) for key, value in name])


def key_id(public: object) -> bytes:
    """RFC 7093 method 1, since SHA-1 names no key of ours (G32): of the BIT STRING's octets."""
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    bits = x509.SubjectKeyIdentifier.from_public_key(public)  # type: ignore[arg-type]
    for start in range(len(spki)):  # the octets whose SHA-1 pyca took
        if hashlib.sha1(spki[start:]).digest() == bits.digest:
            return hashlib.sha256(spki[start:]).digest()[:20]
    raise AssertionError


def usage(*names: str) -> x509.KeyUsage:
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{each: each in names for each in every})


def policies(names: Iterable[str]) -> x509.CertificatePolicies:
    return x509.CertificatePolicies(
        [x509.PolicyInformation(x509.ObjectIdentifier(POLICIES[name]), None) for name in names]
    )


def access(ocsp: str | None, issuers: str) -> x509.AuthorityInformationAccess:
    urls = [*([(Access.OCSP, ocsp)] if ocsp else []), (Access.CA_ISSUERS, issuers)]
    return x509.AuthorityInformationAccess(
        [x509.AccessDescription(method, x509.UniformResourceIdentifier(url)) for method, url in urls]
    )


def crl_at(url: str) -> x509.CRLDistributionPoints:
    return x509.CRLDistributionPoints([x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)])


def key_ids(own: object | None, issuer: object) -> Extensions:
    """SKI, where one is wanted, and AKI with its key identifier alone."""
    authority = x509.AuthorityKeyIdentifier(key_id(issuer), None, None)
    subject = [(x509.SubjectKeyIdentifier(key_id(own)), False)] if own is not None else []
    return [*subject, (authority, False)]


def sign(
    subject: Name, public: object, issuer: Name, signer: Key, begin: datetime, days: int, extensions: Extensions,
    serial: int | None = None,
) -> x509.Certificate:  # fmt: skip
    """Valid through the last second of so many days; serials have 16 octets, the first 0x50: shard 2 of 4.

    Shards are equal ranges of serials that begin with 0x01 to 0x7f: the third of four goes from 0x40.80 to 0x60.40.
    """
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509_name(subject))
        .issuer_name(x509_name(issuer))
        .serial_number(serial or new_serial())
        .public_key(public)  # type: ignore[arg-type]
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days, seconds=-1))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    curve = getattr(signer, "curve", None)
    return builder.sign(signer, hashes.SHA384() if isinstance(curve, ec.SECP384R1) else hashes.SHA256())


def new_serial() -> int:
    return int.from_bytes(hashlib.sha256(b"%d" % next(_serials)).digest()[:15]) | 0x50 << 120


def keep(name: str, kind: str, certificate: x509.Certificate, /, **values: object) -> x509.Certificate:
    (FOLDER / f"{name}.der").write_bytes(certificate.public_bytes(Encoding.DER))
    cases[name] = {"kind": kind, **values}
    return certificate


def make_ca(ca: Ca, by_name: dict[tuple[str, str], Ca]) -> None:
    ca.key = new_key(ca.kind)
    public = ca.key.public_key()
    sign_cas = (usage("key_cert_sign", "crl_sign"), True)
    ocsp, files = SERVICES[ca.config]
    if ca.parent is None:
        extensions = [(x509.BasicConstraints(True, None), True), sign_cas, *key_ids(public, public)]
        ca.certificate = sign(ca.subject, public, ca.subject, ca.key, INIT, ca.days, extensions)
        keep(f"{ca.config}-{ca.name}", "root", ca.certificate, config=ca.config, name=ca.name)
        return
    parent = by_name[ca.config, ca.parent]
    assert parent.key is not None
    permitted: list[x509.GeneralName] = [x509.DNSName(each) for each in ca.dns]
    permitted += [x509.RFC822Name._init_without_validation(each) for each in ca.email]
    permitted += [x509.DirectoryName(x509_name([("C", ca.country)]))] if ca.country else []
    every = [x509.IPAddress(ipaddress.ip_network(each)) for each in ("0.0.0.0/0", "::/0")]
    constraints = x509.NameConstraints(permitted, every if ca.dns else None) if permitted else None
    extensions = [
        (x509.BasicConstraints(True, ca.pathlen), True),
        sign_cas,
        (x509.ExtendedKeyUsage([Purpose.EMAIL_PROTECTION if ca.mail else Purpose.SERVER_AUTH]), False),
        (policies(ca.policies), False),
        *([(constraints, True)] if constraints else []),
        *key_ids(public, parent.key.public_key()),
        (access(f"{ocsp}/{parent.name}", f"{files}/{parent.name}.cer"), False),
        (crl_at(f"{files}/{parent.name}.crl"), False),
    ]
    ca.certificate = sign(ca.subject, public, parent.subject, parent.key, INIT, ca.days, extensions)
    keep(f"{ca.config}-{ca.name}", "external" if ca.external else "sub-ca", ca.certificate, config=ca.config,
         name=ca.name, parent=ca.parent)  # fmt: skip


def make_ocsp_signer(ca: Ca) -> None:
    """Each CA's first (A13-A17): 30 days, of an offline root 395."""
    assert ca.key is not None
    public = new_key("p256").public_key()
    subject = (*ca.subject[:-1], ("CN", f"{ca.subject[-1][1]} OCSP 1"))
    extensions: Extensions = [
        (usage("digital_signature"), True),
        (x509.ExtendedKeyUsage([Purpose.OCSP_SIGNING]), False),
        (x509.OCSPNoCheck(), False),
        *key_ids(public, ca.key.public_key()),
    ]
    made = sign(subject, public, ca.subject, ca.key, INIT, 395 if ca.parent is None else 30, extensions)
    keep(f"{ca.config}-{ca.name}-ocsp", "ocsp-signer", made, config=ca.config, name=ca.name)


def sct_list(count: int) -> bytes:
    """SCTs of nobody: version, log, time, extensions (of the second the leaf index of a static log), signature."""
    scts = b""
    for number in range(count):
        extensions = bytes.fromhex("0000050000000001") if number == 1 else b""
        head = struct.pack(">B32sQH", 0, bytes([number]) * 32, int(ORDERED.timestamp() * 1000), len(extensions))
        signature = bytes([4, 3]) + struct.pack(">H", 70) + bytes(range(70))
        scts += struct.pack(">H", len(head + extensions + signature)) + head + extensions + signature
    return struct.pack(">H", len(scts)) + scts


def octet_string(content: bytes) -> bytes:
    size = len(content)
    return (
        b"\x04"
        + (bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2) if size > 255 else b"\x81" + bytes([size]))
        + content
    )


def make_leaf(leaf: Leaf, ca: Ca, kind: str) -> None:
    assert ca.key is not None
    assert ca.certificate is not None
    key, mail = new_key(kind), "-" in leaf.policy
    public = key.public_key()
    names = x509.SubjectAlternativeName([x509.RFC822Name(name) if mail else x509.DNSName(name) for name in leaf.names])
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509_name(leaf.asked)).add_extension(names, False)
    ocsp, files = SERVICES[leaf.config]
    crl = f"{files}/tls-dv/2.crl" if (leaf.config, ca.name) == ("demo", "tls-dv") else f"{files}/{ca.name}.crl"
    second = "key_encipherment" if kind == "rsa" else "key_agreement"
    purposes = [Purpose.EMAIL_PROTECTION if mail else Purpose.SERVER_AUTH, *([Purpose.CLIENT_AUTH] * leaf.client)]
    extensions: Extensions = [
        (usage("digital_signature", *([second] if mail else [])), True),
        (x509.ExtendedKeyUsage(purposes), False),
        (x509.BasicConstraints(False, None), True),
        *key_ids(None, ca.key.public_key()),
        (access(None if leaf.short else f"{ocsp}/{ca.name}", f"{files}/{ca.name}.cer"), False),
        (names, not leaf.subject),
        (policies([leaf.policy]), False),
        *([] if leaf.short else [(crl_at(crl), False)]),
        *([(x509.SubjectKeyIdentifier(key_id(public)), False)] if mail else []),
    ]
    asked = {
        "config": leaf.config,
        "profile": leaf.profile,
        "csr": csr.sign(key, hashes.SHA256()).public_bytes(Encoding.DER).hex(),
        "at": int(ORDERED.timestamp()),
    }
    name, serial = f"{leaf.config}-{leaf.profile}-{kind}", new_serial()
    if mail:
        keep(
            name,
            "leaf",
            sign(leaf.subject, public, ca.subject, ca.key, ORDERED, leaf.days, extensions, serial),
            **asked,
        )
        return
    poison: Extensions = [(x509.PrecertPoison(), True)]
    scts = sct_list(3 if leaf.days > 180 else 2)
    listed = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2"), octet_string(scts))
    for form, more in (("precertificate", poison), ("certificate", [(listed, False)])):
        made = sign(leaf.subject, public, ca.subject, ca.key, ORDERED, leaf.days, extensions + more, serial)
        keep(f"{name}-{form}", form, made, scts=scts.hex(), **asked)


def general_name(text: str) -> x509.GeneralName:
    if "@" in text:
        return x509.RFC822Name(text)
    return x509.DNSName(text) if text[-1].isalpha() else x509.IPAddress(ipaddress.ip_address(text))


def make_stranger(ca: Ca, outside: str, names: Sequence[str], subject: Name) -> None:
    assert ca.key is not None
    extensions: Extensions = [
        (usage("digital_signature"), True),
        (x509.ExtendedKeyUsage([Purpose.EMAIL_PROTECTION if ca.mail else Purpose.SERVER_AUTH]), False),
        *key_ids(None, ca.key.public_key()),
        (x509.SubjectAlternativeName([general_name(each) for each in names]), False),
    ]
    made = sign(subject, new_key("p256").public_key(), ca.subject, ca.key, ORDERED, 90, extensions)
    keep(f"{ca.config}-{ca.name}-outside-{outside}", "stranger", made, config=ca.config, outside=outside)


def make_operator() -> None:
    """The operators' own CA and a client of the private APIs (F6)."""
    key, public = new_key("p256"), new_key("p256").public_key()
    name = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Quash operators"),
         x509.NameAttribute(NameOID.COMMON_NAME, "Quash operators CA")]
    )  # fmt: skip
    issuer = [("O", "Quash operators"), ("CN", "Quash operators CA")]
    assert x509_name(issuer) == name
    extensions = [
        (x509.BasicConstraints(True, 0), True),
        (usage("key_cert_sign", "crl_sign"), True),
        *key_ids(key.public_key(), key.public_key()),
    ]
    keep("operators-ca", "operators-ca", sign(issuer, key.public_key(), issuer, key, INIT, 3652, extensions))
    extensions = [
        (usage("digital_signature"), True),
        *key_ids(public, key.public_key()),
        (x509.ExtendedKeyUsage([Purpose.CLIENT_AUTH]), False),
    ]
    subject = [("O", "Quash operators"), ("CN", "officer2")]
    keep("operators-officer2", "operator", sign(subject, public, issuer, key, INIT, 397, extensions), name="officer2")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    by_name = {(ca.config, ca.name): ca for ca in CAS}
    for ca in CAS:
        make_ca(ca, by_name)
        if not ca.external:
            make_ocsp_signer(ca)
    for number, leaf in enumerate(LEAVES):
        curves = ("p256", "p384", "p521") if leaf.profile.startswith("tls") else ("p256", "p384")
        for kind in ("rsa", curves[number % len(curves)]):
            make_leaf(leaf, by_name[leaf.config, leaf.issuer], kind)
    make_operator()
    for ca_, outside, names, subject in STRANGERS:
        make_stranger(by_name[ca_], outside, names, subject)
    (FOLDER / "cases.json").write_text(json.dumps(cases, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
