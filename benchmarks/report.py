"""How long a hospital's privacy report takes: JSON, page and signed PDF, in a process forked as a hospital forks it.

    tessera demo --out FOLDER
    python benchmarks/report.py FOLDER/brca-1 --json

The home is copied first; nothing in it is changed. ``first_seconds`` and ``next_seconds`` are two reports in English
one after the other in one process, ``three_languages_seconds`` what a hospital writes after a study: all languages, in
a process of its own, from the request for it to its end. The warm process has imported everything before
(:mod:`datasites.report.rehearsal`); ``cold_seconds`` is the same without one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # where the forked process finds this file again

from datasites.hospital.reports import write_reports
from datasites.node.home import Home
from datasites.node.warm import Child, Warm, start_module
from privacy.errors import TesseraError


def ended(child: Child) -> None:
    """Wait for a process that reports; it would end with its standard input, which this one holds."""
    code = child.wait(300)
    if child.stdin is not None:
        child.stdin.close()
    if code:
        raise TesseraError(f"the report was not written (exit code {child.returncode})")


def measure(folder: Path) -> dict[str, float]:
    """Return what every kind of report of this home takes, in seconds."""
    found: dict[str, float] = {}
    place = str(folder)
    with Warm.start(["datasites.report.rehearsal:rehearse"]) as warm, tempfile.TemporaryFile() as told:
        ended(warm.run("report", [place, "--here"], output=told.fileno(), errors=False, folder=place))
        told.seek(0)
        found |= json.loads(told.read())
        began = time.perf_counter()
        ended(warm.run("datasites.hospital.reports", [place, ""], folder=place))
        found["three_languages_seconds"] = time.perf_counter() - began
    began = time.perf_counter()
    ended(start_module("datasites.hospital.reports", [place, ""], folder=place, pipe=True))
    return found | {"cold_seconds": time.perf_counter() - began}


def here(folder: Path) -> None:
    """Write two reports in this process and print what they took."""
    took = []
    for _ in range(2):
        began = time.perf_counter()
        write_reports(Home(folder=folder), ["en"])
        took.append(time.perf_counter() - began)
    print(json.dumps({"first_seconds": took[0], "next_seconds": took[1]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path, help="a hospital's folder, of a demo for example")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        here(arguments.home)
        return
    if not (arguments.home / "ledger.sqlite").exists():
        sys.exit(f"error: expected a hospital's folder, got {arguments.home}; run tessera demo --out FOLDER first")
    with tempfile.TemporaryDirectory(prefix="tessera-report-") as made:
        folder = Path(made) / arguments.home.name
        shutil.copytree(arguments.home, folder)
        found = {name: round(seconds, 3) for name, seconds in measure(folder).items()}
    found["load"] = round(os.getloadavg()[0], 2)
    print(json.dumps(found) if arguments.json else "\n".join(f"{name:26} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
