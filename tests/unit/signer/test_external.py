"""CAs of others below ECA-1: signed from their CSRs, bound by names, and refused whenever they would not be (G17)."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from issuer.checks import csr
from issuer.checks.blocklist import write_blocklist
from issuer.checks.findings import at_or_above
from issuer.checks.keys import PwnedKeysClient
from issuer.signer.external import External, sign_sub_ca
from issuer.signer.lint import findings
from issuer.signer.service import CaSigner
from quash.errors import Kind, QuashError
from quash.pki.serials import parse_serial
from quash.runtime.clock import FakeClock
from quash.runtime.config import Checks, Config, Permitted
from quash.store import acts, blocked_keys
from tests.support.initialising import Made
from tests.support.issuing import PrivateKey, make_csr, private_key, spki_of
from tests.support.shipped import openssl_says, shipped_config, signed_by
from tests.support.weak_keys import prime_after, random_prime

Subject = tuple[tuple[x509.ObjectIdentifier, str], ...]
SUBJECT: Subject = (
    (NameOID.COUNTRY_NAME, "DE"),
    (NameOID.ORGANIZATION_NAME, "Example GmbH"),
    (NameOID.COMMON_NAME, "Example TLS CA 1"),
)
PERMITTED = {"dns": ["example.org"], "directory": [{"C": "DE"}]}
MAIL = {"email": ["example.org", ".example.org"], "directory": [{"C": "DE"}]}
BY = ("Ann Smith", "Bob Jones")
POLICY = "smime-mailbox-strict"


@pytest.fixture
def clock() -> FakeClock:
    """Now, for openssl."""
    return FakeClock(int(time.time()) - 60)


@pytest.fixture
async def eca(database: Any, clock: FakeClock, tmp_path: Path, no_lint: None) -> Made:
    """TrustCor's ECA-1 alone, and CA-1 for TLS beside it."""
    names = ("eca1", "eca1-tls", "eca1-mail", "ca1", "ca1-tls")
    config = shipped_config("trustcor", database.config)
    cut = config.model_copy(
        update={"issuers": tuple(each for each in config.issuers if each.name in names), "profiles": ()}
    )
    made = Made.of(Config.model_validate(cut.model_dump(exclude={"testsite"})), tmp_path / "var", database.owner, clock)
    await made.make()
    return made


def asked(key: PrivateKey | None = None, subject: Subject = SUBJECT, **changes: Any) -> External:
    """A TLS CA for example.org, as it should be."""
    right = External(
        "eca1-tls", csr.decode(make_csr((), subject=subject, key=key)), ("ov",), _permit(PERMITTED), 1095, BY
    )
    return replace(right, **changes)


def _permit(what: dict[str, Any]) -> Permitted:
    return Permitted.model_validate(what)


