"""pkilint asks every validator about every node of a certificate; here those alone whose kind of node it is.

Half of pkilint's time is in saying no, and throughput is pkilint's time. Which validators run, and in which order,
stays the same. What is said of a part (`issuer.checks.parts`) that comes again is remembered with it, as far as it
depends on nothing else (`issuer.checks.local_validators`): of such validators those alone are in the results then that
found something. `tests/unit/checks/test_dispatch.py` compares with pkilint as it comes.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from pkilint.document import NodeVisitor, PDUNode
from pkilint.pkix import general_name
from pkilint.pkix.extension import ExtensionCriticalityValidator
from pkilint.validation import DecodingValidator, TypeMatchingValidator, ValidationResult, ValidatorContainer

from issuer.checks.local_validators import LOCAL
from issuer.checks.parts import Part, parts_of

# The ways to match that begin with the node's class and path; whoever matches in another way is always asked.
_BY_CLASS: Final = (NodeVisitor.match, ExtensionCriticalityValidator.match, TypeMatchingValidator.match)
_IS_GENERAL_NAME: Final = general_name.create_generalname_type_predicate("dNSName").__code__

_Result = list[Any]
_NEVER_SEEN: Final = object()


def speed_up(container: ValidatorContainer) -> ValidatorContainer:
    """The same container, with all that it holds; for one thread."""
    container._validate_rec = _Walk(container)
    for each in container.validators:
        if isinstance(each, ValidatorContainer):
            speed_up(each)
    return container


class _Step(NamedTuple):
    """Of what is to be done with a part that comes again: at the node of this path below it, ask or repeat."""

    below: tuple[str, ...]
    validator: Any
    said: _Result | None
    matches: bool


class _Walk:
    """How one container goes through a tree."""

    def __init__(self, container: ValidatorContainer) -> None:
        self._container = container
        self._by_class: dict[type, list[tuple[str | None, Any]]] = {}

    def __call__(self, node: PDUNode, results: _Result) -> None:
        """In place of pkilint's own, and with its results."""
        self._walk(node, results, parts_of(node.document))

    def _walk(self, node: PDUNode, results: _Result, parts: dict[str, Part]) -> None:
        path = node.path
        if path in parts:
            self._judge(parts[path], node, results)
            return
        for wanted, validator in self._asked(node):
            if (wanted is None or wanted == path) and validator.match(node):
                results += _said(validator, node)
        for child in node.children.values():
            self._walk(child, results, parts)

    def _judge(self, part: Part, node: PDUNode, results: _Result) -> None:
        """Most parts come once or twice: what is worth to be remembered shows at the second time."""
        steps = part.verdicts.get(self, _NEVER_SEEN)
        if steps is _NEVER_SEEN:
            part.verdicts[self] = None
            self._walk(node, results, {})
            return
        found: _Result = []
        try:
            if steps is None:
                learned: list[_Step] = []
                self._learn(node, (), found, learned)
                part.verdicts[self] = learned
            else:
                _repeat(steps, node, found)
        except Exception:  # noqa: BLE001 - of whoever cannot even say whether it is asked: as pkilint deals with it
            self._walk(node, results, {})
            return
        results += found

    def _learn(self, node: PDUNode, below: tuple[str, ...], found: _Result, steps: list[_Step]) -> None:
        """As `_walk`, within a part."""
        for wanted, validator in self._asked(node):
            if wanted is not None and wanted != node.path:
                continue
            local = type(validator) in LOCAL
            by_part = local or _matches_by_part(validator)
            matches = validator.match(node)
            if by_part and not matches:
                continue
            if by_part and isinstance(validator, ValidatorContainer):
                validator._validate_rec._learn(node, below, found, steps)
                continue
            before = _size(node)
            said = _said(validator, node) if matches else []
            found += said
            # A decoder without work has none when the part comes again, since the part brings the nodes.
            local = local or (by_part and isinstance(validator, DecodingValidator) and _size(node) == before)
            findings = [each for each in said if each.finding_descriptions]
            if not local:
                steps.append(_Step(below, validator, None, by_part))
            elif findings:
                steps.append(_Step(below, validator, findings, True))
        for name, child in node.children.items():
            self._learn(child, (*below, name), found, steps)

    def _asked(self, node: PDUNode) -> list[tuple[str | None, Any]]:
        """(path, validator) of those that a node of this class may be for, in pkilint's order."""
        kind = type(node.pdu)
        if (asked := self._by_class.get(kind)) is None:
            asked = self._by_class[kind] = [
                (validator._path if _plain(validator) else None, validator)
                for validator in self._container.validators
                if not _plain(validator) or validator._pdu_class is None or issubclass(kind, validator._pdu_class)
            ]
        return asked


def _repeat(steps: list[_Step], root: PDUNode, found: _Result) -> None:
    for step in steps:
        node = root
        for name in step.below:
            node = node.children[name]
        if step.said is not None:
            found += [ValidationResult(each.validator, node, each.finding_descriptions) for each in step.said]
        elif step.matches or step.validator.match(node):
            found += _said(step.validator, node)


def _size(node: PDUNode) -> int:
    return 1 + sum(map(_size, node.children.values()))


def _said(validator: Any, node: PDUNode) -> _Result:
    said = validator.validate_wrapper(node)
    return said if isinstance(said, list) else [said]


def _plain(validator: Any) -> bool:
    return type(validator).match in _BY_CLASS


def _matches_by_part(validator: Any) -> bool:
    """Whether a part alone decides if a validator is asked about a node in it."""
    if not _plain(validator):
        return False
    predicate = validator._predicate
    if predicate is not None and getattr(predicate, "__code__", None) is not _IS_GENERAL_NAME:
        return False
    return not isinstance(validator, TypeMatchingValidator) or set(validator.type_path).isdisjoint(":^")
