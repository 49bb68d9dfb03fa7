"""What one record does to the tables of a counting study, and what such a study refuses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.build import build_model, record_loss
from models.config import InvalidModel, ModelConfig
from models.counter import contributions
from models.counting import Axis, Count, Counting, Factor, Question
from models.parameters import blocks
from models.targets import Target
from privacy.dp.clipping import RECORD, PerExampleClipper

FEATURES = {"mrna": 3, "clinical": 6}
AGE = Factor(modality="clinical", column=0, missing=1, centre=0.0, half=2.0)
GENE = Factor(modality="mrna", column=2, half=0.5)
COHORT = Axis(kind="cohort", name="cohort", groups=("a", "b"))
SEX = Axis(
    kind="category", name="sex", modality="clinical", column=2, missing=4, groups=("f", "m", "several", "missing")
)
AGES = Axis(
    kind="number", name="age", modality="clinical", column=0, missing=1, edges=(-2.0, 0.0, 2.0),
    groups=("low", "high", "missing"),
)  # fmt: skip
HELD = Axis(kind="modality", name="mrna", modality="mrna", groups=("without", "with"))
PATTERN = Axis(kind="pattern", name="held", modalities=("mrna", "clinical"), groups=("none", "c", "m", "m+c"))
CLASSES = Axis(kind="outcome-class", name="stage", groups=("early", "late"))
EVERY = Counting(
    questions=(
        Question(kind="counts", title="all", counts=(Count(), Count(axes=(COHORT,)), Count(axes=(PATTERN, CLASSES)))),
        Question(kind="histogram", title="age", counts=(Count(axes=(SEX, AGES)), Count(axes=(HELD,)))),
        Question(
            kind="correlations", title="age, gene",
            counts=tuple(Count(axes=(COHORT,), factors=f, needs=(AGE, GENE)) for f in ((), (AGE,), (AGE, GENE))),
        ),
    )
)  # fmt: skip
CONFIG = ModelConfig(architecture="counts", features=FEATURES, cohorts=("a", "b"), classes=2, counting=EVERY)


def batch(records: int, seed: int, size: float = 1.0) -> dict[str, torch.Tensor]:
    stream = np.random.default_rng(seed)
    clinical = np.column_stack([size * stream.normal(size=records), *stream.integers(0, 2, size=(5, records))])
    return {
        "mrna": torch.tensor(size * stream.normal(size=(records, 3)), dtype=torch.float32),
        "clinical": torch.tensor(clinical, dtype=torch.float32),
        "presence": torch.tensor(stream.integers(0, 2, size=(records, 2)), dtype=torch.float32),
        "cohort": torch.tensor(stream.integers(0, 2, size=records)),
        "label": torch.tensor(stream.integers(0, 2, size=records)),
    }


@given(st.integers(0, 10_000), st.sampled_from((0.1, 1.0, 100.0)))
def test_a_record_moves_every_table_by_one_entry_of_one_at_most(seed, size):
    added = contributions(batch(5, seed, size), EVERY.counts)
    start = 0
    for count in EVERY.counts:
        own = added[:, start : start + count.cells]
        assert ((own != 0).sum(dim=1) <= 1).all() and own.abs().max() <= 1.0
        start += count.cells
    assert start == EVERY.length and (added.double().norm(dim=1) <= EVERY.sensitivity).all()


def test_groups_are_those_that_the_axes_say():
    made = batch(4, 0)
    made["presence"] = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    made["clinical"] = torch.tensor(
        [[-9.0, 0, 1, 0, 0, 0], [0.0, 0, 1, 1, 0, 0], [1.0, 0, 0, 1, 0, 0], [1.0, 0, 1, 0, 0, 0]]
    )
    made["cohort"], made["label"] = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 0, 1, 1])

    def found(axis: Axis) -> list[str]:
        return [axis.groups[k] for k in contributions(made, [Count(axes=(axis,))]).argmax(dim=1).tolist()]

    assert found(COHORT) == ["a", "b", "b", "a"] and found(CLASSES) == ["early", "early", "late", "late"]
    assert found(PATTERN) == ["m+c", "c", "m", "none"] and found(HELD) == ["with", "without", "with", "without"]
    assert found(SEX) == ["f", "several", "missing", "missing"]  # whoever lacks the modality lacks the value
    assert found(AGES) == ["low", "high", "missing", "missing"]  # an edge belongs to the group that it begins
    made["clinical"][0, 1] = 1.0
    assert found(AGES)[0] == "missing" and found(SEX)[0] == "f"


def test_intervals_of_survival_are_taken_together_as_a_life_table_does():
    target = Target(kind="survival", edges=(1.0, 2.0, 3.0, 4.0))
    axis = Axis(kind="survival", name="os", ends=(2, 4), marks=(0, 2, 4), groups=("c1", "e1", "c2", "e2", "beyond"))
    made = {**batch(6, 0), "label": torch.tensor([
        target.interval_label(0.5, happened=True), target.interval_label(1.5, happened=True),
        target.interval_label(1.5, happened=False), target.interval_label(2.5, happened=True),
        target.interval_label(3.5, happened=False), target.interval_label(9.0, happened=False),
    ])}  # fmt: skip
    found = contributions(made, [Count(axes=(axis,))]).argmax(dim=1).tolist()
    assert [axis.groups[k] for k in found] == ["e1", "e1", "c1", "e2", "c2", "beyond"]


def test_one_step_from_zero_is_the_sum_of_what_records_add_and_no_honest_record_is_scaled_down():
    made, model = batch(150, 3), build_model(CONFIG, seed=5)
    with PerExampleClipper(model) as clipper:
        sums = clipper.clipped_sum(made, record_loss, {RECORD: EVERY.max_grad_norm})
    exact = contributions(made, EVERY.counts).double().sum(dim=0)
    assert torch.equal(-sums["cells.total.weight"][0], exact)
    assert [(name, modality, length) for name, modality, _, length in blocks(model, CONFIG)] == [
        ("shared", None, EVERY.length)
    ]
    assert all(not parameter.any() for parameter in model.parameters())


def test_a_record_adds_the_same_alone_and_among_others():
    made = batch(70, 8)
    together = contributions(made, EVERY.counts)
    alone = [contributions({n: t[k : k + 1] for n, t in made.items()}, EVERY.counts) for k in range(70)]
    assert torch.equal(together, torch.cat(alone))


WRONG = {
    "unknown modality": Count(axes=(Axis(kind="modality", name="x", modality="x", groups=("a", "b")),)),
    "column beyond": Count(factors=(Factor(modality="mrna", column=3),)),
    "missing beyond": Count(needs=(Factor(modality="mrna", column=0, missing=7),)),
    "levels beyond": Count(
        axes=(Axis(kind="category", name="x", modality="clinical", column=5, groups=("a", "b", "s", "m")),)
    ),
    "other cohorts": Count(axes=(Axis(kind="cohort", name="cohort", groups=("a", "b", "c")),)),
    "other classes": Count(axes=(Axis(kind="outcome-class", name="y", groups=("a",)),)),
}


@pytest.mark.parametrize("name", WRONG)
def test_columns_that_are_not_there_are_refused(name):
    asked = Counting(questions=(Question(kind="counts", title="wrong", counts=(WRONG[name],)),))
    with pytest.raises(InvalidModel):
        build_model(
            ModelConfig(architecture="counts", features=FEATURES, cohorts=("a", "b"), classes=2, counting=asked), seed=0
        )


def test_what_is_no_question_is_refused():
    with pytest.raises(InvalidModel, match="expected 1 to"):
        Counting(questions=())
    with pytest.raises(InvalidModel, match="cells"):
        wide = Axis(kind="number", name="x", edges=tuple(map(float, range(300))), groups=("g",) * 300)
        Counting(questions=(Question(kind="counts", title="wide", counts=(Count(axes=(wide, wide)),)),))
    for edges, groups in itertools.product([(1.0, 1.0), (2.0, 1.0), (0.0, float("nan"))], [("a", "b")]):
        with pytest.raises(InvalidModel):
            Axis(kind="number", name="x", edges=edges, groups=groups)
    with pytest.raises(InvalidModel, match="half-width"):
        Factor(modality="x", column=0, half=0.0)
    with pytest.raises(InvalidModel, match="architecture counts"):
        build_model(ModelConfig(architecture="counts", features=FEATURES, cohorts=("a",), classes=2), seed=0)
    with pytest.raises(InvalidModel, match="architecture counts"):
        build_model(
            ModelConfig(architecture="linear", features=FEATURES, cohorts=("a", "b"), classes=2, counting=EVERY), seed=0
        )
