"""What is refused, each with a code of its own, and that a refusal leaves one refused order and one act."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import gmpy2
import pytest
from aiohttp import web
from asn1crypto import csr as asn1_csr
from asn1crypto import keys
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from issuer.checks.blocklist import write_blocklist
from issuer.checks.csr import MAX_OCTETS
from issuer.checks.findings import Finding, Report
from issuer.checks.keys import KeyChecks
from issuer.checks.workers import Inline
from quash.errors import Kind, QuashError
from quash.runtime.config import Checks
from quash.runtime.config.hierarchy import Profile
from quash.store import acts, blocked_keys, certificates, issuers
from tests.support.issuing import OV_SUBJECT, World, make_config, make_csr, private_key, spki_of
from tests.support.shipped import ORGANIZATION, PERSON, REGISTERED, mail_csr
from tests.support.weak_keys import MAKERS, SHARED, random_prime, rsa_spki

Request = tuple[str, str]
"""profile, CSR"""


def _dv(*names: str, **more: object) -> Callable[[], Request]:
    return lambda: ("tls-dv", make_csr(names, **more))  # type: ignore[arg-type]


def _ov(*subject: tuple[x509.ObjectIdentifier, str]) -> Callable[[], Request]:
    return lambda: ("tls-ov", make_csr(subject=subject))


def _pem(der: bytes) -> str:
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE REQUEST-----\n"


def _der(pem: str) -> bytes:
    return base64.b64decode("".join(pem.splitlines()[1:-1]))


def _bad_signature() -> Request:
    der = bytearray(_der(make_csr()))
    der[-1] ^= 1
    return "tls-dv", _pem(bytes(der))


def _trailing_octet() -> Request:
    return "tls-dv", _pem(_der(make_csr()) + b"\0")


def _openssl(*how: str) -> str:
    command = ["openssl", "req", "-new", "-nodes", "-keyout", "/dev/null", "-subj", "/", *how]
    command += ["-addext", "subjectAltName=DNS:www.example.org"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def _weak_digest(digest: str) -> Callable[[], Request]:
    return lambda: ("tls-dv", _openssl("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", f"-{digest}"))


def _key(*how: str) -> Callable[[], Request]:
    return lambda: ("tls-dv", _openssl("-newkey", *how))


def _private_key() -> Request:
    key = private_key("not-ours-to-see")
    return "tls-dv", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _bare_private_key() -> Request:
    key = private_key("not-ours-to-see")
    return "tls-dv", base64.b64encode(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())).decode()


MANY = [f"host{i}.example.org" for i in range(101)]

REFUSED: dict[str, tuple[Callable[[], Request], str]] = {
    "unknown profile": (lambda: ("tls-ev", make_csr()), "profile.unknown"),
    "garbage": (lambda: ("tls-dv", "what is this?"), "csr.malformed"),
    "empty base64": (lambda: ("tls-dv", ""), "csr.malformed"),
    "base64 of no request": (lambda: ("tls-dv", base64.b64encode(b"0" * 99).decode()), "csr.malformed"),
    "truncated": (lambda: ("tls-dv", _pem(_der(make_csr())[:-9])), "csr.malformed"),
    "trailing octet": (_trailing_octet, "csr.malformed"),
    "oversize": (lambda: ("tls-dv", base64.b64encode(bytes(MAX_OCTETS + 1)).decode()), "csr.too_large"),
    "multi-megabyte": (lambda: ("tls-dv", "A" * 4_000_000), "csr.too_large"),
    "a private key": (_private_key, "csr.private_key"),
    "a private key without its label": (_bare_private_key, "csr.malformed"),
    "bad signature": (_bad_signature, "csr.bad_signature"),
    "SHA-1": (_weak_digest("sha1"), "csr.weak_digest"),
    "SHA-224": (_weak_digest("sha224"), "csr.weak_digest"),
    "RSA-1024": (_key("rsa:1024"), "key.too_small"),
    "RSA of odd size": (_key("rsa:2050"), "key.size"),
    "RSA exponent 3": (_key("rsa:2048", "-pkeyopt", "rsa_keygen_pubexp:3"), "key.exponent"),
    "Ed25519": (_key("ed25519"), "key.type_not_allowed"),
    "secp256k1": (_key("ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"), "key.type_not_allowed"),
    "no SAN": (_dv(), "san.missing"),
    "no SAN but a CN": (_dv(subject=[(NameOID.COMMON_NAME, "www.example.org")]), "san.missing"),
    "CN not in SAN": (_dv("a.example.org", subject=[(NameOID.COMMON_NAME, "b.example.org")]), "name.cn_not_in_san"),
    "underscore": (_dv("a_b.example.org"), "name.underscore"),
    "wildcard": (_dv("*.example.org"), "name.wildcard"),
    "IP address": (_dv(others=[x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]), "name.ip_address"),
    "IP address as name": (_dv("192.0.2.1"), "name.ip_address"),
    "e-mail address": (_dv("www.example.org", others=[x509.RFC822Name("a@example.org")]), "san.type"),
    "URI": (_dv("www.example.org", others=[x509.UniformResourceIdentifier("http://example.org/")]), "san.type"),
    "trailing dot": (_dv("www.example.org."), "name.trailing_dot"),
    "not ASCII": (_dv("bücher.example.org"), "name.not_ascii"),
    "IDN": (_dv("xn--bcher-kva.example.org"), "name.reserved_label"),
    "empty label": (_dv("www..example.org"), "name.not_ldh"),
    "NUL in the name": (_dv("www.example.org\0.example.net"), "name.not_ldh"),
    "one label": (_dv("localhost"), "name.single_label"),
    "internal name": (_dv("www.corp.example.corp"), "name.no_public_suffix"),
    "public suffix": (_dv("co.uk"), "name.public_suffix"),
    "reverse zone": (_dv("1.2.0.192.in-addr.arpa"), "name.reverse_zone"),
    "second name bad": (_dv("www.example.org", "a_b.example.org"), "name.underscore"),
    "101 names": (_dv(*MANY), "san.too_many"),
    "OV without organization": (_ov((NameOID.COUNTRY_NAME, "TN"), OV_SUBJECT[1]), "subject.organization_missing"),
    "OV without country": (_ov(OV_SUBJECT[2], OV_SUBJECT[1]), "subject.country_missing"),
    "OV without locality": (_ov(OV_SUBJECT[0], OV_SUBJECT[2]), "subject.locality_missing"),
    "OV placeholder": (_ov(*OV_SUBJECT[:2], (NameOID.ORGANIZATION_NAME, "-")), "name.attribute_value"),
    "OV without a value": (_ov(*OV_SUBJECT[:2], (NameOID.ORGANIZATION_NAME, "N/A")), "name.attribute_value"),
    "OV two organizations": (_ov(*OV_SUBJECT, (NameOID.ORGANIZATION_NAME, "Other")), "subject.repeated"),
}

# What each row of the matrix refuses, by the codes above: D40 and D41 keys, and so on.
ROWS = {
    "D6": {
        "subject.organization_missing",
        "subject.country_missing",
        "subject.locality_missing",
        "name.attribute_value",
    },
    "D7": {"san.missing", "san.too_many"},
    "D11": {
        *("san.type", "name.underscore", "name.trailing_dot", "name.not_ldh", "name.reserved_label"),
        *("name.single_label", "name.no_public_suffix", "name.reverse_zone"),
    },
    "D12": {"name.public_suffix"},
    "D13": {"subject.repeated"},
    "D40": {"key.too_small", "key.size", "key.type_not_allowed"},
    "D41": {"key.exponent"},
    "D46": {"csr.private_key"},
    "G27": {"name.wildcard"},
    "G28": {"name.ip_address"},
    "G29": {"name.not_ascii"},
    "G30": {"name.cn_not_in_san"},
    "G32": {"csr.weak_digest"},
    "": {"profile.unknown", "csr.malformed", "csr.too_large", "csr.bad_signature"},
}


def test_no_refusal_is_lost() -> None:
    """So many cases, and each code belongs to a row. Weak keys (D42-D45) and S/MIME (D49) are below."""
    assert (len(REFUSED), len(MAIL), len(MAKERS)) == (44, 15, 8)
    assert {code for _, code in REFUSED.values()} == {code for codes in ROWS.values() for code in codes}


@pytest.mark.parametrize("case", REFUSED)
async def test_bad_input_is_refused_by_its_code_and_nothing_else_is_stored(world: World, case: str) -> None:
    """Each fault has its code; the database keeps the refused order and its act, and nothing else (F1)."""
    make, code = REFUSED[case]
    profile, request = make()
    with pytest.raises(QuashError) as refusal:
        await world.issuance().submit("operator:ann", profile, request)
    assert refusal.value.code == code
    assert refusal.value.kind in (Kind.INPUT, Kind.REFUSED)
    await _assert_only_refused(world, code)


async def _refused_key(world: World, spki: bytes, checks: Checks) -> str:
    """The code for an order with this key, by every check that a deployment has. Nobody gets to see its signature."""
    request = asn1_csr.CertificationRequest.load(_der(make_csr()))
    request["certification_request_info"]["subject_pk_info"] = keys.PublicKeyInfo.load(spki)
    async with KeyChecks(checks, Inline()) as check_key:
        with pytest.raises(QuashError) as refusal:
            await world.issuance(check_key=check_key).submit("operator:ann", "tls-dv", _pem(request.dump(force=True)))
    assert refusal.value.kind is Kind.REFUSED
    await _assert_only_refused(world, refusal.value.code)
    return refusal.value.code


@pytest.mark.parametrize("check", MAKERS)
async def test_a_weak_key_is_refused(world: World, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """D41, D43-D45: by flow 1 itself, with the code of the check that finds it."""
    module = import_module("badkeys.rsakeys.sharedprimes")
    monkeypatch.setattr(module, "_moduli", {2048: gmpy2.mpz(SHARED * random_prime())})
    assert await _refused_key(world, rsa_spki(MAKERS[check]()), Checks()) == f"key.weak.{check}"


async def test_a_listed_key_is_refused(world: World, tmp_path: Path) -> None:
    """D42, D45: a blocklist's, where the rules and the arithmetic find nothing wrong."""
    spki = spki_of(private_key("rsa-listed"))
    write_blocklist(tmp_path / "list", [spki])
    checks = Checks.model_validate({"blocklists": [{"name": "ours", "file": tmp_path / "list"}]})
    assert await _refused_key(world, spki, checks) == "key.listed"


