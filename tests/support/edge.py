"""The private APIs' outside: an operators' CA, certificates of both sides, and requests over real mutual TLS."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from issuer.api import TlsFiles
from quash.store import operators
from quash.store.database import Pool, acquire
from quash.store.operators import Operator

USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass
class TestCa:
    """A CA that is made in memory; `issue` writes NAME.pem and NAME.key into a folder."""

    __test__ = False

    name: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.certificate = self._build(self.name, self.key, None)

    def _build(self, name: str, key: ec.EllipticCurvePrivateKey, usage: str | None) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=usage is None, path_length=None), critical=True)
        )
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([USAGES[usage]]), critical=False)
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, folder: Path, name: str, usage: str) -> x509.Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._build(name, key, usage)
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        (folder / f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate


@dataclass
class Edge:
    """A folder `operators/` as `quash init` makes it, with one operator of each role, and the server's files."""

    state: Path
    owner: Pool
    ca: TestCa = field(default_factory=lambda: TestCa("operators"))

    @property
    def operators(self) -> Path:
        return self.state / "operators"

    async def set_up(self) -> Edge:
        self.operators.mkdir(parents=True)
        (self.operators / "ca.pem").write_bytes(self.ca.certificate.public_bytes(Encoding.PEM))
        self.ca.issue(self.state, "api", "server")
        for role in operators.ROLES:
            await self.add_operator(role, role)
        return self

    async def add_operator(self, name: str, role: str, state: str = "active", account: str | None = None) -> bytes:
        """Makes and registers a client certificate; returns its fingerprint."""
        fingerprint = self.make_client(name)
        async with acquire(self.owner) as conn:
            await operators.add(conn, Operator(fingerprint, name, f"{name} person", role, state, account), 0)
        return fingerprint

    def make_client(self, name: str, ca: TestCa | None = None) -> bytes:
        certificate = (ca or self.ca).issue(self.operators, name, "client")
        return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()

    @property
    def tls(self) -> TlsFiles:
        return TlsFiles(self.state / "api.pem", self.state / "api.key", self.operators / "ca.pem")

    def client_context(self, name: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.operators / "ca.pem")
        if name is not None:
            context.load_cert_chain(self.operators / f"{name}.pem", self.operators / f"{name}.key")
        return context


@dataclass
class Said:
    """One answer."""

    status: int
    type: str
    body: Any
    headers: Mapping[str, str]

    @property
    def code(self) -> str:
        assert self.type == "application/problem+json"
        assert self.body["type"] == f"urn:quash:problem:{self.body['code']}"
        assert self.body["status"] == self.status
        return str(self.body["code"])


@dataclass
class Client:
    """Asks one API as any operator."""

    edge: Edge
    port: int

    async def ask(
        self, method: str, path: str, *, as_: str | None = "operator", tls: ssl.SSLContext | None = None, **kwargs: Any
    ) -> Said:
        connector = aiohttp.TCPConnector(ssl=tls or self.edge.client_context(as_))
        url = f"https://127.0.0.1:{self.port}{path}"
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, url, **kwargs) as response,
        ):
            body = await response.json(content_type=None) if method != "HEAD" else None
            return Said(response.status, response.content_type, body, response.headers)

    async def get(self, path: str, **kwargs: Any) -> Said:
        return await self.ask("GET", path, **kwargs)

    async def post(self, path: str, body: Any, **kwargs: Any) -> Said:
        return await self.ask("POST", path, json=body, **kwargs)
