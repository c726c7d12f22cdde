"""The golden files of tests/golden: requests and their answers, and a cache that holds OpenSSL's own signatures."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from quash.cache.layout import IssuerRow, Record, TemplateRow, encode_record
from quash.cache.writer import Catalog
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.pki.certificate import read_certificate
from quash.pki.serials import parse_serial

FOLDER = Path(__file__).parents[1] / "golden"
PKI: dict[str, dict[str, Any]] = json.loads((FOLDER / "pki" / "cases.json").read_text())
CASES: dict[str, dict[str, Any]] = json.loads((FOLDER / "http.json").read_text())
PATHS = {"p256": "ecdsa-p256-sha256", "p384": "ecdsa-p384-sha384", "p521": "ecdsa-p521-sha512", "rsa": "rsa-sha256"}
SIGNED_AT: int = PKI["response-ecdsa-p256-sha256-sha256-good.der"]["this_update"]


def octets(name: str) -> bytes:
    """A file of tests/golden/pki."""
    return (FOLDER / "pki" / name).read_bytes()


def sent(case: dict[str, Any]) -> bytes:
    """A golden request's octets."""
    return str(case["head"]).encode("latin-1") + bytes.fromhex(case["body"])


def catalog() -> Catalog:
    """The golden CAs, each under a path of its own (G45), and their OCSP signers."""
    issuers, signers = {}, {}
    for issuer_id, (path, key) in enumerate(PATHS.items(), 1):
        ca = octets(f"ca-{key}.der")
        fields = read_certificate(ca)
        named = IssuerRow(issuer_id, path, fields.subject, fields.spki, ca, f"demo/{path}", 1800, 4 * 86_400)
        issuers[issuer_id] = named
        signers[issuer_id] = TemplateRow(issuer_id, issuer_id, key, octets(f"signer-{key}.der"))
    return Catalog(issuers, signers)


def records() -> list[tuple[int, bytes, bytes]]:
    """(issuer_id, serial, encoded record) of every golden response."""
    names = ("good", "revoked", "compromised")
    return [_record(key, issuer_id, which) for issuer_id, key in enumerate(PATHS.values(), 1) for which in names]


def _record(key: str, issuer_id: int, which: str) -> tuple[int, bytes, bytes]:
    """What OpenSSL signed about one certificate, as the feed would bring it."""
    sha1, sha256 = (PKI[f"response-{key}-{digest}-{which}.der"] for digest in ("sha1", "sha256"))
    assert sha1["this_update"] == sha256["this_update"]
    algorithm = SIGNATURE_ALGORITHMS[key]
    first, second = (algorithm.decode(bytes.fromhex(made["signature"])) for made in (sha1, sha256))
    reason, moment = sha1["revoked"] or (None, None)
    revoked_at = int(datetime.fromisoformat(moment).timestamp()) if moment else 0
    times = (revoked_at, sha1["this_update"], sha1["next_update"])
    encoded = encode_record(Record(int(moment is not None), reason, *times, issuer_id, (first, second)))
    return issuer_id, parse_serial(sha1["serial"]), encoded
