"""Files: encodings, separators, damaged rows; a table is read to its end or refused."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import openpyxl
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


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
def test_a_name_over_two_lines_is_one_name(tmp_path: Path, ends: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(f'id,"age{ends}(years)",x{ends}1,"a{ends}b",2{ends}3,,4{ends}'.encode())
    table = open_table(path)
    assert (table.columns[0], table.columns[2], table.header_lines) == ("id", "x", 2)
    assert pd.concat(table.pieces(["id", "x"])).to_numpy().tolist() == [["1", "2"], ["3", "4"]]


SWALLOWED = {
    "at the end": 'id,x,y,note\nP1,1,2,"open\nP2,3,4,b\nP3,5,6,c\n',
    "until another": 'id,x,y,note\nP1,1,2,"open\nP2,3,4,b\nP3,5,6,c"\nP4,7,8,d\n',
    "in the middle": 'id,note,x,y\nP1,"open,1,2\nP2,"hi,3,4\nP3,c,5,6\n',
    "of two columns": 'id,note\nP0,a\nP1,"open\nP2,b\nP3,c"\nP4,d\n',
    "in the first column": 'id,x\n"P1,1\nP2,"2\nP3,3\n',
}


@pytest.mark.parametrize("name", SWALLOWED)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_rows_that_a_quotation_mark_swallowed_are_never_lost_in_silence(
    tmp_path: Path, name: str, packed: bool
) -> None:
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    data = SWALLOWED[name].encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(InvalidInput, match=r"quotation mark is not closed|cells"):
        table = open_table(path, Dialect(separator=","))
        list(table.pieces(table.columns[:1]))


def test_free_text_with_lines_separators_and_closed_quotes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [["P1", "1", "a,b,c\nand, more, of, it"], ["P2", "2", 'he said "no"\nthen, left'], ["P3", "3", "x"]]
    pd.DataFrame(rows, columns=["id", "n", "note"]).to_csv(path, index=False)
    assert pd.concat(open_table(path).pieces(["id", "n", "note"])).to_numpy().tolist() == rows


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_a_title_above_the_names_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"t.{kind}"
    rows = [["Export of 2024", None, None], ["id", "x", "y"], ["P1", "1", "2"], ["P2", "3", "4"]]
    if kind == "csv":
        path.write_text("\n".join(",".join(c for c in row if c) for row in rows))
    else:
        pd.DataFrame(rows).to_excel(path, index=False, header=False)
    with pytest.raises(InvalidInput, match="names"):
        list(open_table(path).pieces(["Export of 2024"]))


def workbook(path: Path, change) -> Path:
    book = openpyxl.Workbook()
    for row in (["id", "n", "sum"], ["P1", 1, 2], ["P2", 3, 4], ["P3", 5, 6]):
        book.active.append(row)
    change(book.active)
    book.save(path)
    return path


def test_a_column_of_lists_is_refused_for_what_it_is(tmp_path: Path) -> None:
    pd.DataFrame({"id": ["1", "2"], "x": [[1, 2], [3]]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InvalidInput, match="lists, records or bytes"):
        list(open_table(tmp_path / "t.parquet").pieces(["id", "x"]))


def test_a_title_above_rows_of_several_lengths_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("Export\nid\tx\ty\nP1\t1\t2\nP2\t3\tline\nbreak\nP3\t4\t5\n")
    with pytest.raises(InvalidInput, match="the first line is one cell"):
        open_table(tmp_path / "t.tsv")


HIDDEN = {
    "cells": (lambda s: s.merge_cells("B2:B3"), "merged cells, such as B2:B3"),
    "ids": (lambda s: s.merge_cells("A3:A4"), "merged cells, such as A3:A4"),
    "headings": (lambda s: s.merge_cells("A1:B1"), "merged cells, such as A1:B1"),
    "a formula": (lambda s: s.__setitem__("C3", "=B3+1"), "the formula in C3 has no stored result"),
    "a value beside": (lambda s: s.__setitem__("E3", 7), "values beyond the 3 named columns"),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_sheet_that_hides_values_is_refused(tmp_path: Path, name: str) -> None:
    change, words = HIDDEN[name]
    with pytest.raises(InvalidInput, match=words):
        list(open_table(workbook(tmp_path / "t.xlsx", change)).pieces(["id"]))


def test_a_formula_with_its_result_is_that_result(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", lambda s: s.__setitem__("C3", "=B3+1"))
    whole = {}
    with zipfile.ZipFile(path) as file:
        whole = {name: file.read(name) for name in file.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    whole[sheet] = (
        whole[sheet]
        .replace(b"<f>B3+1</f><v></v>", b"<f>B3+1</f><v>4</v>")
        .replace(b"<f>B3+1</f><v/>", b"<f>B3+1</f><v>4</v>")
    )
    with zipfile.ZipFile(path, "w") as file:
        for name, data in whole.items():
            file.writestr(name, data)
    assert list(pd.concat(open_table(path).pieces(["sum"]))["sum"]) == ["2", "4", "6"]


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"'])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_line_in_which_excel_names_the_separator_is_no_header(tmp_path: Path, first: str, mark: str) -> None:
    (tmp_path / "t.csv").write_text(f"{mark}{first}\r\nid;x\r\nP1;1,5\r\nP2;2,5\r\n", encoding="utf-8", newline="")
    table = open_table(tmp_path / "t.csv")
    assert (table.columns, table.dialect.separator, table.commas) == (("id", "x"), ";", True)
    assert pd.concat(table.pieces(["id", "x"])).to_numpy().tolist() == [["P1", "1,5"], ["P2", "2,5"]]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_text_of_two_bytes_without_a_mark_is_read_once_its_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_bytes("id,x\nP\u00e41,1\n".encode(encoding))
    with pytest.raises(InvalidInput, match="name its encoding in the mapping: utf-16-le"):
        open_table(tmp_path / "t.csv")
    table = open_table(tmp_path / "t.csv", Dialect(encoding=encoding))
    assert pd.concat(table.pieces(["id", "x"])).to_numpy().tolist() == [["P\u00e41", "1"]]
