"""What the CA signer demands of S/MIME leaves and of sub-CAs, from the issuer's certificate and the bytes alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from issuer.signer import ca_profiles, oids
from issuer.signer import tbs_writer as write
from issuer.signer.authority import Authority
from issuer.signer.ca_profiles import SubCa
from issuer.signer.certificate_checks import check_certificate
from issuer.signer.extension_rules import Expected
from issuer.signer.tbs import read_tbs_certificate
from issuer.signer.tbs_writer import Frame
from quash.errors import QuashError
from quash.pki import der
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.pki.name_constraints import NameConstraints
from quash.pki.names import build_name
from quash.pki.policies import EMAIL, OIDS
from quash.store.issuers import Issuer
from tests.support.issuing import DAY, private_key, spki_of

NOW, KEY_ID = 1_800_000_000, b"\x5a" * 20
ALGORITHM = SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"]
OCSP, CER, URL = "http://ocsp.example.org/ca", "http://crl.example.org/ca.cer", "http://crl.example.org/ca.crl"
TUNISIA = build_name({"C": "TN"})


def authority(kind: str = "sub-ca", **changes: object) -> Authority:
    """An issuer of S/MIME leaves named `ca`, unless changed."""
    issuer = Issuer(
        id=1,
        name="ca",
        kind=kind,
        parent=None,
        subject=build_name({"C": "TN", "O": "Quash Test", "CN": "Quash Test CA"}),
        spki=spki_of(private_key("tls-dv")),
        signature_algorithm=ALGORITHM.name,
        key_ref=None,
        ocsp_path="ca",
        max_age=1800,
        bucket_count=16,
        shard_count=0,
        profiles=("mail",),
        created_at=NOW,
    )
    given = {"purposes": frozenset({oids.EMAIL_PROTECTION}), "path_length": 0} | changes
    return Authority(issuer, ALGORITHM, KEY_ID, NOW + 4000 * DAY, **given)  # type: ignore[arg-type]


ROOT = authority("root", purposes=frozenset(), path_length=None)
STRICT, MULTI = EMAIL["smime-mailbox-strict"], EMAIL["smime-mailbox-multipurpose"]
SPONSOR = EMAIL["smime-sponsor-strict"]


@dataclass
class Leaf:
    """An S/MIME leaf, right unless a case changes one thing."""

    policies: tuple[str, ...] = (STRICT,)
    purposes: tuple[str, ...] = (oids.EMAIL_PROTECTION,)
    usage: tuple[str, ...] = ("digitalSignature", "keyAgreement")
    mailboxes: tuple[str, ...] = ("a@example.org",)
    names: tuple[str, ...] = ()
    subject: bytes = b"\x30\x00"
    critical: bool | None = None
    days: int = 825
    spki: bytes = field(default_factory=lambda: spki_of(private_key("leaf")))
    crl: bool = True
    more: tuple[bytes, ...] = ()

    def tbs(self, issuer: bytes) -> bytes:
        frame = Frame(b"\1" * 16, ALGORITHM, issuer, NOW, NOW + self.days * DAY - 1, self.subject, self.spki)
        critical = self.subject == b"\x30\x00" if self.critical is None else self.critical
        return write.write_tbs(
            frame,
            write.key_usage(write.usage_bits(self.usage)),
            write.extended_key_usage(*self.purposes),
            write.basic_constraints(write.NOT_CA),
            write.authority_key(KEY_ID),
            write.authority_access(ocsp=OCSP, ca_issuers=CER),
            write.alternative_names(self.names, self.mailboxes, critical=critical),
            write.policy(*self.policies),
            *([write.crl_distribution_point(URL)] if self.crl else ()),
            *self.more,
        )


def check(tbs: bytes, by: Authority, profile: str) -> None:
    read = read_tbs_certificate(tbs)
    spki = hashlib.sha256(read.spki).digest()
    check_certificate(read, by, Expected(profile, read.serial, spki, read.not_before, read.not_after, URL), NOW)


SCT = write.extension(oids.SCT_LIST, der.tlv(der.OCTET_STRING, b"\0\0"))
BOUND = authority(constraints=NameConstraints(email=(".tn",), directory=(TUNISIA,)))
PERSON = build_name({"C": "TN", "O": "Essai", "GN": "Amel", "SN": "Ben Salah"})

LEAVES: dict[str, tuple[Leaf, Authority, str | None]] = {
    "strict": (Leaf(), authority(), None),
    "multipurpose": (
        Leaf(policies=(MULTI,), purposes=(oids.EMAIL_PROTECTION, oids.CLIENT_AUTH)),
        authority(),
        None,
    ),
    "signing only": (Leaf(usage=("digitalSignature",)), authority(), None),
    "a person": (Leaf(policies=(SPONSOR,), subject=PERSON), authority(), None),
    "inside constraints": (Leaf(mailboxes=("a@b.tn",)), BOUND, None),
    # D49: what it is for
    "strict that logs in": (
        Leaf(purposes=(oids.EMAIL_PROTECTION, oids.CLIENT_AUTH)),
        authority(),
        "tbs.extension",
    ),
    "TLS": (Leaf(purposes=(oids.SERVER_AUTH,)), authority(), "tbs.extension"),
    "TLS and S/MIME": (
        Leaf(policies=(MULTI,), purposes=(oids.EMAIL_PROTECTION, oids.SERVER_AUTH)),
        authority(),
        "tbs.extension",
    ),
    "a TLS policy": (Leaf(policies=(oids.POLICY_DV,)), authority(), "tbs.extension"),
    "a legacy policy": (Leaf(policies=("2.23.140.1.5.1.1",)), authority(), "tbs.extension"),
    "two policies": (Leaf(policies=(STRICT, MULTI)), authority(), "tbs.extension"),
    "any policy": (Leaf(policies=(oids.ANY_POLICY,)), authority(), "tbs.extension"),
    "a policy its issuer lacks (D15)": (Leaf(), authority(policies=frozenset({MULTI})), "tbs.extension"),
    "encryption without signing": (Leaf(usage=("keyAgreement",)), authority(), "tbs.extension"),
    "RSA's usage for EC": (Leaf(usage=("digitalSignature", "keyEncipherment")), authority(), "tbs.extension"),
    "a CA's usage": (Leaf(usage=("digitalSignature", "keyCertSign")), authority(), "tbs.extension"),
    # Names
    "a DNS name": (Leaf(names=("www.example.org",)), authority(), "tbs.extension"),
    "no mailbox": (Leaf(mailboxes=()), authority(), "tbs.extension"),
    "no address": (Leaf(mailboxes=("example.org",)), authority(), "email.malformed"),
    "a host of one label": (Leaf(mailboxes=("a@example",)), authority(), "name.single_label"),
    "SAN not critical": (Leaf(critical=False), authority(), "tbs.extension"),
    "a person in a mailbox": (Leaf(subject=PERSON), authority(), "tbs.subject"),
    "outside constraints": (Leaf(), BOUND, "name.outside_constraints"),
    "another country's": (
        Leaf(
            policies=(SPONSOR,),
            mailboxes=("a@b.tn",),
            subject=build_name({"C": "FR", "O": "Essai", "GN": "A", "SN": "B"}),
        ),
        BOUND,
        "name.outside_constraints",
    ),
    # The rest
    "826 days": (Leaf(days=826), authority(), "tbs.validity"),
    "a week without CRL": (Leaf(days=7, crl=False), authority(), "tbs.extension"),
    "SCTs": (Leaf(more=(SCT,)), authority(), "tbs.extension"),
    "from a root (D14)": (
        Leaf(),
        authority("root", purposes=frozenset({oids.EMAIL_PROTECTION})),
        "tbs.profile",
    ),
    "from a CA for TLS": (Leaf(days=99), authority(purposes=frozenset({oids.SERVER_AUTH})), "tbs.extension"),
    "from a CA for both": (
        Leaf(),
        authority(purposes=frozenset({oids.SERVER_AUTH, oids.EMAIL_PROTECTION})),
        "tbs.profile",
    ),
    "from a CA for anything": (Leaf(), authority(purposes=frozenset()), "tbs.profile"),
}


@pytest.mark.parametrize("case", LEAVES)
def test_s_mime_leaves(case: str) -> None:
    """D49: one broken thing a case, each with its code; the first five are right."""
    leaf, by, code = LEAVES[case]
    tbs = leaf.tbs(by.issuer.subject)
    if code is None:
        check(tbs, by, "mail")
        return
    with pytest.raises(QuashError) as error:
        check(tbs, by, "mail")
    assert error.value.code == code


def test_the_number_of_leaf_cases() -> None:
    """A case that gets lost is noticed."""
    assert (len(LEAVES), sum(code is None for _, _, code in LEAVES.values())) == (31, 5)


TLS = SubCa(oids.SERVER_AUTH, (OIDS["dv"],), 0, None, KEY_ID, URL, OCSP, CER)
MAIL = replace(TLS, purpose=oids.EMAIL_PROTECTION, policies=(STRICT, MULTI))
NAMES = NameConstraints(dns=("tn",), directory=(TUNISIA,))
HOSTS = NameConstraints(email=("example.org",), directory=(TUNISIA,))
ABOVE = authority(purposes=frozenset({oids.SERVER_AUTH}), path_length=1, policies=frozenset({oids.ANY_POLICY}))


def sub_ca(shape: SubCa = TLS, *, days: int = 3653, key: str = "tls-dv", **subject: str) -> Callable[[bytes], bytes]:
    """The TBS of a sub-CA by its issuer's name."""
    spki = spki_of(_small_rsa() if key == "small" else private_key(key))
    name = (
        bytes.fromhex(subject["raw"]) if "raw" in subject else build_name({"C": "TN", "O": "Essai", "CN": "Essai CA"})
    )

    def build(issuer: bytes) -> bytes:
        frame = Frame(b"\1" * 16, ALGORITHM, issuer, NOW, NOW + days * DAY - 1, name, spki)
        return ca_profiles.sub_ca(frame, shape=shape)

    return build


