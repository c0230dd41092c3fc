"""Grafana's dashboards: what Grafana takes, what a reader needs, and that every query asks for what there is."""

import functools
import json
import re

import yaml

import metrics
from kubernetes import lost
from monitoring import rules
from report import Failed, require
from tools import ROOT, Tools

FOLDER = ROOT / "deploy/grafana/dashboards"
NAMES = ["delivery", "ingress", "queue"]
# The model knows the annotations of Grafana itself; these are the Prometheus data source's own.
OF_PROMETHEUS = {"titleFormat", "textFormat", "step", "useValueForTime"}
# What a query may say beside PromQL, and what stands for it while it is checked.
VARIABLES = {"$__rate_interval": "1m", "$__range": "1h", "$channel": ".*", "$instance": ".*", "$source": ".*"}


@functools.cache
def dashboard(name: str) -> dict:
    """One dashboard."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def queries():
    """Every query: where it stands, and its text."""
    for name in NAMES:
        for panel in dashboard(name)["panels"]:
            for target in panel.get("targets", []):
                yield f"{name}: {panel['title']} {target['refId']}", target["expr"]
        for annotation in dashboard(name)["annotations"]["list"]:
            yield f"{name}: annotation {annotation['name']}", annotation["expr"]


def resolved(query: str, **values: str) -> str:
    """A query as Prometheus gets it."""
    for variable, value in (VARIABLES | values).items():
        query = query.replace(variable, value)
    return query


def grafana_knows_every_field(_tools: Tools):
    """Through Grafana's own model and back, nothing is lost."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    faults = []
    for name in NAMES:
        given = dashboard(name)
        kept = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(given)))
        for field in lost(given, kept):
            if not (field.startswith(".annotations.list") and field.rsplit(".", 1)[1] in OF_PROMETHEUS):
                faults.append(f"{name}: unknown field {field}")
    require(faults)


def readers_have_what_they_need(_tools: Tools):
    """A fixed uid, a data source of the reader's choice, titles, explanations, units, annotations, links."""
    faults, uids = [], set()
    for name in NAMES:
        board = dashboard(name)
        uids.add(board["uid"])
        if board["uid"] != f"sms-broadcaster-{name}" or board.get("id") is not None or board["editable"]:
            faults.append(f"{name}: wrong uid, an id, or editable")
        variables = {variable["name"]: variable for variable in board["templating"]["list"]}
        if variables["datasource"]["type"] != "datasource":
            faults.append(f"{name}: the data source cannot be chosen")
        for variable in variables.values():
            if variable["type"] == "query" and (variable["allValue"] != ".*" or variable["refresh"] != 2):
                faults.append(f"{name}: {variable['name']} has no \"all\" or is not kept fresh")
        if not {"Starts and deploys", "Subscribers reloaded"} <= {note["name"] for note in board["annotations"]["list"]}:
            faults.append(f"{name}: no annotations of deploys and reloads")
        taken, ids = set(), set()
        for panel in board["panels"]:
            where = f"{name}: {panel['title']}"
            place = panel["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            if panel["id"] in ids or taken & cells or place["x"] + place["w"] > 24:
                faults.append(f"{where}: overlaps, or its id is taken")
            ids.add(panel["id"])
            taken |= cells
            if panel["type"] == "row":
                continue
            if not panel.get("description") or not panel["fieldConfig"]["defaults"].get("unit"):
                faults.append(f"{where}: no description or no unit")
            for target in panel["targets"]:
                if target["datasource"]["uid"] != "${datasource}" or not target["legendFormat"]:
                    faults.append(f"{where}: a fixed data source, or no legend")
                fixed = re.findall(r"(?:rate|increase)\([^()]*\[(\w+)\]\)", target["expr"])
                if [window for window in fixed if window != "1h"]:
                    faults.append(f"{where}: rate over a fixed window")
            for link in panel["links"]:
                page = link["url"].removeprefix("${runbooks}/")
                if not (ROOT / "docs/runbooks" / page).is_file():
                    faults.append(f"{where}: no runbook {page}")
        linked = {link["title"].removeprefix("Runbook ") for panel in board["panels"] for link in panel.get("links", [])}
        if not linked:
            faults.append(f"{name}: no link to a runbook")
    require(faults + ([] if len(uids) == len(NAMES) else ["two dashboards have the same uid"]))


def every_query_asks_for_what_there_is(_tools: Tools):
    """Names and labels are those that are served or recorded."""
    known = metrics.served() | metrics.ADDED_METRICS
    known |= {rule["record"]: None for _, rule in rules("record")}
    faults, count = [], 0
    for where, query in queries():
        count += 1
        try:
            faults += metrics.unknown(resolved(query), known, where)
        except Failed as fault:
            faults.append(f"{where}: {fault}")
    require(faults)
    return f"{count} queries"


def every_metric_is_looked_at(_tools: Tools):
    """What is served is on a dashboard or in a rule: nobody counts for nothing."""
    expressions = [resolved(query) for _, query in queries()]
    expressions += [rule["expr"] for kind in ("alert", "record") for _, rule in rules(kind)]
    used = {name for expression in expressions for name, _ in metrics.selectors(expression)}
    used = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    served = {re.sub(r"_(bucket|sum|count)$", "", name) for name in metrics.served()}
    require([f"{name} is on no dashboard and in no rule" for name in sorted(served - used)])


def provisioning_is_complete(_tools: Tools):
    """Grafana finds the data source and the dashboards by itself."""
    folder = ROOT / "deploy/grafana/provisioning"
    source = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())["datasources"][0]
    scrape = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]
    faults = []
    if source["type"] != "prometheus" or source["jsonData"]["timeInterval"] != scrape:
        faults.append("the data source does not know the scrape interval")
    provider = yaml.safe_load((folder / "dashboards/sms-broadcaster.yml").read_text())["providers"][0]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]
    path = provider["options"]["path"]
    if f"./deploy/grafana/dashboards:{path}:ro" not in compose["volumes"]:
        faults.append("the dashboards are not where Grafana looks for them")
    require(faults)


CHECKS = [
    ("Grafana knows every field of the dashboards", grafana_knows_every_field),
    ("dashboards have what a reader needs", readers_have_what_they_need),
    ("every query asks for what there is", every_query_asks_for_what_there_is),
    ("every metric is looked at", every_metric_is_looked_at),
    ("Grafana's provisioning is complete", provisioning_is_complete),
]
