from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from privacy.dp import sgd
from privacy.dp.mechanism import Mechanism
from privacy.dp.randomness import Randomness
from privacy.dp.sgd import clipped_gradient_sum, split_norm, train
from privacy.errors import InvalidInput, Refused

torch.set_num_threads(1)
MECHANISM = Mechanism(
    max_grad_norm=0.5, noise_multiplier=1.0, sampling_rate=0.3, steps_per_round=4, rounds=3, target_delta=1e-5
)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mrna = nn.Sequential(nn.Linear(20, 8), nn.Tanh())
        self.image = nn.Sequential(nn.Linear(12, 8), nn.LayerNorm(8), nn.Tanh())
        self.head = nn.Linear(8, 2)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        present = batch["presence"]
        return self.head(self.mrna(batch["mrna"]) * present[:, :1] + self.image(batch["image"]) * present[:, 1:])


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch), batch["label"], reduction="none")


def modality(name: str) -> str | None:
    first = name.split(".")[0]
    return None if first == "head" else first


def data(count: int = 60) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    return {
        "mrna": torch.randn(count, 20, generator=g),
        "image": 3 * torch.randn(count, 12, generator=g),
        "presence": torch.randint(0, 2, (count, 2), generator=g).float(),
        "label": torch.randint(0, 2, (count,), generator=g),
    }


def model() -> Branches:
    torch.manual_seed(0)
    return Branches()


def stream(label: str = "a") -> Randomness:
    return Randomness(b"s" * 32, study="s", round=1, plan_hash=label, dataset_fingerprint="f")


def run(mechanism: Mechanism = MECHANISM, m: nn.Module | None = None, label: str = "a", **options: object) -> dict:
    settings: dict = {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0.0, "expected_records": 60.0}
    inputs = options.pop("inputs", data())
    outcome = train(m or model(), inputs, loss, mechanism, stream(label), **(settings | options))
    return dict(outcome.update)


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(float((a[n] - b[n]).abs().max()) for n in a)


@pytest.mark.parametrize("method", ["ghost", "hooks"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_opacus_own_modes_give_the_same_noised_update(method: str, optimizer: str) -> None:
    ours, theirs = run(optimizer=optimizer), run(optimizer=optimizer, method=method)
    assert distance(ours, theirs) <= (1e-6 if optimizer == "sgd" else 1e-4)


@pytest.mark.parametrize("method", ["per-example", "ghost", "hooks"])
def test_without_noise_a_step_is_the_mean_of_clipped_gradients(method: str) -> None:
    plain = replace(MECHANISM, noise_multiplier=0.0, sampling_rate=1.0, steps_per_round=1)
    m, inputs = model(), data(7)
    update = run(plain, m, method=method, inputs=inputs, expected_records=7.0)
    expected = {n: torch.zeros_like(p) for n, p in model().named_parameters()}
    for b in range(7):
        one = model()
        loss(one, {k: v[b : b + 1] for k, v in inputs.items()}).sum().backward()
        norm = math.sqrt(sum(float((p.grad**2).sum()) for p in one.parameters() if p.grad is not None))
        for n, p in one.named_parameters():
            expected[n] -= 0.1 / 7 * p.grad * min(1.0, 0.5 / (norm + 1e-6))
    assert distance(update, expected) < 1e-6


def test_the_same_round_gives_the_same_bytes_and_another_round_other_ones() -> None:
    first, again, other = run(), run(), run(label="b")
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert distance(first, other) > 1e-3


def test_dropout_repeats_too() -> None:
    def with_dropout() -> nn.Module:
        torch.manual_seed(0)
        m = Branches()
        m.image.append(nn.Dropout(0.5))
        return m

    torch.manual_seed(123)
    first = run(m=with_dropout())
    torch.manual_seed(456)
    assert distance(first, run(m=with_dropout())) == 0


@pytest.mark.parametrize("method", ["per-example", "ghost", "hooks"])
def test_an_empty_batch_still_gets_its_noise(method: str) -> None:
    nobody = {k: v[:0] for k, v in data().items()}
    update = run(replace(MECHANISM, steps_per_round=1), method=method, inputs=nobody)
    values = torch.cat([u.flatten() for u in update.values()]).double() * 0.3 * 60 / 0.1
    assert 0.4 < float(values.std()) < 0.6  # noise multiplier 1 times clip 0.5
    assert torch.isfinite(values).all()


def test_the_noise_has_the_charged_size_and_a_wrong_size_is_noticed() -> None:
    nobody = {k: v[:0] for k, v in data().items()}
    draws = [run(replace(MECHANISM, steps_per_round=1), inputs=nobody, label=str(i)) for i in range(12)]
    values = torch.cat([u.flatten() for d in draws for u in d.values()]).double() * 0.3 * 60 / 0.1
    error = 4 * 0.5 / math.sqrt(2 * len(values))
    assert abs(float(values.std()) - 0.5) < error
    assert abs(float((values * 0.9).std()) - 0.5) > error


def test_one_record_moves_the_clipped_sum_by_at_most_the_clip() -> None:
    mechanism = replace(MECHANISM, noise="shared", steps_per_round=1, sampling_rate=1.0, max_grad_norm=0.2)
    whole = clipped_gradient_sum(model(), data(), loss, mechanism, stream())
    for b in range(10):
        rest = {k: torch.cat([v[:b], v[b + 1 :]]) for k, v in data().items()}
        without = clipped_gradient_sum(model(), rest, loss, mechanism, stream())
        moved = math.sqrt(sum(float(((whole[n] - without[n]) ** 2).sum()) for n in whole))
        assert moved <= 0.2 * (1 + 1e-4)


def test_a_part_scale_shrinks_the_displacement_even_under_adam() -> None:
    full = run(optimizer="adam", modality_of_parameter=modality, part_scales={"mrna": 1.0})
    small = run(
        replace(MECHANISM, steps_per_round=1),
        optimizer="adam",
        modality_of_parameter=modality,
        part_scales={"mrna": 0.001, "clinical": 3.0},
    )
    one = run(replace(MECHANISM, steps_per_round=1), optimizer="adam", modality_of_parameter=modality)
    ratio = float(small["mrna.0.weight"].norm() / one["mrna.0.weight"].norm())
    assert ratio == pytest.approx(0.001, rel=0.02)
    assert torch.equal(small["image.0.weight"], one["image.0.weight"])
    assert float(full["mrna.0.weight"].norm()) > 0


def test_the_proximal_term_pulls_back_to_the_start() -> None:
    quiet = replace(MECHANISM, noise_multiplier=0.0, steps_per_round=30, sampling_rate=1.0)
    free, held = run(quiet), run(quiet, proximal_mu=5.0)
    assert held["head.weight"].norm() < free["head.weight"].norm()


def test_weight_decay_shrinks_the_weights() -> None:
    nobody = {k: v[:0] for k, v in data().items()}
    quiet = replace(MECHANISM, noise_multiplier=0.0)
    m = model()
    before = float(m.head.weight.detach().norm())
    run(quiet, m, inputs=nobody, weight_decay=0.5)
    assert float(m.head.weight.detach().norm()) < before


def test_clipping_by_modality_bounds_each_part_and_all_together() -> None:
    parts = {"mrna": 3.0, "image": 4.0, "shared": 12.0}
    norms = split_norm(0.5, parts)
    assert sum(v * v for v in norms.values()) == pytest.approx(0.25)
    mechanism = replace(MECHANISM, clipping="modality", noise="shared", steps_per_round=1, sampling_rate=1.0)
    one = {k: v[:1] * (1 if k in ("label", "presence") else 50) for k, v in data().items()}
    one["presence"] = torch.ones(1, 2)
    total = clipped_gradient_sum(
        model(), one, loss, mechanism, stream(), modality_of_parameter=modality, modality_norms=norms
    )
    for part, bound in norms.items():
        values = [v for n, v in total.items() if (modality(n) or "shared") == part]
        assert math.sqrt(sum(float((v**2).sum()) for v in values)) <= bound * (1 + 1e-4)


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ({}, {"modality_norms": {"shared": 0.5}}),
        ({"clipping": "modality"}, {"modality_norms": {"mrna": 0.5}, "modality_of_parameter": modality}),
        ({"clipping": "modality"}, {"modality_norms": {"shared": 0.9}}),
        ({"clipping": "modality"}, {"method": "hooks", "modality_of_parameter": modality}),
        ({}, {"method": "functorch"}),
        ({}, {"optimizer": "lion"}),
        ({}, {"expected_records": 0.0}),
        ({}, {"learning_rate": float("nan")}),
        ({}, {"part_scales": {"mrna": -1.0}}),
    ],
)
def test_arguments_without_a_meaning_are_refused(change: dict, options: dict) -> None:
    with pytest.raises(InvalidInput):
        run(replace(MECHANISM, **change), **options)