def _small_rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 3072)


def bound(*directory: bytes, dns: tuple[str, ...] = ("tn",)) -> Callable[[bytes], bytes]:
    """A constrained TLS CA whose constraints nobody but the CA signer checked."""
    return sub_ca(replace(TLS, constraints=NameConstraints(dns=dns, directory=directory)))


EMPTY, EMPTY_RDN = der.tlv(der.SEQUENCE), der.tlv(der.SET)
PLAIN, BOUND_CA, MAIL_CA, BOUND_MAIL_CA = "sub-ca", "sub-ca-constrained", "smime-sub-ca", "smime-sub-ca-constrained"
UNIT = der.tlv(
    der.SEQUENCE,
    der.tlv(der.SET, der.tlv(der.SEQUENCE, der.oid("2.5.4.11"), der.tlv(der.UTF8_STRING, b"PKI"))),
).hex()
CAS: dict[str, tuple[Callable[[bytes], bytes], Authority, str, str | None]] = {
    "TLS": (sub_ca(), ROOT, PLAIN, None),
    "TLS, constrained by choice": (sub_ca(replace(TLS, constraints=NAMES)), ROOT, PLAIN, None),
    "TLS, constrained": (sub_ca(replace(TLS, constraints=NAMES)), ROOT, BOUND_CA, None),
    "S/MIME": (sub_ca(MAIL), ROOT, MAIL_CA, None),
    "S/MIME, constrained": (sub_ca(replace(MAIL, constraints=HOSTS)), ROOT, BOUND_MAIL_CA, None),
    "with a CA below": (sub_ca(replace(TLS, policies=(oids.ANY_POLICY,), path_length=1)), ROOT, PLAIN, None),
    "below a sub-CA": (sub_ca(), ABOVE, PLAIN, None),
    # D15: where it stands
    "below a CA for leaves": (sub_ca(), replace(ABOVE, path_length=0), PLAIN, "tbs.profile"),
    "as deep as its parent": (sub_ca(replace(TLS, path_length=1)), ABOVE, PLAIN, "tbs.extension"),
    "very deep": (sub_ca(replace(TLS, path_length=3)), ROOT, PLAIN, "tbs.extension"),
    "below a constrained CA": (sub_ca(), replace(ABOVE, constraints=NAMES), PLAIN, "tbs.profile"),
    "S/MIME below TLS": (sub_ca(MAIL), ABOVE, MAIL_CA, "tbs.extension"),
    "a policy its parent lacks": (
        sub_ca(),
        replace(ABOVE, policies=frozenset({OIDS["ov"]})),
        PLAIN,
        "tbs.extension",
    ),
    "below an imported CA": (sub_ca(), authority("imported", path_length=None), PLAIN, "tbs.profile"),
    # D15, D17: what it is for
    "an S/MIME policy for TLS": (sub_ca(replace(TLS, policies=(STRICT,))), ROOT, PLAIN, "tbs.extension"),
    "a TLS policy for S/MIME": (sub_ca(replace(MAIL, policies=(OIDS["dv"],))), ROOT, MAIL_CA, "tbs.extension"),
    "any beside another": (
        sub_ca(replace(MAIL, policies=(STRICT, oids.ANY_POLICY))),
        ROOT,
        MAIL_CA,
        "tbs.extension",
    ),
    "TLS called S/MIME": (sub_ca(), ROOT, MAIL_CA, "tbs.extension"),
    "OCSPSigning": (sub_ca(replace(TLS, purpose=oids.OCSP_SIGNING)), ROOT, PLAIN, "tbs.extension"),
    # D16, D17: constraints
    "without constraints": (sub_ca(), ROOT, BOUND_CA, "tbs.extension"),
    "no directory name": (
        sub_ca(replace(TLS, constraints=NameConstraints(dns=("tn",)))),
        ROOT,
        BOUND_CA,
        "tbs.extension",
    ),
    "an empty directory name": (bound(TUNISIA, EMPTY), ROOT, BOUND_CA, "tbs.extension"),
    "a directory name without a country": (bound(build_name({"O": "Essai"})), ROOT, BOUND_CA, "tbs.extension"),
    "an odd directory name": (bound(build_name({"C": "TN", "CN": "Essai"})), ROOT, BOUND_CA, "tbs.extension"),
    "a directory name of an empty RDN": (bound(der.tlv(der.SEQUENCE, EMPTY_RDN)), ROOT, BOUND_CA, "tbs.extension"),
    "an empty DNS name": (bound(TUNISIA, dns=("tn", "")), ROOT, BOUND_CA, "tbs.extension"),
    "an empty mail host": (
        sub_ca(replace(MAIL, constraints=NameConstraints(email=("",), directory=(TUNISIA,)))),
        ROOT,
        BOUND_MAIL_CA,
        "tbs.extension",
    ),
    "every mail host": (
        sub_ca(replace(MAIL, constraints=NameConstraints(email=(".",), directory=(TUNISIA,)))),
        ROOT,
        BOUND_MAIL_CA,
        "tbs.extension",
    ),
    "hosts for TLS": (sub_ca(replace(TLS, constraints=HOSTS)), ROOT, BOUND_CA, "tbs.extension"),
    "names for S/MIME": (sub_ca(replace(MAIL, constraints=NAMES)), ROOT, BOUND_MAIL_CA, "tbs.extension"),
    "S/MIME without constraints": (sub_ca(MAIL), ROOT, BOUND_MAIL_CA, "tbs.extension"),
    # D14, D51, G4
    "ten years and a day": (sub_ca(days=3654), ROOT, PLAIN, "tbs.validity"),
    "RSA-3072 for S/MIME": (sub_ca(MAIL, key="small"), ROOT, MAIL_CA, "tbs.public_key"),
    "an OU": (sub_ca(raw=UNIT), ROOT, PLAIN, "tbs.subject"),
}


@pytest.mark.parametrize("case", CAS)
def test_sub_cas(case: str) -> None:
    """D15-D17: one broken thing a case, each with its code; the first seven are right."""
    build, by, profile, code = CAS[case]
    tbs = build(by.issuer.subject)
    if code is None:
        check(tbs, by, profile)
        return
    with pytest.raises(QuashError) as error:
        check(tbs, by, profile)
    assert error.value.code == code


def test_the_number_of_ca_cases() -> None:
    """A case that gets lost is noticed."""
    assert (len(CAS), sum(code is None for *_, code in CAS.values())) == (34, 7)