async def test_a_key_that_a_service_knows_is_refused(world: World) -> None:
    """G9, D45: whose private key is public somewhere."""

    async def known(request: web.BaseRequest) -> web.Response:
        return web.Response()

    runner = web.ServerRunner(web.Server(known))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        checks = Checks.model_validate({"pwnedkeys": {"url": f"http://{host}:{port}"}})
        assert await _refused_key(world, spki_of(private_key("pwned")), checks) == "key.pwned"
    finally:
        await runner.cleanup()


_P521 = ec.generate_private_key(ec.SECP521R1())
_SOMEBODY = ((NameOID.COMMON_NAME, "Amel"),)
_FRENCH = (*ORGANIZATION, (NameOID.ORGANIZATION_IDENTIFIER, "NTRFR-1"))
MAIL: dict[str, tuple[str, str, str]] = {  # D49: level, request, code
    "a DNS name": ("mailbox", make_csr(), "san.type"),
    "no mailbox": ("mailbox", mail_csr(), "san.missing"),
    "two @": ("mailbox", mail_csr("a@b@example.org"), "email.malformed"),
    "a quoted local part": ("mailbox", mail_csr('"a b"@example.org'), "email.malformed"),
    "a long local part": ("mailbox", mail_csr(f"{'a' * 65}@example.org"), "email.too_long"),
    "a wildcard host": ("mailbox", mail_csr("a@*.example.org"), "name.wildcard"),
    "a host that nobody has": ("mailbox", mail_csr("a@example.local"), "name.special_use"),
    "a CN of somebody": ("mailbox", mail_csr("a@example.org", subject=_SOMEBODY), "subject.common_name"),
    "P-521": ("mailbox", mail_csr("a@example.org", key=_P521), "key.outside_profile"),
    "no register": ("organization", mail_csr("a@example.org", subject=ORGANIZATION), "subject.identifier_missing"),
    "another country's register": ("organization", mail_csr("a@example.org", subject=_FRENCH), "subject.register"),
    "no organization": ("organization", mail_csr("a@example.org"), "subject.organization_missing"),
    "no country": ("organization", mail_csr("a@example.org", subject=REGISTERED[1:]), "subject.country_missing"),
    "no given name": ("sponsor", mail_csr("a@example.org", subject=PERSON[:-1]), "subject.given_name_missing"),
    "no surname": ("sponsor", mail_csr("a@example.org", subject=(*REGISTERED, PERSON[-1])), "subject.surname_missing"),
}


