"""How often ``tessera audit-privacy`` accuses the honest path, and how often it finds each fault.

python benchmarks/audit.py --runs 20 --json
"""

from __future__ import annotations

import argparse
import json

import torch

from orchestrator.simulation.audit import FAULTS, NOISES, audit_path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--noise", choices=NOISES, action="append", help="both without")
    parser.add_argument("--fault", choices=["honest", *FAULTS], action="append", help="all without")
    parser.add_argument("--canaries", type=int, default=2400)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, int]] = {}
    for noise in options.noise or NOISES:
        for name in options.fault or ["honest", *FAULTS]:
            flagged = sum(
                audit_path(noise, canaries=options.canaries, seed=seed, fault=FAULTS.get(name)).flagged
                for seed in range(options.first_seed, options.first_seed + options.runs)
            )
            found.setdefault(noise, {})[name] = flagged
            if not options.json:
                print(f"{noise} noise, {name}: accused in {flagged} of {options.runs} runs", flush=True)
    if options.json:
        print(json.dumps({"runs": options.runs, "accused": found}, indent=2))


if __name__ == "__main__":
    main()
