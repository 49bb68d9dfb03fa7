"""Every kind of outcome: its labels, its loss and gradient, its prediction, and that a record keeps to itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from datasites.worker.independence import check_independence
from models.build import build_model, record_loss
from models.config import InvalidModel, ModelConfig, Target
from models.outcomes import cells, count_loss, predicted, scores, survival_loss
from privacy.dp.mechanism import Mechanism
from privacy.dp.randomness import Randomness
from privacy.dp.sgd import clipped_gradient_sum

EDGES = (1.0, 2.0, 4.0, 8.0)
SURVIVAL = Target(kind="survival", unit="years", edges=EDGES)
KINDS: dict[str, dict[str, Any]] = {
    "binary": {"classes": 2},
    "ordinal": {"classes": 4},
    "categorical": {"classes": 4, "predicts": Target(kind="categorical")},
    "count": {"classes": 0, "predicts": Target(kind="count", high=1e6, typical=3.0)},
    "continuous": {"classes": 0, "predicts": Target(kind="continuous", low=-1e6, high=1e6, typical=1.0, spread=2.0)},
    "survival": {"classes": 0, "predicts": SURVIVAL},
}
EXTREMES = {"count": (0.0, 1e6), "continuous": (-1e6, 1e6), "survival": (0, 8)}


def config(kind: str, architecture: str = "linear") -> ModelConfig:
    return ModelConfig(architecture=architecture, features={"a": 5, "b": 3}, cohorts=("A", "B"), **KINDS[kind])  # type: ignore[arg-type]


def batch(settings: ModelConfig, kind: str, records: int = 24) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(3)
    low, high = EXTREMES.get(kind, (0, settings.classes - 1))
    places = torch.rand(records, generator=g).round() * (high - low) + low
    label = places.float() if kind == "continuous" else places.long()
    inputs = {m: torch.randn(records, n, generator=g) for m, n in settings.features.items()}
    cohort = torch.randint(0, 2, (records,), generator=g)
    return {**inputs, "presence": torch.ones(records, 2), "cohort": cohort, "label": label}


@pytest.mark.parametrize("architecture", ["linear", "mlp", "mlp-auxiliary"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_record_keeps_to_itself_and_moves_the_clipped_sum_by_at_most_the_norm(
    kind: str, architecture: str
) -> None:
    settings = config(kind, architecture)
    model, rows = build_model(settings, seed=1), batch(settings, kind)
    assert model(rows).shape == (24, settings.outputs)
    assert all(held for _, held in check_independence(model, record_loss, rows))
    plain = Mechanism(
        max_grad_norm=0.7, noise_multiplier=0.0, sampling_rate=1.0, steps_per_round=1, rounds=1, target_delta=1e-5
    )

    def clipped(chosen: dict[str, torch.Tensor]) -> torch.Tensor:
        stream = Randomness.public(0, site="s", study="s", round=1, plan_hash="p")
        sums = clipped_gradient_sum(model, chosen, record_loss, plain, stream)
        return torch.cat([torch.as_tensor(value).flatten().double() for value in sums.values()])

    whole = clipped(rows)
    for left_out in range(4):
        rest = {name: torch.cat([v[:left_out], v[left_out + 1 :]]) for name, v in rows.items()}
        assert float((whole - clipped(rest)).norm()) <= 0.7 * (1 + 2**-12)


@pytest.mark.parametrize("kind", KINDS)
def test_what_evaluation_counts_lies_in_its_bins_and_groups(kind: str) -> None:
    settings = config(kind)
    rows = batch(settings, kind)
    outputs = 5.0 * torch.randn(24, settings.outputs, generator=torch.Generator().manual_seed(1))
    found = scores(outputs, rows["label"], settings)
    assert found.shape == (24, settings.scores)
    assert bool(((found >= 0) & (found <= 1)).all())
    groups = cells(rows["label"], settings)
    assert groups.dtype == torch.int64
    assert 0 <= int(groups.min()) <= int(groups.max()) < settings.cells
    assert torch.isfinite(predicted(outputs, settings)).all()


@pytest.mark.parametrize(
    ("time", "happened", "label"),
    [
        (0.0, True, 1),
        (0.5, True, 1),
        (1.0, True, 1),
        (1.0, False, 2),
        (0.99, False, 0),
        (3.0, True, 5),
        (8.0, True, 7),
        (8.0, False, 8),
        (7.9, False, 6),
        (8.1, True, 8),
        (99.0, False, 8),
    ],
)
def test_a_follow_up_becomes_an_interval(time: float, happened: bool, label: int) -> None:
    assert SURVIVAL.interval_label(time, happened=happened) == label
    assert SURVIVAL.holds(label)


def test_a_survival_label_counts_the_intervals_that_were_entered() -> None:
    logits = torch.zeros(5, 4)
    labels = torch.tensor([0, 2, 3, 7, 8])  # nothing seen; one survived; event in the second, in the last; outlived
    half = torch.log(torch.tensor(2.0))
    torch.testing.assert_close(survival_loss(logits, labels), half * torch.tensor([0.0, 1.0, 2.0, 4.0, 4.0]))


def test_a_count_weighs_errors_by_the_mean() -> None:
    log_mean = torch.tensor([0.0, 1.0, 3.0, -2.0, 12.0], requires_grad=True)
    count = torch.tensor([1, 0, 40, 0, 200_000])
    count_loss(log_mean, count).sum().backward()
    mean = log_mean.detach().exp()
    torch.testing.assert_close(log_mean.grad, 1 - (count + 1) / (mean + 1), rtol=1e-4, atol=1e-4)
    exact = count_loss(torch.tensor([1.0, 100.0]).log(), torch.tensor([1, 100]))
    torch.testing.assert_close(exact, torch.zeros(2), atol=1e-4, rtol=0)


def fitted(settings: ModelConfig, label: torch.Tensor) -> torch.Tensor:
    """Return the prediction of a model that sees nothing but the outcomes, after it has learned."""
    model, count = build_model(settings, seed=0), len(label)
    nothing = {m: torch.zeros(count, n) for m, n in settings.features.items()}
    rows = {**nothing, "presence": torch.zeros(count, 2), "cohort": torch.zeros(count, dtype=torch.int64)}
    rows["label"] = label
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = record_loss(model, rows).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return predicted(model(rows), settings)[0].detach()


def test_without_inputs_a_model_learns_kaplan_meier_frequencies_and_means() -> None:
    labels = torch.tensor([1] * 20 + [0] * 10 + [3] * 21 + [2] * 7 + [5] * 14 + [8] * 28)
    # at risk 100, 10 censored before the first edge; then 70, 49 (7 censored on the way), 28
    at_risk = [(20, 90), (21, 63), (14, 42), (0, 28)]
    survival, kept = [], 1.0
    for events, entered in at_risk:
        kept *= 1 - events / entered
        survival.append(kept)
    torch.testing.assert_close(fitted(config("survival"), labels), torch.tensor(survival), rtol=1e-3, atol=1e-3)
    shares = fitted(config("categorical"), torch.tensor([0] * 5 + [1] * 3 + [2] + [3]))
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.1, 0.1]), rtol=1e-3, atol=1e-3)
    counts = torch.tensor([0, 0, 1, 2, 30, 7])
    torch.testing.assert_close(fitted(config("count"), counts), counts.float().mean()[None], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "survival"},
        {"kind": "survival", "edges": (2.0, 1.0)},
        {"kind": "count", "low": -1.0, "high": 3.0, "typical": 1.0},
        {"kind": "count", "high": 3.0},
        {"kind": "continuous", "high": 3.0, "typical": 1.0},
        {"kind": "continuous", "high": float("inf"), "typical": 1.0, "spread": 1.0},
        {"kind": "categorical", "edges": (1.0,)},
    ],
    ids=str,
)
def test_an_outcome_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidModel):
        Target(**wrong)


def test_a_number_has_no_classes_and_classes_are_counted() -> None:
    for kind, classes in (("count", 2), ("survival", 3), ("categorical", 1)):
        wrong = {**KINDS[kind], "classes": classes}
        with pytest.raises(InvalidModel, match="classes"):
            build_model(ModelConfig(architecture="linear", features={"a": 1}, cohorts=("A",), **wrong), seed=0)