@pytest.mark.parametrize("case", MAIL)
async def test_bad_input_for_mail_is_refused(world: World, case: str) -> None:
    """D49: as above, by profiles for S/MIME."""
    level, request, code = MAIL[case]
    mail = Profile.model_validate({"name": "mail", "issuer": "tls-ov", "kind": f"smime-{level}-strict"})
    config = world.config.model_copy(update={"profiles": (mail,)})
    with pytest.raises(QuashError) as refusal:
        await world.issuance(config=config).submit("operator:ann", "mail", request)
    assert refusal.value.code == code
    await _assert_only_refused(world, code)


async def test_a_compressed_point_is_refused(world: World) -> None:
    """One key has one encoding, so that its siblings are found (C8)."""
    key = private_key("compressed").public_key()
    request = asn1_csr.CertificationRequest.load(_der(make_csr(key=private_key("compressed"))))
    point = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    request["certification_request_info"]["subject_pk_info"]["public_key"] = keys.ECPointBitString(point)
    with pytest.raises(QuashError) as refusal:
        await world.issuance().submit("operator:ann", "tls-dv", _pem(request.dump(force=True)))
    assert refusal.value.code == "key.not_canonical"
    await _assert_only_refused(world, "key.not_canonical")


async def test_a_blocked_key_is_refused_for_ever(world: World) -> None:
    """C9: a key reported compromised makes no certificate, under no profile."""
    key = private_key("blocked")
    async with world.owner.acquire() as conn, conn.transaction():
        act = await acts.record(conn, at=1, actor="operator:bob", action="test", subject={})
        digest = hashlib.sha256(spki_of(key)).digest()
        await blocked_keys.block(conn, digest, reason="keyCompromise", added_at=1, act_id=act)
    for profile, subject in (("tls-dv", ()), ("tls-ov", OV_SUBJECT)):
        with pytest.raises(QuashError) as refusal:
            await world.issuance().submit("operator:ann", profile, make_csr(key=key, subject=subject))
        assert refusal.value.code == "key.blocked"
    assert await world.fetch("select from certificate") == []
    assert [row["code"] for row in await world.fetch("select code from certificate_order")] == ["key.blocked"] * 2


