"""A log double: RFC 6962's and static-ct's `add-pre-chain` and `add-chain`, with real signatures and a real tree.

For demonstrations and tests. It keeps entries in memory alone, which no real log may do.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import orjson
from aiohttp import web
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from issuer.ct import sct
from issuer.ct.sct import Sct
from issuer.ct.tbs import is_poisoned, plain
from issuer.signer.tbs import tbs_of
from quash.errors import QuashError
from quash.pki.certificate import read_certificate
from quash.runtime.clock import Clock

_MAX_BODY: Final = 256 * 1024
_SHA256, _ECDSA = 4, 3


class LogDouble:
    """One log. Tests set `delay` (seconds), `status` (an HTTP status other than 200) and `mangle` (of the SCT)."""

    def __init__(
        self,
        *,
        operator: str,
        name: str,
        kind: str,
        key: ec.EllipticCurvePrivateKey,
        roots: Sequence[bytes],
        clock: Clock,
    ) -> None:
        """`kind`: rfc6962 or static; `roots`: DER certificates that a chain must end in."""
        self.operator, self.name, self.kind = operator, name, kind
        self.delay, self.status = 0.0, 200
        self.entries: list[bytes] = []
        self.spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.log_id = hashlib.sha256(self.spki).digest()
        self._key = key
        self._roots = roots
        self._clock = clock
        self._scts: dict[bytes, Sct] = {}
        self._known: set[tuple[bytes, ...]] = set()

    def mangle(self, found: Sct) -> Sct:
        """What a test makes of an SCT before it is sent."""
        return found

    async def handle(self, request: web.BaseRequest, path: str) -> web.Response:
        """Answers `ct/v1/add-pre-chain`, `add-chain`, `get-roots` and `get-sth`; anything else is 404."""
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.status != 200:
            return web.Response(status=self.status)
        if request.method == "GET" and path == "ct/v1/get-roots":
            return _json({"certificates": [base64.b64encode(root).decode() for root in self._roots]})
        if request.method == "GET" and path == "ct/v1/get-sth" and self.kind == "rfc6962":
            return _json(self._tree_head())
        if request.method != "POST" or path not in ("ct/v1/add-pre-chain", "ct/v1/add-chain"):
            return web.Response(status=404)
        try:
            poisoned = path.endswith("add-pre-chain")
            found = self.mangle(self._add(orjson.loads(await request.read()), poisoned=poisoned))
        except (ValueError, KeyError, TypeError, QuashError, InvalidSignature) as error:
            return web.Response(status=400, text=f"{type(error).__name__}: {error}")
        signature = bytes((found.hash_algorithm, found.signature_algorithm))
        signature += len(found.signature).to_bytes(2, "big") + found.signature
        return _json(
            {
                "sct_version": 0,
                "id": base64.b64encode(found.log_id).decode(),
                "timestamp": found.timestamp,
                "extensions": base64.b64encode(found.extensions).decode(),
                "signature": base64.b64encode(signature).decode(),
            }
        )

    def root_hash(self) -> bytes:
        """The Merkle tree's root (RFC 6962 2.1)."""
        return _tree_hash([hashlib.sha256(b"\0" + entry).digest() for entry in self.entries])

    def _add(self, body: Any, *, poisoned: bool) -> Sct:
        """RFC 6962 4.1, 4.2: a chain to a known root, poisoned or not; the same one again gets the same SCT."""
        chain = [base64.b64decode(each, validate=True) for each in body["chain"]]
        self._check_chain(chain)
        tbs = tbs_of(chain[0])
        if is_poisoned(tbs) != poisoned:
            raise ValueError("precertificates belong to add-pre-chain, certificates to add-chain")
        if (known := self._scts.get(chain[0])) is not None:
            return known
        index = len(self.entries)
        extensions = b"\0\0\5" + index.to_bytes(5, "big") if self.kind == "static" else b""
        unsigned = Sct(self.log_id, int(self._clock.now() * 1000), extensions, _SHA256, _ECDSA, b"")
        issuer = read_certificate(chain[1])
        entry = sct.precertificate_entry(issuer.spki, plain(tbs)) if poisoned else sct.certificate_entry(chain[0])
        data = sct.signed_data(unsigned, entry)
        self.entries.append(b"\0\0" + data[2:])  # MerkleTreeLeaf: version, leaf type, TimestampedEntry
        signature = self._key.sign(data, ec.ECDSA(hashes.SHA256()))
        made = self._scts[chain[0]] = Sct(self.log_id, unsigned.timestamp, extensions, _SHA256, _ECDSA, signature)
        return made

    def _check_chain(self, chain: Sequence[bytes]) -> None:
        """What stands above a leaf is the same for all of an issuer, and verified once."""
        above = tuple(chain[1:])
        if above not in self._known:
            _check_above(above, self._roots)
            self._known.add(above)
        _check_leaf(chain[0], above[0])

    def _tree_head(self) -> dict[str, Any]:
        at, size, root = int(self._clock.now() * 1000), len(self.entries), self.root_hash()
        signature = self._key.sign(struct.pack(">BBQQ", 0, 1, at, size) + root, ec.ECDSA(hashes.SHA256()))
        signed = bytes((_SHA256, _ECDSA)) + len(signature).to_bytes(2, "big") + signature
        return {
            "tree_size": size,
            "timestamp": at,
            "sha256_root_hash": base64.b64encode(root).decode(),
            "tree_head_signature": base64.b64encode(signed).decode(),
        }


