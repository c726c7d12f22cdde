"""An alert on events sees the first one: its counter's series begins with it, and nothing of a new series increases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import promql_parser
import pytest
import yaml

from tests.support import promql
from tests.support.promql_values import Series, evaluate

RULES = [
    rule
    for group in yaml.safe_load((promql.REPOSITORY / "config/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DECLARED = promql.declared()
SCRAPED_EVERY = 30
LONG = 5400
"""Seconds: longer than the range of any rule on events."""


class Event(NamedTuple):
    """A rule on events: the counter that it looks at, how many it takes to fire, seconds that they must be seen."""

    expression: str
    counter: str
    enough: int
    lasting: float


def of(rule: dict[str, Any]) -> Event | None:
    """None for a rule on a pace, which one event more or less does not make; a rate above 0 is no pace."""
    threshold = max((float(each) for each in re.findall(r"> ([\d.e]+)", rule["expr"])), default=0)
    if "increase(" not in rule["expr"] and ("rate(" not in rule["expr"] or threshold > 0):
        return None
    (counter,) = {name for name in promql.read(rule["expr"]).metrics if name.endswith("_total")}
    lasting = promql_parser.parse_duration(rule["for"]).total_seconds() if "for" in rule else 0
    return Event(rule["expr"], counter, int(threshold) + 1, lasting)


EVENTS = [pytest.param(event, id=rule["alert"]) for rule in RULES if (event := of(rule))]


class Target:
    """A machine that is scraped: its counter, in one process after another."""

    def __init__(self, event: Event) -> None:
        self._event = event
        self._expression = promql_parser.parse(event.expression)
        self._series = Series()
        self.now = 1_800_000_000.0

    def run(self, seconds: float, count: int | None = None, born: float = 0, *, answers: bool = True) -> Iterator[bool]:
        """Lets time pass with the counter at `count`, None: no such series; yields whether the rule has a result."""
        for _ in range(int(seconds / SCRAPED_EVERY)):
            self.now += SCRAPED_EVERY
            self._series.scrape(self.now, self._text(count, born) if answers else "")
            yield bool(evaluate(self._expression, self._series, self.now))

    def _text(self, count: int | None, born: float) -> str:
        if count is None:
            return ""
        name = self._event.counter
        labels = ",".join(f'{each}="a"' for each in sorted(DECLARED[name] | {"instance", "process"}))
        created = name.replace("_total", "_created")
        return (
            f"# TYPE {name} counter\n{name}{{{labels}}} {count}\n# TYPE {created} gauge\n{created}{{{labels}}} {born}\n"
        )


def test_there_are_rules_on_events() -> None:
    """Those that the others below are about: none of them is lost by how it is written."""
    assert len(EVENTS) == sum("increase(" in rule["expr"] for rule in RULES) + 1 == 8  # and late answers


@pytest.mark.parametrize("event", EVENTS)
def test_the_first_of_a_process_are_seen(event: Event) -> None:
    """Nobody ever scraped a 0: the code had not been seen before, or it happened at start."""
    target = Target(event)
    assert not any(target.run(600))
    fires = list(target.run(event.lasting + 60, event.enough, target.now))
    assert all(fires)
    assert not list(target.run(LONG, event.enough, target.now - event.lasting - 60))[-1], "it ends"


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("between", [0, 60, 870, 930, LONG])
def test_as_many_after_a_restart_as_before_are_seen(event: Event, between: float) -> None:
    """From 1 to 1 nothing increases either, whether or not somebody scraped in between."""
    target = Target(event)
    assert not list(target.run(LONG, event.enough, target.now))[-1]
    assert not any(target.run(between))
    assert all(target.run(event.lasting + 60, event.enough, target.now))


@pytest.mark.parametrize("event", EVENTS)
def test_more_of_an_old_series_are_seen(event: Event) -> None:
    """What rules on events always saw."""
    target = Target(event)
    born = target.now
    assert not list(target.run(LONG, 1, born))[-1]
    assert all(target.run(event.lasting + 60, 1 + event.enough, born))


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("silent", [SCRAPED_EVERY, 600, LONG])
def test_old_ones_are_not_told_of_again_when_scrapes_failed(event: Event, silent: float) -> None:
    """A series that comes back is no new one."""
    target = Target(event)
    born = target.now
    assert not list(target.run(LONG, event.enough, born))[-1]
    assert not any(target.run(silent, answers=False))
    assert not any(target.run(LONG, event.enough, born))
