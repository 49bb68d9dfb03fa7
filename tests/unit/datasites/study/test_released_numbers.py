"""Which numbers may leave: exactly those the mechanism covers in this round, whatever a worker writes."""

import json
from dataclasses import replace

import pytest
import torch

from datasites.study.recomputed import checks
from datasites.study.recomputed.released_numbers import checked_numbers, empty_numbers, expected_names, training_share
from datasites.training.statistics import released_scores, scores_of
from datasites.worker.trainer import trial_plan
from models.config import ModelConfig
from privacy.dp.mechanism import HistogramRelease, LossRelease
from privacy.dp.randomness import Randomness
from privacy.errors import InvalidInput

torch.set_num_threads(1)
STREAM = Randomness(b"s" * 32, study="s", round=1, plan_hash="p", dataset_fingerprint="f")


@pytest.fixture
def proposal(new_proposal):
    plain = new_proposal()
    return replace(
        plain,
        mechanism=replace(
            plain.mechanism,
            losses=LossRelease(every_rounds=2, bound=2.0, noise_multiplier=1.0, terms=2),
            evaluation=HistogramRelease(every_rounds=5, noise_multiplier=1.0),
        ),
    )


def test_only_the_rounds_of_a_release_have_its_names(proposal):
    counts = [len(expected_names(proposal, "alba", number)) for number in range(1, 6)]
    assert counts == [0, 4, 0, 4, 64]
    assert "loss.training.mrna+clinical" in expected_names(proposal, "alba", 2)
    assert {name.split(".")[0] for name in expected_names(proposal, "alba", 5)} == {"score"}


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_failed_worker_releases_the_usual_names(proposal, number):
    found = empty_numbers(proposal, "alba", number, STREAM)
    assert checked_numbers(proposal, "alba", number, json.loads(json.dumps(found))) == found
    assert number == 1 or any(found.values())


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found | {"patients": 17.0},
        lambda found: found | {"loss.training.image": 1.0},
        lambda found: dict(list(found.items())[1:]),
        lambda found: found | {"loss.training.mrna+clinical": float("nan")},
        lambda found: found | {"loss.training.mrna+clinical": "1.0"},
        lambda found: found | {"loss.training.mrna+clinical": True},
        lambda _: {},
    ],
)
def test_a_number_that_no_mechanism_covers_or_a_missing_one_is_refused(proposal, change):
    found = empty_numbers(proposal, "alba", 2, STREAM)
    with pytest.raises(InvalidInput, match="expected"):
        checked_numbers(proposal, "alba", 2, change(found))


def test_losses_outside_their_rounds_are_refused(proposal):
    found = empty_numbers(proposal, "alba", 2, STREAM)
    with pytest.raises(InvalidInput, match="no mechanism covers"):
        checked_numbers(proposal, "alba", 3, found)


def test_an_evaluation_charged_for_fewer_outputs_than_the_model_has_is_refused(proposal):
    wide = replace(proposal, model=replace(proposal.model, classes=3))
    with pytest.raises(InvalidInput, match="outputs"):
        expected_names(wide, "alba", 5)
    with pytest.raises(InvalidInput, match="outputs"):
        checks.check_plan(wide, replace(trial_plan(wide), round=5), "alba")


_STAGES = ModelConfig(architecture="linear", features={"mrna": 1}, cohorts=("A",), classes=2)


class Fixed(torch.nn.Module):
    """Gives every record the cumulative logits that stand at its label."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.logits[batch["label"]]


def test_a_score_is_the_probability_of_a_later_stage():
    batch = {"label": torch.tensor([0, 1])}
    scores = scores_of(Fixed(torch.tensor([[0.0], [2.0]])), batch, _STAGES)
    assert scores[:, 0] == pytest.approx([0.5, 0.8808], abs=1e-4)
    with pytest.raises(InvalidInput, match="outputs"):
        scores_of(Fixed(torch.zeros(2, 3)), batch, _STAGES)


def test_every_validation_record_counts_once_and_no_other(new_proposal):
    release = HistogramRelease(every_rounds=1, noise_multiplier=0.0)
    batch = {"label": torch.tensor([0, 1, 1])}
    found = released_scores(Fixed(torch.zeros(3, 1)), batch, config=_STAGES, release=release, randomness=STREAM)
    assert len(found) == 64
    assert {name: value for name, value in found.items() if value} == {"score.0.0.16": 1.0, "score.0.1.16": 2.0}


def test_without_releases_every_record_trains(new_proposal, proposal):
    assert training_share(new_proposal(), 1) == 1.0
    assert training_share(proposal, 1) == 0.8
