"""The demo's made-up hospitals of any schema: read like a hospital's own tables, with odd modalities and outcomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasites.data.dataset import load, read_schema
from orchestrator.demo.schema_data import PATIENTS, prepare_schema
from privacy.errors import InvalidInput

_VARIABLES = 'variables = [{kind = "number", name = "x%d", low = 0, high = 50, transform = "log1p", centre = 2}]'
_SEVEN = "\n".join(
    ['name = "Seven"', "version = 1", 'title = "Seven odd modalities"', 'cohorts = [{name = "Ä 1"}, {name = "b"}]']
    + ['cohort_column = "where from?"']
    + [f'[[modalities]]\nname = "odd-{n}"\nkind = "tabular"\nlabel = "odd {n}"\n{_VARIABLES % n}' for n in range(6)]
    + ['[[modalities]]\nname = "slides"\nkind = "embedding"\nlabel = "slides"\nwidth = 64\nprefix = "f"\nencoder = "e"']
    + ['measure = {name = "activation", low = -90, high = 90}']
    + ['[[outcomes]]\nkind = "ordinal"\nname = "how bad"\nlabel = "grade"\ncolumn = "grade"']
    + ['levels = [{name = "1"}, {name = "2"}, {name = "3"}]']
    + ['[[outcomes]]\nkind = "binary"\nname = "relapse"\nlabel = "relapse"\ncolumn = "relapse"']
    + ['levels = [{name = "no"}, {name = "yes"}]']
    + ['[[outcomes]]\nkind = "survival"\nname = "os"\nlabel = "survival"\ntime = "t"\nevent = "e"\nunit = "months"']
    + ['edges = [12]\nhappened = {name = "1"}\ncensored = {name = "0"}']
)


@pytest.mark.parametrize(("outcome", "classes"), [("how bad", 3), ("relapse", 2)])
def test_hospitals_of_seven_modalities_read_their_tables_and_hold_every_patient(
    tmp_path: Path, outcome: str, classes: int
) -> None:
    (tmp_path / "seven.toml").write_text(_SEVEN, encoding="utf-8")
    made = prepare_schema(tmp_path / "seven.toml", tmp_path / "out", outcome=outcome, sites=4, seed=1)
    assert [len(site.cases) for site in made.sites] == [PATIENTS] * 4
    assert [len(site.modalities) for site in made.sites] == [7, 7, 7, 6]
    for site in made.sites:
        folder = next((tmp_path / "out" / site.name / "datasets").glob("*/v1"))
        schema = read_schema(folder)
        assert (schema.task, schema.classes, len(schema.features)) == (outcome, classes, 7)
        batch = load(folder / "private", schema)
        assert batch["presence"].shape == (PATIENTS, 7)
        assert set(batch["label"].tolist()) == set(range(classes))
    assert read_schema(made.test).cohorts == ("Ä 1", "b")


def test_an_outcome_that_no_model_trains_is_refused(tmp_path: Path) -> None:
    (tmp_path / "seven.toml").write_text(_SEVEN, encoding="utf-8")
    with pytest.raises(InvalidInput, match="binary, ordinal or categorical"):
        prepare_schema(tmp_path / "seven.toml", tmp_path / "out", outcome="os", sites=3, seed=1)
