"""The dashboard and the alerts speak of metrics that there are, with labels that these have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.metrics import MAX_LABELS, OTHER, LabelSet, Metrics
from resolvers.system import installation_families

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "operations"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
NAME = re.compile(r"\b(?:switchyard|process)_[a-z0-9_]+")


def known_names() -> set[str]:
    families = [*Metrics().registry.collect(), *installation_families(None)]
    return {family.name + suffix for family in families for suffix in SUFFIXES[family.type]}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    return found


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def expressions() -> list[str]:
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())]
    return panels + [rule["expr"] for rule in alerts()]


@pytest.mark.parametrize("expression", expressions())
def test_expressions_use_metrics_that_there_are(expression: str) -> None:
    names = set(NAME.findall(re.sub(r'"[^"]*"', '""', expression)))
    assert names, "an expression of no metric"
    assert names <= known_names()
    assert expression.count("(") == expression.count(")")


def test_every_metric_of_ours_is_on_the_dashboard_or_in_an_alert() -> None:
    shown = {name for expression in expressions() for name in NAME.findall(expression)}
    families = [*Metrics().registry.collect(), *installation_families(None)]
    hidden = {
        family.name
        for family in families
        if family.name.startswith("switchyard_") and not any(name.startswith(family.name) for name in shown)
    }
    # What tells the version, and counts that only tests and the curious compare.
    assert hidden == {
        "switchyard_http_request_duration_seconds",
        "switchyard_executions_started",
        "switchyard_log_bytes",
        "switchyard_sweeps",
        "switchyard_system_samples",
    }


def test_the_dashboard_can_be_imported() -> None:
    board = dashboard()
    assert [variable["type"] for variable in board["templating"]["list"]] == ["datasource", "query"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    assert board["id" if "id" in board else "uid"] == "switchyard", "an id would overwrite somebody's dashboard"
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert rows == ["API", "Executions", "Workers", "Streams", "Database and what else it leans on"]
    places = [tuple(panel["gridPos"][side] for side in "xy") for panel in board["panels"]]
    assert len(places) == len(set(places)), "panels on top of each other"


def test_every_alert_is_explained() -> None:
    page = (FOLDER.parent / "operations.md").read_text()
    for rule in alerts():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]
        assert f"`{rule['alert']}`" in page


def test_every_metric_has_a_name_by_the_conventions_and_help() -> None:
    for family in [*Metrics().registry.collect(), *installation_families(None)]:
        assert family.documentation.endswith("."), family.name
        assert re.fullmatch(r"(switchyard|process)_[a-z0-9_]+", family.name)
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_labels_are_bounded() -> None:
    labels = LabelSet()
    assert {labels.admit(str(number)) for number in range(1_000)} == {*map(str, range(MAX_LABELS)), OTHER}
    assert labels.admit("0") == "0"


def test_one_process_does_not_count_for_another() -> None:
    first, second = Metrics(), Metrics()
    first.count_operation("me", "query", "OK", 0.1)
    labels = {"operation": "me", "type": "query", "code": "OK"}
    assert first.registry.get_sample_value("switchyard_graphql_operations_total", labels) == 1
    assert second.registry.get_sample_value("switchyard_graphql_operations_total", labels) is None
