"""A schema says which of its columns become nearly one number, before anybody has read a record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datasites.data.reading.schema_files import read_schema_document, shipped
from datasites.study.schema.scales import flat_columns, varies
from datasites.study.schema.variables import Number
from orchestrator.cli.main import app

YEARS = """
name = "years"
version = 1
title = "Years without a scale"
cohorts = [{name = "all"}]
[[modalities]]
name = "facts"
kind = "tabular"
label = "facts"
scaling = "self"
variables = [
  {kind = "number", name = "year", low = 1990, high = 2030},
  {kind = "number", name = "age", low = 18, high = 110, centre = 60, scale = 12},
]
[[outcomes]]
kind = "binary"
name = "late"
label = "late"
column = "late"
levels = [{name = "no"}, {name = "yes"}]
"""


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (Number(name="a", low=1990, high=2030), False),
        (Number(name="a", low=1990, high=2030, centre=2010, scale=8), True),
        (Number(name="a", low=0, high=0.001), False),
        (Number(name="a", low=0, high=0.001, scale=0.0005), True),
        (Number(name="a", low=1e6, high=1e9, transform="log1p"), False),
        (Number(name="a", low=1e6, high=1e9, transform="log1p", centre=17, scale=2), True),
    ],
    ids=lambda value: f"{value.low}-{value.scale}" if isinstance(value, Number) else str(value),
)
def test_a_range_that_is_cut_off_at_one_end_does_not_vary(number: Number, expected: bool) -> None:
    assert varies(number) is expected


def test_nothing_in_a_shipped_schema_is_nearly_constant() -> None:
    for name in shipped():
        for modality in read_schema_document(Path(name)).modalities:
            assert flat_columns(modality) == ()


def test_the_check_names_them_and_says_that_no_epsilon_can_be_stated(tmp_path: Path) -> None:
    path = tmp_path / "years.toml"
    path.write_text(YEARS)
    shown = CliRunner().invoke(app, ["schema", "check", str(path), "--json"])
    assert shown.exit_code == 0
    told = json.loads(shown.stdout.splitlines()[-1])
    assert told["nearly_constant"] == {"facts": ["year"]}
    assert told["self_scaled"] == ["facts"]
    assert "give each a centre and a scale" in shown.output