def test_shared_noise_and_oversized_models_do_not_train_locally(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="shared"):
        run(replace(MECHANISM, noise="shared", steps_per_round=1))
    monkeypatch.setattr(sgd, "MAX_PARAMETERS", 10)
    with pytest.raises(Refused, match="trainable"):
        run()


def test_a_model_that_writes_records_into_a_buffer_is_refused() -> None:
    class Leaky(Branches):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(20))

        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            self.seen += batch["mrna"].sum(dim=0)
            return super().forward(batch)

    with pytest.raises(Refused, match="buffer"):
        run(replace(MECHANISM, sampling_rate=1.0), Leaky())


@pytest.mark.parametrize("how", ["another", "one-more"])
def test_a_model_that_replaces_a_parameter_while_it_trains_is_refused(how: str) -> None:
    class Leaky(Branches):
        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            found = super().forward(batch)
            layer = next(module for module in self.modules() if isinstance(module, nn.Linear))
            seen = nn.Parameter(layer.weight.detach() + batch["mrna"].sum())
            if how == "another":
                layer.weight = seen
            else:
                self.seen = seen
            return found

    with pytest.raises(Refused, match="replaced parameters"):
        run(replace(MECHANISM, sampling_rate=1.0), Leaky())


def test_batch_normalisation_is_refused_before_anything_runs() -> None:
    m = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = copy.deepcopy(m.state_dict())
    with pytest.raises(Refused):
        train(
            m,
            {"x": torch.randn(4, 3)},
            lambda a, b: a(b["x"])[:, 0],
            MECHANISM,
            stream(),
            optimizer="sgd",
            learning_rate=0.1,
            weight_decay=0.0,
            expected_records=4,
        )
    assert all(torch.equal(before[k], v) for k, v in m.state_dict().items())


def test_the_model_is_left_without_hooks_or_marks_of_opacus() -> None:
    for method in ("per-example", "ghost", "hooks"):
        m = model()
        run(m=m, method=method)
        assert not any(layer._forward_hooks or layer._backward_hooks for layer in m.modules())
        assert not any(hasattr(p, "grad_sample") for p in m.parameters())


def test_poisson_batches_have_binomial_sizes() -> None:
    sizes = [len(stream(str(i)).poisson_sample(200, 0.16)) for i in range(400)]
    assert abs(np.mean(sizes) - 32) < 4 * math.sqrt(200 * 0.16 * 0.84 / 400)
    assert abs(np.std(sizes) - math.sqrt(200 * 0.16 * 0.84)) < 0.7
