"""How good the estimate of AUROC from noised histograms is: bias, spread and coverage, on real or synthetic tables.

For every seed a study runs as ``tessera simulate`` runs it, with one evaluation in its last round that takes all that
epsilon allows. The true AUROC is that of the same model, the one that went into the round: exact, on the held-out
patients, mean over cohorts. The seed draws split, scored patients and all noise.

    python benchmarks/private_evaluation.py --data DIR --seeds 20 --json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orchestrator.rounds.dp_evaluation import dp_evaluation
from orchestrator.simulation.engine import Shard, run_study
from orchestrator.simulation.runs import SimulationRequest, scores_of_round, study_of


def estimate(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Return the estimate of one study beside the truth."""
    request = SimulationRequest(
        data=options.data,
        federation=options.federation,
        sites=None,
        task=options.task,
        methods=("fedavg",),
        architecture="linear",
        rounds=None,
        epsilon=options.epsilon,
        delta=1e-4,
        noise=options.noise,
        evaluation_share=options.share,
    )
    study = study_of(request, "fedavg", seed)
    *_, scored, last = run_study(study.proposal, study.model, Shard(study.proposal, study.sites))
    found = dp_evaluation(study.proposal, study.proposal.rounds, last.finished.releases)
    if found is None:
        raise SystemExit("expected an evaluation in the last round: use --share above 0")
    truth = scores_of_round(study, scored)
    return {
        "seed": seed,
        "true_auroc": truth.auroc,
        "auroc": found.auroc,
        "auroc_error": found.auroc_error,
        "covered": bool((found.auroc_low or 0) <= truth.auroc <= (found.auroc_high or 0)),
        "estimator": found.estimator,
        "records": found.records,
        "noise_multiplier": found.noise_multiplier,
        "true_calibration_error": truth.calibration_error,
        "calibration_error": found.calibration_error,
        "calibration_slope": found.calibration_slope,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means over seeds; ``spread`` is the estimate's standard deviation, ``off`` its mean minus the truth."""
    estimates, truths = (np.array([row[name] for row in rows]) for name in ("auroc", "true_auroc"))
    return {
        "seeds": len(rows),
        "true_auroc": round(float(truths.mean()), 4),
        "auroc": round(float(estimates.mean()), 4),
        "off": round(float((estimates - truths).mean()), 4),
        "off_error": round(float((estimates - truths).std(ddof=1) / np.sqrt(len(rows))), 4),
        "spread": round(float(estimates.std(ddof=1)), 4),
        "stated_error": round(float(np.mean([row["auroc_error"] for row in rows])), 4),
        "covered_by_90_percent": round(float(np.mean([row["covered"] for row in rows])), 3),
        "noise_multiplier": rows[0]["noise_multiplier"],
        "calibration_error": round(float(np.mean([row["calibration_error"] for row in rows])), 4),
        "true_calibration_error": round(float(np.mean([row["true_calibration_error"] for row in rows])), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder of TCGA tables; synthetic patients without")
    parser.add_argument("--federation", default="tri-modal")
    parser.add_argument("--task", default="early-late")
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--noise", default="shared")
    parser.add_argument("--share", type=float, default=1.0, help="part of epsilon for the evaluation")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print every seed as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [estimate(options, seed) for seed in range(options.first_seed, options.first_seed + options.seeds)]
    found = summary(rows)
    print(json.dumps({**found, "runs": rows} if options.json else found, indent=2))


if __name__ == "__main__":
    main()
