"""Sheets of Excel files, row by row, and what they hide: merged cells and formulas without a stored result.

A merged cell's value stands in its first cell only, and a formula that no program has computed reads as empty. Both
would be missing values that are none, so both are refused.
"""

from __future__ import annotations

import itertools
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from privacy.errors import InvalidInput

_MOST_BYTES = 256 << 20
_CHUNK = 1 << 20
_CELL_END = re.compile(rb"</(?:\w+:)?c>")
_FORMULA = re.compile(rb"<(?:\w+:)?f[\s/>]")
_RESULT = re.compile(rb"<(?:\w+:)?v>[^<]|<(?:\w+:)?is>|\st=\"str\"")
_PLACE = re.compile(rb"\sr=\"([A-Z]+\d+)\"")
_MERGED = re.compile(rb"<(?:\w+:)?mergeCell\s[^>]*ref=\"([A-Z0-9:]+)\"")
_LONGEST = 64 << 20
_SHOWN = 3
_LOOKED_AT = 20


def excel_columns(path: Path, sheet: str) -> tuple[str, ...]:
    """Return the names in a sheet's first row.

    Args:
        path: of the file.
        sheet: its name; empty takes the only one.

    Raises:
        InvalidInput: too large, no such sheet, several without a name, or a sheet that hides values.
    """
    import openpyxl

    if path.stat().st_size > _MOST_BYTES:
        raise InvalidInput(f"{path.name}: expected at most {_MOST_BYTES >> 20} MiB of Excel; save it as CSV")
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        names = book.sheetnames
        if not sheet and len(names) != 1:
            raise InvalidInput(f"{path.name}: has {len(names)} sheets; name one of {', '.join(names)[:200]}")
        if sheet and sheet not in names:
            raise InvalidInput(f"{path.name}: has no sheet {sheet[:60]!r}; it has {', '.join(names)[:200]}")
        found = book[sheet or names[0]]
        _refuse_hidden(path, found._worksheet_path)
        rows = list(itertools.islice(found.iter_rows(values_only=True), _LOOKED_AT))
    finally:
        book.close()
    columns = tuple(str(cell).strip() if cell is not None else "" for cell in (rows[0] if rows else ()))
    while columns and not columns[-1]:
        columns = columns[:-1]
    _refuse_beyond(path, rows[1:], len(columns))
    return columns


def _refuse_beyond(path: Path, rows: Sequence[Sequence[object]], width: int) -> None:
    if any(cell is not None for row in rows for cell in row[width:]):
        raise InvalidInput(
            f"{path.name}: a row has values beyond the {width} named columns; their names must stand "
            "in the first row: remove what is above them, or name every column"
        )


def excel_pieces(path: Path, sheet: str, width: int, places: Sequence[int], rows: int) -> Iterator[list[list[str]]]:
    """Yield the cells of some columns as text, so many rows at a time; empty rows are left out.

    Args:
        path: of the file.
        sheet: its name; empty takes the only one.
        width: how many columns the sheet has.
        places: of the columns that are wanted.
        rows: how many at a time.

    Raises:
        InvalidInput: a row has values where the first one has no name.
    """
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        found = book[sheet] if sheet else book[book.sheetnames[0]]
        lines = found.iter_rows(min_row=2, values_only=True)
        while piece := list(itertools.islice(lines, rows)):
            filled = [row for row in piece if any(cell is not None for cell in row)]
            _refuse_beyond(path, filled, width)
            yield [[_text(row[p] if p < len(row) else None) for p in places] for row in filled]
    finally:
        book.close()


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value)


def _refuse_hidden(path: Path, sheet: str) -> None:
    rest = b""
    with zipfile.ZipFile(path) as file, file.open(sheet) as xml:
        while chunk := xml.read(_CHUNK):
            *cells, rest = _CELL_END.split(rest + chunk)
            for cell in cells:
                if _FORMULA.search(cell) and not _RESULT.search(cell):
                    place = _PLACE.findall(cell)
                    where = place[-1].decode() if place else "a cell"
                    raise InvalidInput(
                        f"{path.name}: the formula in {where} has no stored result; "
                        "open the file in a program that computes it, and save its values"
                    )
            if len(rest) > _LONGEST:
                raise InvalidInput(f"{path.name}: could not be read as Excel; save it as CSV")
    merged = [found.decode() for found in _MERGED.findall(rest)]  # they stand behind the last cell
    if merged:
        shown = ", ".join(merged[:_SHOWN])
        raise InvalidInput(
            f"{path.name}: has merged cells, such as {shown}; only the first of them holds the value: unmerge them, "
            "and write the value into every row"
        )
