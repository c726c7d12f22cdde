"""Issued certificates as strangers read them: pkilint's linter, openssl, and the numbers of D1-D13."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from issuer import profiles
from issuer.profiles import LeafContent, LeafIssuer, Validity
from quash.errors import QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.pki.certificate import read_certificate
from quash.pki.rules import leaf_validity_limit
from quash.runtime.config import Config
from quash.runtime.profiles import shipped
from quash.store import certificates
from tests.support.issuing import (
    CRL_BASE,
    OCSP_BASE,
    OV_SUBJECT,
    PrivateKey,
    World,
    ca_certificate,
    make_csr,
    private_key,
    spki_of,
)

DAY = 86_400
LINT = Path(sys.executable).with_name("lint_cabf_serverauth_cert")
ORDERS = {"tls-dv": (), "tls-ov": OV_SUBJECT}
EXTENSIONS = {
    "tls-dv": """
            X509v3 Key Usage: critical
                Digital Signature
            X509v3 Extended Key Usage:
                TLS Web Server Authentication
            X509v3 Basic Constraints: critical
                CA:FALSE
            X509v3 Authority Key Identifier:
                {authority_key}
            Authority Information Access:
                OCSP - URI:{ocsp}/tls-dv
                CA Issuers - URI:{crl}/tls-dv.cer
            X509v3 Subject Alternative Name: critical
                DNS:www.example.org, DNS:example.org
            X509v3 Certificate Policies:
                Policy: 2.23.140.1.2.1
            X509v3 CRL Distribution Points:
                Full Name:
                  URI:{crl}/tls-dv/{shard}.crl
""",
    "tls-ov": """
            X509v3 Key Usage: critical
                Digital Signature
            X509v3 Extended Key Usage:
                TLS Web Server Authentication
            X509v3 Basic Constraints: critical
                CA:FALSE
            X509v3 Authority Key Identifier:
                {authority_key}
            Authority Information Access:
                OCSP - URI:{ocsp}/tls-ov
                CA Issuers - URI:{crl}/tls-ov.cer
            X509v3 Subject Alternative Name:
                DNS:www.example.org, DNS:example.org
            X509v3 Certificate Policies:
                Policy: 2.23.140.1.2.2
            X509v3 CRL Distribution Points:
                Full Name:
                  URI:{crl}/tls-ov.crl
""",
}


async def _issue(world: World, profile: str, key: PrivateKey | None = None, config: Config | None = None) -> bytes:
    issuance = world.issuance(config=config)
    request = make_csr(["WWW.example.org", "example.org", "www.example.org"], key=key, subject=ORDERS[profile])
    order = await issuance.submit("operator:ann", profile, request)
    order = await issuance.finish(order.id, timeout=0)
    assert (order.state, order.code) == ("issued", None)
    assert order.issuer_id is not None
    assert order.serial is not None
    async with world.owner.acquire() as conn:
        found = await certificates.get(conn, order.issuer_id, order.serial)
    assert found is not None
    assert found.der is not None
    return found.der


async def _run(*command: str | Path) -> str:
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return out.decode()


async def _findings(file: Path) -> dict[str, str]:
    """Code to severity of what pkilint's serverauth linter says, at its finest level."""
    said = await _run(LINT, "lint", "--detect", "--severity", "ALL", "--format", "JSON", file)
    results = json.loads(said)["results"]
    assert len(results) > 80  # it looked: each result is one validator at one place
    return {each["code"]: each["severity"] for result in results for each in result["finding_descriptions"]}


@pytest.mark.parametrize("key", ["leaf", "rsa-leaf"])
@pytest.mark.parametrize("profile", ORDERS)
async def test_pkilint_finds_nothing_in_what_we_issue(world: World, tmp_path: Path, profile: str, key: str) -> None:
    """Not even a notice, on DV and OV final certificates, EC and RSA keys (D47, A42)."""
    file = tmp_path / "leaf.der"
    file.write_bytes(await _issue(world, profile, private_key(key)))
    assert await _findings(file) == {}


# The demo's URLs are on 127.0.0.1, where no relying party but its own can fetch them: BR 7.1.2.7.7 wants public names.
LOOPBACK_FINDINGS = {"cabf.internal_domain_name": "ERROR"}


