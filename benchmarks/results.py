"""Run every benchmark behind docs/results.md; write docs/results-tables.md and the plots of build/results.html.

    python benchmarks/results.py --data ../shared/data/tcga                      # everything: about 80 minutes, 2 cores
    python benchmarks/results.py --data ../shared/data/tcga --only privacy       # one group
    python benchmarks/results.py --report                                        # only tables and plots, from the JSON

A run that has its JSON is not repeated (``--again`` does). The seeds begin at 100: settings were chosen on the seeds
1000 to 1019, which no table contains.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
TASKS = ("early-late", "I-II")
NINE = ("local", "fedavg", "fedprox", "fedadam", "dgb", "pcw", "dgb+pcw", "pooled", "upper-bound")
EXTRA = ("fedavgm", "dgb+pcw+momentum", "dgb-published", "pcw-published")
FEW = ("local", "fedavg", "dgb+pcw", "fedavgm", "pooled")
FLIPS = ("brca-1,lihc-1", "brca-2,lusc-1", "lusc-2,lihc-2", "brca-3,lihc-2")
FLIPPED = ("fedavg", "pcw", "dgb+pcw", "pcw-published")
EPSILONS = (1, 2, 4, 8, 16)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call of benchmarks/staging.py; ``share`` of ``--seeds`` are run."""

    group: str
    name: str
    options: tuple[str, ...]
    methods: tuple[str, ...]
    share: float = 1.0


def runs() -> Iterator[Run]:
    """Yield every run, the most important first."""
    for task in TASKS:
        yield _run("main", f"tri-modal-{task}", ("--task", task), (*NINE, *EXTRA))
    yield from _flips()
    yield from _privacy()
    for task in TASKS:
        yield _run("main", f"held-out-{task}", ("--task", task, "--split", "site-held-out"), FEW)
        yield _run("main", f"permuted-{task}", ("--task", task, "--corrupt", "permute"), ("fedavg", "dgb+pcw"))
    yield _run("main", "tri-modal-ordinal", ("--task", "ordinal"), NINE, share=0.5)
    yield _run("main", "held-out-ordinal", ("--task", "ordinal", "--split", "site-held-out"), FEW, share=0.5)
    yield from _mlp()
    yield from _federations()
    yield from _heterogeneity()
    yield from _maps()
    yield from _held_out()


def _flips() -> Iterator[Run]:
    for task in TASKS:
        for position, sites in enumerate(FLIPS):
            options = ("--task", task, "--corrupt", f"flip:{sites}")
            yield _run("flips", f"flip-{position + 1}-{task}", options, FLIPPED, share=1.0 if position < 2 else 0.5)


def _privacy() -> Iterator[Run]:
    for task in TASKS:
        for noise in ("shared", "local"):
            for epsilon in EPSILONS:
                options = ("--task", task, "--epsilon", str(epsilon), "--noise", noise)
                methods = ("fedavg", "fedavg-uncentred") if epsilon == 8 else ("fedavg",)
                yield _run("privacy", f"epsilon-{epsilon}-{noise}-{task}", options, methods)
        options = ("--task", task, "--epsilon", "8", "--noise", "local")
        yield _run("privacy", f"epsilon-8-methods-{task}", options, ("fedavg", "local", "dgb+pcw", "pooled"), share=0.5)


def _mlp() -> Iterator[Run]:
    methods = ("fedavg-combination", "fedavg", "fedavg-auxiliary", "dgb", "dgb+pcw")
    for task, share in (("early-late", 1.0), ("I-II", 0.3)):
        yield _run("mlp", f"mlp-{task}", ("--task", task, "--model", "mlp"), methods, share=share)


def _held_out() -> Iterator[Run]:
    """Yield the same with whole tissue source sites held out, for the tables that have no such run above."""
    split = ("--split", "site-held-out")
    for run in (*_flips(), *_privacy(), *_mlp(), *_heterogeneity()):
        methods = tuple(m for m in run.methods if m in ("fedavg", "dgb+pcw"))
        if "methods" not in run.name:
            group, _, rest = run.name.partition("-")
            share = min(run.share, 0.5 if group != "mlp" else 0.3)
            yield _run(group, f"held-out-{rest}", (*run.options, *split), methods, share=share)


