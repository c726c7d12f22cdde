"""Clients of the two APIs, as programs of an operator would be: aiohttp over mutual TLS."""

from __future__ import annotations

import ssl
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from loadtest.system import System


def client(system: System, name: str = "operator") -> aiohttp.ClientSession:
    """A session with an operator's certificate; to be used as a context manager."""
    operators = system.state / "operators"
    context = ssl.create_default_context(cafile=str(operators / "ca.pem"))
    context.load_cert_chain(operators / f"{name}.pem", operators / f"{name}.key")
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))


def new_csr(name: str, key: ec.EllipticCurvePrivateKey | None = None) -> str:
    """A PEM signing request for one DNS name."""
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


async def post(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer's JSON; raises on every HTTP error, with the problem document."""
    async with session.post(url, json=body) as response:
        answer: dict[str, Any] = await response.json(content_type=None)
        if response.status >= 400:
            raise RuntimeError(f"{url}: {answer}")
        return answer


async def get(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url) as response:
        answer: dict[str, Any] = await response.json(content_type=None)
        if response.status >= 400:
            raise RuntimeError(f"{url}: {answer}")
        return answer
