"""What a growing network costs its orchestrator: many hospitals in a round, or many studies in the list.

    python benchmarks/scale.py --sites 9,50,120,200 --parameters 2000 --json
    python benchmarks/scale.py --studies 100 --rounds 500 --json

Rounds: orchestrator and keyholder are the product's own processes; hospitals are the product's own round participants
in threads of this process, with trainers that send at once. ``orchestrator_cpu_seconds_per_round`` is the processor
time of the orchestrator and its summing process from the first to the last finished round, ``health_p99_seconds`` what
a stranger waits for ``/healthz`` meanwhile, ``peak_mb`` the orchestrator's largest resident size. ``kept_mb_*`` are
bytes on disk: of the orchestrator and of the largest hospital, how much a round adds (from the second round to the
last), and what that makes of 500 rounds. The orchestrator deletes files by rule above a limit (``KEPT_BYTES``); ask
for so many ``--rounds`` that it passes it, and the first figure shows it.

Studies: a store of finished studies of 40 hospitals is written as rounds would leave it; ``status_seconds`` is
``tessera status`` as a person runs it (the second time; ``first_status_seconds`` reads everything for the first time).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parent))

from harness.consortium import POLL_SECONDS, Consortium

from datasites.node.process import own_module
from datasites.study.signing import seal
from orchestrator.rounds.keeping.tidying import KEPT_BYTES
from orchestrator.rounds.store import _DOCUMENTS, Store
from privacy.errors import TesseraError

_NETWORK = 40
_ROUNDS_KEPT = 500


class Health:
    """A process of its own that asks ``/healthz`` every 250 ms, so that what this one does holds no answer up."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, __file__, "--watch", url]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._process.stdout is None or self._process.stdout.readline() != "ready\n":
            raise TesseraError("the process that asks for the health did not start")

    def start(self) -> None:
        """Begin to count."""
        self._say("start")

    def p99(self) -> float:
        """Stop, and return the time in seconds that 99 of 100 answers stayed below."""
        self._say("stop")
        seconds, _ = self._process.communicate(timeout=60)
        return float(seconds)

    def _say(self, word: str) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()


def watch_health(url: str) -> None:
    """Be the process of :class:`Health`: count from the first line of standard input to the second."""
    seconds, stopped = list[float](), threading.Event()
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        client.get("/healthz").raise_for_status()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        threading.Thread(target=lambda: (sys.stdin.readline(), stopped.set()), daemon=True).start()
        while not stopped.wait(0.25):
            started = time.perf_counter()
            client.get("/healthz").raise_for_status()
            seconds.append(time.perf_counter() - started)
    found = sorted(seconds) or [float("nan")]
    sys.stdout.write(f"{found[min(len(found) - 1, int(0.99 * len(found)))]}\n")


def processor_seconds(process: psutil.Process) -> float:
    """Return the processor time of a process and its children, those that have ended included.

    The summing process ends with its study: what it spent is then in the parent's own record of ended children.
    """
    found = sum(process.cpu_times()[:4])
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile: at most the last instant is not counted
            found += sum(child.cpu_times()[:4])
    return float(found)


def rounds_of(folder: Path, sites: int, parameters: int, rounds: int) -> dict[str, Any]:
    """Run one study of so many hospitals; the first round warms up and is not counted."""
    with Consortium(folder, sites=sites) as consortium:
        consortium.start()
        process = psutil.Process(consortium.pid("orchestrator"))
        consortium.propose("scale", length=parameters, rounds=rounds + 1, min_sites=3, deadline_seconds=600)
        health = Health(consortium.url)
        with consortium.working(wait=POLL_SECONDS):  # as a datasite's own loop asks
            _reached(consortium, 1)
            before, started = processor_seconds(process), time.monotonic()
            health.start()
            _reached(consortium, min(2, rounds))
            early = Kept.of(consortium)
            _reached(consortium, rounds + 1)
            spent, wall = processor_seconds(process) - before, time.monotonic() - started
            slowest = health.p99()
        status = consortium.status("scale")
        peak, late = _peak_mb(process), Kept.of(consortium)
    sums = [len(checkpoint["sites"]) for checkpoint in status["checkpoints"]]
    return {
        "sites": sites,
        "parameters": parameters,
        "in_sum": min(sums),
        "rounds": rounds,
        "orchestrator_cpu_seconds_per_round": round(spent / rounds, 3),
        "orchestrator_cpu_seconds_per_round_and_site": round(spent / rounds / sites, 5),
        "seconds_per_round": round(wall / rounds, 3),
        "health_p99_seconds": round(slowest, 3),
        "peak_mb": peak,
        **late.figures(early, rounds=rounds + 1 - min(2, rounds), at=rounds + 1),
    }


