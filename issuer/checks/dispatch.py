"""pkilint asks every validator about every node of a certificate; here those alone whose kind of node it is.

Half of pkilint's time is in saying no, and throughput is pkilint's time. Which validators run, and in which order,
stays the same: `tests/unit/checks/test_dispatch.py` compares with pkilint as it comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pkilint.document import NodeVisitor
from pkilint.pkix.extension import ExtensionCriticalityValidator
from pkilint.validation import TypeMatchingValidator, ValidatorContainer

# The ways to match that begin with the node's class and path; whoever matches in another way is always asked.
_BY_CLASS: Final = (NodeVisitor.match, ExtensionCriticalityValidator.match, TypeMatchingValidator.match)

_Result = list[Any]


def speed_up(container: ValidatorContainer) -> ValidatorContainer:
    """The same container, with all that it holds; for one thread."""
    container._validate_rec = _walker(container)
    for each in container.validators:
        if isinstance(each, ValidatorContainer):
            speed_up(each)
    return container


def _walker(container: ValidatorContainer) -> Callable[[Any, _Result], None]:
    by_class: dict[type, list[tuple[str | None, Any]]] = {}

    def candidates(kind: type) -> list[tuple[str | None, Any]]:
        """(path, validator) of those that a node of this class may be for, in pkilint's order."""
        return [
            (validator._path if _plain(validator) else None, validator)
            for validator in container.validators
            if not _plain(validator) or validator._pdu_class is None or issubclass(kind, validator._pdu_class)
        ]

    def walk(node: Any, results: _Result) -> None:
        kind = type(node.pdu)
        if (asked := by_class.get(kind)) is None:
            asked = by_class[kind] = candidates(kind)
        path = node.path
        for wanted, validator in asked:
            if (wanted is None or wanted == path) and validator.match(node):
                said = validator.validate_wrapper(node)
                if isinstance(said, list):
                    results += said
                else:
                    results.append(said)
        for child in node.children.values():
            walk(child, results)

    return walk


def _plain(validator: Any) -> bool:
    return type(validator).match in _BY_CLASS