async def test_a_key_that_the_ca_made_is_refused(world: World) -> None:
    """D46, G31: a CA's own key, and an OCSP signer's, make no certificate of a subscriber."""
    signer = private_key("ocsp-signer")
    async with world.owner.acquire() as conn, conn.transaction():
        await certificates.reserve(
            conn, issuer_id=world.hierarchy["tls-ov"].id, serial=b"\1" * 16, profile="ocsp-signer", tbs=b"",
            spki_sha256=hashlib.sha256(spki_of(signer)).digest(), ski=None, not_before=1, not_after=2, shard=None,
            bucket=0, order_id=None, created_at=1,
        )  # fmt: skip
    for key in (private_key("root"), private_key("tls-dv"), signer):
        with pytest.raises(QuashError) as refusal:
            await world.issuance().submit("operator:ann", "tls-dv", make_csr(key=key))
        assert refusal.value.code == "key.ours"
    assert len(await world.fetch("select from certificate")) == 1


async def test_the_kill_switch_refuses(world: World) -> None:
    """G21: an issuer that was stopped accepts no order; another one does."""
    async with world.owner.acquire() as conn, conn.transaction():
        act = await acts.record(conn, at=1, actor="operator:bob", action="test", subject={})
        await issuers.set_stopped(conn, world.hierarchy["tls-dv"].id, stopped=True, at=1, act_id=act)
    with pytest.raises(QuashError) as refusal:
        await world.issuance().submit("operator:ann", "tls-dv", make_csr())
    assert refusal.value.code == "issuance.stopped"
    assert (await world.issuance().submit("operator:ann", "tls-ov", make_csr(subject=OV_SUBJECT))).state == "pending"