@dataclass(frozen=True)
class Kept:
    """Bytes on disk: of the orchestrator's blobs and updates, of everything else of it, and of the largest hospital."""

    files: int
    rest: int
    site: int

    @classmethod
    def of(cls, consortium: Consortium) -> Kept:
        """Measure a consortium as it is now."""
        folder = consortium.homes["orchestrator"].folder
        store = folder / "store"
        files = sum(_bytes_below(store / name) for name in ("blobs", "updates"))
        sites = [_bytes_below(consortium.homes[name].folder) for name in consortium.names]
        return cls(files=files, rest=_bytes_below(folder) - files, site=max(sites))

    def figures(self, early: Kept, *, rounds: int, at: int) -> dict[str, float]:
        """Return what is printed of this, after round ``at`` and so many ``rounds`` after ``early``."""
        files, rest, site = (
            max(0.0, (now - then) / rounds)
            for now, then in ((self.files, early.files), (self.rest, early.rest), (self.site, early.site))
        )
        left = max(0, _ROUNDS_KEPT - at)
        most = max(self.files, KEPT_BYTES + 3 * files)
        found = {
            "orchestrator": self.files + self.rest,
            "orchestrator_per_round": files + rest,
            "orchestrator_500_rounds": min(self.files + left * files, most) + self.rest + left * rest,
            "site": self.site,
            "site_per_round": site,
            "site_500_rounds": self.site + left * site,
        }
        return {f"kept_mb_{name}": round(value / 1e6, 2) for name, value in found.items()}


def _bytes_below(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                total += (Path(place) / name).stat().st_size
    return total


def _reached(consortium: Consortium, rounds: int) -> None:
    """Wait until so many rounds are over, by the orchestrator's journal: asking it would cost what is measured."""
    journal, deadline = consortium.journal(), time.monotonic() + 3600
    while sum(1 for _ in journal.entries(kind="round-finished")) < rounds:
        ended = next(journal.entries(kind="study-paused"), None)
        if ended is not None or time.monotonic() > deadline:
            raise TesseraError(f"expected {rounds} rounds: {ended.body['reason'] if ended else 'they take too long'}")
        time.sleep(0.1)
    journal.close()


def _peak_mb(process: psutil.Process) -> int:
    for line in Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    return 0


def studies_of(folder: Path, studies: int, rounds: int) -> dict[str, Any]:
    """Write so many finished studies into an orchestrator's store and look at the list."""
    with Consortium(folder, sites=_NETWORK) as consortium:
        home = consortium.homes["orchestrator"]
        store = Store(home.folder / "store")
        for number in range(studies):
            _write_study(store, consortium, f"study-{number:03}", rounds)
        store.close()
        consortium.start(keyholder=False, hospitals=False)
        health = Health(consortium.url)
        health.start()
        command = own_module("orchestrator.cli.main", "status", "--home", str(home.folder), "--once", "--json")
        seconds, cpu, shown = list[float](), list[float](), b""
        for _ in range(4):
            started, spent = time.monotonic(), sum(os.times()[2:4])
            shown = subprocess.run(command, check=False, capture_output=True).stdout  # the first one may be too early
            seconds.append(time.monotonic() - started)
            cpu.append(sum(os.times()[2:4]) - spent)
        slowest = health.p99()
        body = len(json.dumps(consortium.client.get_json("/studies")))
        peak = _peak_mb(psutil.Process(consortium.pid("orchestrator")))
    last = json.loads(shown.splitlines()[-1])
    found = last["studies"]
    if last["problem"]:
        raise TesseraError(last["problem"])
    return {
        "studies": len(found),
        "rounds": rounds,
        "sites": _NETWORK,
        "rounds_completed": min(line["rounds_completed"] for line in found),
        "first_status_seconds": round(seconds[0], 3),
        "status_seconds": round(min(seconds[1:]), 3),
        "status_cpu_seconds": round(min(cpu[1:]), 3),
        "list_bytes": body,
        "health_p99_seconds": round(slowest, 3),
        "peak_mb": peak,
    }


def _write_study(store: Store, consortium: Consortium, name: str, rounds: int) -> None:
    proposal = consortium.proposal(name, length=2000, rounds=rounds)
    store.add_study(name, seal(consortium.identity, "proposal", proposal))
    checkpoint = {
        "model_hash": "0" * 64,
        "moments_hash": "0" * 64,
        "sites": consortium.names,
        "weights": {"shared": dict.fromkeys(consortium.names, 1.0)},
        "seconds": 1.5,
        "uplink_bytes": 40 * 20_000,
    }
    place = {"study": name, "kind": "checkpoint", "closing": 0, "author": "", "document": json.dumps(checkpoint)}
    with store._engine.begin() as connection:  # in one go: what is measured is reading
        connection.execute(_DOCUMENTS.insert(), [{**place, "round": number} for number in range(1, rounds + 1)])
    store.set_state(name, "finished")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", default="9,50", help="numbers of hospitals, with commas between")
    parser.add_argument("--parameters", type=int, default=2000, help="values in an update")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that are counted, or rounds of each study")
    parser.add_argument("--studies", type=int, default=0, help="measure the list of so many studies instead")
    parser.add_argument("--watch", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    if arguments.watch:
        watch_health(arguments.watch)
        return
    with tempfile.TemporaryDirectory(prefix="tessera-scale-") as folder:
        if arguments.studies:
            rows = [studies_of(Path(folder), arguments.studies, arguments.rounds)]
        else:
            rows = []
            for text in arguments.sites.split(","):
                place = Path(folder) / text
                place.mkdir()
                rows.append(rounds_of(place, int(text), arguments.parameters, max(1, arguments.rounds)))
                print(json.dumps(rows[-1]), file=sys.stderr)
    if arguments.json:
        print(json.dumps({"rows": rows}))
        return
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
