"""All six kinds of outcome through the one round: made-up hospitals whose declared signal training has to find."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.outcome_schemas import OUTCOMES, SEVEN

from orchestrator.rounds.scoring.dp_evaluation import DpEvaluation, dp_evaluation
from orchestrator.rounds.scoring.dp_outcomes import OutcomeEvaluation
from orchestrator.simulation.engine import Shard, run_study
from orchestrator.simulation.runs import SimulationRequest, scores_of_round, study_of
from orchestrator.studies.evaluation import headline


def request(folder: Path, outcome: str, **options: object) -> SimulationRequest:
    path = folder / "seven.toml"
    path.write_text(SEVEN, encoding="utf-8")
    given = {"rounds": 5, "epsilon": float("inf"), "evaluation_share": 1.0, "noise": "local", **options}
    return SimulationRequest(
        data=None,
        federation="tri-modal",
        sites=4,
        task="early-late",
        methods=("fedavg",),
        architecture="linear",
        delta=1e-4,
        synthetic_patients=480,
        schema=path,
        outcome=outcome,
        **given,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_training_beats_chance_and_the_private_evaluation_says_so(tmp_path: Path, outcome: str) -> None:
    study = study_of(request(tmp_path, outcome), "fedavg", 1)
    assert len(study.proposal.model.features) == 7
    rounds = list(run_study(study.proposal, study.model, Shard(study.proposal, study.sites)))
    exact = scores_of_round(study, rounds[-1])
    found = exact.auroc if hasattr(exact, "auroc") else exact.concordance
    assert found > 0.62
    if outcome in ("nodes", "size"):
        assert exact.mean_absolute_error < 0.85 * exact.guess_absolute_error
        assert exact.deviance < exact.guess_deviance
    if outcome == "os":
        assert set(exact.brier) == {"6", "24", "48"}
        assert exact.brier["48"] < 0.9 * exact.guess_brier["48"]
    last = rounds[-1]
    private = dp_evaluation(study.proposal, last.plan.round, last.finished.releases)
    if isinstance(private, DpEvaluation):
        assert abs(private.auroc - found) < 0.12
    else:
        assert isinstance(private, OutcomeEvaluation)
        by_name = {(figure.name, figure.at): figure for figure in private.figures}
        assert abs(by_name["concordance", None].value - found) < 0.12
        if outcome == "os":
            assert all(abs(by_name["brier", float(t)].value - exact.brier[t]) < 0.08 for t in exact.brier)
        else:
            error = by_name["mean_absolute_error", None].value
            assert abs(error - exact.mean_absolute_error) < 0.25 * exact.mean_absolute_error


@pytest.mark.parametrize("outcome", ["os", "sub-type (WHO)", "nodes"])
def test_with_noise_shared_among_hospitals_a_study_of_the_schedule_still_learns(tmp_path: Path, outcome: str) -> None:
    """The first round of the schedule releases means, also where every class has weights of its own."""
    asked = request(tmp_path, outcome, rounds=None, epsilon=30.0, noise="shared", evaluation_share=0.0)
    study = study_of(asked, "fedavg", 1)
    assert study.proposal.model.centred
    *_, last = run_study(study.proposal, study.model, Shard(study.proposal, study.sites))
    assert headline(scores_of_round(study, last).__dict__) > 0.6


def test_losses_that_blending_reads_are_released_for_every_kind(tmp_path: Path) -> None:
    for outcome in OUTCOMES:
        study = study_of(request(tmp_path, outcome, rounds=2, evaluation_share=0.0), "dgb", 1)
        first = next(iter(run_study(study.proposal, study.model, Shard(study.proposal, study.sites))))
        assert any(name.startswith("loss.") for name in first.finished.releases["site-1"])
