"""What PromQL expressions name, and which metrics the code declares: enough to hold one against the other."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import promql_parser

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("quash", "responder", "crlgen", "issuer")
# Of the scrape, and of the endpoint that tells processes apart.
ADDED = {"job", "instance", "process"}

_SUFFIXES = ("_bucket", "_count", "_sum")
_TYPES = {"Counter", "Gauge", "GaugeMetricFamily", "Histogram", "HistogramMetricFamily"}


@dataclass
class Query:
    """What one expression names: each metric with its matchers' labels and values, and the labels it groups by."""

    metrics: dict[str, dict[str, str]] = field(default_factory=dict)
    grouped: set[str] = field(default_factory=set)


def read(expression: str) -> Query:
    """Raises ValueError for what is no PromQL."""
    query = Query()
    # Grafana puts a range in the place of its variable.
    _note(promql_parser.parse(expression.replace("$__rate_interval", "5m")), query)
    return query


def _note(node: Any, query: Query) -> None:
    """Walks the tree: what the attributes of a node are called says what kind it is."""
    if hasattr(node, "matchers"):
        query.metrics[node.name] = {each.name: each.value for each in node.matchers.matchers}
    modifier = getattr(node, "modifier", None)
    grouping = getattr(modifier, "matching", modifier)  # of a binary operator; of an aggregation
    if grouping is not None:
        query.grouped |= set(grouping.labels)
    below = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "vector_selector")]
    for each in (*below, *getattr(node, "args", ())):
        if each is not None:
            _note(each, query)


def family(name: str, declared: dict[str, set[str]]) -> str:
    """The metric that a series belongs to: a histogram has three kinds of them, a counter two."""
    counter = name.removesuffix("_created") + "_total"
    if name.endswith("_created") and counter in declared:
        return counter
    return next((name.removesuffix(s) for s in _SUFFIXES if name.removesuffix(s) in declared), name)


def declared() -> dict[str, set[str]]:
    """Metrics of the code by name, a counter's with `_total`, and their labels; a histogram has `le`."""
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in (REPOSITORY / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if '"quash_' in text:
                found |= _metrics_of(ast.parse(text))
    return found


def _metrics_of(module: ast.Module) -> dict[str, set[str]]:
    constants = {
        target.id: node.value
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = {}
    for call in ast.walk(module):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _TYPES):
            continue
        if not (call.args and isinstance(call.args[0], ast.Constant)):
            continue
        name = str(call.args[0].value)
        labels = next(
            (k.value for k in call.keywords if k.arg == "labels"), call.args[2] if len(call.args) > 2 else None
        )
        if isinstance(labels, ast.Name):
            labels = constants[labels.id]
        values = set(ast.literal_eval(labels)) if labels is not None else set()
        if call.func.id == "Counter" and not name.endswith("_total"):
            name += "_total"
        found[name] = values | ({"le"} if call.func.id.startswith("Histogram") else set())
    return found


def literals() -> set[str]:
    """Every string that stands in the code."""
    found: set[str] = set()
    for package in PACKAGES:
        for path in (REPOSITORY / package).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found |= {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return found
