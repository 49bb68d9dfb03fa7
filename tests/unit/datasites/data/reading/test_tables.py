"""Files: encodings, separators, damaged rows; a table is read to its end or refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pyarrow.feather
import pytest

from datasites.data.reading.tables import Dialect, open_table
from privacy.errors import InvalidInput

ROWS = [("id", "größe", "note"), ("1", "1,80", "a;b\nc"), ("2", "1,70", ""), ("3", "", "x")]


def written(path: Path, separator: str, encoding: str) -> Path:
    text = "\r\n".join(separator.join(f'"{c}"' if set(c) & set(",;|\t\n") else c for c in row) for row in ROWS)
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("name", ["t.csv", "t.txt.gz"])
def test_a_text_table_is_read_as_it_was_written(tmp_path: Path, separator: str, encoding: str, name: str) -> None:
    table = open_table(written(tmp_path / name, separator, encoding))
    assert table.columns == ROWS[0]
    cells = pd.concat(table.pieces(ROWS[0]))
    assert [tuple(row) for row in cells.to_numpy()] == ROWS[1:]
    assert bool(table.notes) == (encoding == "cp1252")


@pytest.mark.parametrize("kind", ["parquet", "feather", "xlsx"])
def test_a_typed_table_keeps_its_numbers_and_its_texts(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"id": ["1", "2"], "n": [1, 2], "x": [0.5, None], "t": ["NA", None]})
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        frame.to_parquet(path, index=False)
    elif kind == "feather":
        pyarrow.feather.write_feather(frame, path)
    else:
        frame.to_excel(path, index=False)
    found = pd.concat(open_table(path).pieces(["id", "n", "x", "t"]))
    assert [str(v) for v in found["id"]] == ["1", "2"]
    assert [float(v) for v in found["n"]] == [1, 2]
    assert list(found["t"]) == ["NA", ""]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "found nothing"),
        ("a,b\n1,2\n3\n", "row 3 has 1 cells"),
        ("a,b\n1,2\n3,4,5\n", "row 3 has 3 cells"),
        ("a,a\n1,2\n", "'a' stands there twice"),
        ("a,,c\n1,2,3\n", "column 2 has none"),
        ("a,b\n\0", "no text"),
        ("<html>\0", "HTML page"),
    ],
)
def test_a_table_that_is_none_is_refused_with_the_place(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InvalidInput, match=words):
        list(open_table(tmp_path / "t.csv").pieces(["a", "b"]))


def test_a_ragged_row_far_down_is_refused_without_its_cells(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "1,2\n" * 5000 + "secret\n" + "1,2\n" * 10)
    with pytest.raises(InvalidInput, match="1 cells where the header has 2 columns") as caught:
        list(open_table(tmp_path / "t.csv").pieces(["a"]))
    assert "secret" not in str(caught.value)


def test_bytes_of_another_encoding_far_down_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b\n" + b"1,2\n" * 400_000 + "1,ä\n".encode("cp1252"))
    with pytest.raises(InvalidInput, match="name its encoding"):
        list(open_table(tmp_path / "t.csv").pieces(["a", "b"]))
    table = open_table(tmp_path / "t.csv", Dialect(encoding="cp1252"))
    assert list(pd.concat(table.pieces(["b"]))["b"])[-1] == "ä"


def test_an_archive_that_ends_early_and_an_unknown_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 99999)[:-300])
    with pytest.raises(InvalidInput, match=r"t\.csv\.gz"):
        list(open_table(tmp_path / "t.csv.gz").pieces(["a"]))
    (tmp_path / "t.sav").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="expected a table"):
        open_table(tmp_path / "t.sav")
    with pytest.raises(InvalidInput, match="no file"):
        open_table(tmp_path / "none.csv")


def test_long_integers_stay_the_ids_that_they_are(tmp_path: Path) -> None:
    numbers = [9007199254740993, 9007199254740992, 12]
    pd.DataFrame({"pid": numbers, "n": [1, 2, 3]}).to_parquet(tmp_path / "t.parquet")
    table = open_table(tmp_path / "t.parquet")
    [piece] = table.pieces(table.columns)
    assert list(piece["pid"]) == [str(number) for number in numbers]
    assert piece["n"].tolist() == [1.0, 2.0, 3.0]
