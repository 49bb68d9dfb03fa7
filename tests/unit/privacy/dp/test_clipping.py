from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from privacy.dp.clipping import RECORD, PerExampleClipper, check_model
from privacy.errors import InvalidInput, Refused

torch.set_num_threads(1)


class Everything(nn.Module):
    """One of each layer with a rule, an attention pooling over patches, and a presence mask."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6, padding_idx=0)
        self.convolution = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
        self.small = nn.Conv2d(6, 4, 1, bias=False)
        self.groups = nn.GroupNorm(2, 4)
        self.project = nn.Linear(5, 6)
        self.norm = nn.LayerNorm(6)
        self.gate = nn.Linear(6, 1, bias=False)
        self.head = nn.Linear(6 + 4 + 6, 3)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        words = self.words(batch["words"]).mean(dim=1)
        image = self.groups(self.small(torch.tanh(self.convolution(batch["image"])))).mean(dim=(2, 3))
        patches = torch.tanh(self.norm(self.project(batch["patches"])))
        pooled = (torch.softmax(self.gate(patches), dim=1) * patches).sum(dim=1)
        return self.head(torch.cat([words, image * batch["present"], pooled], dim=1))


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch), batch["label"], reduction="none")


def records(count: int, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "words": torch.randint(0, 11, (count, 7), generator=g),
        "image": torch.randn(count, 4, 8, 8, generator=g),
        "patches": torch.randn(count, 9, 5, generator=g) * torch.arange(1, count + 1).reshape(-1, 1, 1),
        "present": torch.randint(0, 2, (count, 1), generator=g).float(),
        "label": torch.randint(0, 3, (count,), generator=g),
    }


def model_with(seed: int = 0) -> Everything:
    torch.manual_seed(seed)
    return Everything()


def record_gradients(model: nn.Module, batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The slow oracle: one backward pass per record."""
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = []
    for b in range(len(batch["label"])):
        alone = {k: v[b : b + 1] for k, v in batch.items()}
        found = torch.autograd.grad(loss(model, alone).sum(), parameters, allow_unused=True)
        gradients.append(
            {n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, found, strict=True)}
        )
    return gradients


def clipped_by_loop(gradients: list[dict[str, Tensor]], bound: float) -> dict[str, Tensor]:
    total = {n: torch.zeros_like(g) for n, g in gradients[0].items()}
    for gradient in gradients:
        norm = torch.sqrt(sum((g**2).sum() for g in gradient.values()))
        for name, g in gradient.items():
            total[name] += g * min(1.0, bound / (float(norm) + 1e-6))
    return total


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 9), seed=st.integers(0, 1000), bound=st.floats(0.01, 50))
def test_clipped_sums_equal_a_loop_over_records_for_every_supported_layer(count: int, seed: int, bound: float) -> None:
    model, batch = model_with(seed), records(count, seed)
    with PerExampleClipper(model) as clipper:
        ours = clipper.clipped_sum(batch, loss, {RECORD: bound})
    oracle = clipped_by_loop(record_gradients(model, batch), bound)
    assert set(ours) == set(oracle)
    for name in ours:
        torch.testing.assert_close(ours[name].float(), oracle[name], rtol=2e-4, atol=1e-6 * max(1.0, bound))


def test_the_norm_of_a_single_clipped_record_never_passes_the_bound() -> None:
    model, batch = model_with(), records(6)
    with PerExampleClipper(model) as clipper:
        for b in range(6):
            alone = {k: v[b : b + 1] for k, v in batch.items()}
            total = clipper.clipped_sum(alone, loss, {RECORD: 0.1})
            assert float(torch.sqrt(sum((g.double() ** 2).sum() for g in total.values()))) <= 0.1 * (1 + 2**-13)


def test_groups_are_clipped_each_to_its_own_norm() -> None:
    model, batch = model_with(), records(5)
    image = ("convolution", "small", "groups")

    def group_of(name: str) -> str:
        return "image" if name.startswith(image) else "rest"

    with PerExampleClipper(model, group_of) as clipper:
        ours = clipper.clipped_sum(batch, loss, {"image": 0.03, "rest": 0.5})
    gradients = record_gradients(model, batch)
    for group, bound in (("image", 0.03), ("rest", 0.5)):
        part = [{n: g for n, g in gradient.items() if group_of(n) == group} for gradient in gradients]
        for name, expected in clipped_by_loop(part, bound).items():
            torch.testing.assert_close(ours[name].float(), expected, rtol=2e-4, atol=1e-6)


