"""The dashboard and the alert rules name nothing that a running server does not export."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from tests.http_server import call
from tests.served import linear_bundle

from tidegate.cloud.http import HttpSettings
from tidegate.cloud.outside import OutsideSettings
from tidegate.cloud.server import Server, ServerSettings

MONITORING = Path("examples/monitoring")
METRIC = re.compile(r"\b(?:tidegate|process)_[a-z_]+\b")
DOCUMENT = Path("docs/monitoring.md")


def exported(tmp_path: Path) -> set[str]:
    """Every name that a sample can have."""
    settings = ServerSettings(outside=OutsideSettings(http=HttpSettings(metrics_listen="127.0.0.1:0")))
    with Server([linear_bundle(tmp_path)], settings=settings) as server:
        text = call(server.metrics_address, "GET", "/metrics").body.decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    return set(kinds) | {
        f"{name}{end}" for name, kind in kinds.items() if kind == "histogram" for end in ("_bucket", "_sum", "_count")
    }


def test_every_metric_of_dashboard_and_rules_is_exported_and_every_export_documented(tmp_path: Path) -> None:
    names = exported(tmp_path)
    dashboard = json.loads((MONITORING / "tidegate-dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [variable["query"]["query"] for variable in dashboard["templating"]["list"][1:]]
    groups = yaml.safe_load((MONITORING / "tidegate.rules.yml").read_text())["groups"]
    rules = [rule["expr"] for group in groups for rule in group["rules"]]
    assert len(queries) > 20
    assert len(rules) > 8
    used = {name for text in (*queries, *rules) for name in METRIC.findall(text)}
    assert used <= names
    documented = set(METRIC.findall(DOCUMENT.read_text()))
    assert {name for name in names if not name.endswith(("_bucket", "_sum", "_count"))} <= documented
    assert documented <= names


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    groups = yaml.safe_load((MONITORING / "tidegate.rules.yml").read_text())["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    assert len({alert["alert"] for alert in alerts}) == len(alerts)
    for alert in alerts:
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["action"]
        assert alert["labels"]["severity"] in ("page", "ticket")


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = json.loads((MONITORING / "tidegate-dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
