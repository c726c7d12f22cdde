"""A private PKI's Ed25519 CA is taken over and served; no public issuer may have such a key, or such a signer (A18)."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from crlgen.build.disclosure import Disclosure
from issuer.signer.deployment import Deployment
from issuer.signer.import_openssl import Import, KeySource, Summary
from issuer.signer.import_plan import Source, make_plan
from quash.errors import QuashError
from quash.keys import open_key
from quash.pki.reasons import Reason
from quash.runtime.clock import FakeClock
from quash.store import issuers, signer_requests
from quash.store.database import acquire
from responder.serve.answer import Request
from tests.support.flows import Site, ocsp_request, running, serial_of
from tests.support.initialising import quick_config
from tests.support.openssl_ca import OpensslCa
from tests.support.postgres import Database
from tests.support.softhsm import logins, make_token, patiently

NAME = "private-ca"


def nothing(*_: object) -> None:
    """Nobody watches the progress."""


@pytest.fixture
async def site(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Site]:
    async with running(database, tmp_path, clock, quick_config(database.config, presign={"buckets": 1})) as site:
        yield site


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> OpensslCa:
    """A CA of `openssl ca` with an Ed25519 key, two leaves and a CRL that lists one of them."""
    made = OpensslCa(tmp_path_factory.mktemp("ed25519") / "ca", key=("ed25519",), common_name="Private CA")
    made.issue("good")
    made.revoke(made.issue("revoked"), "-crl_reason", "superseded")
    made.crl()
    return made


async def take_over(
    site: Site,
    old: OpensslCa,
    *,
    private: bool = True,
    key: KeySource | None = None,
    name: str = NAME,
    with_crl: bool = True,
) -> Summary:
    """As `quash import openssl` does it."""
    files = old.folder
    ca = x509.load_pem_x509_certificate((files / "ca.pem").read_bytes())
    crl = (files / "crl.pem").read_bytes() if with_crl else None
    source = Source(name, old.index.read_bytes(), ca, files / "newcerts", crl, private)
    plan = make_plan(source, skip_bad=False, now=site.now, progress=nothing)
    deployment = Deployment(site.config, site.state, site.database.owner, site.clock)
    key = key or KeySource((files / "ca.key").read_bytes())
    summary = await Import(deployment, source, plan, nothing).run(key)
    site._issuers[name] = ca
    return summary


def leaf(old: OpensslCa, name: str) -> tuple[str, bytes]:
    return NAME, serial_of(x509.load_pem_x509_certificate((old.folder / f"{name}.pem").read_bytes()))


async def test_an_ed25519_ca_is_taken_over(site: Site, old: OpensslCa, tmp_path: Path) -> None:
    """Answers by an Ed25519 signer, the CA's CRL, a revocation, a new signer: pyca and openssl accept them all."""
    await take_over(site, old)
    await site.settle()
    good, revoked = leaf(old, "good"), leaf(old, "revoked")
    assert site.node.ask(good).word == "good"
    assert (site.node.ask(revoked).word, site.node.ask(revoked).reason) == ("revoked", Reason.superseded)
    assert site.listed(good) is None
    assert site.listed(revoked) is not None
    assert openssl_says(site, old, "good", tmp_path) == "good"
    assert openssl_says(site, old, "revoked", tmp_path) == "revoked"

    first = site.node.ask(good).signer
    async with acquire(site.database.owner) as conn:
        issuer = await issuers.find_by_name(conn, NAME)
        assert issuer is not None
        async with conn.transaction():
            await signer_requests.order_switch(conn, issuer.id, NAME, actor="operator:test", at=site.now)
    await site.revoke(good, Reason.keyCompromise)
    for _ in range(3):
        await site.settle()
    assert site.node.ask(good).word == "revoked"
    assert site.node.ask(good).signer != first
    assert openssl_says(site, old, "good", tmp_path) == "revoked"
    algorithms = await site.fetch(
        "select distinct signature_algorithm from ocsp_signer where issuer_id = $1", issuer.id
    )
    assert [row["signature_algorithm"] for row in algorithms] == ["ed25519"]

    await Disclosure(site.database.owner, site.publisher, site.clock).step()
    assert not (site.state.crl / "ccadb" / f"{NAME}.json").exists(), "CCADB is not told of a private PKI"


def openssl_says(site: Site, old: OpensslCa, name: str, folder: Path) -> str:
    """`openssl ocsp` on the octets that the node answers with, and `openssl verify` on the published CRL."""
    ca, certificate = old.folder / "ca.pem", old.folder / f"{name}.pem"
    request = ocsp_request(site.issuer(NAME), leaf(old, name)[1], "sha256")
    (folder / "answer.der").write_bytes(site.node._body(Request("POST", b"/", request)))
    asked = ("openssl", "ocsp", "-respin", folder / "answer.der", "-issuer", ca, "-sha256", "-cert", certificate)
    at, of_another_time = ("-attime", str(site.now)), ("-validity_period", "100000000")
    done = subprocess.run([*asked, "-CAfile", ca, *at, *of_another_time], capture_output=True, text=True, check=False)
    assert "Response verify OK" in done.stderr, done.stderr
    crl = x509.load_der_x509_crl((site.state.crl / f"{NAME}.crl").read_bytes())
    (folder / "ours.pem").write_bytes(crl.public_bytes(Encoding.PEM))
    checked = ("openssl", "verify", *at, "-crl_check", "-CAfile", ca, "-CRLfile", folder / "ours.pem", certificate)
    verified = subprocess.run(checked, capture_output=True, text=True, check=False)
    said = done.stdout.partition(": ")[2].partition("\n")[0]
    assert ("certificate revoked" in verified.stderr) == (said == "revoked"), verified.stderr
    assert ("OK" in verified.stdout) == (said == "good"), verified.stdout
    return said


