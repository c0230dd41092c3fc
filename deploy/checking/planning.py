"""The tables of docs/operations.md that are calculated: they are what deploy/capacity.py says."""

import sys

from report import require
from tools import ROOT, Tools, run


def tables_are_what_the_script_says(_tools: Tools):
    """Word for word."""
    page = (ROOT / "docs/operations.md").read_text()
    spread, waits = run([sys.executable, str(ROOT / "deploy/capacity.py"), "--tables"]).strip().split("\n\n")
    faults = [f"docs/operations.md does not have this table:\n{table}" for table in (spread, waits) if table not in page]
    require(faults)


def plans_are_sound(_tools: Tools):
    """One Redis for little, several for much; where a tag belongs is told as Redis tells it."""
    script = [sys.executable, str(ROOT / "deploy/capacity.py"), "--redis", "800/s", "--texts"]
    little, much = run([*script, "5/m"]), run([*script, "2000/s"])
    faults = [] if "one Redis is enough" in little else [f"for 5 texts a minute: {little}"]
    faults += [] if "queue.shards = " in much else [f"for 2000 texts a second: {much}"]
    sys.path.insert(0, str(ROOT / "deploy"))
    import capacity

    # From the cluster's specification and its documentation.
    known = {"123456789": 0x31C3, "foo": 12182, "hello": 866}
    faults += [f"{tag} is in slot {found}" for tag, right in known.items() if (found := capacity.slot(tag)) != right]
    require(faults)


CHECKS = [
    ("plans of capacity are sound", plans_are_sound),
    ("tables of capacity are what is calculated", tables_are_what_the_script_says),
]
