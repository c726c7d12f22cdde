"""`quash init`: the demo's hierarchy as strangers read it."""

from __future__ import annotations

import hashlib
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, ExtensionOID

from issuer.checks.findings import at_or_above
from issuer.signer import lint
from issuer.signer.lint import TOLERATED
from quash.errors import QuashError
from quash.pki.crl import read_crl
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from tests.support.initialising import Made, demo_config, quick_config

DAY = 86_400
PROFILES = {"root": "root", "tls-dv": "sub-ca", "tls-ov": "sub-ca"}


def openssl(*arguments: str | Path) -> str:
    done = subprocess.run(["openssl", *arguments], check=False, capture_output=True, text=True)
    return done.stdout + done.stderr


def value_of(certificate: x509.Certificate, kind: type[Any]) -> Any:
    return certificate.extensions.get_extension_for_class(kind).value


async def ocsp_signers(made: Made) -> dict[str, x509.Certificate]:
    rows = await made.fetch(
        "select i.name, s.certificate from ocsp_signer s join issuer i on i.id = s.issuer_id where s.state = 'active'"
    )
    return {name: x509.load_der_x509_certificate(der) for name, der in rows}


async def test_the_demo(database: Any, clock: FakeClock, tmp_path: Path) -> None:
    """One init, looked at from every side: linters, OpenSSL, profiles, rows, files, and a second init."""
    made = Made.of(demo_config(database.config), tmp_path / "var", database.owner, clock)
    await made.make()
    signers = await ocsp_signers(made)
    lints(made, signers)
    chains(made, signers)
    root_profile(made.certificate("root"), clock)
    for name, bits in (("tls-dv", ec.SECP256R1), ("tls-ov", 2048)):
        sub_ca_profile(made, name, bits)
    for name, signer in signers.items():
        signer_profile(made.certificate(name), signer, 395 if name == "root" else 30)
    await rows(made)
    await files(made)
    await operators(made)
    before, stored = made.files(), await made.rows()
    assert await made.make() == []
    assert (made.files(), await made.rows()) == (before, stored)


def lints(made: Made, signers: dict[str, x509.Certificate]) -> None:
    """pkilint has nothing above notice, apart from the loopback URLs of the demo (A42)."""
    found = {}
    for name, profile in PROFILES.items():
        found[name] = grave(made.certificate(name), profile)
    for name, signer in signers.items():
        found[f"{name} OCSP"] = grave(signer, "ocsp-signer")
    loopback = [("cabf.internal_domain_name", 'Internal domain name: "127.0.0.1"')] * 3  # OCSP, caIssuers, CRLDP
    assert found == {name: loopback if name in ("tls-dv", "tls-ov") else [] for name in found}
    assert len(TOLERATED) == 4  # two are of name-constrained S/MIME CAs, one is a notice


def grave(certificate: x509.Certificate, profile: str) -> list[tuple[str, str]]:
    """(code, message) of what pkilint finds above notice."""
    found = lint.findings(certificate.public_bytes(serialization.Encoding.DER), profile)
    return [(each.code, each.message) for each in at_or_above(found, "warning")]


def chains(made: Made, signers: dict[str, x509.Certificate]) -> None:
    """OpenSSL, strictly, builds every chain, and checks the sub-CAs against the root's CRL."""
    certs, at = made.state.certs, str(int(made.clock.now()) + 60)
    strict = ("verify", "-x509_strict", "-attime", at, "-CAfile", certs / "root.pem")
    crl = made.state.root / "root.crl.pem"
    assert openssl("crl", "-inform", "der", "-in", made.state.crl / "root.crl", "-out", crl) == ""
    for name in ("tls-dv", "tls-ov"):
        assert openssl(*strict, "-crl_check", "-CRLfile", crl, certs / f"{name}.pem").endswith(": OK\n")
    for name, signer in signers.items():
        path = made.state.root / f"{name}-ocsp.pem"
        path.write_bytes(signer.public_bytes(serialization.Encoding.PEM))
        through = ("-purpose", "ocsphelper", "-untrusted", certs / "chain.pem")
        assert openssl(*strict, *through, path).endswith(": OK\n")
        path.unlink()
    crl.unlink()
    made.certificate("root").verify_directly_issued_by(made.certificate("root"))


def root_profile(root: x509.Certificate, clock: FakeClock) -> None:
    """D14: P-384, ten years, critical basic and key usage, no EKU, its own key named twice."""
    assert isinstance(key := root.public_key(), ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP384R1)
    assert root.not_valid_before_utc == datetime.fromtimestamp(clock.now(), UTC)
    assert root.not_valid_after_utc - root.not_valid_before_utc == timedelta(days=3652, seconds=-1)
    critical = {each.oid for each in root.extensions if each.critical}
    assert critical == {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE}
    assert value_of(root, x509.BasicConstraints) == x509.BasicConstraints(ca=True, path_length=None)
    ca_usage(root)
    own = value_of(root, x509.SubjectKeyIdentifier).digest
    assert value_of(root, x509.AuthorityKeyIdentifier) == x509.AuthorityKeyIdentifier(own, None, None)
    assert len(root.extensions) == 4
    assert root.subject.public_bytes() == root.issuer.public_bytes()
    assert 100 < root.serial_number.bit_length() < 128


