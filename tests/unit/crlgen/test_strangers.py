"""What we publish, read by programs that nobody here wrote: pkilint, openssl, pyca (B1-B20)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.crl_bench import Bench, Ca, lint, new_key, openssl, self_signed

REASONS = (0, 1, 3, 4, 5, 9)  # B11
FLAGS = {
    1: "key_compromise",
    3: "affiliation_changed",
    4: "superseded",
    5: "cessation_of_operation",
    9: "privilege_withdrawn",
}


async def publish(bench: Bench, key: str) -> tuple[Ca, dict[bytes, int], dict[bytes, int]]:
    """An issuer with one revocation of each reason on its full CRL and on shard 1: (issuer, full, shard)."""
    ca = await bench.issuer("dv", shards=2, key=key)
    full = {await bench.revoked(ca, reason): reason for reason in REASONS}
    shard = {await bench.revoked(ca, reason, shard=1): reason for reason in REASONS}
    await bench.settle()
    return ca, full, shard


@pytest.mark.parametrize("key", ["ec", "rsa"])
async def test_pkilint_finds_nothing_above_notice(bench: Bench, key: str) -> None:
    """Full, sharded and empty CRLs, EC and RSA, pass pkilint's CRL linter with the BR profile (A42)."""
    await publish(bench, key)
    for name in ("dv.crl", "dv/0.crl", "dv/1.crl"):
        assert lint(bench.path(name).read_bytes()) == []


def test_pkilint_helper_reports_what_is_wrong() -> None:
    """The helper is no rubber stamp: a CRL with certificateHold, valid for 11 days, gets findings."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CA")])
    ca = self_signed(key, name, 1_800_000_000)
    start = ca.not_valid_before_utc
    entry = (
        x509.RevokedCertificateBuilder()
        .serial_number(5)
        .revocation_date(start)
        .add_extension(x509.CRLReason(x509.ReasonFlags.certificate_hold), critical=False)
        .build()
    )
    builder = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(start)
    crl = builder.next_update(start + timedelta(days=11)).add_revoked_certificate(entry).sign(key, hashes.SHA256())
    findings = " ".join(lint(crl.public_bytes(Encoding.DER)))
    assert "cabf.crl_prohibited_reason_code" in findings
    assert "cabf.crl_invalid_validity_period" in findings


@pytest.mark.parametrize("key", ["ec", "rsa"])
async def test_pyca_reads_fields_entries_and_signature(bench: Bench, key: str) -> None:
    """An independent parser sees the profile of B1, B7, B8, B10, B14 and B15, and a valid signature (B20)."""
    ca, full, shard = await publish(bench, key)
    ski = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    for name, expected in (("dv.crl", full), ("dv/1.crl", shard), ("dv/0.crl", {})):
        crl = x509.load_der_x509_crl(bench.path(name).read_bytes())
        assert crl.is_signature_valid(ca.certificate.public_key())  # type: ignore[arg-type]
        assert crl.issuer.public_bytes() == ca.certificate.subject.public_bytes()
        assert {int.from_bytes(serial, "big") for serial in expected} == {entry.serial_number for entry in crl}
        for entry in crl:
            reason = expected[entry.serial_number.to_bytes(16, "big")]
            flags = [(extension.value.reason.name, extension.critical) for extension in entry.extensions]  # type: ignore[attr-defined]
            assert flags == ([(FLAGS[reason], False)] if reason else [])
        found = {extension.oid.dotted_string: extension for extension in crl.extensions}
        assert set(found) == {"2.5.29.35", "2.5.29.20"} | ({"2.5.29.28"} if name != "dv.crl" else set())
        assert found["2.5.29.35"].value == x509.AuthorityKeyIdentifier(ski, None, None)
        assert not found["2.5.29.35"].critical
        assert not found["2.5.29.20"].critical
        if name != "dv.crl":
            point = found["2.5.29.28"]
            assert point.critical
            url = x509.UniformResourceIdentifier(f"http://crl.example.test/{name}")
            assert point.value == x509.IssuingDistributionPoint([url], None, True, False, None, False, False)


def leaf(ca: Ca, serial: bytes, now: float, path: Path, crl_url: str) -> Path:
    """A certificate with this serial, as PEM file."""
    point = x509.DistributionPoint([x509.UniformResourceIdentifier(crl_url)], None, None, None)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, serial.hex()[:16])]))
        .issuer_name(ca.certificate.subject)
        .public_key(new_key("ec").public_key())
        .serial_number(int.from_bytes(serial, "big"))
        .not_valid_before(datetime.fromtimestamp(now - 60, UTC))
        .not_valid_after(datetime.fromtimestamp(now + 86_400 * 90, UTC))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.CRLDistributionPoints([point]), critical=False)
    )
    path.write_bytes(builder.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.PEM))
    return path


SCOPES = [("dv.crl", None, False), ("dv.crl", None, True), ("dv/1.crl", 1, False)]
SCOPE_IDS = ["full", "full beside shards", "shard"]


@pytest.mark.parametrize("key", ["ec", "rsa"])
@pytest.mark.parametrize(("name", "shard", "limited"), SCOPES, ids=SCOPE_IDS)
async def test_openssl_refuses_the_revoked_and_accepts_the_rest(
    bench: Bench, tmp_path: Path, key: str, name: str, shard: int | None, limited: bool
) -> None:
    """`openssl verify -crl_check` honours full CRLs and shards with a critical IDP for certificates that name them."""
    ca = await bench.issuer("dv", shards=2, key=key)
    if limited:
        await bench.limit(ca)
    good = await bench.certificate(ca, shard=shard)
    bad = await bench.revoked(ca, 1, shard=shard)
    await bench.settle()
    now = bench.clock.now()
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    url = f"http://crl.example.test/{name}"
    crl = tmp_path / "crl.pem"
    assert openssl("crl", "-inform", "DER", "-in", str(bench.path(name)), "-out", str(crl)).returncode == 0
    verify = [
        "verify",
        "-attime",
        str(int(now)),
        "-CAfile",
        str(tmp_path / "ca.pem"),
        "-crl_check",
        "-CRLfile",
        str(crl),
    ]
    accepted = openssl(*verify, str(leaf(ca, good, now, tmp_path / "good.pem", url)))
    assert accepted.returncode == 0, accepted.stderr
    refused = openssl(*verify, str(leaf(ca, bad, now, tmp_path / "bad.pem", url)))
    assert b"certificate revoked" in refused.stderr + refused.stdout
    checked = openssl(
        "crl", "-inform", "DER", "-in", str(bench.path(name)), "-CAfile", str(tmp_path / "ca.pem"), "-noout"
    )
    assert b"verify OK" in checked.stderr + checked.stdout


async def test_openssl_does_not_take_one_shard_for_another(bench: Bench, tmp_path: Path) -> None:
    """A critical IDP keeps a shard's CRL from answering for certificates of another shard (B15)."""
    ca = await bench.issuer("dv", shards=2)
    serial = await bench.certificate(ca, shard=0)
    await bench.settle()
    now = bench.clock.now()
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    crl = tmp_path / "crl.pem"
    openssl("crl", "-inform", "DER", "-in", str(bench.path("dv/1.crl")), "-out", str(crl))
    found = leaf(ca, serial, now, tmp_path / "leaf.pem", "http://crl.example.test/dv/0.crl")
    verify = [
        "verify",
        "-attime",
        str(int(now)),
        "-CAfile",
        str(tmp_path / "ca.pem"),
        "-crl_check",
        "-CRLfile",
        str(crl),
    ]
    done = openssl(*verify, str(found))
    assert done.returncode != 0
    assert b"different CRL scope" in done.stderr + done.stdout


