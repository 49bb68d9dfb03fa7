"""How long a simulation of many hospitals takes: one study, its sites over all processors, setup apart from rounds.

python benchmarks/simulation.py --sites 1000 --patients 50 --rounds 10
python benchmarks/simulation.py --sites 1000 --jobs 1          # in one process, for comparison
"""

from __future__ import annotations

import argparse
import json
import os
import time

from orchestrator.simulation.engine import run_study
from orchestrator.simulation.process_engine import processes_for
from orchestrator.simulation.runs import SimulationRequest, study_of
from privacy.canonical import sha256_hex


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=1000)
    parser.add_argument("--patients", type=int, default=50, help="of each hospital")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    request = SimulationRequest(
        data=None,
        federation="dirichlet",
        sites=given.sites,
        task="early-late",
        methods=("fedavg",),
        architecture="linear",
        rounds=given.rounds,
        epsilon=8.0,
        delta=1e-4,
        noise="local",
        alpha=100.0,  # hospitals of about one size, none empty
        synthetic_patients=4 * given.sites * given.patients // 3,  # a quarter is held out
    )
    started = time.perf_counter()
    study = study_of(request, "fedavg", 0)
    ready = time.perf_counter()
    model = b""
    with processes_for(given.jobs) as make:
        for done in run_study(study.proposal, study.model, make(study)):
            model = done.model
    ended = time.perf_counter()
    print(
        json.dumps(
            {
                "sites": len(study.sites),
                "patients": sum(site.patients for site in study.sites),
                "rounds": study.proposal.rounds,
                "steps_per_round": study.proposal.mechanism.steps_per_round,
                "jobs": given.jobs,
                "setup_seconds": round(ready - started, 1),
                "round_seconds": round(ended - ready, 1),
                "load": round(os.getloadavg()[0], 1),
                "model": sha256_hex(model)[:16],
            }
        )
    )


if __name__ == "__main__":
    main()
