"""Who uses the system while its processes die: polite operators, who remember what they were told, and strangers."""

from __future__ import annotations

import asyncio
import base64
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from loadtest.api import client
from loadtest.system import System
from quash.pki.certid import CertId, CertIdHash, issuer_hashes
from quash.pki.certificate import read_certificate
from quash.pki.ocsp_reading import parse_response, verify_response
from quash.pki.ocsp_request import build_request
from quash.pki.serials import format_serial, parse_serial

Key = tuple[str, bytes]
"""Issuer's name and serial."""

PROFILES = ("tls-dv", "tls-ov")
PATIENCE = 90.0
"""Seconds that an operator goes on asking: a process that was killed is back long before."""
_SUBJECTS = {
    "tls-dv": x509.Name([]),
    "tls-ov": x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "TN"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Tunis"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example Organization"),
        ]
    ),
}


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def make_csr(profile: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateSigningRequest:
    """A request that the profile takes."""
    names = x509.SubjectAlternativeName([x509.DNSName("fault.example.org")])
    builder = x509.CertificateSigningRequestBuilder(_SUBJECTS[profile]).add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256())


@dataclass
class Told:
    """What an API said with 2xx: it must hold, whatever dies."""

    issued: dict[Key, bytes] = field(default_factory=dict)
    """Certificates (DER) that were handed out."""
    asked: set[Key] = field(default_factory=set)
    """Certificates that somebody wants revoked; the answer may be under way."""
    revoked: dict[Key, str] = field(default_factory=dict)
    """Reasons of acknowledged revocations."""


class RefusedError(AssertionError):
    """An answer that asking again does not mend; `problem` is its document."""

    def __init__(self, url: str, problem: Any) -> None:
        super().__init__(f"{url}: {problem}")
        self.problem = problem


class Operator:
    """Asks the two APIs, and asks again when nobody answers or the answer is 503. Use as a context manager."""

    def __init__(self, system: System, told: Told | None = None) -> None:
        self.told = told or Told()
        self._log = system.state / "log"
        self._session = client(system)
        self._orders = f"https://127.0.0.1:{system.ports['issuer']}/v1/orders"
        self._revocations = f"https://127.0.0.1:{system.ports['admin']}/v1/revocations"

    async def __aenter__(self) -> Self:
        await self._session.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._session.__aexit__(*error)

    async def order(self, profile: str, csr: x509.CertificateSigningRequest) -> Key:
        """Has a certificate issued. An order that got no answer may have been taken all the same."""
        body = {"profile": profile, "csr": csr.public_bytes(Encoding.PEM).decode()}
        return await self._finish(await self._ask("POST", self._orders, body))

    async def fetch(self, order_id: str) -> Key:
        """The certificate of an order, once it is handed out."""
        return await self._finish(await self._ask("GET", f"{self._orders}/{order_id}"))

    async def _finish(self, order: dict[str, Any]) -> Key:
        deadline = time.monotonic() + PATIENCE
        while order["certificate"] is None:
            if order["state"] == "refused":
                raise RefusedError(self._orders, order)
            assert time.monotonic() < deadline, f"an order that never becomes visible: {order}"
            await asyncio.sleep(0.1)
            order = await self._ask("GET", f"{self._orders}/{order['id']}")
        key = (order["issuer"], parse_serial(order["serial"]))
        certificate = x509.load_pem_x509_certificate(order["certificate"].encode())
        self.told.issued[key] = certificate.public_bytes(Encoding.DER)
        return key

    async def revoke(self, key: Key, reason: str) -> dict[str, Any]:
        """Asking twice is safe: the second answer says that nothing changed."""
        self.told.asked.add(key)
        body = {"issuer": key[0], "serial": format_serial(key[1]), "reason": reason}
        answer = await self._ask("POST", self._revocations, body)
        self.told.revoked[key] = reason
        return answer

    async def _ask(self, method: str, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                async with self._session.request(method, url, json=body) as response:
                    answer: dict[str, Any] = await response.json(content_type=None)
                    if response.status < 400:
                        return answer
                    if response.status == 500:
                        raise RefusedError(url, {**answer, "log": self._faults()})
                    if response.status != 503:
                        raise RefusedError(url, answer)
                    said = str(answer)
            except (aiohttp.ClientError, TimeoutError) as error:
                said = repr(error)
            assert time.monotonic() < deadline, f"{url} stays away: {said}"
            await asyncio.sleep(0.1)

    def _faults(self) -> list[str]:
        """What the APIs themselves say of their last fault."""
        lines = [line for name in ("issuer", "admin") for line in (self._log / f"{name}.log").read_text().splitlines()]
        return [line for line in lines if "api.fault" in line][-1:]


class Stranger:
    """A relying party: asks the public responder, believes what verifies. Use as a context manager.

    A new connection for each question, so that every worker has its turn.
    """

    def __init__(self, system: System) -> None:
        self._url = system.ocsp
        self._certs = system.state / "certs"
        self._issuers: dict[str, bytes] = {}

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=16, force_close=True)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(self, key: Key, algorithm: CertIdHash) -> str:
        """good, revoked, the name of an unsigned answer (`unauthorized`), or `silent` where nobody answers."""
        der = self._issuer(key[0])
        fields = read_certificate(der)
        cert_id = CertId(algorithm, *issuer_hashes(fields.subject, fields.spki, algorithm), key[1])
        encoded = quote(base64.b64encode(build_request(cert_id)), safe="")
        try:
            async with self._session.get(f"{self._url}/{key[0]}/{encoded}") as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError):
            return "silent"
        if (outer := parse_response(body).outer) != "successful":
            return outer
        answer = verify_response(body, der)
        assert answer.cert_id == cert_id
        assert answer.status is not None
        assert answer.next_update is not None
        assert answer.next_update > time.time(), "served past its nextUpdate"
        return "good" if answer.status.reason is None else "revoked"

    def _issuer(self, name: str) -> bytes:
        if name not in self._issuers:
            certificate = x509.load_pem_x509_certificate((self._certs / f"{name}.pem").read_bytes())
            self._issuers[name] = certificate.public_bytes(Encoding.DER)
        return self._issuers[name]

    async def ask_both(self, key: Key) -> set[str]:
        """What both CertID hashes are answered (A20): one element where they agree."""
        return set(await asyncio.gather(*(self.ask(key, algorithm) for algorithm in CertIdHash)))
