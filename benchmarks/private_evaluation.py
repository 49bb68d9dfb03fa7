"""How good the estimate of AUROC from noised histograms is: bias, spread and coverage, on real or synthetic tables.

For every seed a study runs as ``tessera simulate`` runs it, with one evaluation in its last round that takes all that
epsilon allows. The true AUROC is that of the same model, the one that went into the round, on held-out patients as the
hospitals would hold them: every held-out patient of a cohort once per hospital of the cohort, with the modalities that
hospital has, weighted by the hospital's patients; mean over cohorts. (All modalities at once would be easier to
score.) ``scored_auroc`` is exact on the very patients that are scored. The seed draws split, scored patients and noise.

Scored and held-out patients are both few, so 20 seeds know the mean of "estimate minus truth" to +- .03 only. The
estimator's own part, "estimate minus exact on the scored patients", varies less: noise is drawn ``--draws`` times on
the same scores. The other part, "exact on the scored minus truth", is luck of the draw without a bias: the scored fifth
is chosen by a keyed hash, and never trains.

    python benchmarks/private_evaluation.py --data DIR --seeds 20 --draws 10 --json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datasites.training.statistics import released_scores, scores_of
from models.batch import modalities_of, restricted
from models.build import build_model
from models.parameters import from_bytes
from orchestrator.rounds.scoring.dp_evaluation import DpEvaluation, dp_evaluation
from orchestrator.simulation.engine import Shard, run_study
from orchestrator.simulation.runs import SimulationRequest, scores_of_round, study_of
from orchestrator.simulation.sites import SimulatedStudy
from privacy.dp.randomness import Randomness

Scored = tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]
"""Scores, whether the later class, and weights of some patients."""


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
    if not isinstance(found, DpEvaluation):
        raise SystemExit("expected an evaluation in the last round: use --share above 0")
    truth, exact = true_areas(study, scored.model)
    everything = scores_of_round(study, scored)
    redrawn = [_redrawn(study, scored.model, draw) for draw in range(options.draws)]
    return {
        "seed": seed,
        "true_auroc": truth,
        "scored_auroc": exact,
        "all_modalities_auroc": everything.auroc,
        "auroc": found.auroc,
        "redrawn": [again.auroc for again in redrawn],
        "redrawn_covered": float(np.mean([_covers(again, truth) for again in redrawn or [found]])),
        "auroc_error": found.auroc_error,
        "covered": _covers(found, truth),
        "estimator": found.estimator,
        "records": found.records,
        "noise_multiplier": found.noise_multiplier,
        "calibration_error": found.calibration_error,
        "calibration_slope": found.calibration_slope,
    }


def _covers(found: DpEvaluation, truth: float) -> bool:
    return bool((found.auroc_low or 0) <= truth <= (found.auroc_high or 0))


def _redrawn(study: SimulatedStudy, model_bytes: bytes, draw: int) -> DpEvaluation:
    """Return the estimate of the same scores under other noise."""
    proposal = study.proposal
    model, config, release = build_model(proposal.model, seed=0), proposal.model, proposal.mechanism.evaluation
    from_bytes(model, model_bytes)
    if release is None:
        raise SystemExit("expected an evaluation: use --share above 0")
    released = {}
    for site in study.sites:
        own = {name: tensor[~site.trains] for name, tensor in restricted(site.records, config.features).items()}
        stream = Randomness.public(
            proposal.seed or 0, site=site.name, study="redrawn", round=draw + 1, plan_hash="redrawn"
        )
        released[site.name] = released_scores(model, own, config=config, release=release, randomness=stream)
    found = dp_evaluation(proposal, proposal.rounds, released)
    if not isinstance(found, DpEvaluation):
        raise SystemExit("expected classes")
    return found


def true_areas(study: SimulatedStudy, model_bytes: bytes) -> tuple[float, float]:
    """Return the exact areas: of held-out patients as the hospitals would hold them, and of the scored patients."""
    model, config = build_model(study.proposal.model, seed=0), study.proposal.model
    from_bytes(model, model_bytes)
    test = restricted(study.test, config.features)
    held: dict[int, list[Scored]] = {}
    scored: dict[int, list[Scored]] = {}
    for site in study.sites:
        own = {name: tensor[~site.trains] for name, tensor in restricted(site.records, config.features).items()}
        like = _masked({name: tensor[test["cohort"] == site.cohort] for name, tensor in test.items()}, site.modalities)
        for found, batch, weight in ((held, like, float(site.patients)), (scored, own, 1.0)):
            late = batch["label"].numpy() > 0
            scores = scores_of(model, batch, config)[:, 0]
            found.setdefault(site.cohort, []).append((scores, late, np.full(len(late), weight)))
    return _mean_area(held), _mean_area(scored)


def _masked(batch: dict[str, torch.Tensor], modalities: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the patients who have one of the modalities, with these only."""
    keep = torch.tensor([float(m in modalities) for m in modalities_of(batch)])
    presence = batch["presence"] * keep
    left = {n: t * 0 if n in modalities_of(batch) and n not in modalities else t for n, t in batch.items()}
    some = presence.amax(dim=1) > 0
    return {n: t[some] for n, t in {**left, "presence": presence}.items()}


