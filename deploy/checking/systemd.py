"""The units for a machine without containers."""

import pathlib
import re
import subprocess
import tempfile

from report import Failed, require
from tools import ROOT, Tools, run

UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
# Of ten; below two is what systemd calls OK.
EXPOSURE = 2.0


def units_are_understood(tools: Tools):
    """systemd finds no fault in them."""
    analyze = tools.program("systemd-analyze")
    with tempfile.TemporaryDirectory(prefix="sms-broadcaster-units-") as name:
        # A root of its own: the programs need not be installed here.
        root = pathlib.Path(name)
        units = root / "etc/systemd/system"
        units.mkdir(parents=True)
        for target in ("sysinit", "basic", "shutdown", "network-online", "multi-user"):
            (units / f"{target}.target").write_text("[Unit]\nDescription=a stand-in\n")
        names = []
        for unit in UNITS:
            text = unit.read_text()
            for program in re.findall(r"^Exec\w+=(\S+)", text, re.MULTILINE):
                (root / program[1:]).parent.mkdir(parents=True, exist_ok=True)
                (root / program[1:]).touch(mode=0o755)
            (units / unit.name).write_text(text)
            names.append(unit.name.replace("@.", "@1."))
        done = subprocess.run([analyze, "verify", f"--root={root}", *names], capture_output=True, text=True)
        said = [line for line in (done.stdout + done.stderr).splitlines() if ".target" not in line]
        if done.returncode != 0 or said:
            raise Failed("\n".join(said) or f"exit code {done.returncode}: {done.stderr}")


def units_are_hardened(tools: Tools):
    """What a unit could still reach is little, as systemd counts it."""
    analyze, faults = tools.program("systemd-analyze"), []
    for unit in UNITS:
        said = run([analyze, "security", "--offline=true", "--no-pager", str(unit)])
        found = re.search(r"Overall exposure level for .*: ([\d.]+)", said)
        if not found or float(found[1]) > EXPOSURE:
            faults.append(f"{unit.name}: exposed by {found[1] if found else 'an unknown amount'} of 10")
        text = unit.read_text()
        stop = re.search(r"^TimeoutStopSec=(\d+)s$", text, re.MULTILINE)
        if not stop or int(stop[1]) < 30:
            faults.append(f"{unit.name}: killed before its drain is over")
    require(faults)


CHECKS = [
    ("systemd understands the units", units_are_understood),
    ("the units are hardened", units_are_hardened),
]
