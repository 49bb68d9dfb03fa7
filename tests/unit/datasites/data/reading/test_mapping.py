"""A hospital's mapping: what it says is done, and what it cannot say is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.wide_table import SCHEMA

from datasites.data.reading.hospital import read_hospital
from datasites.data.reading.mapping import read_mapping
from datasites.data.reading.schema_files import read_schema_document
from privacy.errors import InvalidInput


def read(folder: Path, mapping: str) -> list[list[float]]:
    (folder / "schema.toml").write_text(SCHEMA.replace("RULE", ""))
    (folder / "t.csv").write_text("pid,a,b,c,o\nP1,1,-9,3,yes\nP2,99,k.A.,6,no\n", encoding="utf-8")
    (folder / "mapping.toml").write_text(mapping)
    schema = read_schema_document(folder / "schema.toml")
    data, report = read_hospital([folder / "t.csv"], schema, "o", mapping=read_mapping(folder / "mapping.toml"))
    assert not report.problems
    return data.modalities["wide"].values[:].tolist()


@pytest.mark.parametrize("name", ["aa", "wide.d", "records.b", "other.a", "O", "records.pid"])
def test_a_rule_for_a_column_that_the_schema_has_not_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"the mapping has columns\..*no variable"):
        read(tmp_path, f'[columns."{name}"]\nunit = "x"')


def test_a_hospitals_codes_for_missing_numbers_are_missing(tmp_path: Path) -> None:
    mapping = (
        '[columns.a.words]\n"99" = ""\n[columns."wide.b".words]\n"-9" = ""\n"k.A." = ""\n[columns.o.words]\nja = "yes"'
    )
    found = [[value if value == value else None for value in row] for row in read(tmp_path, mapping)]
    assert found == [[1, None, 3], [None, None, 6]]


def test_a_word_of_a_number_means_nothing_but_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="can only say that it is missing"):
        read(tmp_path, '[columns.a.words]\nhigh = "99"')
