"""Mocks: made-up rows that look like what the public schema says, and never like a cloud of normal numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from datasites.data.dataset import MOCK_ROWS, Schema, mock_part
from datasites.data.reading.encoding import mock_inputs
from datasites.data.reading.schema_files import read_schema_document, shipped
from datasites.data.tcga.preprocessing import clinical_features
from datasites.study.schema.document import Modality
from datasites.study.schema.variables import Number

SCHEMA = Schema(
    name="x", version=1, institution="i", cohort="c", cohorts=("c",), task="I-II", classes=2,
    modalities=("clinical", "mrna"), preprocessing={}, source="s",
    features={"clinical": tuple(clinical_features(["age", "sex", "x_child_pugh"])), "mrna": ("TP53", "EGFR")},
)  # fmt: skip


def test_a_mock_of_clinical_features_has_one_sex_each_and_plausible_numbers():
    names = list(SCHEMA.features["clinical"])
    values = mock_part(SCHEMA, seed=1).inputs["clinical"][1]
    sexes = values[:, [names.index(f"sex:{level}") for level in ("female", "male", "missing")]]
    assert set(np.unique(sexes)) <= {0.0, 1.0}
    assert (sexes.sum(axis=1) == 1).all()
    ages = values[:, names.index("age:value")]
    assert np.abs(ages).max() <= 4
    assert set(np.unique(values[:, names.index("age:missing")])) <= {0.0, 1.0}
    assert len(np.unique(mock_part(SCHEMA, seed=1).inputs["mrna"][1])) == 2 * MOCK_ROWS


def test_tissue_maps_of_a_mock_lie_in_their_range():
    maps = dataclasses.replace(SCHEMA, features={"clinical": ("map:0.0.0", "map:0.0.1"), "mrna": ("A",)})
    values = mock_part(maps, seed=1).inputs["clinical"][1]
    assert values.min() >= 0 and values.max() <= 1


@pytest.mark.parametrize("name", shipped())
def test_a_mock_by_a_schema_keeps_to_its_ranges_and_words(name):
    for modality in read_schema_document(Path(name)).modalities:
        values = mock_inputs(modality, np.random.default_rng(1), 200)
        assert np.isfinite(values).all()
        places = {name: place for place, name in enumerate(modality.inputs)}
        for variable in modality.variables:
            own = values[:, [places[i] for i in variable.inputs()]]
            missing = own[:, -1] == 1
            if isinstance(variable, Number):
                low, high = sorted((variable.encoded(variable.low), variable.encoded(variable.high)))
                assert ((own[:, 0] >= low - 1e-5) & (own[:, 0] <= high + 1e-5))[~missing].all()
                assert np.std(own[~missing, 0]) > 0
            else:
                assert (own.sum(axis=1) == 1).all()
                assert len(np.unique(own.argmax(axis=1))) >= 2


def test_whole_numbers_are_whole_and_a_scale_that_says_nothing_is_not_believed():
    visits = Number(name="visits", low=0, high=30, whole=True, centre=5, scale=3)
    years = Number(name="years", low=18, high=110)  # centre 0 and scale 1, as a draft leaves them
    odd = Modality(name="m", kind="tabular", label="m", variables=(visits, years))
    values = mock_inputs(odd, np.random.default_rng(0), 300)
    counted = (values[:, 0] * 3 + 5)[values[:, 1] == 0]
    assert np.allclose(counted, np.round(counted), atol=1e-4)
    assert counted.std() > 1
    years = Number(name="years", low=18, high=110, clip=100)
    free = Modality(name="m", kind="tabular", label="m", variables=(years,))
    ages = mock_inputs(free, np.random.default_rng(0), 300)
    assert ages[ages[:, 1] == 0, 0].min() >= 18 and ages[:, 0].std() > 5
