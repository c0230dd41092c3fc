"""The checks of deploy/: which there are, in what order, and what is said at the end.

A check that cannot run says why and is counted as skipped; `--strict` makes that a failure.
"""

import argparse
import importlib
import sys
import time

from report import Failed, Skipped
from tools import ROOT, Tools

# Modules of checks, in order; each has CHECKS, a list of (name, function of Tools).
STATIC = ["containers", "systemd", "kubernetes", "monitoring", "dashboards", "planning"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy/check", description="Checks everything under deploy/.")
    parser.add_argument("--strict", action="store_true", help="a check that cannot run is a failure")
    parser.add_argument("--offline", action="store_true", help="install nothing: use the tools that are there")
    parser.add_argument("--stack", action="store_true", help="bring the whole stack up and put it through its faults instead")
    parser.add_argument("--containers", action="store_true", help="with --stack: by Compose, in an engine of its own (as root)")
    parser.add_argument("--generate", action="store_true", help="write the files that are made from others")
    arguments = parser.parse_args()
    tools = Tools(offline=arguments.offline)
    tools.enter_python()
    if arguments.generate:
        importlib.import_module("kubernetes").generate()
        return 0
    modules = STATIC
    if arguments.stack:
        modules = ["containers_stack" if arguments.containers else "stack"]
    return run(modules, tools, arguments.strict)


def run(modules: list[str], tools: Tools, strict: bool) -> int:
    passed, failed, skipped = 0, 0, []
    for module in modules:
        try:
            checks = importlib.import_module(module).CHECKS
        except ModuleNotFoundError as missing:
            print(f"SKIPPED  {module}: needs the Python package {missing.name}")
            skipped.append(module)
            continue
        for name, check in checks:
            began = time.monotonic()
            try:
                said = check(tools) or ""
                passed += 1
                print(f"ok       {name} ({time.monotonic() - began:.1f} s){said and ': ' + said}")
            except Skipped as why:
                skipped.append(name)
                print(f"SKIPPED  {name}: {why}")
            except Failed as what:
                failed += 1
                print(f"FAILED   {name}\n" + "\n".join(f"           {line}" for line in str(what).splitlines()))
            sys.stdout.flush()
    print(f"deploy: {passed} passed, {failed} failed, {len(skipped)} skipped")
    if skipped:
        print(f"deploy: NOT CHECKED HERE: {', '.join(skipped)}")
    return 1 if failed or (strict and skipped) else 0


if __name__ == "__main__":
    sys.exit(main())
