"""Dataset versions: round trip, mock, membership, fingerprint, bad parts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datasites.data import part_files
from datasites.data.dataset import (
    Part,
    Schema,
    case_ids,
    check_disjoint,
    check_part,
    fingerprint,
    load,
    membership,
    mock_part,
    read_schema,
    write_dataset,
)
from privacy.errors import InvalidInput

SCHEMA = Schema(
    name="a",
    version=1,
    institution="A",
    cohort="LUSC",
    cohorts=("BRCA", "LUSC"),
    task="I-II",
    classes=2,
    modalities=("mrna", "clinical"),
    features={"mrna": ("g1", "g2"), "image": ("i1",), "clinical": ("c1",)},
    preprocessing={"mrna": "none"},
    source="test",
)


def private(shift=0.0):
    mrna = np.array([[1, 2], [3, 4]], dtype=np.float32) + np.float32(shift)
    clinical = np.array([[7], [8], [9]], dtype=np.float32)
    return Part(
        cases=("P3", "P1", "P2"),
        cohorts=("LUSC",) * 3,
        labels=(1, 0, 1),
        inputs={"mrna": (("P2", "P3"), mrna), "clinical": (("P3", "P1", "P2"), clinical)},
    )


@pytest.fixture
def folder(tmp_path):
    write_dataset(tmp_path / "data", SCHEMA, private())
    return tmp_path / "data"


def test_a_part_loads_as_a_batch_joined_by_case_id(folder):
    assert read_schema(folder) == SCHEMA
    batch = load(folder / "private", SCHEMA)
    assert case_ids(folder / "private") == ["P1", "P2", "P3"]
    assert batch["label"].tolist() == [0, 1, 1]
    assert batch["mrna"].tolist() == [[0, 0], [1, 2], [3, 4]]
    assert batch["clinical"].ravel().tolist() == [8, 9, 7]
    assert batch["image"].tolist() == [[0], [0], [0]]
    assert batch["presence"].tolist() == [[0, 0, 1], [1, 0, 1], [1, 0, 1]]
    assert batch["cohort"].tolist() == [1, 1, 1]


def test_the_mock_has_the_schemas_shape_and_does_not_depend_on_the_private_rows(folder, tmp_path):
    write_dataset(tmp_path / "other", SCHEMA, private(shift=5.0))
    for name in ("records", "mrna", "clinical"):
        path = f"mock/{name}.parquet"
        assert (folder / path).read_bytes() == (tmp_path / "other" / path).read_bytes()
    mock = load(folder / "mock", SCHEMA)
    held = {row.tobytes() for row in load(folder / "private", SCHEMA)["mrna"]}
    assert mock["mrna"].shape[1] == 2
    assert not any(row.tobytes() in held for row in mock["mrna"])


def test_a_mock_that_shares_a_row_or_a_case_is_refused():
    mock = mock_part(SCHEMA, seed=0)
    copied = dataclasses.replace(private(), inputs={**private().inputs, "mrna": (("P2",), mock.inputs["mrna"][1][:1])})
    with pytest.raises(InvalidInput, match="shares a mrna row"):
        check_disjoint(copied, mock)
    with pytest.raises(InvalidInput, match="shares a case"):
        check_disjoint(dataclasses.replace(private(), cases=("MOCK-0000", "P1", "P2")), mock)


def test_rows_that_do_not_fit_the_schema_leave_nothing_behind(tmp_path):
    wrong = dataclasses.replace(private(), inputs={**private().inputs, "mrna": (("P2",), np.ones((1, 5), np.float32))})
    with pytest.raises(InvalidInput):
        write_dataset(tmp_path / "data", SCHEMA, wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_is_never_overwritten(folder):
    with pytest.raises(InvalidInput, match="never overwritten"):
        write_dataset(folder, SCHEMA, private())


@pytest.mark.parametrize("content", [b"", b"{}", b'{"name": 1, "features": {}}', b"[]"])
def test_a_broken_schema_is_one_clear_error(tmp_path, content):
    (tmp_path / "schema.json").write_bytes(content)
    with pytest.raises(InvalidInput, match="expected a dataset schema"):
        read_schema(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../../escaped"},
        {"name": "/etc"},
        {"name": ".."},
        {"name": ""},
        {"name": "a\u202eb"},
        {"version": "../1"},
        {"version": 0},
        {"version": True},
        {"modalities": ["../../escaped"]},
        {"features": {"../../escaped": ["a"]}},
    ],
    ids=str,
)
def test_a_schema_from_elsewhere_names_no_file_outside_its_folder(tmp_path, change):
    value = json.loads(json.dumps(dataclasses.asdict(SCHEMA)))
    (tmp_path / "schema.json").write_text(json.dumps({**value, **change}))
    with pytest.raises(InvalidInput, match="expected a dataset schema"):
        read_schema(tmp_path)


def test_a_missing_table_is_one_clear_error(folder):
    (folder / "private" / "mrna.parquet").unlink()
    with pytest.raises(InvalidInput, match=r"private/mrna\.parquet"):
        load(folder / "private", SCHEMA)


def test_membership_of_a_case_depends_on_itself_and_the_secret_alone():
    cases = [f"case {i}" for i in range(1000)]
    all_at_once = membership(cases, b"s")
    assert membership(cases[3:4], b"s")[0] == all_at_once[3]
    assert 0.76 < all_at_once.mean() < 0.84
    assert (membership(cases, b"t") != all_at_once).any()


def test_the_fingerprint_is_keyed_and_changes_with_any_private_byte(folder, tmp_path):
    write_dataset(tmp_path / "other", SCHEMA, private(shift=1.0))
    assert fingerprint(folder, b"s") == fingerprint(folder, b"s") != fingerprint(folder, b"t")
    assert fingerprint(folder, b"s") != fingerprint(tmp_path / "other", b"s")


def wide(rows):
    values = np.asarray(rows, dtype=np.float32)
    schema = dataclasses.replace(
        SCHEMA, modalities=("mrna",), features={"mrna": tuple(f"g{i}" for i in range(values.shape[1]))}
    )
    names = tuple(f"P{i}" for i in range(len(values)))
    part = Part(cases=names, cohorts=("LUSC",) * len(names), labels=(0,) * len(names), inputs={"mrna": (names, values)})
    return schema, part


def test_a_patient_twice_is_refused_however_it_is_written(tmp_path):
    rows = np.random.default_rng(0).normal(size=(3, 20))
    schema, part = wide(rows)
    for other in ("P0", "p0", "P-0 ", "\uff300"):
        cases = ("P0", "P1", other)
        doubled = dataclasses.replace(part, cases=cases, inputs={"mrna": (part.cases, part.inputs["mrna"][1])})
        with pytest.raises(InvalidInput, match="repeat a case id"):
            write_dataset(tmp_path / "d", schema, doubled)
    assert not list(tmp_path.iterdir())


def test_one_patients_measurements_under_two_names_are_refused(tmp_path):
    rows = np.random.default_rng(0).normal(size=(3, 20))
    rows[2] = rows[0]
    with pytest.raises(InvalidInput, match="values exactly"):
        write_dataset(tmp_path / "d", *wide(rows))
    few = np.zeros((3, 20))
    few[:, :10] = np.arange(10)  # answers to a few questions may agree
    write_dataset(tmp_path / "few", *wide(few))


def test_a_modality_with_two_rows_of_one_patient_is_refused(tmp_path):
    write_dataset(tmp_path / "d", *wide(np.random.default_rng(0).normal(size=(3, 20))))
    path = tmp_path / "d" / "private" / "mrna.parquet"
    table = pd.read_parquet(path)
    table.loc[2, "case_id"] = table.loc[0, "case_id"]
    table.to_parquet(path, index=False)
    with pytest.raises(InvalidInput, match="repeat a case id"):
        load(tmp_path / "d" / "private", read_schema(tmp_path / "d"))


@pytest.mark.parametrize("width", [3, 20, 8001], ids=["narrow", "telling", "wide"])
def test_a_part_is_checked_block_by_block_as_it_is_loaded(tmp_path: Path, width: int, monkeypatch) -> None:
    monkeypatch.setattr(part_files, "_CELLS", 2 * width)  # two rows a block
    names = tuple(f"f{i}" for i in range(width))
    schema = dataclasses.replace(SCHEMA, modalities=("mrna",), features={"mrna": names})
    values = np.random.default_rng(0).normal(size=(7, width)).astype(np.float32)
    cases = tuple(f"P{i}" for i in range(7))
    part = Part(cases=cases, cohorts=(SCHEMA.cohorts[0],) * 7, labels=(0,) * 7, inputs={"mrna": (cases, values)})
    write_dataset(tmp_path / "v1", schema, part)
    check_part(tmp_path / "v1" / "private", schema)
    np.testing.assert_array_equal(load(tmp_path / "v1" / "private", schema)["mrna"], values)
    twice = values.copy()
    twice[6] = twice[0]
    copied = dataclasses.replace(part, inputs={"mrna": (cases, twice)})
    if width > 16:
        with pytest.raises(InvalidInput, match="1 rows repeat another case's values"):
            write_dataset(tmp_path / "v2", schema, copied)
        assert not (tmp_path / "v2").exists()
    part_files.write_modality(tmp_path / "v1" / "private" / "mrna.parquet", names, cases, twice)
    for look in (check_part, load):
        if width > 16:
            with pytest.raises(InvalidInput, match="1 rows repeat another case's values"):
                look(tmp_path / "v1" / "private", schema)
    part_files.write_modality(tmp_path / "v1" / "private" / "mrna.parquet", names[:-1], cases, values[:, :-1])
    for look in (check_part, load):
        with pytest.raises(InvalidInput):
            look(tmp_path / "v1" / "private", schema)
