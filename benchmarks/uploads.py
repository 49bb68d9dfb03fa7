"""Many hospitals send their updates in the same moment: does the real server take them all, and in how much memory?

    python benchmarks/uploads.py --sites 50 --json

Orchestrator and keyholder are the product's own processes; each hospital is the product's own participant in a thread
of this one, and all of them wait for the last before the first byte is sent. Every round must be complete, its
decrypted integers must be the sum of what the hospitals sent, and every upload must have been answered with 200, once.
The same is done with few hospitals first, each time with a new orchestrator and the same encryption parameters:
``orchestrator_peak_mb`` is the largest memory of its process together with that of its summing process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from harness.consortium import LEVELS, Consortium, steps_of
from prometheus_client.parser import text_string_to_metric_families
from round import Peak
from safetensors.numpy import load

from datasites.node.http import SignedClient
from orchestrator.rounds.store import Store
from privacy.encryption.parameters import choose_parameters

BLOCK = "shared"


@dataclass
class Gate:
    """Lets uploads go together: once everybody is here, or after a while without the rest."""

    sites: int
    seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._barrier = threading.Barrier(self.sites)

    @contextmanager
    def open(self) -> Iterator[None]:
        put_bytes = SignedClient.put_bytes

        def together(client: SignedClient, path: str, body: bytes, **more: Any) -> Any:
            if not path.endswith("/update"):
                return put_bytes(client, path, body, **more)
            self._barrier.wait(600)
            started = time.perf_counter()
            try:
                return put_bytes(client, path, body, **more)
            except Exception as error:
                self.problems.append(f"{type(error).__name__}: {error}")
                raise
            finally:
                self.seconds.append(time.perf_counter() - started)

        SignedClient.put_bytes = together  # type: ignore[assignment, method-assign]
        try:
            yield
        finally:
            SignedClient.put_bytes = put_bytes  # type: ignore[method-assign]


def answers(url: str) -> Counter[str]:
    """Return how often the server gave each status to an upload of an update."""
    text = httpx.get(f"{url}/metrics", trust_env=False).raise_for_status().text
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "tessera_http_requests_total" and sample.labels["route"].endswith("/update"):
                found[sample.labels["status"]] += int(sample.value)
    return found


def wrong_sums(consortium: Consortium, study: str, rounds: int, parameters: int) -> int:
    """Return in how many rounds the decrypted integers are not the sum of what every hospital sent."""
    expected = sum(steps_of(i, BLOCK, parameters) for i in range(len(consortium.names)))
    store, wrong = Store(consortium.homes["orchestrator"].folder / "store"), 0
    for number in range(1, rounds + 1):
        result = store.documents(study, number, "result").get("keyholder")
        if result is None:
            wrong += 1
            continue
        decrypted = load(store.blob(str(result["payload"]["integers_hash"])))[BLOCK]
        wrong += not np.array_equal(decrypted, expected)
    store.close()
    return wrong


def measure(folder: Path, *, sites: int, rounds: int, parameters: int, most: int) -> dict[str, Any]:
    """Run one study and return what it cost."""
    encryption = choose_parameters(sites=most, levels=LEVELS, length=parameters)
    gate = Gate(sites)
    with Consortium(folder, sites=sites) as consortium:
        consortium.start()
        peak = Peak(consortium.pid("orchestrator"))
        peak.start()
        consortium.propose("uploads", length=parameters, rounds=rounds, deadline_seconds=900, encryption=encryption)
        started = time.monotonic()
        with gate.open(), consortium.working():
            status = consortium.wait("uploads", "finished", seconds=1800, every=0.5)
        seconds, statuses = time.monotonic() - started, answers(consortium.url)
        checkpoints = status["checkpoints"]
        complete = sum(checkpoint["sites"] == sorted(consortium.names) for checkpoint in checkpoints)
        return {
            "rounds_complete": complete,
            "wrong_sums": wrong_sums(consortium, "uploads", rounds, parameters),
            "errors": len(gate.problems) + sum(n for code, n in statuses.items() if code != "200"),
            "uploads": statuses["200"],
            "orchestrator_peak_mb": round(peak.megabytes(), 1),
            "upload_bytes_per_site": checkpoints[-1]["uplink_bytes"] // sites,
            "upload_seconds_median": round(statistics.median(gate.seconds), 3),
            "upload_seconds_max": round(max(gate.seconds), 3),
            "seconds": round(seconds, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=50)
    parser.add_argument("--few", type=int, default=5, help="hospitals of the run to compare with")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--parameters", type=int, default=100_000, help="values in an update")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    given = {"rounds": arguments.rounds, "parameters": arguments.parameters, "most": arguments.sites}
    with tempfile.TemporaryDirectory(prefix="tessera-uploads-") as folder:
        few = measure(Path(folder) / "few", sites=arguments.few, **given)
        many = measure(Path(folder) / "many", sites=arguments.sites, **given)
    result = {"sites": arguments.sites, "rounds": arguments.rounds, "parameters": arguments.parameters, **many}
    result |= {"few_sites": arguments.few, "few_peak_mb": few["orchestrator_peak_mb"], "few_errors": few["errors"]}
    if arguments.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:24} {value}")
    bad = many["errors"] or many["wrong_sums"] or many["rounds_complete"] < arguments.rounds
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
