"""What worker processes can be asked: by name, with a text argument and octets; answers are JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from issuer.checks import ocsp_linting, own_rules, pkilinting, weak_keys
from issuer.checks.workers import PRIVATE


def _lint(document: str, der: bytes) -> dict[str, Any]:
    found = [finding.as_json() for finding in pkilinting.findings(der, document)]
    return {"version": pkilinting.VERSION, "findings": found}


def _own(_: str, der: bytes) -> dict[str, Any]:
    return {"version": own_rules.VERSION, "findings": [finding.as_json() for finding in own_rules.findings(der)]}


def _ocsp(_: str, der: bytes) -> dict[str, Any]:
    return {"findings": [finding.as_json() for finding in ocsp_linting.findings(der)]}


def _key(of: str, spki: bytes) -> None:
    weak_keys.check_key(spki, private=of == PRIVATE)


TASKS: Final[Mapping[str, Callable[[str, bytes], Any]]] = MappingProxyType(
    {"lint": _lint, "own": _own, "ocsp": _ocsp, "key": _key}
)


def warm() -> None:
    pkilinting.warm()
    weak_keys.warm()
