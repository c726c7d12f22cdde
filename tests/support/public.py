"""A public side made by pyca, for tests of who looks at it: a responder and a CRL origin that say what one likes."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from quash.pki.certid import CertIdHash
from quash.pki.ocsp_request import parse_request
from tests.support.revoking import Authority, Key, World

REASONS = {
    1: x509.ReasonFlags.key_compromise,
    3: x509.ReasonFlags.affiliation_changed,
    4: x509.ReasonFlags.superseded,
    5: x509.ReasonFlags.cessation_of_operation,
    9: x509.ReasonFlags.privilege_withdrawn,
}
HASHES = {CertIdHash.SHA1: hashes.SHA1(), CertIdHash.SHA256: hashes.SHA256()}
Revoked = tuple[int, int]
"""reason, revoked_at (Unix seconds)"""


def moment(at: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(at, dt.UTC)


@dataclass
class Public:
    """`answers` of (issuer, serial, hash): good unless they are revoked. `files` of the origin by path."""

    world: World
    answers: dict[tuple[str, bytes, CertIdHash], Revoked] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, bytes, CertIdHash]] = field(default_factory=list)
    liar: Authority | None = None
    ocsp_url: str = ""
    crl_url: str = ""

    def revoke(self, key: Key, reason: int, revoked_at: int, *only: CertIdHash) -> None:
        for algorithm in only or CertIdHash:
            self.answers[self.world.name_of(key[0]), key[1], algorithm] = (reason, revoked_at)

    async def publish(self, issuer: str, number: int, entries: Sequence[tuple[bytes, Revoked]]) -> None:
        """Serves a CRL and records it as the CRL builder does: it covers all that is committed."""
        body = self.crl(issuer, number, entries)
        self.files[f"/{issuer}.crl"] = body
        await self.record(issuer, number, len(entries), body)

    async def record(self, issuer: str, number: int, entries: int, body: bytes) -> None:
        await self.world.owner.execute(
            "insert into crl (issuer_id, scope, number, this_update, next_update, entries, size, sha256, covers,"
            " scheduled, published_at) values ($1, 'full', $2, $3, $4, $5, $6, $7, pg_current_snapshot(), true, $3)",
            self.world.authorities[issuer].id,
            number,
            self.world.now,
            self.world.now + 86400,
            entries,
            len(body),
            _sha256(body),
        )

    def crl(self, issuer: str, number: int, entries: Sequence[tuple[bytes, Revoked]]) -> bytes:
        authority = self.world.authorities[issuer]
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(authority.certificate.subject)
            .last_update(moment(self.world.now))
            .next_update(moment(self.world.now + 86400))
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
            )
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for serial, (reason, revoked_at) in entries:
            entry = (
                x509.RevokedCertificateBuilder()
                .serial_number(int.from_bytes(serial, "big"))
                .revocation_date(moment(revoked_at))
            )
            if reason:
                entry = entry.add_extension(x509.CRLReason(REASONS[reason]), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.DER)

    async def _ocsp(self, request: web.Request) -> web.Response:
        _, issuer, encoded = request.raw_path.split("/", 2)
        (cert_id,) = parse_request(base64.b64decode(unquote(encoded))).cert_ids
        assert cert_id is not None
        self.asked.append((issuer, cert_id.serial, cert_id.hash))
        authority, signer = self.world.authorities[issuer], self.liar or self.world.authorities[issuer]
        revoked = self.answers.get((issuer, cert_id.serial, cert_id.hash))
        response = (
            ocsp.OCSPResponseBuilder()
            .add_response_by_hash(
                cert_id.name_hash,
                cert_id.key_hash,
                int.from_bytes(cert_id.serial, "big"),
                HASHES[cert_id.hash],
                ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD,
                moment(self.world.now),
                moment(self.world.now + 86400),
                moment(revoked[1]) if revoked else None,
                REASONS.get(revoked[0]) if revoked else None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, authority.certificate)
            .sign(signer.key, hashes.SHA256())
        )
        body = response.public_bytes(Encoding.DER)
        return web.Response(body=body, content_type="application/ocsp-response")

    async def _file(self, request: web.Request) -> web.Response:
        body = self.files.get(request.path)
        return web.Response(status=404) if body is None else web.Response(body=body)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Public]:
        runners = []
        for handler, attribute in ((self._ocsp, "ocsp_url"), (self._file, "crl_url")):
            runner = web.ServerRunner(web.Server(handler))  # type: ignore[arg-type]
            await runner.setup()
            runners.append(runner)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            setattr(self, attribute, f"http://127.0.0.1:{runner.addresses[0][1]}")
        try:
            yield self
        finally:
            for runner in runners:
                await runner.cleanup()


def _sha256(body: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(body)
    return digest.finalize()
