"""What a PromQL expression says of series over time: the part of the language that alert rules on events use."""

from __future__ import annotations

import bisect
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from promql_parser import AggregateExpr, BinaryExpr, Call, MatrixSelector, NumberLiteral, ParenExpr, VectorSelector

LOOKBACK = 300.0
"""Seconds for which a series' last sample stands for it."""
STALE = math.nan
"""The value of a sample that says: the series was not there, or its target did not answer."""

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {">": operator.gt, "<": operator.lt}


class Series:
    """Samples by metric and labels, as Prometheus keeps them."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, Labels], list[tuple[float, float]]] = {}

    def scrape(self, at: float, text: str) -> None:
        """Takes a target's exposition; a series that is no longer in it, or `text` empty: failed, becomes stale."""
        told = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        for key in self._samples.keys() | told.keys():
            self._samples.setdefault(key, []).append((at, told.get(key, STALE)))

    def instant(self, name: str, now: float) -> Vector:
        """The newest values, but of stale series and of those that ended long ago."""
        newest = {labels: inside[-1] for labels, inside in self._within(name, now, LOOKBACK) if inside}
        return {labels: value for labels, value in newest.items() if not math.isnan(value)}

    def increase(self, name: str, now: float, seconds: float) -> Vector:
        """Of series with two samples in the range, not extrapolated: whether it is 0 is the same."""
        found: Vector = {}
        for labels, inside in self._within(name, now, seconds):
            values = [value for value in inside if not math.isnan(value)]
            if len(values) > 1:
                pairs = itertools.pairwise(values)
                found[labels] = sum(after - before if after >= before else after for before, after in pairs)
        return found

    def _within(self, name: str, now: float, seconds: float) -> Iterable[tuple[Labels, list[float]]]:
        for (metric, labels), samples in self._samples.items():
            if metric == name:
                first = bisect.bisect_right(samples, now - seconds, key=operator.itemgetter(0))
                yield labels, [value for at, value in samples[first:] if at <= now]


def evaluate(node: Any, series: Series, now: float) -> Vector | float:
    """The value of a parsed expression. Raises NotImplementedError for what no rule on events needs."""
    match node:
        case NumberLiteral():
            return float(node.val)
        case ParenExpr():
            return evaluate(node.expr, series, now)
        case VectorSelector() if not node.matchers.matchers and node.offset is None:
            return series.instant(node.name, now)
        case Call() if node.func.name == "time":
            return now
        case Call() if node.func.name in ("increase", "rate"):
            return _increase(node, series, now)
        case AggregateExpr() if str(node.op) == "sum":
            return _sum_by(node.modifier.labels, evaluate(node.expr, series, now))
        case BinaryExpr():
            return _binary(str(node.op), evaluate(node.lhs, series, now), evaluate(node.rhs, series, now))
    raise NotImplementedError(str(node))


def _increase(node: Any, series: Series, now: float) -> Vector:
    (range_,) = node.args
    assert isinstance(range_, MatrixSelector)
    seconds = range_.range.total_seconds()
    grown = series.increase(range_.vector_selector.name, now, seconds)
    return grown if node.func.name == "increase" else {labels: value / seconds for labels, value in grown.items()}


def _sum_by(names: list[str], vector: Vector | float) -> Vector:
    assert isinstance(vector, dict)
    sums: Vector = {}
    for labels, value in vector.items():
        group = frozenset(each for each in labels if each[0] in names)
        sums[group] = sums.get(group, 0.0) + value
    return sums


def _binary(op: str, left: Vector | float, right: Vector | float) -> Vector:
    match left, right:
        case dict(), dict() if op == "and":
            return {labels: value for labels, value in left.items() if labels in right}
        case dict(), dict() if op == "or":
            return {**right, **left}
        case dict(), float() if op in _COMPARISONS:
            return {labels: value for labels, value in left.items() if _COMPARISONS[op](value, right)}
        case float(), dict() if op == "-":
            return {labels: left - value for labels, value in right.items()}
    raise NotImplementedError(op)