async def test_the_demo_s_loopback_urls_are_all_that_pkilint_minds(world: World, tmp_path: Path) -> None:
    """The same profile with the demo's addresses: the URLs, and nothing else, are found."""
    responder = world.config.responder.model_copy(update={"base_url": "http://127.0.0.1:8080"})
    origin = world.config.crl_origin.model_copy(update={"base_url": "http://127.0.0.1:8081"})
    config = world.config.model_copy(update={"responder": responder, "crl_origin": origin})
    file = tmp_path / "leaf.der"
    file.write_bytes(await _issue(world, "tls-dv", config=config))
    assert await _findings(file) == LOOPBACK_FINDINGS


@pytest.mark.parametrize("profile", ORDERS)
async def test_openssl_shows_the_profile_word_for_word(world: World, tmp_path: Path, profile: str) -> None:
    """`openssl x509 -text`: extensions, their order and criticality as D7, D8, D10 and D11 want them, and no others."""
    file = tmp_path / "leaf.der"
    file.write_bytes(await _issue(world, profile))
    text = await _run("openssl", "x509", "-inform", "der", "-in", file, "-noout", "-text")
    shown = "\n".join(line.rstrip() for line in text.split("X509v3 extensions:")[1].splitlines()[1:])
    issuer = x509.load_der_x509_certificate(await world.certificate_of(profile))
    key = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex(":").upper()
    (row,) = await world.fetch("select shard from certificate")
    wanted = EXTENSIONS[profile].format(authority_key=key, ocsp=OCSP_BASE, crl=CRL_BASE, shard=row["shard"])
    assert shown.split("    Signature Algorithm:")[0].strip() == wanted.strip()
    assert "Version: 3 (0x2)" in text
    assert "Not Before: Jan 15 08:00:00 2027 GMT" in text  # G33: the clock's second, not one before
    assert "Not After : Aug  2 07:59:59 2027 GMT" in text  # 199 days, inclusive
    algorithm = {"tls-dv": "ecdsa-with-SHA256", "tls-ov": "sha256WithRSAEncryption"}[profile]
    assert text.count(f"Signature Algorithm: {algorithm}") == 2


@pytest.mark.parametrize("profile", ORDERS)
async def test_names_are_encoded_as_the_rules_want(world: World, profile: str) -> None:
    """D5, D6, D13: DV names nobody, OV names C, L, O in this order and encoding; the issuer is the CA's bytes."""
    fields = read_certificate(await _issue(world, profile))
    assert fields.issuer == world.hierarchy[profile].subject
    ov = "310b300906035504061302544e" + "310e300c06035504070c0554756e6973"
    organization = "Société d'Essai".encode()
    size = len(organization)
    ov += f"31{size + 9:02x}30{size + 7:02x}060355040a0c{size:02x}{organization.hex()}"
    body = {"tls-dv": "", "tls-ov": ov}[profile]
    assert fields.subject.hex() == f"30{len(body) // 2:02x}{body}"


ARABIC = "الوكالة التونسية للمصادقة الإلكترونية والخدمات"


async def test_an_organisation_may_have_more_octets_than_characters_are_allowed(world: World) -> None:
    """D13: 64 are characters, not octets; 46 Arabic characters of 88 octets stand in the certificate as asked."""
    assert (len(ARABIC), len(ARABIC.encode())) == (46, 88)
    issuance = world.issuance()
    subject = [*OV_SUBJECT[:2], (NameOID.ORGANIZATION_NAME, ARABIC)]
    order = await issuance.submit("operator:ann", "tls-ov", make_csr(subject=subject))
    assert (await issuance.finish(order.id, timeout=0)).state == "issued"
    (row,) = await world.fetch("select der from certificate")
    assert asn1_x509.Certificate.load(row["der"]).subject.native["organization_name"] == ARABIC


async def test_serials_are_random_and_positive(world: World) -> None:
    """D1: 16 octets, above zero, no two alike, and not in sequence."""
    serials = [read_certificate(await _issue(world, "tls-dv")).serial for _ in range(8)]
    assert {len(serial) for serial in serials} == {16}
    assert all(0 < serial[0] < 0x80 for serial in serials)
    assert len({serial[:8] for serial in serials}) == 8


