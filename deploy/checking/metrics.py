"""Names and labels of metrics: those that are served, and those that an expression uses.

Served is what the README's table lists; a test of the program holds that table to the real thing.
"""

import pathlib
import re

import promql_parser

from report import Failed
from tools import ROOT

PREFIX = "sms_broadcaster_"
TABLE = re.compile(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|", re.MULTILINE)
# What Prometheus itself and its scrapes add.
ADDED_LABELS = {"job", "instance"}
ADDED_METRICS = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}


def served() -> dict[str, set[str]]:
    """Labels of every series that the programs serve, histograms by their three parts."""
    series = {}
    for name, kind, labels in TABLE.findall((ROOT / "README.md").read_text()):
        labels = set(re.findall(r"`(\w+)`", labels))
        if kind == "histogram":
            series |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
        else:
            series[name] = labels
    if not series:
        raise Failed("the README has no table of metrics")
    return {PREFIX + name: labels for name, labels in series.items()}


def selectors(expression: str):
    """Every (metric, labels it is selected by) of an expression; fails where it cannot be parsed."""
    try:
        tree = promql_parser.parse(expression)
    except ValueError as error:
        raise Failed(f"{expression}: {error}") from error
    found = []
    walk(tree, found)
    return found


def walk(node, found: list) -> None:
    """Visits every part of a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        found.append((node.name, {matcher.name for matcher in node.matchers.matchers}))
    for field in ("expr", "lhs", "rhs", "param", "vector_selector"):
        part = getattr(node, field, None)
        if part is not None and not isinstance(part, (str, int, float)):
            walk(part, found)
    for part in getattr(node, "args", None) or []:
        walk(part, found)


def unknown(expression: str, known: dict[str, set[str]], where: str) -> list[str]:
    """What an expression asks for that nobody serves."""
    faults = []
    for name, labels in selectors(expression):
        if name not in known:
            faults.append(f"{where}: no such metric: {name}")
            continue
        # A recorded series has the labels its rule keeps, which are not told here.
        if known[name] is not None:
            faults += [f"{where}: {name} has no label {label}" for label in labels - known[name] - ADDED_LABELS]
    return faults


def relative(path: pathlib.Path) -> str:
    """A path as a reader of the repository knows it."""
    return str(path.relative_to(ROOT))
