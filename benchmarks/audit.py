"""How often ``tessera audit-privacy`` accuses honest code, and how often it finds each fault of its ``--break``.

A run is what the command does at its default confidence: the bound of the training step (honest code only, the faults
are of the path), and the whole path under each noise. Its chance of accusing honest code is at most .05, by the union
bound over all its tests. A fault must be found under each noise by itself. A run ends with the first refutation, which
changes no verdict: each test has its own share of the chance.

    python benchmarks/audit.py --runs 20 --json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from typing import Any

import torch

from orchestrator.simulation.audit import FAULTS, NOISES, Levels, Noise, PathResult, audit_path, path_canaries
from privacy.dp.audit import audit

HONEST = "honest"
_LEVELS = Levels.of(0.95, paths=len(NOISES))


def measured(noise: Noise, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return in how many runs the path was accused, by which kinds of tests, and the CPU seconds of a run."""
    accused, kinds, start = 0, Counter[str](), time.process_time()
    for seed in range(options.first_seed, options.first_seed + options.runs):
        result = audit_path(
            noise,
            canaries=path_canaries(options.canaries),
            seed=seed,
            failure=_LEVELS.path,
            fault=FAULTS.get(name),
            until_refuted=True,
        )
        accused += result.flagged
        kinds.update(kinds_of(result))
    return {
        "runs": options.runs,
        "accused": accused,
        "by": dict(sorted(kinds.items())),
        "cpu_seconds_a_run": round((time.process_time() - start) / options.runs, 2),
    }


def kinds_of(result: PathResult) -> set[str]:
    """Return the kinds of tests that refute the claim."""
    kinds = {"curve": result.curve.flagged, "noise": result.refutes(result.quiet)}
    kinds |= {"pattern": result.refutes(result.patterns), "sensitivity": result.moved_too_far}
    return {kind for kind, refutes in kinds.items() if refutes}


def step_accused(options: argparse.Namespace) -> int:
    """Return in how many runs the bound of the honest training step passes its claim."""
    seeds = range(options.first_seed, options.first_seed + options.runs)
    return sum(audit(canaries=options.canaries, confidence=1 - _LEVELS.step, seed=seed).flagged for seed in seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--noise", choices=NOISES, action="append", help="both without")
    parser.add_argument("--fault", choices=[HONEST, *FAULTS], action="append", help="all without")
    parser.add_argument("--canaries", type=int, default=1000, help="as the command's option")
    parser.add_argument("--json", action="store_true", help="always so; progress goes to the standard error")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.fault or [HONEST, *FAULTS]
    found: dict[str, Any] = {"step": {HONEST: step_accused(options)}} if HONEST in names else {}
    for noise in options.noise or NOISES:
        for name in names:
            row = found.setdefault(noise, {})[name] = measured(noise, name, options)
            print(f"{noise} noise, {name}: {row}", file=sys.stderr, flush=True)
    print(json.dumps({"first_seed": options.first_seed, **found}, indent=2))


if __name__ == "__main__":
    main()