def test_a_frozen_layer_counts_neither_in_norms_nor_in_sums() -> None:
    model, batch = model_with(), records(4)
    model.convolution.requires_grad_(False)
    model.head.bias.requires_grad_(False)
    with PerExampleClipper(model) as clipper:
        ours = clipper.clipped_sum(batch, loss, {RECORD: 0.2})
    oracle = clipped_by_loop(record_gradients(model, batch), 0.2)
    assert set(ours) == set(oracle)
    for name in ours:
        torch.testing.assert_close(ours[name].float(), oracle[name], rtol=2e-4, atol=1e-6)


def test_an_absent_modality_gives_its_branch_a_zero_gradient() -> None:
    model, batch = model_with(), records(4)
    batch["present"].zero_()
    with PerExampleClipper(model) as clipper:
        clipper.clipped_sum(records(4), loss, {RECORD: 1.0})  # nothing of an earlier batch may linger
        ours = clipper.clipped_sum(batch, loss, {RECORD: 1.0})
    assert float(ours["convolution.weight"].abs().max()) == 0


def test_an_unused_branch_is_zero_and_not_the_last_batch_again() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 1), nn.Linear(3, 1)

        def forward(self, x: Tensor, both: bool) -> Tensor:
            return self.a(x) + self.b(x) if both else self.a(x)

    model = Two()
    x = torch.randn(4, 3)
    with PerExampleClipper(model) as clipper:
        clipper.clipped_sum({"x": x}, lambda m, b: m(b["x"], True)[:, 0], {RECORD: 1.0})
        ours = clipper.clipped_sum({"x": x}, lambda m, b: m(b["x"], False)[:, 0], {RECORD: 1.0})
    assert float(ours["b.weight"].abs().max()) == 0
    assert float(ours["a.weight"].abs().max()) > 0


def test_an_empty_batch_gives_zeros() -> None:
    model = model_with()
    with PerExampleClipper(model) as clipper:
        ours = clipper.clipped_sum({k: v[:0] for k, v in records(3).items()}, loss, {RECORD: 1.0})
    assert all(float(g.abs().sum()) == 0 for g in ours.values())


def test_a_record_with_an_infinite_gradient_counts_as_zero_and_harms_no_other() -> None:
    model, batch = model_with(), records(4)
    with PerExampleClipper(model) as clipper:
        without = clipper.clipped_sum({k: v[1:] for k, v in batch.items()}, loss, {RECORD: 0.5})
        batch["patches"][0] = float("inf")
        ours = clipper.clipped_sum(batch, loss, {RECORD: 0.5})
    for name in ours:
        torch.testing.assert_close(ours[name], without[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "part",
    [
        nn.BatchNorm1d(4),
        nn.BatchNorm1d(4, affine=False),
        nn.InstanceNorm1d(4, track_running_stats=True),
        nn.LSTM(4, 4),
        nn.MultiheadAttention(4, 2),
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
        nn.Conv2d(1, 1, 3, padding="same"),
        nn.Embedding(4, 4, max_norm=1.0),
    ],
    ids=lambda part: type(part).__name__,
)
def test_parts_that_void_the_bound_are_refused(part: nn.Module) -> None:
    with pytest.raises(Refused):
        check_model(nn.Sequential(nn.Linear(4, 4), part))


def test_a_parameter_outside_a_layer_is_refused() -> None:
    class Loose(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.scale = nn.Linear(2, 2), nn.Parameter(torch.ones(1))

    with pytest.raises(Refused, match="parameters of its own"):
        check_model(Loose())


def test_shared_parameters_are_refused() -> None:
    one, two = nn.Linear(3, 3), nn.Linear(3, 3)
    two.weight = one.weight
    with pytest.raises(Refused, match="shared"):
        check_model(nn.Sequential(one, two))


def test_a_subclass_of_a_known_layer_is_refused() -> None:
    class Odd(nn.Linear):
        pass

    with pytest.raises(Refused):
        check_model(Odd(2, 2))


def test_a_layer_used_twice_is_refused() -> None:
    layer = nn.Linear(3, 3)
    with PerExampleClipper(layer) as clipper, pytest.raises(Refused, match="twice"):
        clipper.clipped_sum({"x": torch.randn(2, 3)}, lambda m, b: m(m(b["x"])).sum(1), {RECORD: 1.0})


def test_an_input_changed_in_place_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 1))
    with PerExampleClipper(model) as clipper, pytest.raises(Refused, match="in place"):
        clipper.clipped_sum({"x": torch.randn(2, 3)}, lambda m, b: m(b["x"])[:, 0], {RECORD: 1.0})


