"""What the workers of the report endpoint do: verify proofs of compromise, which are hostile until then."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson

from issuer.revocation import evidence
from quash.store.key_evidence import Evidence


def _private_key(_: str, octets: bytes) -> dict[str, Any]:
    return _json(evidence.from_private_key(octets.decode()))


def _csr(_: str, octets: bytes) -> dict[str, Any]:
    return _json(evidence.from_csr(octets.decode()))


def _jws(spki: str, octets: bytes) -> dict[str, Any]:
    return _json(evidence.from_jws(orjson.loads(octets), base64.b64decode(spki)))


def _json(proof: Evidence) -> dict[str, Any]:
    return {
        "kind": proof.kind,
        "spki": base64.b64encode(proof.spki).decode(),
        "proof": base64.b64encode(proof.proof).decode(),
        "sha256": proof.sha256.hex(),
        "challenge": proof.challenge,
    }


def read(said: Mapping[str, Any]) -> Evidence:
    """What a task said."""
    return Evidence(
        said["kind"],
        base64.b64decode(said["spki"]),
        base64.b64decode(said["proof"]),
        bytes.fromhex(said["sha256"]),
        said["challenge"],
    )


TASKS: Final[Mapping[str, Callable[[str, bytes], Any]]] = MappingProxyType(
    {"private-key": _private_key, "csr": _csr, "jws": _jws}
)


def warm() -> None:
    """Nothing takes long to load."""