def application(logs: Iterable[LogDouble]) -> web.Application:
    """Serves each log below `/<its name>/`."""
    by_name = {log.name: log for log in logs}

    async def handle(request: web.Request) -> web.Response:
        log = by_name.get(request.match_info["log"])
        return await log.handle(request, request.match_info["path"]) if log else web.Response(status=404)

    app = web.Application(client_max_size=_MAX_BODY)
    app.router.add_route("*", "/{log}/{path:.*}", handle)
    return app


def list_of(logs: Iterable[LogDouble], base: str, now: float) -> dict[str, Any]:
    """The v3 log list of these logs at `base`."""
    made = datetime.fromtimestamp(now, UTC).isoformat()
    operators: dict[str, dict[str, Any]] = {}
    for log in logs:
        operator = operators.setdefault(log.operator, {"name": log.operator, "logs": [], "tiled_logs": []})
        group, address = ("logs", "url") if log.kind == "rfc6962" else ("tiled_logs", "submission_url")
        operator[group].append(
            {
                "description": log.name,
                "log_id": base64.b64encode(log.log_id).decode(),
                "key": base64.b64encode(log.spki).decode(),
                address: f"{base}/{log.name}/",
                "mmd": 86_400 if log.kind == "rfc6962" else 60,
                "state": {"usable": {"timestamp": made}},
            }
        )
    return {"version": "1.0", "log_list_timestamp": made, "operators": list(operators.values())}


def _check_above(chain: Sequence[bytes], roots: Sequence[bytes]) -> None:
    loaded = [x509.load_der_x509_certificate(each) for each in chain]
    if not loaded or not (chain[-1] in roots or any(_issued(loaded[-1], root) for root in roots)):
        raise ValueError("the chain ends in no root of this log")
    for below, above in itertools.pairwise(loaded):
        below.verify_directly_issued_by(above)


@lru_cache(maxsize=256)
def _check_leaf(leaf: bytes, issuer: bytes) -> None:
    """The logs of this process get a precertificate all at once: its signature is verified for the first."""
    x509.load_der_x509_certificate(leaf).verify_directly_issued_by(_issuer(issuer))


@lru_cache(maxsize=256)
def _issuer(octets: bytes) -> x509.Certificate:
    """With its key, once that was used: to read one takes as long as to verify a signature by it."""
    return x509.load_der_x509_certificate(octets)


def _issued(certificate: x509.Certificate, root: bytes) -> bool:
    try:
        certificate.verify_directly_issued_by(x509.load_der_x509_certificate(root))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _tree_hash(leaves: Sequence[bytes]) -> bytes:
    if len(leaves) <= 1:
        return leaves[0] if leaves else hashlib.sha256().digest()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + _tree_hash(leaves[:split]) + _tree_hash(leaves[split:])).digest()


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