@pytest.mark.parametrize("key", ["ec", "rsa"])
async def test_full_crl_beside_shards_says_that_it_is_not_all(bench: Bench, key: str) -> None:
    """B14, B15: pyca sees its critical IDP with its own URL; pkilint has nothing to say."""
    ca = await bench.issuer("dv", shards=1, key=key)
    await bench.limit(ca)
    serial = await bench.revoked(ca)
    await bench.settle()
    body = bench.path("dv.crl").read_bytes()
    assert lint(body) == []
    crl = x509.load_der_x509_crl(body)
    assert crl.is_signature_valid(ca.certificate.public_key())  # type: ignore[arg-type]
    assert [entry.serial_number for entry in crl] == [int.from_bytes(serial, "big")]
    point = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint)
    url = x509.UniformResourceIdentifier("http://crl.example.test/dv.crl")
    assert point.critical
    assert point.value == x509.IssuingDistributionPoint([url], None, True, False, None, False, False)


async def test_openssl_prints_number_and_critical_idp(bench: Bench) -> None:
    """openssl's own words for what the profile asks: v2, the number, and the shard's critical IDP."""
    await publish(bench, "ec")
    text = openssl("crl", "-inform", "DER", "-in", str(bench.path("dv/1.crl")), "-noout", "-text").stdout.decode()
    assert "Version 2 (0x1)" in text
    assert "X509v3 Issuing Distribution Point: critical" in text
    assert "Only User Certificates" in text
    assert "URI:http://crl.example.test/dv/1.crl" in text
    empty = openssl("crl", "-inform", "DER", "-in", str(bench.path("dv/0.crl")), "-noout", "-text").stdout.decode()
    assert "No Revoked Certificates." in empty
    full = openssl("crl", "-inform", "DER", "-in", str(bench.path("dv.crl")), "-noout", "-text").stdout.decode()
    assert "Issuing Distribution Point" not in full
