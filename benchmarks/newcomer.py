"""How long a newcomer waits for the machine from ``tessera demo --manual`` to "approved"; reading is left out.

The demo starts, and Chromium does what the demo's guide says without a pause: open the link, make an account, open the
request, run the code on the mock, sign. What is left is the machine's own time. Needs playwright and chromium.

    python benchmarks/newcomer.py --sites 9 --json

Target: under two minutes on a machine that does nothing else. On a busy one the processor time of all roles, divided by
the cores, says how long it would take.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

CHROMIUM = "/usr/bin/chromium"
TARGET_SECONDS = 120.0
_SENTENCE = "the river is cold in march"
_LINK = re.compile(r"http://\S+/register\?token=\S+")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=600.0, help="after which the measurement is given up")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tessera-newcomer-") as folder:
        found = measure(Path(folder) / "demo", arguments)
    print(json.dumps(found) if arguments.json else "\n".join(f"{key}: {value}" for key, value in found.items()))
    if not found["ok"]:
        raise SystemExit(1)


def measure(out: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Start the demo and approve in a browser; return when each step was done, in seconds from the start."""
    began, load = time.monotonic(), os.getloadavg()[0]
    command = ["demo", "--manual", "--sites", str(arguments.sites), "--rounds", "2", "--out", str(out)]
    child = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.main", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        link = wait_for_link(child, began + arguments.seconds)
        steps = {"link": time.monotonic() - began, **approve(link, began, arguments.seconds)}
        used = cpu_seconds(child.pid)
    finally:
        child.terminate()
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    return {
        "sites": arguments.sites,
        "cores": os.cpu_count(),
        "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1),
        **{f"{name}_seconds": round(seconds, 1) for name, seconds in steps.items()},
        "cpu_seconds_of_all_roles": round(used, 1),
        "ok": steps["approved"] < TARGET_SECONDS,
    }


def cpu_seconds(root: int) -> float:
    """Return the processor time that a process and all below it have used so far, as Linux counts it."""
    ticks: dict[int, int] = {}
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        pid = int(path.parent.name)
        parents[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))
    family, grown = {root}, True
    while grown:
        grown = False
        for pid, parent in parents.items():
            if parent in family and pid not in family:
                family.add(pid)
                grown = True
    return sum(ticks[pid] for pid in family if pid in ticks) / os.sysconf("SC_CLK_TCK")


def wait_for_link(child: subprocess.Popen[bytes], deadline: float) -> str:
    """Return the link that the demo prints for the newcomer."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in child.stderr or ():
            lines.put(line.decode(errors="replace"))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    said = []
    while time.monotonic() < deadline:
        try:
            line = lines.get(timeout=1.0)
        except queue.Empty:
            continue
        if line is None:
            break
        said.append(line)
        if found := _LINK.search(line):
            return found.group(0)
    raise SystemExit("the demo printed no link:\n" + "".join(said)[-2000:])


def approve(link: str, began: float, seconds: float) -> dict[str, float]:
    """Do in Chromium what the guide says; return the seconds at which each step was done."""
    from playwright.sync_api import sync_playwright

    steps = {}
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"])
        page = browser.new_context().new_page()
        page.set_default_timeout(1000 * seconds)
        page.goto(link)
        page.locator("#name").fill("anna")
        page.get_by_label("Password").fill(_SENTENCE)
        page.get_by_role("button", name="Make the account").click()
        page.get_by_role("heading", name="Inbox").wait_for()
        steps["account"] = time.monotonic() - began
        while not page.get_by_role("link", name="cancer-staging").count():
            page.wait_for_timeout(250)
            page.reload()
        steps["request"] = time.monotonic() - began
        page.get_by_role("link", name="cancer-staging").click()
        page.get_by_role("button", name="Run it").click()
        page.get_by_text("What would leave in a round").wait_for()
        steps["tried_on_mock"] = time.monotonic() - began
        page.get_by_label("Your password").fill(_SENTENCE)
        page.get_by_role("button", name="Sign and approve").click()
        page.get_by_text("Signed with your key.").wait_for()
        steps["approved"] = time.monotonic() - began
        browser.close()
    return steps


if __name__ == "__main__":
    main()