async def test_a_common_name_of_the_request_stays_out(world: World) -> None:
    """D5, G26: commonName and OU of a request do not enter the certificate, which names hosts in its SAN alone."""
    subject = [(NameOID.COMMON_NAME, "www.example.org"), (NameOID.ORGANIZATIONAL_UNIT_NAME, "Sales"), *OV_SUBJECT]
    for profile, wanted in (("tls-dv", []), ("tls-ov", [oid for oid, _ in OV_SUBJECT])):
        issuance = world.issuance()
        order = await issuance.submit("operator:ann", profile, make_csr(subject=subject))
        await issuance.finish(order.id, timeout=0)
        (row,) = await world.fetch("select der from certificate where order_id = $1", order.id)
        issued = x509.load_der_x509_certificate(row["der"])
        assert [attribute.oid for attribute in issued.subject] == wanted


# D2, D-4: the moment of issuance, the days we give by default, the limit of the day.
DAYS = [
    ("2026-03-14T23:59:59", 199, 398),
    ("2026-03-15T00:00:00", 199, 200),
    ("2027-03-14T23:59:59", 199, 200),
    ("2027-03-15T00:00:00", 99, 100),
    ("2029-03-14T23:59:59", 99, 100),
    ("2029-03-15T00:00:00", 46, 47),
]


@pytest.mark.parametrize(("moment", "days", "limit"), DAYS)
def test_the_default_validity_follows_the_dated_table(moment: str, days: int, limit: int) -> None:
    """199 days, and one day below the limit from the day on which that falls below; nobody changes a configuration."""
    now = int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp())
    chosen = profiles.validity(shipped()["dv"], 199, now, now + 4000 * DAY)
    assert chosen == Validity(now, now + days * DAY - 1)
    profiles.check_validity(shipped()["dv"], chosen, now)
    profiles.check_validity(shipped()["dv"], Validity(now, now + limit * DAY - 1), now)
    with pytest.raises(QuashError, match=r"validity\.too_long"):
        profiles.check_validity(shipped()["dv"], Validity(now, now + limit * DAY), now)


@given(days=st.integers(1, 398), now=st.integers(1_700_000_000, 1_950_000_000), left=st.integers(1, 4000 * DAY))
def test_no_configuration_exceeds_the_limit_or_the_issuer(days: int, now: int, left: int) -> None:
    """G25: whatever is configured, a leaf stays within the limit of its day and does not outlive its issuer."""
    chosen = profiles.validity(shipped()["dv"], days, now, now + left)
    assert chosen.not_before == now
    assert chosen.not_after - chosen.not_before + 1 <= min(leaf_validity_limit(now), days * DAY)
    assert chosen.not_after <= now + left
    profiles.check_validity(shipped()["dv"], chosen, now)


@pytest.mark.parametrize("name", [name for name in SIGNATURE_ALGORITHMS if name != "ed25519"])  # D40: no leaf CA
def test_a_twin_has_the_issuer_s_algorithm_and_not_its_key(name: str) -> None:
    """For each algorithm of a CA: the twin carries its AlgorithmIdentifier (D9) and a signature of nobody (D47)."""
    now = 1_800_000_000
    issuer = LeafIssuer(name, ca_certificate("tls-dv", "root", now, 99), OCSP_BASE, CRL_BASE, CRL_BASE)
    content = LeafContent(spki_of(private_key("leaf")), ("www.example.org",), {})
    tbs = profiles.build_tbs(shipped()["dv"], issuer, content, b"\x01", Validity(now, now + DAY))
    der = profiles.build_twin(tbs, name)
    twin = asn1_x509.Certificate.load(der)
    assert twin["tbs_certificate"]["signature"].dump() == SIGNATURE_ALGORITHMS[name].identifier
    with pytest.raises((InvalidSignature, ValueError)):
        x509.load_der_x509_certificate(der).verify_directly_issued_by(
            x509.load_der_x509_certificate(issuer.certificate)
        )
