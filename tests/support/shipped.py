"""The hierarchies that ship as configurations, made in process and asked for certificates; strangers who check them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from issuer.checks.lint import LintGate
from issuer.checks.workers import Inline
from issuer.issuance.issue import Issuance
from issuer.signer.key_files import online_opener
from issuer.signer.key_ring import KeyRing
from issuer.signer.service import CaSigner
from quash.errors import QuashError
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config, load
from quash.store.roles import CA_SIGNER, ISSUING
from tests.support.initialising import DEMO, Made
from tests.support.issuing import Everywhere, PrivateKey, key_rules, make_csr
from tests.support.postgres import Database

ZLINT = Path(sys.executable).with_name("zlint")
"""`make test` puts Debian's there."""
ORGANIZATION = (
    (NameOID.COUNTRY_NAME, "TN"),
    (NameOID.LOCALITY_NAME, "Tunis"),
    (NameOID.ORGANIZATION_NAME, "Société d'Essai"),
)
REGISTERED = (*ORGANIZATION, (NameOID.ORGANIZATION_IDENTIFIER, "NTRTN-B2412342"))
PERSON = (*REGISTERED, (NameOID.SURNAME, "Ben Salah"), (NameOID.GIVEN_NAME, "Amel"))


def shipped_config(name: str, database: Config) -> Config:
    """A configuration of `config/` on a test's database, with zlint as a second linter.

    Nothing is validated and nothing logged: other tests do.
    """
    zlint = f'[{{ name = "zlint", command = ["{ZLINT}", "-format", "der", "-"], output = "zlint" }}]'
    waived = ("issuance.require_validation=false", "ct.required=false", "ct.log_list=", f"lint.external={zlint}")
    return load(DEMO.with_name(f"{name}.toml"), waived).model_copy(update={"database": database.database})


@dataclass
class Shipped:
    """A hierarchy after `quash init`, its CA signer with the keys that init made, and flow 1 with the real linter."""

    made: Made
    issuance: Issuance

    async def order(self, profile: str, request: str) -> x509.Certificate:
        """Raises the refusal, whenever it came."""
        order = await self.issuance.submit("operator:ann", profile, request)
        order = await self.issuance.finish(order.id, timeout=0)
        if order.state != "issued":
            raise QuashError(order.code or order.state, order.detail or "")
        ((der,),) = await self.made.fetch("select der from certificate where serial = $1", order.serial)
        return x509.load_der_x509_certificate(der)


@asynccontextmanager
async def shipped(name: str, database: Database, clock: FakeClock, folder: Path) -> AsyncIterator[Shipped]:
    config = shipped_config(name, database.config)
    made = Made.of(config, folder / "var", database.owner, clock)
    await made.make()
    keys = KeyRing(online_opener(made.deployment.files))
    signer = CaSigner(await database.pool(CA_SIGNER), keys, clock)
    issuance = Issuance(
        pool=await database.pool(ISSUING),
        config=config,
        clock=clock,
        sign=signer.sign_certificate,
        answers=Everywhere(),
        check_key=key_rules,
        linting=LintGate(config.lint, Inline()),
    )
    try:
        yield Shipped(made, issuance)
    finally:
        await keys.close()


def mail_csr(
    *addresses: str,
    subject: tuple[tuple[x509.ObjectIdentifier, str], ...] = (),
    key: PrivateKey | None = None,
) -> str:
    """A request for mailboxes; addresses are taken as they are."""
    others = [x509.RFC822Name._init_without_validation(each) for each in addresses]
    return make_csr((), others=others, subject=subject, key=key)


def signed_by(issuer: x509.Certificate, key: PrivateKey, *names: x509.GeneralName) -> x509.Certificate:
    """What the key of somebody else's CA could sign without us: a leaf for these names, TLS or S/MIME as they are."""
    mail = isinstance(names[0], x509.RFC822Name)
    purpose = ExtendedKeyUsageOID.EMAIL_PROTECTION if mail else ExtendedKeyUsageOID.SERVER_AUTH
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .serial_number(x509.random_serial_number())
        .public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
        .not_valid_before(issuer.not_valid_before_utc)
        .not_valid_after(issuer.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName(names), True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id(issuer)), False)
        .sign(key, hashes.SHA256())
    )


def key_id(certificate: x509.Certificate) -> x509.SubjectKeyIdentifier:
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value


def _pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def openssl_says(
    leaf: x509.Certificate, chain: list[x509.Certificate], purpose: str, folder: Path, at: float | None = None
) -> str:
    """What `openssl verify`, strict, says with the root of the chain trusted: `... OK`, or what is wrong."""
    (folder / "leaf.pem").write_bytes(_pem(leaf))
    (folder / "above.pem").write_bytes(_pem(*chain[:-1]))
    (folder / "root.pem").write_bytes(_pem(chain[-1]))
    above = ("-untrusted", "above.pem") if chain[:-1] else ()  # openssl takes no empty file
    files = ("-CAfile", "root.pem", *above, "leaf.pem")
    time = () if at is None else ("-attime", str(int(at)))
    command = ("openssl", "verify", "-x509_strict", *time, "-purpose", purpose, *files)
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)
    return (done.stdout + done.stderr).strip()


def gnutls_says(leaf: x509.Certificate, chain: list[x509.Certificate], folder: Path, *arguments: str) -> str:
    """What certtool says of the chain, its root trusted."""
    (folder / "chain.pem").write_bytes(_pem(leaf, *chain[:-1]))
    (folder / "root.pem").write_bytes(_pem(chain[-1]))
    command = ("certtool", "--verify", "--load-ca-certificate", "root.pem", "--infile", "chain.pem", *arguments)
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)
    return (done.stdout + done.stderr).strip()


def pyca_verifies(leaf: x509.Certificate, chain: list[x509.Certificate], host: str, at: int) -> None:
    """Builds the chain as a browser would, name constraints included. Raises VerificationError."""
    policy = PolicyBuilder().store(Store([chain[-1]])).time(datetime.fromtimestamp(at, UTC))
    policy.build_server_verifier(x509.DNSName(host)).verify(leaf, chain[:-1])
