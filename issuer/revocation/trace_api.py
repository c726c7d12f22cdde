"""The admin API's route for the evidence of a revocation."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from issuer.api import answer, require, timestamp
from issuer.revocation.find import Target, find_one
from issuer.revocation.routes import EVERYONE
from issuer.revocation.trace import Proof, Trace, Version, trace
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial, parse_serial
from quash.store.database import Pool, acquire
from quash.store.key_evidence import Evidence
from quash.store.sightings import Sighting


class TraceApi:
    """The handler."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/v1/certificates/{issuer}/{serial}/evidence", self.get)

    async def get(self, request: web.Request) -> web.Response:
        """Who revoked a certificate and why, and when it was recorded, signed, distributed and first seen outside."""
        require(request, *EVERYONE)
        target = Target(request.match_info["issuer"], parse_serial(request.match_info["serial"]))
        async with acquire(self._pool) as conn, conn.transaction(isolation="repeatable_read", readonly=True):
            found = await trace(conn, await find_one(conn, target))
        return answer(_trace(found))


def _trace(found: Trace) -> dict[str, Any]:
    certificate, own = found.found.certificate, found.issuer_certificate
    blocked = found.blocked
    return {
        "issuer": found.found.issuer.name,
        "ocsp_path": found.found.issuer.ocsp_path,
        "serial": format_serial(certificate.serial),
        "spki_sha256": None if certificate.spki_sha256 is None else certificate.spki_sha256.hex(),
        "state": certificate.state,
        "not_after": timestamp(certificate.not_after),
        "certificate": _base64(certificate.der),
        "issuer_certificate": None if own is None else _base64(own.der),
        "revocations": [_version(each) for each in found.versions],
        "proofs": [{"at": timestamp(at), **_evidence(each)} for at, each in found.proofs],
        "blocked_key": None if blocked is None else {"reason": blocked.reason, "at": timestamp(blocked.added_at)},
        "cases": list(found.cases),
    }


def _version(version: Version) -> dict[str, Any]:
    revocation, act = version.revocation, version.act
    return {
        "version": revocation.version,
        "reason": Reason(revocation.reason).name,
        "revoked_at": timestamp(revocation.revoked_at),
        "recorded_at": timestamp(revocation.recorded_at),
        "act": {"id": act.id, "at": timestamp(act.at), "by": act.actor, "action": act.action, "subject": act.subject},
        "sightings": [_sighting(each) for each in version.sightings],
        "ledger_position": version.position,
        "ledger_proof": None if version.proof is None else _proof(version.proof),
    }


def _sighting(sighting: Sighting) -> dict[str, Any]:
    return {
        "kind": sighting.kind,
        "place": sighting.place,
        "hash": sighting.hash,
        "at": timestamp(sighting.seen_at),
        "signed_at": timestamp(sighting.signed_at),
        "sha256": sighting.sha256.hex(),
        "number": sighting.number,
        "response": _base64(sighting.body),
    }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    key = load_der_public_key(evidence.spki).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {
        "kind": evidence.kind,
        "sha256": evidence.sha256.hex(),
        "challenge": evidence.challenge,
        "public_key": key.decode("ascii"),
        "spki_sha256": hashlib.sha256(evidence.spki).hexdigest(),
        "proof": _base64(evidence.proof),
    }


def _proof(proof: Proof) -> dict[str, Any]:
    return {
        "previous": proof.previous.hex(),
        "entries": [{"entry": entry.decode("ascii"), "hash": digest.hex()} for entry, digest in proof.entries],
        "checkpoint": proof.checkpoint.decode("ascii"),
    }


def _base64(octets: bytes | None) -> str | None:
    return None if octets is None else base64.b64encode(octets).decode("ascii")
