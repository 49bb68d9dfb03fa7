"""Large tables are read in pieces: how a file is cut changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.wide_table import SCHEMA

from datasites.data.reading import measured as measured_values
from datasites.data.reading import tables
from datasites.data.reading.hospital import read_hospital
from datasites.data.reading.mapping import LocalMapping
from datasites.data.reading.schema_files import read_schema_document
from privacy.errors import InvalidInput

RULES = {
    "one": "",
    "first": 'rows = "first"\norder_by = "when"',
    "last": 'rows = "last"\norder_by = "when"',
    "mean": 'rows = "mean"',
    "largest": 'rows = "largest"',
}


def hospital(folder: Path, rule: str, *, apart: bool) -> None:
    """Write records and rows in an odd order: some without an id, of nobody known, without a value, or repeated."""
    (folder / "schema.toml").write_text(SCHEMA.replace("RULE", RULES[rule]))
    draw = np.random.default_rng(3)
    ids = [f"P{i:03d}" for i in draw.permutation(60)]
    pd.DataFrame({"pid": ids, "o": np.where(draw.random(60) < 0.5, "yes", "no")}).to_parquet(folder / "records.parquet")
    named = [*(ids if rule == "one" else [ids[i % 40] for i in range(90)]), "", "stranger"]
    named = [named[i] for i in draw.permutation(len(named))]
    rows = pd.DataFrame(draw.normal(size=(len(named), 3)).astype(np.float32), columns=["a", "b", "c"])
    rows.iloc[5] = np.nan
    rows.iloc[7, 1] = np.nan
    rows.insert(0, "pid", named)
    rows["when"] = draw.permutation(len(named))
    if apart:
        rows[["pid", "a", "when"]].to_parquet(folder / "one.parquet")
        rows = rows[["pid", "c", "b", "when"]].sample(frac=1.0, random_state=1)
    rows.to_parquet(folder / "two.parquet")


@pytest.mark.parametrize("apart", [False, True], ids=["one-table", "two-tables"])
@pytest.mark.parametrize("rule", RULES)
def test_pieces_of_any_size_give_the_same_patients_values_and_report(
    tmp_path: Path, rule: str, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital(tmp_path, rule, apart=apart)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    schema = read_schema_document(tmp_path / "schema.toml")
    found = []
    for rows, columns, held in ((50_000, 48, 1 << 20), (7, 2, 0), (1, 1, 0), (7, 48, 300)):
        monkeypatch.setattr(tables, "_PIECE_ROWS", rows)
        monkeypatch.setattr(tables, "_COLUMNS_AT_ONCE", columns)
        monkeypatch.setattr(measured_values, "_HELD_BYTES", held)
        data, report = read_hospital([tmp_path], schema, "o", mapping=LocalMapping(), scratch=scratch)
        measured = data.modalities["wide"]
        found.append((data.patients, data.outcome.tolist(), measured.patients, measured.values[:], report.columns))
        assert not list(scratch.iterdir())  # what lies on the disk has no name
        assert not report.problems
    for other in found[1:]:
        assert other[:3] == found[0][:3]
        np.testing.assert_array_equal(other[3], found[0][3])
        assert other[4] == found[0][4]
    expected = by_pandas(tmp_path, rule, apart).loc[list(found[0][2])]
    np.testing.assert_allclose(found[0][3], expected.to_numpy(np.float32), rtol=1e-6)


@pytest.mark.parametrize("held", [0, 1 << 30], ids=["on-disk", "in-memory"])
def test_rows_are_found_again_by_place(tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_values, "_HELD_BYTES", held)
    every = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    stored = measured_values.Stored(3, np.dtype(np.float32), tmp_path)
    for piece in np.split(every, [1, 1, 17, 30]):
        stored.append(piece)
    stored.put(29, 2, 5.0)
    every[29, 2] = 5.0
    for places in ([], [29], [3, 2, 2, 39, 0], list(range(40)), [16, 17, 18, 30, 31]):
        np.testing.assert_array_equal(stored.take(np.array(places, dtype=np.int64)), every[places])
    np.testing.assert_array_equal(stored[5:35], every[5:35])
    assert stored.shape == (40, 3) and not list(tmp_path.iterdir())


def by_pandas(folder: Path, rule: str, apart: bool) -> pd.DataFrame:
    """Return what the rule says of each patient, by pandas, table by table."""
    parts = []
    for name in ("one", "two") if apart else ("two",):
        rows = pd.read_parquet(folder / f"{name}.parquet")
        rows = rows[rows["pid"] != ""]
        if rule in ("first", "last"):
            rows = rows.sort_values("when").groupby("pid", sort=True).nth(0 if rule == "first" else -1)
            parts.append(rows.set_index("pid").drop(columns="when"))
        else:
            parts.append(getattr(rows.drop(columns="when").groupby("pid"), "max" if rule == "largest" else "mean")())
    return pd.concat(parts, axis=1)[["a", "b", "c"]]


def test_rows_of_records_that_contradict_each_other_are_counted_once_a_patient(tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_text(SCHEMA.replace("RULE", ""))
    schema = read_schema_document(tmp_path / "schema.toml")
    told = [("A", "no"), ("B", "yes"), ("B", "no"), ("B", "no"), ("C", ""), ("C", "yes"), ("D", "no"), ("D", "no")]
    pd.DataFrame(told, columns=["pid", "o"]).to_csv(tmp_path / "records.csv", index=False)
    rows = [("A", 1, 1, 1), ("B", 2, 2, 2), ("C", 3, 3, 3), ("D", 4, 4, 4)]
    pd.DataFrame(rows, columns=["pid", "a", "b", "c"]).to_csv(tmp_path / "wide.csv", index=False)
    data, report = read_hospital([tmp_path], schema, "o")
    assert [p for p in report.problems if "contradict" in p] == [
        "records.csv: 1 patient has rows that contradict each other in o; correct them, or leave out the rows that "
        "do not count"
    ]
    assert dict(zip(data.patients, data.outcome[:, 0], strict=True)) == {"A": 0, "B": 1, "C": 1, "D": 0}


@pytest.mark.parametrize(
    "ids", [["1.23457E+11", "1.23458E+11"], ["5,1E+15", "7"], [1.2e17, 3.0]], ids=["text", "comma", "typed"]
)
@pytest.mark.parametrize("rule", ["one", "mean"])
def test_ids_that_a_spreadsheet_cut_are_refused(tmp_path: Path, ids: list, rule: str) -> None:
    (tmp_path / "schema.toml").write_text(SCHEMA.replace("RULE", RULES[rule]))
    pd.DataFrame({"pid": ids, "a": 1.0, "b": 2.0, "c": 3.0, "o": ["no", "yes"]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InvalidInput, match="without their last digits"):
        read_hospital([tmp_path / "t.parquet"], read_schema_document(tmp_path / "schema.toml"), "o")


def test_an_id_with_an_e_in_it_is_an_id(tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_text(SCHEMA.replace("RULE", ""))
    pd.DataFrame({"pid": ["3E12", "1e5"], "a": 1.0, "b": 2.0, "c": 3.0, "o": ["no", "yes"]}).to_csv(
        tmp_path / "t.csv", index=False
    )
    found, report = read_hospital([tmp_path / "t.csv"], read_schema_document(tmp_path / "schema.toml"), "o")
    assert (found.patients, report.problems) == (("1e5", "3E12"), ())