async def test_names_must_be_validated_unless_the_deployment_waives_it(world: World) -> None:
    """`require_validation` is true unless said otherwise, and then nothing is issued without validation."""
    config = make_config(world.config, require_validation=True)
    with pytest.raises(QuashError) as refusal:
        await world.issuance(config=config).submit("operator:ann", "tls-dv", make_csr())
    assert refusal.value.code == "validation.required"
    await _assert_only_refused(world, "validation.required")


async def test_a_lint_finding_stops_the_order_before_anything_is_committed(world: World) -> None:
    """The linters see the throw-away-signed twin before T1; what they said is stored, nothing is reserved (D47)."""
    twins: list[bytes] = []

    async def lint(twin: bytes, document: str) -> list[Report]:
        twins.append(twin)
        assert document == "dv-certificate"
        found = (Finding("error", "e_made_up", "no"), Finding("info", "i_fine", ""))
        return [Report("other", "1", (), ()), Report("made-up", "2", found, found[:1])]

    issuance = world.issuance(linting=lint)
    order = await issuance.submit("operator:ann", "tls-dv", make_csr())
    order = await issuance.finish(order.id, timeout=0)
    assert (order.state, order.code) == ("refused", "lint.refused")
    assert order.detail is not None
    assert "e_made_up" in order.detail
    await _assert_only_refused(world, "lint.refused")
    stored = await world.fetch("select order_id, linter, version, findings, refused from lint_result order by id")
    assert [tuple(row)[:3] for row in stored] == [(order.id, "other", "1"), (order.id, "made-up", "2")]
    assert [row["refused"] for row in stored] == [False, True]
    assert [each["code"] for each in stored[1]["findings"]] == ["e_made_up", "i_fine"]
    twin = x509.load_der_x509_certificate(twins[0])
    issuer = x509.load_der_x509_certificate(await world.certificate_of("tls-dv"))
    assert twin.issuer == issuer.subject
    with pytest.raises(Exception):  # noqa: B017 - pyca's InvalidSignature: no CA key signed the twin
        twin.verify_directly_issued_by(issuer)


async def _assert_only_refused(world: World, code: str) -> None:
    (order,) = await world.fetch("select state, code, serial, issuer_id, csr from certificate_order")
    assert tuple(order)[:4] == ("refused", code, None, None)
    unread = code in ("csr.malformed", "csr.too_large", "csr.private_key")  # D46: what that may be is not kept
    assert (order["csr"] == b"") is unread
    (act,) = await world.fetch("select actor, action, subject from act")
    assert (act["actor"], act["action"], act["subject"]["code"]) == ("operator:ann", "order.refuse", code)
    for table in ("certificate", "revocation", "outbox", "signing_log", "blocked_key", "job"):
        assert await world.fetch(f"select from {table}") == []
