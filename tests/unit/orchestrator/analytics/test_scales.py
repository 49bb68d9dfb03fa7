"""Released quantiles and means as a schema's constants: the right numbers, their source, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from datasites.study.schema.document import Modality, StudySchema, parse_schema
from datasites.study.schema.outcomes import Classes
from datasites.study.schema.variables import Category, Level, Number
from datasites.study.signing import dump
from models.counting import Counting
from orchestrator.analytics.answers import Answer, answers_of
from orchestrator.analytics.columns import Columns
from orchestrator.analytics.questions import Questions
from orchestrator.analytics.scales import rescaled
from privacy.canonical import canonical_json
from privacy.errors import InvalidInput

AGE = Number(name="age", unit="years", low=0, high=110, centre=55, scale=30)
CRP = Number(name="crp", unit="mg/L", low=0, high=500, transform="log1p", centre=3, scale=2)
SEX = Category(name="sex", levels=(Level(name="f"), Level(name="m")))
GENES = Number(name="tpm", low=0, high=1e5, transform="log2p1", centre=5, scale=5)
DOCUMENT = StudySchema(
    name="s",
    version=3,
    title="s",
    cohorts=(Level(name="all"),),
    modalities=(
        Modality(name="lab", kind="tabular", label="l", variables=(AGE, SEX, CRP), source="round numbers"),
        Modality(name="rna", kind="sequence-counts", label="r", columns=("a", "b"), measure=GENES),
    ),
    outcomes=(Classes(name="o", kind="binary", label="o", column="o", levels=(Level(name="n"), Level(name="y"))),),
)
COLUMNS = Columns(
    features={m.name: m.inputs for m in DOCUMENT.modalities}, cohorts=("all",), task="o", classes=2, document=DOCUMENT
)
ASK = Questions(columns=COLUMNS)


def answer(name: str, values: np.ndarray, deviation: float = 0.0) -> Answer:
    """Return the answer to the quartiles of one number, counted as hospitals count."""
    (question,) = ASK.quartiles(name)
    axis = question.counts[0].axes[0]
    marks = np.array(axis.marks)
    counts = np.histogram(np.clip(values, marks[0], marks[-1]), bins=marks)[0].astype(np.float64)
    return answers_of(Counting(questions=(question,)), np.append(counts, 7.0), deviation)[0]


def test_medians_and_quartiles_become_centres_and_scales_on_the_models_own_scale() -> None:
    draw = np.random.default_rng(0)
    ages, crps = draw.normal(64, 11, 4000), np.expm1(draw.normal(2.0, 0.9, 4000)).clip(0, 500)
    found, notes = rescaled(DOCUMENT, [answer("age", ages), answer("lab.crp", crps)], source="study x (hash)")
    age, sex, crp = found.modality("lab").variables
    assert isinstance(age, Number) and isinstance(crp, Number)
    assert (age.centre, age.scale) == (pytest.approx(64, abs=0.6), pytest.approx(11, rel=0.05))
    assert (crp.centre, crp.scale) == (pytest.approx(2.0, abs=0.06), pytest.approx(0.9, rel=0.06))
    assert (sex, found.version, found.modality("rna"), notes) == (SEX, 4, DOCUMENT.modality("rna"), ())
    lab = found.modality("lab")
    assert lab.scaling == "released"
    assert lab.source == "round numbers; centre and scale of age, crp from study x (hash)"
    assert replace(age, centre=55, scale=30) == AGE  # nothing else changes
    assert parse_schema(canonical_json(dump(found)), toml=False) == found


def test_one_of_many_alike_columns_gets_its_own_and_the_others_keep_theirs() -> None:
    values = 2 ** np.random.default_rng(0).normal(7, 1.5, 3000) - 1
    found, _ = rescaled(DOCUMENT, [answer("rna.b", values)], source="study x")
    rna = found.modality("rna")
    assert rna.centre_and_scale(0) == (5, 5)
    assert rna.centre_and_scale(1) == (pytest.approx(7, abs=0.1), pytest.approx(1.5, rel=0.08))
    assert found.modality("lab") == DOCUMENT.modality("lab")


def test_means_scale_a_number_that_is_not_transformed() -> None:
    question = ASK.means("age")
    column, factor, _ = COLUMNS.factor("age")
    inputs = (AGE.encoded(np.random.default_rng(1).normal(60, 12, 5000)) - factor.centre) / factor.half
    sums = np.array([(inputs**power).sum() for power in range(3)])
    (one,) = answers_of(Counting(questions=(question,)), sums, 0.0)
    age = rescaled(DOCUMENT, [one], source="x")[0].modality("lab").variables[0]
    assert isinstance(age, Number) and column.name == "age"
    assert (age.centre, age.scale) == (pytest.approx(60, abs=0.6), pytest.approx(12, rel=0.04))


@pytest.mark.parametrize("fault", ["noise", "constant"])
def test_what_an_answer_cannot_tell_keeps_its_own_constants_and_is_named(fault: str) -> None:
    ages = np.random.default_rng(0).normal(64, 11, 4000)
    crps = np.full(40 if fault == "noise" else 4000, 20.0)
    odd = answer("crp", crps, 40.0 if fault == "noise" else 0.0)
    found, notes = rescaled(DOCUMENT, [answer("age", ages), odd], source="x")
    assert found.modality("lab").variables[2] == CRP
    assert len(notes) == 1 and notes[0].startswith("lab.crp keeps its centre and scale: ")
    assert "centre and scale of age from x" in found.modality("lab").source
    with pytest.raises(InvalidInput, match="no released number can scale a variable"):
        rescaled(DOCUMENT, [odd], source="x")


def grouped() -> Answer:
    table = pd.DataFrame({"value": [1.0], "low": [0.0], "high": [2.0]}, index=pd.MultiIndex.from_tuples([("a", 0.5)]))
    return Answer(kind="quantiles", title="t", table=table, deviation=1.0, names=("age",))


WRONG = {
    "a count": (DOCUMENT, lambda: answers_of(Counting(questions=(ASK.counts(),)), np.ones(1), 0.0)[0], "got counts"),
    "groups": (DOCUMENT, grouped, "ask without groups"),
    "transformed means": (
        DOCUMENT,
        lambda: answers_of(Counting(questions=(ASK.means("crp"),)), np.array([100.0, 20.0, 30.0]), 0.0)[0],
        "expected quantiles of 'crp'",
    ),
    "another schema": (
        replace(DOCUMENT, modalities=DOCUMENT.modalities[1:]),
        lambda: answer("age", np.arange(100.0)),
        "no variable",
    ),
    "self-scaled": (
        replace(DOCUMENT, modalities=(replace(DOCUMENT.modalities[0], scaling="self"),)),
        lambda: answer("age", np.random.default_rng(0).normal(64, 11, 4000)),
        "by its own records",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_scale_is_refused_in_words(name: str) -> None:
    document, make, message = WRONG[name]
    with pytest.raises(InvalidInput, match=message):
        rescaled(document, [make()], source="x")


def test_the_quartiles_of_every_number_are_asked_in_one_study() -> None:
    questions = ASK.quartiles()
    assert [q.names for q in questions] == [("lab.age",), ("lab.crp",)]
    widths = np.diff(np.log1p(questions[1].counts[0].axes[0].marks))
    assert widths == pytest.approx(np.full(64, widths[0]), rel=1e-6)