def test_patches_folded_into_the_batch_axis_are_refused() -> None:
    model = nn.Linear(3, 1)
    with PerExampleClipper(model) as clipper, pytest.raises(Refused, match="first dimension"):
        clipper.clipped_sum(
            {"x": torch.randn(2, 5, 3)}, lambda m, b: m(b["x"].reshape(-1, 3)).reshape(-1, 5).sum(1), {RECORD: 1.0}
        )


@pytest.mark.parametrize("shape", ["column", "scalar"])
def test_losses_of_another_shape_are_refused(shape: str) -> None:
    model = nn.Linear(3, 1)

    def wrong(m: nn.Module, b: dict[str, Tensor]) -> Tensor:
        return m(b["x"]) if shape == "column" else m(b["x"]).sum()

    with PerExampleClipper(model) as clipper, pytest.raises(Refused, match="shape"):
        clipper.clipped_sum({"x": torch.randn(2, 3)}, wrong, {RECORD: 1.0})


def test_bounds_must_name_the_groups() -> None:
    model = nn.Linear(3, 1)
    with PerExampleClipper(model) as clipper, pytest.raises(InvalidInput, match="groups"):
        clipper.clipped_sum({"x": torch.randn(2, 3)}, lambda m, b: m(b["x"])[:, 0], {"other": 1.0})


def test_squared_norms_are_those_of_single_records() -> None:
    model, batch = model_with(), records(5)
    with PerExampleClipper(model) as clipper:
        ours = clipper.squared_norms(batch, loss)[RECORD]
    loop = [
        sum(float((g.double() ** 2).sum()) for g in gradient.values()) for gradient in record_gradients(model, batch)
    ]
    torch.testing.assert_close(ours, torch.tensor(loop, dtype=torch.float64), rtol=1e-4, atol=1e-7)


def test_a_gradient_whose_squares_vanish_in_float32_is_clipped() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(5.3e-17)
    batch = {"x": torch.tensor([[1e18]])}  # a saturated logit: the gradient is 1e-23 times 1e18

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return nn.functional.softplus(-model(batch["x"])).squeeze(1)

    for bound in (1e-6, 1e-9):
        with PerExampleClipper(model) as clipper:
            total = clipper.clipped_sum(batch, loss, {RECORD: bound})
        assert 0 < float(total["weight"].norm()) <= bound


@pytest.mark.parametrize("size", [1e4, 1e6, 1e8])
@pytest.mark.parametrize("width", [4, 64], ids=["records' gradients", "Gram matrices"])
def test_what_rounding_leaves_of_terms_that_cancel_is_clipped(width: int, size: float) -> None:
    generator = torch.Generator().manual_seed(1)
    model = nn.Linear(width, width)
    first = size * torch.randn(1, 1, width, generator=generator)
    direction = 1e3 * torch.randn(width, generator=generator)
    batch = {"x": torch.cat([first, first * (1 + 1e-7), first, first], dim=1)}

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        out = model(batch["x"])
        return ((out[:, 0] - out[:, 1]) + (out[:, 2] - out[:, 3])) @ direction

    with PerExampleClipper(model) as clipper:
        total = clipper.clipped_sum(batch, loss, {RECORD: 1.0})
    assert sum(float(t.double().norm() ** 2) for t in total.values()) <= 1.0