def _mean_area(by_cohort: dict[int, list[Scored]]) -> float:
    areas = []
    for parts in by_cohort.values():
        scores, late, weight = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        won = (scores[late][:, None] > scores[~late]) + 0.5 * (scores[late][:, None] == scores[~late])
        pairs = weight[late][:, None] * weight[~late]
        areas.append(float((won * pairs).sum() / pairs.sum()))
    return float(np.mean(areas))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means over seeds; ``spread`` is the estimate's standard deviation, ``off`` its mean minus the truth."""
    estimates, truths, exact = (
        np.array([row[name] for row in rows]) for name in ("auroc", "true_auroc", "scored_auroc")
    )
    again = np.array([row["redrawn"] or [row["auroc"]] for row in rows])
    own, luck = again.mean(axis=1) - exact, exact - truths
    return {
        "seeds": len(rows),
        "true_auroc": round(float(truths.mean()), 4),
        "scored_auroc": round(float(np.mean([row["scored_auroc"] for row in rows])), 4),
        "all_modalities_auroc": round(float(np.mean([row["all_modalities_auroc"] for row in rows])), 4),
        "auroc": round(float(estimates.mean()), 4),
        "off": round(float((estimates - truths).mean()), 4),
        "off_error": _error(estimates - truths),
        "spread": round(float(estimates.std(ddof=1)), 4),
        "estimator_off": round(float(own.mean()), 4),
        "estimator_off_error": _error(own),
        "luck_of_scored": round(float(luck.mean()), 4),
        "luck_of_scored_error": _error(luck),
        "redrawn_spread": round(float(again.std(ddof=1)), 4),
        "redrawn_covered_by_90_percent": round(float(np.mean([row["redrawn_covered"] for row in rows])), 3),
        "stated_error": round(float(np.mean([row["auroc_error"] for row in rows])), 4),
        "covered_by_90_percent": round(float(np.mean([row["covered"] for row in rows])), 3),
        "noise_multiplier": rows[0]["noise_multiplier"],
        "calibration_error": round(float(np.mean([row["calibration_error"] for row in rows])), 4),
    }


def _error(values: NDArray[np.float64]) -> float:
    return round(float(values.std(ddof=1) / np.sqrt(len(values))), 4) if len(values) > 1 else float("nan")


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
    parser.add_argument("--draws", type=int, default=10, help="of the noise, on the same scores")
    parser.add_argument("--json", action="store_true", help="print every seed as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [estimate(options, seed) for seed in range(options.first_seed, options.first_seed + options.seeds)]
    found = summary(rows)
    print(json.dumps({**found, "runs": rows} if options.json else found, indent=2))


if __name__ == "__main__":
    main()