@pytest.mark.parametrize("built", [True, False])
async def test_a_crl_that_comes_later_is_risen_above(site: Site, old: OpensslCa, *, built: bool) -> None:
    """The old CRL was forgotten at first: ours, perhaps begun at 1, go on from its number once it is given (B7)."""
    path = f"{NAME}.crl"
    await take_over(site, old, with_crl=False)
    if built:
        await site.settle()
        assert number_of(site, path) == 1
    theirs = x509.load_pem_x509_crl((old.folder / "crl.pem").read_bytes())
    number = theirs.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    await take_over(site, old)
    await site.clock.advance(60)
    await site.settle()
    assert number_of(site, path) == number + 1 > 0x100
    await take_over(site, old)
    await site.clock.advance(60)
    await site.settle()
    assert number_of(site, path) == number + 1, "running it once more changes nothing"


def number_of(site: Site, path: str) -> int:
    crl = x509.load_der_x509_crl((site.state.crl / path).read_bytes())
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


async def test_a_token_holds_the_key(site: Site, old: OpensslCa, tmp_path: Path) -> None:
    """The CA's Ed25519 key lies on SoftHSM2, and so do CRL and signer come about."""
    token = make_token()
    token.load(old.folder / "ca.key", "private-ca", 1)
    patiently(lambda: open_key(token.key("private-ca"), tmp_path, None, logins=logins()).close())
    await take_over(site, old, key=KeySource(uri=token.key("private-ca")))
    await site.settle()
    assert site.node.ask(leaf(old, "good")).word == "good"
    assert site.listed(leaf(old, "revoked")) is not None


@pytest.mark.parametrize("where", ["file", "token"])
async def test_a_public_issuer_has_no_ed25519_key(site: Site, old: OpensslCa, tmp_path: Path, where: str) -> None:
    """Without --private it is refused before anything is written, whatever holds the key (A18, D40)."""
    key = KeySource(uri="pkcs11:object=a?module-path=/nowhere.so") if where == "token" else None
    with pytest.raises(QuashError, match=r"key\.algorithm_not_supported"):
        await take_over(site, old, private=False, key=key)
    assert await site.fetch("select 1 from issuer where name = $1", NAME) == []
    assert not (site.state.keys / "ca" / f"{NAME}.pem").exists()


async def test_what_was_private_stays_private(site: Site, old: OpensslCa, tmp_path: Path) -> None:
    """A later run cannot make a public issuer of it, nor a private one of a public CA; nor can the database."""
    await take_over(site, old)
    usual = OpensslCa(tmp_path / "usual", key=("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), common_name="Usual CA")
    usual.crl()
    await take_over(site, usual, private=False, name="usual")
    with pytest.raises(QuashError, match=r"import\.kind"):
        await take_over(site, usual, name="usual")
    for wrong in ("update issuer set kind = 'imported' where name = $1", _SUB_CA):
        with pytest.raises(Exception, match="issuer_ed25519_is_private"):
            await site.database.owner.execute(wrong, NAME)


_SUB_CA = """
insert into issuer overriding system value
select (jsonb_populate_record(i, '{"id": 99, "name": "x", "kind": "sub-ca"}')).* from issuer i where name = $1
"""


async def test_a_public_ca_gets_no_ed25519_signer(site: Site) -> None:
    """The CA signer refuses a request with such a key, and the reservation is given up."""
    async with acquire(site.database.owner) as conn:
        issuer = await issuers.find_by_name(conn, "tls-dv")
        assert issuer is not None
        async with conn.transaction():
            await signer_requests.order_switch(conn, issuer.id, "tls-dv", actor="operator:test", at=site.now)
        asked = (await signer_requests.asked(conn, [issuer.id]))[issuer.id]
        csr = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .sign(ed25519.Ed25519PrivateKey.generate(), None)
        )
        await signer_requests.add(
            conn,
            issuer_id=issuer.id,
            switch_id=asked.switch_id,
            key_ref="pem:ocsp/x.pem",
            csr=csr.public_bytes(Encoding.DER),
            created_at=site.now,
        )
    assert await site.rotation.step() == 0
    (row,) = await site.fetch("select state, code, serial from signer_request where key_ref = 'pem:ocsp/x.pem'")
    assert (row["state"], row["code"]) == ("refused", "key.type_not_allowed")
