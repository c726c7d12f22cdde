"""Alert rules and dashboard ask for metrics that a running system exposes, by labels that these have."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from loadtest.system import System
from quash.cli.serve import PROCESSES
from responder.serve.metrics import AGES
from tests.support import promql
from tests.support.services import DEMO_ONLY

RULES = promql.REPOSITORY / "config" / "prometheus" / "alerts.yml"
DASHBOARD = promql.REPOSITORY / "config" / "grafana" / "quash.json"
OF_PROMETHEUS = {"up": {"job", "instance"}}
DECLARED = promql.declared()


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in alerts())
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def test_a_running_system_exposes_every_metric_of_the_code(system: System) -> None:
    """So what the code declares may stand for it below: a metric without samples yet tells its name, not its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{system.ports['metrics']}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    exposed = {f"{each.name}_total" if each.type == "counter" else each.name: each for each in families}
    used = {promql.family(name, DECLARED) for e in expressions() for name in promql.read(e).metrics} - set(
        OF_PROMETHEUS
    )
    assert used - set(exposed) == set()
    for name in set(DECLARED) & set(exposed):
        for sample in exposed[name].samples:
            assert set(sample.labels) <= DECLARED[name] | promql.ADDED, name
            if not sample.name.endswith("_created"):
                assert set(sample.labels) >= DECLARED[name] - {"le"}, name
    counters = [each for each in families if each.type == "counter" and each.name.startswith("quash_")]
    counted = {f"{each.name}_created": _labels(each, f"{each.name}_total") for each in counters if each.samples}
    assert counted
    assert counted == {name: _labels(exposed[name], name) for name in counted}, "rules on events need them"


def _labels(family: Metric, name: str) -> set[frozenset[tuple[str, str]]]:
    return {frozenset(sample.labels.items()) for sample in family.samples if sample.name == name}


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_an_expression_names_metrics_labels_and_values_that_exist(expression: str) -> None:
    query = promql.read(expression)
    assert query.metrics
    known = {**DECLARED, **OF_PROMETHEUS}
    labels: set[str] = set()
    for name, matchers in query.metrics.items():
        family = promql.family(name, DECLARED)
        assert family in known, name
        own = known[family] | promql.ADDED
        assert set(matchers) <= own, name
        labels |= own
        for label, value in matchers.items():
            _assert_value(label, value)
    assert query.grouped <= labels


LITERALS = promql.literals() | {"quash"}  # the job


def _assert_value(label: str, value: str) -> None:
    if label == "le":
        assert float(value) in AGES
    else:
        assert set(value.split("|")) <= LITERALS, value


def test_a_process_that_runs_nowhere_is_noticed() -> None:
    """What is gone has no series to compare: each process has a rule that fires where there is nothing at all."""
    fire_on_nothing = [rule["expr"] for rule in alerts() if "vector(0)" in rule["expr"] or "absent(" in rule["expr"]]
    of_its_own = {
        "presigner": "quash_presign_leading",
        "crl-builder": "quash_crl_leading",
        "responder": "absent(quash_ocsp_cache_freshness)",
        "metrics": 'absent(up{job="quash"})',
    }
    for process in set(PROCESSES) - DEMO_ONLY:
        wanted = of_its_own.get(process, f'quash_process_up{{process="{process}"}}')
        assert any(wanted in each for each in fire_on_nothing), process


def test_an_alert_says_what_and_what_to_do() -> None:
    """Whoever is woken reads a sentence and a first step; what it fills in is a label of the result."""
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names) >= 30
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "do"}
        filled = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        query = promql.read(rule["expr"])
        assert filled <= (query.grouped or promql.ADDED), rule["alert"]


@pytest.mark.parametrize(
    "wrong", ["rate(quash_x[5m]", "median(quash_x)", "rate quash_x", "quash_x ! 3", "sum by (a) (rate{x})"]
)
def test_what_is_no_promql_is_noticed(wrong: str) -> None:
    with pytest.raises(ValueError):
        promql.read(wrong)
