"""Prometheus and Alertmanager: their files, their rules and the tests of these, and the pages they lead to."""

import concurrent.futures
import re

import yaml

import metrics
from report import Failed, require
from tools import ROOT, Tools, run

PROMETHEUS = ROOT / "deploy/prometheus"
RULES = PROMETHEUS / "rules"
RUNBOOKS = ROOT / "docs/runbooks"
SEVERITIES = {"page", "ticket", "none"}
# What looks at one group of series and holds as long as they are there; these can have no quiet case.
ALWAYS = {"SmsBroadcasterWatchdog"}


def rules(kind: str):
    """Every rule of a kind (`alert` or `record`) with its file."""
    for file in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                if kind in rule:
                    yield metrics.relative(file), rule


def configurations(tools: Tools):
    """The files are what the programs take."""
    # Where the files will be is known to the container alone.
    text = (PROMETHEUS / "prometheus.yml").read_text().replace("/etc/prometheus/rules", str(RULES))
    copy = tools.cache / "prometheus.yml"
    copy.write_text(text)
    run([tools.program("promtool"), "check", "config", str(copy)])
    run([tools.program("amtool"), "check-config", str(PROMETHEUS / "alertmanager.yml")])


def rules_are_sound(tools: Tools):
    """promtool finds no fault and no lint."""
    files = [str(file) for file in sorted(RULES.glob("*.yml"))]
    run([tools.program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *files])


def rules_pass_their_tests(tools: Tools):
    """Every test of every rule."""
    promtool = tools.program("promtool")
    files = sorted((RULES / "tests").glob("*.yml"))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda file: run([promtool, "test", "rules", str(file)]), files))
    return f"{len(files)} files"


def every_alert_is_tested(_tools: Tools):
    """Each alert has a case in which it fires and one in which it does not."""
    fires, quiet = set(), set()
    for file in (RULES / "tests").glob("*.yml"):
        for test in yaml.safe_load(file.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                (fires if case["exp_alerts"] else quiet).add(case["alertname"])
    alerts = {rule["alert"] for _, rule in rules("alert")}
    faults = [f"{alert} has no test in which it fires" for alert in sorted(alerts - fires)]
    faults += [f"{alert} has no test in which it is quiet" for alert in sorted(alerts - quiet - ALWAYS)]
    require(faults + [f"a test names {alert}, which is none" for alert in sorted((fires | quiet) - alerts)])
    return f"{len(alerts)} alerts"


def every_alert_says_what_to_do(_tools: Tools):
    """Each alert has a severity, a text, a dashboard and a page; each page has an alert."""
    faults, dashboards = [], {file.stem for file in (ROOT / "deploy/grafana/dashboards").glob("*.json")}
    alerts = set()
    for file, rule in rules("alert"):
        name, notes = rule["alert"], rule.get("annotations", {})
        alerts.add(name)
        if rule.get("labels", {}).get("severity") not in SEVERITIES:
            faults.append(f"{file}: {name} has no severity of {sorted(SEVERITIES)}")
        for note in ("summary", "description"):
            if not notes.get(note):
                faults.append(f"{file}: {name} has no {note}")
        page = f"docs/runbooks/{name}.md"
        if notes.get("runbook") != page or not (ROOT / page).is_file():
            faults.append(f"{file}: {name} does not lead to its page {page}")
        if dashboards and notes.get("dashboard", "").removeprefix("sms-broadcaster-") not in dashboards:
            faults.append(f"{file}: {name} leads to no dashboard")
    for page in RUNBOOKS.glob("*.md"):
        text = page.read_text()
        if page.stem not in alerts:
            faults.append(f"{metrics.relative(page)}: there is no such alert")
        missing = [part for part in ("What it means", "What to look at", "What to do") if f"## {part}\n" not in text]
        faults += [f"{metrics.relative(page)}: no section \"{part}\"" for part in missing]
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            if not (page.parent / link).is_file():
                faults.append(f"{metrics.relative(page)}: broken link {link}")
    require(faults)


def inhibitions_name_alerts_that_exist(_tools: Tools):
    """Alertmanager's rules are about alerts there are."""
    alerts = {rule["alert"] for _, rule in rules("alert")}
    text = (PROMETHEUS / "alertmanager.yml").read_text()
    faults = []
    for name, group in re.findall(r'alertname =~? "?(SmsBroadcaster\w*)(?:\(([\w|]+)\))?', text):
        for end in (group or "").split("|"):
            if name + end not in alerts:
                faults.append(f"alertmanager.yml: there is no alert {name + end}")
    require(faults)


def every_metric_of_a_rule_is_served(_tools: Tools):
    """Names and labels in expressions are those the programs serve, or a rule records."""
    known = metrics.served() | metrics.ADDED_METRICS
    known |= {rule["record"]: None for _, rule in rules("record")}
    faults = []
    for kind in ("record", "alert"):
        for file, rule in rules(kind):
            try:
                faults += metrics.unknown(rule["expr"], known, f"{file}: {rule[kind]}")
            except Failed as fault:
                faults.append(f"{file}: {fault}")
    used = {name for kind in ("record", "alert") for _, rule in rules(kind) for name, _ in metrics.selectors(rule["expr"])}
    require(faults)
    return f"{len(used)} names"


CHECKS = [
    ("Prometheus and Alertmanager take their configurations", configurations),
    ("rules are sound", rules_are_sound),
    ("rules pass their tests", rules_pass_their_tests),
    ("every alert is tested, firing and quiet", every_alert_is_tested),
    ("every alert says what to do", every_alert_says_what_to_do),
    ("inhibitions name alerts that exist", inhibitions_name_alerts_that_exist),
    ("every metric of a rule is served", every_metric_of_a_rule_is_served),
]
