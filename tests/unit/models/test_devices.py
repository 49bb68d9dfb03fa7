"""Models, losses and what is made of outputs keep their constants on the device of the model."""

from __future__ import annotations

import pytest
import torch

from models.build import build_model, record_loss
from models.config import InvalidModel, ModelConfig, Target
from models.counting import Axis, Count, Counting, Factor, Question
from models.devices import chosen_device, on_device
from models.outcomes import predicted, scores

FEATURES = {"mrna": 16, "image": 16, "clinical": 16}
SURVIVAL = Target(kind="survival", edges=(1.0, 2.0, 3.0))
AXES = (
    Axis(kind="cohort", name="c", groups=("a", "b")),
    Axis(kind="pattern", name="p", modalities=("mrna", "image"), groups=("n", "i", "m", "mi")),
    Axis(kind="category", name="k", modality="clinical", column=2, groups=("x", "y", "several", "missing")),
    Axis(kind="number", name="n", modality="mrna", column=0, missing=1, edges=(-1.0, 0.0, 1.0), groups=("l", "h", "m")),
    Axis(kind="outcome-class", name="o", groups=("early", "late")),
)  # fmt: skip
COUNTED = Counting(
    questions=(
        Question(
            kind="counts", title="all",
            counts=(*(Count(axes=(a,)) for a in AXES), Count(factors=(Factor(modality="mrna", column=1),))),
        ),
    )
)  # fmt: skip
CONFIGS = {
    "linear": {"architecture": "linear", "centred": True, "standardised": ("image",)},
    "weighted": {"architecture": "linear", "class_weights": (1.0, 2.0)},
    "categorical": {"architecture": "linear", "classes": 3, "predicts": Target(kind="categorical")},
    "survival": {"architecture": "mlp", "classes": 0, "predicts": SURVIVAL},
    "count": {"architecture": "mlp", "classes": 0, "predicts": Target(kind="count", low=0, high=9, typical=2)},
    "heads": {"architecture": "mlp", "heads": "combination"},
    "tokens": {"architecture": "mlp", "missing_tokens": True},
    "auxiliary": {"architecture": "mlp-auxiliary"},
    "counts": {"architecture": "counts", "counting": COUNTED},
}


def batch(records: int = 4) -> dict[str, torch.Tensor]:
    made = {m: torch.randn(records, n) for m, n in FEATURES.items()}
    whole = torch.zeros(records, dtype=torch.int64)
    return {**made, "presence": torch.ones(records, 3), "cohort": whole, "label": whole}


@pytest.mark.parametrize("name", CONFIGS)
def test_everything_stays_on_the_models_device(name):
    """The device "meta" computes no number, but refuses a tensor of another device, as an accelerator does."""
    given = {"features": FEATURES, "cohorts": ("a", "b"), "classes": 2, **CONFIGS[name]}
    config = ModelConfig(**given)
    model, made = build_model(config, seed=1).to("meta"), on_device(batch(), torch.device("meta"))
    losses = record_loss(model, made)
    assert losses.device.type == "meta" and losses.shape == (4,)
    losses.sum().backward()
    assert all(p.grad is None or p.grad.device.type == "meta" for p in model.parameters())
    if config.counting is None:
        assert predicted(model(made), config).device.type == "meta"
        assert scores(model(made), made["label"], config).device.type == "meta"


def test_a_device_is_chosen_by_name_and_refused_in_words(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert chosen_device("auto") == chosen_device("cpu") == torch.device("cpu")
    for name, message in {
        "cuda": "0 CUDA devices here",
        "cuda:3": "0 CUDA",
        "tpu": "auto, cpu",
        "cuda:x": "auto",
    }.items():
        with pytest.raises(InvalidModel, match=message):
            chosen_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert chosen_device("auto") == torch.device("cuda") and chosen_device("cuda:1") == torch.device("cuda:1")
