"""The study's schema: round trips, published JSON schema, and what is refused with which words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from datasites.study.schema.document import json_schema, parse_schema
from datasites.study.schema.variables import TRANSFORMS, Number, plain
from datasites.study.signing import dump
from privacy.errors import InvalidInput

PUBLISHED = Path(__file__).parents[5] / "docs" / "schemas" / "study-schema.schema.json"
DOCUMENT = """
name = "toy"
version = 1
title = "A toy"
cohorts = [{name = "lung"}, {name = "liver", spellings = ["LIHC"]}]
cohort_column = "cancer"
never = ["stage"]
data_use = ["DUO:0000042"]
[[modalities]]
name = "labs"
kind = "tabular"
label = "laboratory values"
variables = [
  {kind = "number", name = "age", unit = "years", low = 18, high = 110, centre = 60, scale = 12},
  {kind = "category", name = "sex", levels = [{name = "female", spellings = ["f"]}, {name = "male"}]},
]
[[modalities]]
name = "slides"
kind = "embedding"
label = "slides"
width = 3
prefix = "e"
encoder = "a-network"
measure = {name = "activation", low = -50, high = 50}
[[outcomes]]
kind = "binary"
name = "dead"
label = "death"
column = "status"
levels = [{name = "alive"}, {name = "dead", spellings = ["deceased"]}]
[[outcomes]]
kind = "survival"
name = "os"
label = "overall survival"
time = "months"
event = "event"
unit = "months"
edges = [12, 24, 60]
happened = {name = "1"}
censored = {name = "0"}
"""


def test_a_schema_says_columns_and_inputs_and_reads_back_under_the_same_hash() -> None:
    schema = parse_schema(DOCUMENT.encode(), toml=True)
    assert schema.modality("slides").names == ("e0", "e1", "e2")
    assert schema.modality("labs").inputs == ("age:value", "age:missing", "sex:female", "sex:male", "sex:missing")
    assert [outcome.outputs for outcome in schema.outcomes] == [1, 3]
    again = parse_schema(json.dumps(dump(schema)).encode(), toml=False)
    assert again == schema
    assert again.schema_hash == schema.schema_hash
    assert parse_schema(DOCUMENT.replace("A toy", "A Toy").encode(), toml=True).schema_hash != schema.schema_hash


def test_the_published_json_schema_is_the_codes() -> None:
    assert json.loads(PUBLISHED.read_text()) == json_schema()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name = \"labs\"", "name = \"../labs\"", "a modality's name of small letters"),
        ("name = \"slides\"", "name = \"labs\"", "every modality once"),
        ("prefix = \"e\"", "prefix = \"e\"\nside = 3", "expected variables or columns for embedding"),
        ("width = 3", "width = 900000", "at most 200000 columns"),
        ("encoder = \"a-network\"\n", "", "width and encoder"),
        ("name = \"age\"", "name = \"status\"", "an outcome is read from it"),
        ("name = \"age\"", "name = \"Stage\"", "the schema says never"),
        ("high = 110", "high = 10", "low below high"),
        ("high = 110", "high = inf", "finite"),
        ("scale = 12", "scale = 0", "scale"),
        ("spellings = [\"f\"]", "spellings = [\"f\", \" MALE\"]", "means both 'female' and 'male'"),
        ("edges = [12, 24, 60]", "edges = [12, 12]", "rising edges"),
        ("levels = [{name = \"alive\"}, {", "levels = [{", "2 to 200 levels"),
        ("cohort_column = \"cancer\"\n", "", "several cohorts need a cohort_column"),
        ("version = 1", "version = 1\nsurprise = 2", "surprise"),
        ("title = \"A toy\"", "title = \"A \\u202e toy\"", "unseen character U+202E"),
        ("DUO:0000042", "DUO:9", "Data Use Ontology"),
        ("version = 1", "version = \"1\"", "version"),
        ("version = 1", "version = [", "could not read it"),
    ],
)  # fmt: skip
def test_what_is_no_schema_is_refused_and_named(old: str, new: str, words: str) -> None:
    assert old in DOCUMENT
    with pytest.raises(InvalidInput, match=re.escape(words)):
        parse_schema(DOCUMENT.replace(old, new, 1).encode(), toml=True)


def test_a_transform_that_the_range_does_not_bear_is_refused() -> None:
    with pytest.raises(InvalidInput, match="needs numbers above -1"):
        Number(name="x", low=-1, high=5, transform="log1p")
    with pytest.raises(InvalidInput, match="needs numbers from 0"):
        Number(name="x", low=-0.5, high=5, transform="square-root")
    for name in TRANSFORMS:
        assert Number(name="x", low=0, high=5, transform=name).encoded(0.0) == 0.0


def test_words_are_compared_in_one_unicode_form() -> None:
    assert plain("E\u0301tat\u00a0 II") == plain(" \u00e9TAT ii")