def _maps() -> Iterator[Run]:
    """Yield runs where every hospital holds everything: of the three cohorts BRCA alone has tissue maps."""
    for task in TASKS:
        for model in ("convolutional", "mlp"):
            options = ("--federation", "upper-bound", "--task", task, "--model", model)
            yield _run("maps", f"{model}-{task}", options, ("fedavg", "local"), share=0.3)


def _federations() -> Iterator[Run]:
    for federation in ("bi-modal", "upper-bound", "tissue-source-sites"):
        for task in TASKS:
            options = ("--task", task, "--federation", federation)
            yield _run("federations", f"{federation}-{task}", options, FEW, share=0.5)
            held_out = (*options, "--split", "site-held-out")
            yield _run("federations", f"{federation}-held-out-{task}", held_out, FEW[:3], share=0.5)


def _heterogeneity() -> Iterator[Run]:
    methods = ("local", "fedavg", "dgb+pcw", "pooled")
    for alpha in ("100", "1", "0.3", "0.1"):
        options = ("--federation", "dirichlet", "--alpha", alpha)
        yield _run("heterogeneity", f"class-{alpha}", options, methods, share=0.5)
    for federation in ("upper-bound", "tri-modal", "bi-modal", "one-modality"):
        options = ("--federation", federation)
        yield _run("heterogeneity", f"type-{federation}", options, methods, share=0.5)


def _run(group: str, name: str, options: tuple[str, ...], methods: tuple[str, ...], *, share: float = 1.0) -> Run:
    return Run(group=group, name=f"{group}-{name}", options=options, methods=methods, share=share)


def main() -> int:
    arguments = parse()
    arguments.out.mkdir(parents=True, exist_ok=True)
    chosen = [r for r in runs() if not arguments.only or any(word in r.name for word in arguments.only)]
    if not arguments.report:
        if not arguments.data:
            print("error: expected --data, or --report for the tables alone", file=sys.stderr)
            return 2
        for run in chosen:
            measure(run, arguments)
    command = [sys.executable, str(HERE / "staging_report.py"), *sorted(map(str, arguments.out.glob("*.json")))]
    targets = ["--markdown", str(ROOT / "docs/results-tables.md"), "--html", str(ROOT / "build/results.html")]
    targets += ["--benefit", str(ROOT / "datasites/portal/shown/benefit.json")]
    return subprocess.run([*command, *targets]).returncode


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--only", nargs="+", default=[], help="runs whose name holds one of these words")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="repeat runs that have their JSON")
    parser.add_argument("--report", action="store_true", help="run nothing, write tables and plots")
    return parser.parse_args()


def measure(run: Run, arguments: argparse.Namespace) -> None:
    target = arguments.out / f"{run.name}.json"
    seeds = max(2, round(arguments.seeds * run.share))
    if target.exists() and not arguments.again and json.loads(target.read_text())["settings"]["seeds"] >= seeds:
        return
    started = time.monotonic()
    command = [sys.executable, str(HERE / "staging.py"), "--data", arguments.data, "--json", *run.options]
    command += ["--seeds", str(seeds), "--first-seed", str(arguments.first_seed)]
    command += ["--processes", str(arguments.processes), "--noise-draws", "3", "--methods", *run.methods]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{run.name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return
    target.write_text(json.dumps(slim(json.loads(done.stdout), run), separators=(",", ":")))
    print(f"{run.name}: {seeds} seeds, {time.monotonic() - started:.0f} s", flush=True)


def slim(report: dict, run: Run) -> dict:
    """Return ``report`` without what no table or plot of its group shows: the JSON is small enough to keep."""
    dropped = {"main": (), "mlp": ("sites", "combinations"), "privacy": ("curve", "combinations"), "maps": ("curve",)}
    unused = dropped.get(run.group, ("curve", "sites", "combinations"))
    for entry in report["methods"].values():
        for key in (*unused, f"combinations_minus_{report['reference']}"):
            entry.pop(key, None)
    return report


if __name__ == "__main__":
    sys.exit(main())
