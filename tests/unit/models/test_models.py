"""The models: shapes, independence of records, gradient paths, blocks, bytes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.build import build_model, record_loss
from models.config import InvalidModel, ModelConfig
from models.outcomes import ordinal_loss, probabilities
from models.parameters import assign, blocks, flatten, from_bytes, to_bytes

ARCHITECTURES = ("linear", "mlp", "mlp-auxiliary", "convolutional")


def config(architecture="linear", classes=2, **more):
    image = 16 * 16 * 3 if architecture == "convolutional" else 5
    return ModelConfig(
        architecture=architecture,
        features={"mrna": 7, "image": image, "clinical": 4},
        cohorts=("BRCA", "LUSC", "LIHC"),
        classes=classes,
        embedding=6,
        hidden=8,
        side=16,
        **more,
    )


def batch(settings, records=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    presence = (torch.rand(records, 3, generator=g) > 0.4).float()
    presence[:, 2] = 1.0
    made = {
        m: torch.randn(records, n, generator=g) * presence[:, [i]] for i, (m, n) in enumerate(settings.features.items())
    }
    cohort = torch.randint(0, 3, (records,), generator=g)
    label = torch.randint(0, settings.classes, (records,), generator=g)
    return {**made, "presence": presence, "cohort": cohort, "label": label}


VARIANTS = [
    *(config(a, c) for a in ARCHITECTURES for c in (2, 3)),
    config("mlp", heads="combination"),
    config("mlp", missing_tokens=True, class_weights=(1.0, 2.0)),
]


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda s: f"{s.architecture}-{s.classes}-{s.heads}")
class TestEveryModel:
    def test_gives_one_cumulative_logit_per_threshold_and_one_loss_per_record(self, settings):
        model, rows = build_model(settings, seed=1), batch(settings)
        assert model(rows).shape == (12, settings.classes - 1)
        assert record_loss(model, rows).shape == (12,)

    def test_a_record_has_the_same_gradient_alone_and_in_a_batch(self, settings):
        model, rows = build_model(settings, seed=1), batch(settings)
        parameters = list(model.parameters())
        together = torch.autograd.grad(record_loss(model, rows)[4], parameters)
        alone = torch.autograd.grad(record_loss(model, {k: v[4:5] for k, v in rows.items()})[0], parameters)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a, b)

    def test_every_parameter_has_a_gradient_path_even_where_nothing_is_present(self, settings):
        model, rows = build_model(settings, seed=1), batch(settings)
        rows["presence"] = torch.zeros_like(rows["presence"])
        record_loss(model, rows).sum().backward()
        assert all(p.grad is not None for p in model.parameters())

    def test_an_absent_modality_does_not_change_the_logits(self, settings):
        model, rows = build_model(settings, seed=1), batch(settings)
        before = model(rows)
        absent = rows["presence"][:, 0] == 0
        rows["mrna"] = rows["mrna"] + 9.0 * absent[:, None]
        torch.testing.assert_close(model(rows), before)

    def test_blocks_cover_every_exchanged_parameter_once(self, settings):
        model = build_model(settings, seed=1)
        parts = blocks(model, settings)
        assert [p[0] for p in parts] == ["mrna", "image", "clinical", "shared"]
        names = [n for p in parts for n in p[2]]
        local = [n for n, _ in model.named_parameters() if n not in names]
        assert len(names) == len(set(names))
        assert all(n.startswith("heads.") for n in local)
        assert bool(local) == (settings.heads == "combination")
        assert sum(p[3] for p in parts) == flatten(model, names).size

    def test_bytes_and_flat_vectors_restore_the_parameters(self, settings):
        model, other = build_model(settings, seed=1), build_model(settings, seed=2)
        names = [n for n, _ in model.named_parameters()]
        values = np.random.default_rng(0).normal(size=flatten(model, names).size).astype(np.float32)
        assign(model, names, values)
        from_bytes(other, to_bytes(model))
        np.testing.assert_array_equal(flatten(other, names), values)
        assert to_bytes(other) == to_bytes(model)

    def test_the_seed_alone_decides_the_initial_parameters(self, settings):
        first = to_bytes(build_model(settings, seed=5))
        torch.manual_seed(99)
        assert to_bytes(build_model(settings, seed=5)) == first


def test_the_linear_model_starts_at_zero_and_is_small():
    settings = config()
    model = build_model(settings, seed=3)
    assert flatten(model, [n for n, _ in model.named_parameters()]).tolist() == [0.0] * (7 + 5 + 4 + 3)


def test_two_classes_give_logistic_loss():
    assert ordinal_loss(torch.zeros(1, 1), torch.tensor([1])).item() == pytest.approx(math.log(2))


def test_probabilities_are_a_distribution_that_follows_the_logits():
    p = probabilities(torch.tensor([[2.0, -1.0], [0.0, 3.0]]))
    assert p.sum(dim=1).tolist() == pytest.approx([1.0, 1.0])
    assert (p >= 0).all()
    assert p[0, 0].item() == pytest.approx(1 - 1 / (1 + math.exp(-2.0)))


@pytest.mark.parametrize("harm", [b"", b"x" * 40, "short", "long", "huge header", "other names"])
def test_foreign_bytes_are_refused_before_they_are_parsed(harm):
    model = build_model(config(), seed=1)
    good = to_bytes(model)
    data = {
        "short": good[:-1],
        "long": good + b"\0",
        "huge header": (1 << 60).to_bytes(8, "little") + good[8:],
        "other names": good.replace(b"mrna", b"xrna"),
    }.get(harm, harm)
    with pytest.raises(InvalidModel):
        from_bytes(model, data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": {}},
        {"features": {"x/ray": 3}},
        {"features": {"label": 3}},
        {"gains": {"image": 1.0}},
        {"gains": {"mrna": 0.0}},
        {"classes": 1},
        {"cohorts": ()},
    ],
)
def test_a_configuration_that_describes_no_model_is_refused(wrong):
    good = {"architecture": "linear", "features": {"mrna": 3}, "cohorts": ("A",), "classes": 2}
    with pytest.raises(InvalidModel):
        build_model(ModelConfig(**{**good, **wrong}), seed=0)