def ca_usage(certificate: x509.Certificate) -> None:
    usage = value_of(certificate, x509.KeyUsage)
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)


def sub_ca_profile(made: Made, name: str, bits: Any) -> None:
    """D15: last CA, serverAuth alone, one reserved policy, and URLs of the root's own services (G45)."""
    made_by, certificate = made.certificate("root"), made.certificate(name)
    key = certificate.public_key()
    assert key.key_size == bits if isinstance(key, rsa.RSAPublicKey) else isinstance(key.curve, bits)
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == timedelta(days=1095, seconds=-1)
    assert certificate.issuer.public_bytes() == made_by.subject.public_bytes()
    assert value_of(certificate, x509.BasicConstraints) == x509.BasicConstraints(ca=True, path_length=0)
    ca_usage(certificate)
    assert list(value_of(certificate, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.SERVER_AUTH]
    (policy,) = value_of(certificate, x509.CertificatePolicies)
    assert policy.policy_identifier.dotted_string == {"tls-dv": "2.23.140.1.2.1", "tls-ov": "2.23.140.1.2.2"}[name]
    (point,) = value_of(certificate, x509.CRLDistributionPoints)
    assert point.full_name == [x509.UniformResourceIdentifier("http://127.0.0.1:8081/root.crl")]
    access = {
        each.access_method: each.access_location.value
        for each in value_of(certificate, x509.AuthorityInformationAccess)
    }
    assert access == {
        AuthorityInformationAccessOID.OCSP: "http://127.0.0.1:8080/root",
        AuthorityInformationAccessOID.CA_ISSUERS: "http://127.0.0.1:8081/root.cer",
    }


def signer_profile(issuer: x509.Certificate, signer: x509.Certificate, days: int) -> None:
    """A14-A17: OCSPSigning and digitalSignature alone, nocheck, no CRLDP, no AIA; C, O and a CN of its own."""
    signer.verify_directly_issued_by(issuer)
    assert signer.not_valid_after_utc - signer.not_valid_before_utc == timedelta(days=days, seconds=-1)
    assert list(value_of(signer, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    usage = signer.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not signer.extensions.get_extension_for_class(x509.OCSPNoCheck).critical
    own, parent = (value_of(each, x509.SubjectKeyIdentifier).digest for each in (signer, issuer))
    assert own != parent
    assert value_of(signer, x509.AuthorityKeyIdentifier) == x509.AuthorityKeyIdentifier(parent, None, None)
    assert len(signer.extensions) == 5
    assert [each.rfc4514_attribute_name for each in signer.subject] == ["C", "O", "CN"]
    assert signer.subject != issuer.subject


async def rows(made: Made) -> None:
    """Sub-CAs and OCSP signers are certificates of their issuers, and every process hears of what is new."""
    assert await made.fetch(
        "select i.name, i.kind, p.name, i.key_ref, i.ocsp_path, i.shard_count, i.profiles"
        " from issuer i left join issuer p on p.id = i.parent order by i.id"
    ) == [
        ("root", "root", None, None, "root", 0, []),
        ("tls-dv", "sub-ca", "root", "pem:ca/tls-dv.pem", "tls-dv", 4, ["tls-dv", "tls-dv-day"]),
        ("tls-ov", "sub-ca", "root", "pem:ca/tls-ov.pem", "tls-ov", 0, ["tls-ov"]),
    ]
    assert await made.fetch(
        "select i.name, c.profile, c.state, count(*), bool_and(c.der is not null and c.tbs is null and c.shard is null)"
        " from certificate c join issuer i on i.id = c.issuer_id group by 1, 2, 3 order by 1, 2"
    ) == [
        ("root", "ocsp-signer", "issued", 1, True),
        ("root", "sub-ca", "issued", 2, True),
        ("tls-dv", "ocsp-signer", "issued", 1, True),
        ("tls-ov", "ocsp-signer", "issued", 1, True),
    ]
    news = await made.fetch("select kind, count(*) from outbox group by 1 order by 1")
    assert news == [("certificate", 5), ("issuer", 3), ("signer", 3)]
    logged = await made.fetch("select kind, count(*) from signing_log group by 1 order by 1")
    assert logged == [("certificate", 6), ("crl", 1)]  # the root's own too
    assert await made.fetch("select count(*), count(distinct (issuer_id, bucket)) from bucket") == [(192, 192)]
    base = "http://127.0.0.1:8081/"
    scopes = await made.fetch("select scope, shard, url, path, idp from crl_scope order by path")
    assert scopes == [
        ("full", None, f"{base}root.crl", "root.crl", False),
        ("full", None, f"{base}tls-dv.crl", "tls-dv.crl", True),  # it is not all of tls-dv's: it must say so
        *((str(n), n, f"{base}tls-dv/{n}.crl", f"tls-dv/{n}.crl", True) for n in range(4)),
        ("full", None, f"{base}tls-ov.crl", "tls-ov.crl", False),
    ]
    crl = read_crl((made.state.crl / "root.crl").read_bytes())
    assert await made.fetch("select scope, number, entries, scheduled, published_at, sha256 from crl") == [
        ("full", 1, 0, True, int(made.clock.now()), hashlib.sha256((made.state.crl / "root.crl").read_bytes()).digest())
    ]
    assert (crl.number, crl.this_update, crl.next_update + 1 - crl.this_update) == (1, made.clock.now(), 183 * DAY)


async def files(made: Made) -> None:
    """Keys and secrets are their owner's alone, each group under its own secret; certificates are for everybody."""
    root = made.state.root
    private = [*root.glob("keys/**/*.pem"), *root.glob("secrets/*"), *root.glob("operators/*.key")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private if path.name != "api.pem"} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (root / "keys", root / "secrets", root / "operators")} == {
        0o700
    }
    assert len({(root / f"secrets/{group}.passphrase").read_bytes() for group in ("ca", "ocsp", "offline")}) == 3
    assert all(b"ENCRYPTED" in path.read_bytes() for path in root.glob("keys/**/*.pem"))
    chain = x509.load_pem_x509_certificates((made.state.certs / "chain.pem").read_bytes())
    assert chain == [made.certificate(name) for name in ("tls-ov", "tls-dv", "root")]
    for name in PROFILES:
        assert x509.load_der_x509_certificate((made.state.crl / f"{name}.cer").read_bytes()) == made.certificate(name)
        assert stat.S_IMODE((made.state.crl / f"{name}.cer").stat().st_mode) == 0o644


async def operators(made: Made) -> None:
    """One client certificate for each role, known by its fingerprint; the APIs' own is for localhost."""
    folder, at = made.state.operators, str(int(made.clock.now()) + 60)
    strict = ("verify", "-x509_strict", "-attime", at, "-CAfile", folder / "ca.pem")
    known = await made.fetch("select fingerprint, name, role, state from operator")
    for role in ("viewer", "operator", "officer", "auditor"):
        path = folder / f"{role}.pem"
        assert openssl(*strict, "-purpose", "sslclient", path).endswith(": OK\n")
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        key = serialization.load_pem_private_key(path.with_suffix(".key").read_bytes(), None)
        assert certificate.public_key() == key.public_key()
        fingerprint = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()
        assert (fingerprint, role, role, "active") in known
    assert len(known) == 5
    assert len({row[1] for row in known if row[2] == "officer"}) == 2
    api = made.state.secrets / "api.pem"
    assert openssl(*strict, "-purpose", "sslserver", "-verify_ip", "127.0.0.1", api).endswith(": OK\n")
    assert openssl(*strict, "-purpose", "sslserver", "-verify_hostname", "localhost", api).endswith(": OK\n")
    assert "OK" not in openssl(*strict, "-purpose", "sslclient", api).splitlines()[-1]


async def test_roots_that_the_rules_forbid(database: Any, clock: FakeClock, tmp_path: Path) -> None:
    """What D14 forbids and no configuration says by itself is found by linters (G25): nothing is committed."""
    config = quick_config(database.config)
    root, *others = (each.model_dump() for each in config.issuers)
    wrong = Config.model_validate({**config.model_dump(), "issuers": [root | {"days": 2921}, *others]})
    made = Made.of(wrong, tmp_path / "var", database.owner, clock)
    with pytest.raises(QuashError, match=r"lint\.failed"):
        await made.make()
    assert await made.fetch("select from issuer") == []


async def test_sub_cas_that_the_rules_forbid(database: Any, clock: FakeClock, tmp_path: Path) -> None:
    """A sub-CA with URLs of an internal name, or below a CA that is gone, is not made; a mended one is."""
    config = quick_config(database.config)
    root, sub = (each.model_dump() for each in config.issuers)

    def with_sub(*subs: dict[str, Any], **changes: Any) -> Config:
        return Config.model_validate({**config.model_dump(), **changes, "issuers": [root, *subs]})

    made = Made.of(config, tmp_path / "var", database.owner, clock)
    await made.make(with_sub(profiles=[]))
    with pytest.raises(QuashError, match=r"lint\.failed"):
        await made.make(with_sub(sub, crl_origin={"base_url": "http://crl.internal"}))
    assert await made.fetch("select name from issuer") == [("root",)]
    await made.make()
    # What is made keeps its path length, whatever the configuration says later: the CA signer looks at the certificate.
    below = with_sub(sub | {"path_length": 1}, sub | {"name": "below", "parent": "tls-dv"}, profiles=[])
    with pytest.raises(QuashError, match=r"tbs\.profile"):
        await made.make(below)
    assert await made.fetch("select name from issuer order by id") == [("root",), ("tls-dv",)]
