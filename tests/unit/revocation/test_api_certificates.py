"""When the certificates end that operators' access hangs on: what the alert looks at."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import REGISTRY

from issuer.api import listening
from quash.store.database import Pool
from tests.support.edge import Edge


def told(what: str) -> float | None:
    return REGISTRY.get_sample_value("quash_api_certificate_end_timestamp", {"what": what})


async def test_an_api_tells_when_its_certificates_end(tmp_path: Path) -> None:
    """Its own, and the operators' CA's: after either nobody gets in, and nothing else would say so before."""
    edge = Edge(tmp_path, cast(Pool, None))  # nobody asks
    edge.operators.mkdir()
    (edge.operators / "ca.pem").write_bytes(edge.ca.certificate.public_bytes(Encoding.PEM))
    edge.ca.issue(edge.state, "api", "server")
    server = x509.load_pem_x509_certificate(edge.tls.certificate.read_bytes())
    async with listening(web.Application(), edge.tls, "127.0.0.1", 0):
        assert told("server") == server.not_valid_after_utc.timestamp()
        assert told("operators-ca") == edge.ca.certificate.not_valid_after_utc.timestamp()