async def test_a_service_is_asked_about_their_key(eca: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """G9: what it knows gets no certificate, nor does a key while it has no answer."""
    heard: list[bytes] = []

    async def check(_: PwnedKeysClient, spki_sha256: bytes) -> None:
        heard.append(spki_sha256)
        raise QuashError("key.pwned", "known", Kind.REFUSED)

    monkeypatch.setattr(PwnedKeysClient, "check", check)
    checks = Checks.model_validate({"pwnedkeys": {"url": "http://127.0.0.1:9"}})
    asking = replace(eca.deployment, config=eca.deployment.config.model_copy(update={"checks": checks}))
    with pytest.raises(QuashError) as error:
        await sign_sub_ca(asking, asked())
    assert (error.value.code, len(heard)) == ("key.pwned", 1)


async def test_constraints_bind_what_others_sign(eca: Made, tmp_path: Path) -> None:
    """D16, D17: openssl takes a leaf inside the constraints, none outside; the CA has its status from its parent."""
    key = ec.generate_private_key(ec.SECP384R1())
    der, pem = await sign_sub_ca(eca.deployment, asked(key))
    assert at_or_above(findings(der, "sub-ca-constrained"), "warning") == []
    external = x509.load_der_x509_certificate(der)
    above = [eca.certificate("eca1-tls"), eca.certificate("eca1")]
    assert [x509.load_pem_x509_certificate(each.encode()) for each in pem] == above

    def says(*names: x509.GeneralName) -> str:
        return openssl_says(signed_by(external, key, *names), [external, *above], "sslserver", tmp_path)

    assert says(x509.DNSName("www.example.org"), x509.DNSName("example.org")) == "leaf.pem: OK"
    assert "permitted subtree violation" in says(x509.DNSName("www.example.net"))
    assert "permitted subtree violation" in says(x509.DNSName("www.example.org"), x509.DNSName("notexample.org"))
    assert "excluded subtree violation" in says(x509.IPAddress(ipaddress.ip_address("192.0.2.1")))
    assert "excluded subtree violation" in says(x509.IPAddress(ipaddress.ip_address("2001:db8::1")))
    assert "unsuitable certificate purpose" in says(x509.RFC822Name("a@example.org"))

    rows = await eca.fetch(
        "select i.name, c.profile, c.state, c.serial from certificate c join issuer i on i.id ="
        " c.issuer_id where c.profile like '%constrained'"
    )
    serial = parse_serial(f"{external.serial_number:x}")
    assert rows == [("eca1-tls", "sub-ca-constrained", "issued", serial)]
    assert await eca.fetch("select kind from outbox where serial = $1", serial) == [("certificate",)]
    assert await last_act(eca) == (
        "command:sign-sub-ca",
        {
            "issuer": "eca1-tls",
            "serial": f"{external.serial_number:x}",
            "profile": "sub-ca-constrained",
            "subject": {"C": "DE", "O": "Example GmbH", "CN": "Example TLS CA 1"},
            "policies": ["ov"],
            "permitted": {"dns": ["example.org"], "email": [], "directory": [{"C": "DE"}]},
            "by": ["Ann Smith", "Bob Jones"],
        },
    )
    point = external.extensions.get_extension_for_class(x509.CRLDistributionPoints).value[0]
    assert point.full_name[0].value == "http://crl.trustcor.ca/eca1-tls.crl"


async def last_act(made: Made) -> tuple[str, dict[str, Any]]:
    """Actor and subject of the last issuance."""
    (found,) = await made.fetch(
        "select actor, subject from act where action = 'certificate.issued' order by id desc limit 1"
    )
    return found[0], found[1]


async def test_an_officer_decides_on_high_profile_names(eca: Made) -> None:
    """G19, D38: names that orders are held for pass with a reason alone, which the act keeps."""
    names = _permit(PERMITTED | {"dns": ["example.org", "mail.google.com"]})
    request = replace(asked(permitted=names), high_profile="contract 12, seen by the officer of the week")
    await sign_sub_ca(eca.deployment, request)
    _, said = await last_act(eca)
    assert (said["high_profile"], said["reason"]) == (["mail.google.com"], request.high_profile)


async def test_a_correction_after_a_crash(eca: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was reserved for other constraints is not signed for the corrected ones: it is revoked (A8)."""
    key = ec.generate_private_key(ec.SECP256R1())

    async def fail(*_: object) -> bytes:
        raise QuashError("test.crash", "the machine went away")

    mistaken = asked(key, permitted=_permit(PERMITTED | {"dns": ["example.net"]}))
    with monkeypatch.context() as patch:
        patch.setattr(CaSigner, "sign_certificate", fail)
        with pytest.raises(QuashError, match=r"test\.crash"):
            await sign_sub_ca(eca.deployment, mistaken)
    der, _ = await sign_sub_ca(eca.deployment, asked(key))
    constraints = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.NameConstraints).value
    assert constraints.permitted_subtrees is not None
    assert constraints.permitted_subtrees[0] == x509.DNSName("example.org")
    left = await eca.fetch(
        "select c.state, r.reason from certificate c left join revocation r using (issuer_id, serial)"
        " where c.profile = 'sub-ca-constrained' order by c.state"
    )
    assert left == [("issued", None), ("reserved", 4)]


async def test_mail_constraints_bind(eca: Made, tmp_path: Path) -> None:
    """D17: mailboxes at the permitted hosts, and no TLS whatever the leaf says."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = replace(asked(key), parent="eca1-mail", policies=(POLICY,), permitted=_permit(MAIL))
    external = x509.load_der_x509_certificate((await sign_sub_ca(eca.deployment, request))[0])
    above = [external, eca.certificate("eca1-mail"), eca.certificate("eca1")]

    def says(purpose: str, *names: x509.GeneralName) -> str:
        return openssl_says(signed_by(external, key, *names), above, purpose, tmp_path)

    assert says("smimesign", x509.RFC822Name("a@example.org")) == "leaf.pem: OK"
    assert says("smimesign", x509.RFC822Name("a@mail.example.org")) == "leaf.pem: OK"
    assert "permitted subtree violation" in says("smimesign", x509.RFC822Name("a@example.net"))
    assert "OK" not in says("sslserver", x509.DNSName("www.example.org"))


def subject(**changes: str | None) -> Subject:
    """The right subject with these attributes changed, added or (None) left out."""
    oids = {"C": NameOID.COUNTRY_NAME, "O": NameOID.ORGANIZATION_NAME, "CN": NameOID.COMMON_NAME,
            "L": NameOID.LOCALITY_NAME}  # fmt: skip
    values = {"C": "DE", "O": "Example GmbH", "CN": "Example TLS CA 1", **changes}
    return tuple((oids[key], value) for key, value in values.items() if value is not None)


def close_primes() -> rsa.RSAPrivateKey:
    """A key whose primes follow one another."""
    p = random_prime()
    q = prime_after(p)
    d = rsa.rsa_recover_private_exponent(65537, p, q)
    extra = rsa.rsa_crt_dmp1(d, q), rsa.rsa_crt_dmq1(d, p), rsa.rsa_crt_iqmp(q, p)
    return rsa.RSAPrivateNumbers(q, p, d, *extra, rsa.RSAPublicNumbers(65537, p * q)).private_key()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a root as parent": ({"parent": "eca1"}, "external.parent"),
    "a CA for leaves as parent": ({"parent": "ca1-tls"}, "external.parent"),
    "nobody as parent": ({"parent": "eca2"}, "hierarchy.parent"),
    "no constraints (D16)": ({"permitted": _permit({})}, "external.profile"),
    "no directory name (D16)": ({"permitted": _permit({"dns": ["example.org"]})}, "external.profile"),
    "mail hosts for TLS (D17)": ({"permitted": _permit(MAIL)}, "external.profile"),
    "both purposes (D17)": ({"permitted": _permit(PERMITTED | MAIL)}, "external.profile"),
    "any policy (D15)": ({"policies": ("any",)}, "external.profile"),
    "no policy (D15)": ({"policies": ()}, "external.profile"),
    "an S/MIME policy (D15)": ({"policies": (POLICY,)}, "external.profile"),
    "too long (D16)": ({"days": 1096}, "external.profile"),
    "an internal name (D11)": ({"permitted": _permit(PERMITTED | {"dns": ["corp"]})}, "name.single_label"),
    "a registry's suffix (D12)": ({"permitted": _permit(PERMITTED | {"dns": ["co.uk"]})}, "name.public_suffix"),
    "no organization (D15)": ({"subject": subject(O=None)}, "external.subject"),
    "a locality (D15)": ({"subject": subject(L="Berlin")}, "external.subject"),
    "a generic name (G35)": ({"subject": subject(CN="TLS CA 1")}, "external.subject"),
    "an article in its name (G35)": ({"subject": subject(O="A Foo", CN="A TLS CA 1")}, "external.subject"),
    "a part of a word in its name (G35)": ({"subject": subject(O="Ex GmbH")}, "external.subject"),
    "no name (D6)": ({"subject": subject(O=" ")}, "name.attribute_value"),
    "no country (D15)": ({"subject": subject(C="ZZ", O="Example GmbH")}, "name.country"),
    "an OU (G4)": ({"subject": (*SUBJECT, (NameOID.ORGANIZATIONAL_UNIT_NAME, "PKI"))}, "external.subject"),
    "our organization": (
        {"subject": subject(O="TrustCor systems S. de R.L.", CN="TrustCor Other CA")},
        "external.ours",
    ),
    "a high-profile name (G19)": ({"permitted": _permit(PERMITTED | {"dns": ["google.com"]})}, "external.high_profile"),
    "a high-profile host (G19)": (
        {
            "parent": "eca1-mail",
            "policies": (POLICY,),
            "permitted": _permit(MAIL | {"email": [".icloud.com"]}),
            "high_profile": " ",
        },
        "external.high_profile",
    ),
    "a high-profile organization (G19)": (
        {"subject": subject(O="Microsoft Ltd", CN="Microsoft CA")},
        "external.high_profile",
    ),
    "one person (D20)": ({"by": ("Ann Smith", " Ann Smith ", "")}, "external.by"),
    "our own name": ({"subject": "eca1-tls"}, "external.ours"),
    "a key of P-521 (D40)": ({"key": ec.generate_private_key(ec.SECP521R1())}, "key.outside_profile"),
    "an RSA key too small for S/MIME (D51)": (
        {"parent": "eca1-mail", "policies": (POLICY,), "permitted": _permit(MAIL), "key": private_key("rsa-any")},
        "key.outside_profile",
    ),
    "a key of a blocklist (D42, D45)": ({"key": private_key("listed")}, "key.listed"),
    "a key of close primes (D44)": ({"key": close_primes()}, "key.weak.fermat"),
    "a blocked key (C9)": ({"key": private_key("blocked")}, "key.blocked"),
}


async def test_what_is_not_signed(eca: Made, tmp_path: Path) -> None:
    """One broken thing per case, each with its code; no key signs, and no serial is taken."""
    async with eca.deployment.pool.acquire() as conn, conn.transaction():
        act = await acts.record(conn, at=0, actor="test", action="test", subject={})
        digest = hashlib.sha256(spki_of(private_key("blocked"))).digest()
        await blocked_keys.block(conn, digest, reason="test", added_at=0, act_id=act)
    write_blocklist(tmp_path / "list", [spki_of(private_key("listed"))])
    checks = Checks.model_validate({"blocklists": [{"name": "debian", "file": str(tmp_path / "list")}]})
    deployment = replace(eca.deployment, config=eca.deployment.config.model_copy(update={"checks": checks}))
    counts = "select (select count(*) from signing_log), (select count(*) from certificate)"
    before = await eca.fetch(counts)
    for case, (wrong, code) in WRONG.items():
        changes = dict(wrong)
        key, name = changes.pop("key", None), changes.pop("subject", SUBJECT)
        if name == "eca1-tls":
            name = tuple((each.oid, str(each.value)) for each in eca.certificate(name).subject)
        with pytest.raises(QuashError) as error:
            await sign_sub_ca(deployment, asked(key, name, **changes))
        assert error.value.code == code, case
    assert len(WRONG) == 32
    assert await eca.fetch(counts) == before
