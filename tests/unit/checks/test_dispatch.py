"""The faster walk through pkilint's validators: the same validators as pkilint's own, in the same order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pkilint import loader

from issuer.checks.dispatch import speed_up
from issuer.checks.findings import EMAIL_DOCUMENTS, TLS_DOCUMENTS
from issuer.checks.pkilinting import stock
from tests.unit.checks.test_lint import BROKEN, twin

TWINS: dict[str, Callable[[], bytes]] = {"good": twin, "internal": lambda: twin(names=("host.internal",)), **BROKEN}


def said(validator: Any, der: bytes) -> list[tuple[str, str, list[tuple[str, str | None]]]]:
    """Every validator that ran: its name, the node, and what it found."""
    results = validator.validate(loader.load_certificate(der, "twin").root)
    return [
        (
            each.validator.name,
            each.node.path,
            [(str(one.finding.code), one.message) for one in each.finding_descriptions],
        )
        for each in results
    ]


@pytest.mark.parametrize(
    "document",
    [
        TLS_DOCUMENTS[0],
        *(pytest.param(each, marks=pytest.mark.long) for each in (TLS_DOCUMENTS[-1], EMAIL_DOCUMENTS[0])),
    ],
)
def test_both_walks_say_the_same(document: str) -> None:
    """Good and broken certificates, of this document type or of another (D47)."""
    theirs, ours = stock(document), speed_up(stock(document))
    found = {}
    for name, make in TWINS.items():
        der = make()
        found[name] = said(theirs, der)
        assert said(ours, der) == found[name], name
        assert len(found[name]) > 50
    assert any(findings for _, _, findings in found["internal"])
