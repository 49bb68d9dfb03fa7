"""The bound of docs/shared-noise.md, section 3, on records that are made to break it."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.build import build_model, record_loss
from models.config import ModelConfig, Target
from privacy.dp.clipping import MOST_RECORDS, RECORD, PerExampleClipper
from privacy.dp.fixed_batches import TOGETHER, fixed_batches
from privacy.dp.mechanism import Mechanism
from privacy.dp.randomness import Randomness
from privacy.dp.sgd import train
from privacy.errors import Refused

torch.set_num_threads(1)
MARGIN = 2.0**-13
FEATURES = {"mrna": 1544, "image": 607, "clinical": 100}
MAPS = {"mrna": 40, "image": 64 * 64 * 3, "clinical": 10}


class Score(nn.Module):
    """A linear score: the gradient of a record is the record."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.layer.weight)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.layer(batch["x"])[:, 0]
        return scores


def score(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    scores: Tensor = model(batch)
    return scores


def constructed(count: int, width: int) -> Tensor:
    """Half of the records bring float32 sums to a power of two; each other takes less than half a step off it.

    From exactly the power the small ones count. From a little above it they are rounded away.
    """
    big = count // 2
    power = 2.0 ** math.floor(math.log2(big / math.sqrt(width)))
    return torch.cat(
        [torch.full((big, width), power / big), torch.full((count - big, width), -0.99 * power * 2.0**-24)]
    )


@pytest.mark.parametrize(("count", "width"), [(2_013, 16), (8_193, 400), (32_769, 16)])
def test_one_record_moves_the_clipped_sum_by_at_most_the_norm(count: int, width: int) -> None:
    """float32 sums moved by 1.06, 1.6 and 17 norms here."""
    records = constructed(count, width)
    more = torch.cat([torch.full((1, width), 1 / math.sqrt(width)), records])
    with PerExampleClipper(Score(width)) as clipper:
        one, other = (clipper.clipped_sum({"x": x}, score, {RECORD: 1.0})["layer.weight"] for x in (records, more))
    assert float((one - other).norm()) <= 1 + MARGIN


def test_local_training_adds_its_noise_to_sums_of_the_same_exactness() -> None:
    """The whole step: noise of 1e-6 norms shows what the sum was before it."""
    records = constructed(8_193, 16)
    more = torch.cat([torch.full((1, 16), 0.25), records])
    tiny = Mechanism(
        max_grad_norm=1.0, noise_multiplier=1e-6, sampling_rate=1.0, steps_per_round=1, rounds=1, target_delta=1e-5
    )
    moved = []
    for x in (records, more):
        stream = Randomness.public(0, site="a", study="s", round=1, plan_hash="p")
        settings = {"optimizer": "sgd", "learning_rate": 1.0, "weight_decay": 0.0, "expected_records": 1.0}
        update = train(Score(16), {"x": x}, score, tiny, stream, **settings).update["layer.weight"]  # type: ignore[arg-type]
        moved.append(update.double())
    # the update is float32 after the noise; the sum is about 4,096 long
    assert float((moved[0] - moved[1]).norm()) <= 1 + 4096 * 2.0**-22


def test_norms_of_wide_records_are_not_too_low() -> None:
    """float32 norms of 700,000 equal coordinates were 5e-4 low, four times the margin."""
    width = 700_000
    x = torch.cat([torch.full((1, width // 2), 1.0), torch.full((1, width - width // 2), 3e-4)], dim=1)
    with PerExampleClipper(Score(width)) as clipper:
        total = clipper.clipped_sum({"x": x.repeat(3, 1)}, score, {RECORD: 1.0})["layer.weight"]
    assert float(total.norm()) <= 3 * (1 + MARGIN)


def weighted(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """A loss whose gradient at the layer's output is given, position by position: whoever chooses weights can."""
    return (model(batch["x"]) * batch["g"]).flatten(1).sum(dim=1)


def clipped(model: nn.Module, x: Tensor, g: Tensor, bound: float) -> Tensor:
    with PerExampleClipper(model) as clipper:
        sums = clipper.clipped_sum({"x": x, "g": g}, weighted, {RECORD: bound})
    return torch.cat([total.flatten() for total in sums.values()])


@pytest.mark.parametrize("size", [50, 60, 100])
@pytest.mark.parametrize("kind", ["layer", "group"])
def test_positions_that_cancel_in_a_normalisation_do_not_pass_the_norm(kind: str, size: int) -> None:
    """Only rounding is left of the clipped sum then. It was 4e5 to 4e20 norms long, since the norm did not see it."""
    x, g = torch.tensor([[2.0**30, -(2.0**30)]]).repeat(1, 4, 1), torch.zeros(1, 4, 2)
    model = nn.LayerNorm(2) if kind == "layer" else nn.GroupNorm(1, 2)
    generator = torch.Generator().manual_seed(size)
    for _ in range(20):
        one, other = (torch.randint(2**20, 2**22, (2,), generator=generator).double() * 2.0**size).float()
        g[0, :, 0] = torch.stack([one, other, -(one + other), torch.tensor(3.0)])
        place = (x, g) if kind == "layer" else (x.mT.contiguous(), g.mT.contiguous())
        assert float(clipped(model, *place, 1.0).norm()) <= 1 + MARGIN


def test_positions_that_cancel_do_not_round_away_what_other_records_added() -> None:
    """One product over records and positions moved by 1.136 norms here: large terms took the low bits of the sum."""
    bound, worst = 1.76, 0.0
    draw = random.Random(3)  # noqa: S311 - made-up records
    for _ in range(300):
        size, last = draw.uniform(1, 2) * 2.0 ** draw.randint(44, 50), draw.randint(1, 3)
        crowd = [[draw.uniform(-1, 1), 0.0, 0.0]] + [[size * 2**i, -size * 2**i, 0.0] for i in range(last)]
        more = [[draw.choice([-1, 1]) * draw.uniform(0.9, 1) * bound, 0.0, 0.0], *crowd]
        moved = [
            clipped(nn.Linear(1, 1, bias=False), torch.ones(len(rows), 3, 1), torch.tensor(rows).unsqueeze(-1), bound)
            for rows in (crowd, more)
        ]
        worst = max(worst, float((moved[0] - moved[1]).norm()) / bound)
    assert worst <= 1 + MARGIN


@pytest.mark.parametrize(
    "layer", [nn.Linear(3, 2), nn.LayerNorm(3), nn.Embedding(5, 2), nn.Conv2d(4, 6, 2, groups=2), nn.GroupNorm(2, 4)]
)
def test_sums_over_several_passes_are_those_of_autograd(layer: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (300, 4, 3) if not isinstance(layer, nn.Conv2d | nn.GroupNorm) else (300, 4, 3, 3)
    x = torch.randint(0, 5, shape, generator=generator) if isinstance(layer, nn.Embedding) else torch.randn(shape)
    g = torch.randn(layer(x).shape, generator=generator)
    found = clipped(layer, x, g, 1e6)
    wanted = torch.autograd.grad(weighted(layer, {"x": x, "g": g}).sum(), list(layer.parameters()))
    assert torch.allclose(found, torch.cat([w.flatten() for w in wanted]).double(), rtol=1e-4, atol=1e-3)


def records(features: dict[str, int], count: int, classes: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    batch = {name: torch.randn(count, width, generator=g) for name, width in features.items()}
    batch["presence"] = torch.randint(0, 2, (count, 3), generator=g).float()
    batch["cohort"] = torch.randint(0, 2, (count,), generator=g)
    batch["label"] = torch.randint(0, classes, (count,), generator=g)
    return batch


@pytest.mark.parametrize(
    ("architecture", "features", "options"),
    [
        ("linear", FEATURES, {"centred": True}),
        ("mlp", FEATURES, {}),
        ("mlp", FEATURES, {"missing_tokens": True}),
        ("mlp-auxiliary", FEATURES, {}),
        ("convolutional", MAPS, {}),
        ("linear", FEATURES, {"predicts": Target(kind="categorical")}),
        ("mlp", FEATURES, {"predicts": Target(kind="categorical")}),
        ("linear", FEATURES, {"classes": 0, "predicts": Target(kind="count", high=90.0, typical=4.0)}),
        ("linear", FEATURES, {"classes": 0, "predicts": Target(kind="continuous", high=9.0, typical=4.0, spread=2.0)}),
        ("mlp", FEATURES, {"classes": 0, "predicts": Target(kind="survival", edges=(1.0, 2.0, 3.0, 5.0))}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_record_gives_the_same_bits_wherever_it_stands_and_whoever_is_there(
    architecture: str, features: dict[str, int], options: dict[str, Any]
) -> None:
    """Else one record more would move the gradients, losses and scores of all others by a rounding error."""
    options = {"classes": 3, **options}
    config = ModelConfig(architecture=architecture, features=features, cohorts=("A", "B"), **options)  # type: ignore[arg-type]
    model, batch = build_model(config, seed=0), records(features, 100, 3)
    model.train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)), alpha=0.05)
    found: dict[int, bytes] = {}
    with PerExampleClipper(model) as clipper:
        for seed in range(3):
            order = torch.randperm(100, generator=torch.Generator().manual_seed(seed))[: 100 - 17 * seed]
            placed = [(rows, held) for rows, held in fixed_batches({n: v[order] for n, v in batch.items()})]
            place = 0
            for rows, held in placed:
                clipper._calls.clear()
                losses = record_loss(model, rows)
                pairs = clipper._pairs(losses, held)
                for row in range(held):
                    bits = b"".join(x[row].numpy().tobytes() + g[row].numpy().tobytes() for x, g in pairs.values())
                    assert found.setdefault(int(order[place]), bits) == bits
                    place += 1


def test_pieces_have_one_size_and_every_record_once() -> None:
    pieces = list(fixed_batches({"x": torch.arange(130)}))
    assert [len(rows["x"]) for rows, _ in pieces] == [TOGETHER] * 3
    assert torch.cat([rows["x"][:held] for rows, held in pieces]).tolist() == list(range(130))


def test_more_records_than_the_bound_reaches_are_refused() -> None:
    with PerExampleClipper(Score(1)) as clipper, pytest.raises(Refused, match="records in a batch"):
        clipper.clipped_sum({"x": torch.zeros(1).expand(MOST_RECORDS + 1, 1)}, score, {RECORD: 1.0})


@pytest.mark.parametrize("width", [3, 13, 17, 33, 101])
def test_a_record_that_is_computed_alone_has_memory_of_its_own(width: int) -> None:
    """A view into the batch begins at another address for each record, and kernels choose their path by it."""
    row = torch.randn(width, generator=torch.Generator().manual_seed(width))
    weights = torch.randn(width, generator=torch.Generator().manual_seed(7))
    layer = nn.Linear(width, 1, bias=False)
    with torch.no_grad():
        layer.weight[0] = (weights - row * (weights @ row) / (row @ row)) * 2.0**40  # large terms cancel
        found = {layer(rows["x"]).numpy().tobytes() for rows, _ in fixed_batches({"x": row.repeat(101, 1)}, 1)}
    assert len(found) == 1
