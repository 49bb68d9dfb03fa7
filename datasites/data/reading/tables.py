"""Tables as hospitals have them, as text cells in pieces: CSV and TSV in any common spelling, Parquet, Feather, Excel.

A cell that is a number in a typed file stays the number; everything else is text as it stands there. Nothing is guessed
to be missing here: that is for the schema to say.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet

from datasites.data.reading.excel import excel_columns, excel_pieces
from datasites.data.reading.sniffing import Lines, refuse_swallowed, told
from datasites.study.text import visible
from privacy.errors import InvalidInput
from privacy.sentences import say

if TYPE_CHECKING:
    import pandas as pd

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet", ".feather", ".arrow", ".xlsx")
MOST_ROWS = 20_000_000
MOST_COLUMNS = 200_000
_PIECE_BYTES = 8 << 20
_PIECE_ROWS = 50_000
_PIECE_CELLS = 1_000_000
_BUFFER_BYTES = 1 << 16
_COLUMNS_AT_ONCE = 48
_HEAD_BYTES = 1 << 20
_LARGEST_EXACT = 1 << 53
_LOOKED_AT = 200
_TITLE_ROWS = 2
_COMMA_DECIMAL = re.compile(r"[+-]?\d+,(\d{1,2}|\d{4,})")
_LINE_END = re.compile(r"\r\n|\r|\n")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_SEPARATORS = (",", ";", "\t", "|")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a text table is written; empty fields are found out from its first megabyte."""

    encoding: str = ""
    separator: str = ""


@dataclass(kw_only=True)
class Table:
    """One table of a hospital: its columns, and its rows in pieces. ``notes`` says what was found out about it.

    ``commas``: numbers seem to be written with a comma before their decimals, so that ``1.234`` may be a thousand.
    ``header_lines``: how many lines of a text the names of its columns take; a quoted name may go over several.
    """

    path: Path
    columns: tuple[str, ...]
    dialect: Dialect
    sheet: str = ""
    notes: list[str] = field(default_factory=list)
    commas: bool = False
    header_lines: int = 1

    @property
    def name(self) -> str:
        """The file's name, and the sheet's where it has several."""
        return self.path.name + (f" [{self.sheet}]" if self.sheet else "")

    @property
    def columns_at_once(self) -> int:
        """How many columns are read together: a Parquet reader holds pages of each, about 4 MB."""
        return _COLUMNS_AT_ONCE if _suffix(self.path) == ".parquet" else MOST_COLUMNS

    def pieces(self, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Yield some columns, rows in the file's order: text as ``str``, numbers as float64, empty cells as ``""``.

        Raises:
            InvalidInput: a row of another length, text that is not in the file's encoding, or a file that ends early.
        """
        rows = 0
        for piece in _pieces(self, columns):
            rows += len(piece)
            if rows > MOST_ROWS:
                raise InvalidInput(f"{self.name}: expected at most {MOST_ROWS} rows; split the table")
            yield piece


def open_table(path: Path, dialect: Dialect | None = None, *, sheet: str = "") -> Table:
    """Look at a file's head and return it as a table.

    Raises:
        InvalidInput: it cannot be read, is of no known kind, or its columns are unnamed, repeated or too many.
    """
    suffix = _suffix(path)
    if not path.is_file():
        raise InvalidInput(f"expected a table at {path}, found no file")
    try:
        if suffix in TEXT_SUFFIXES:
            table = _open_text(path, dialect or Dialect())
        elif suffix == ".xlsx":
            table = Table(path=path, columns=excel_columns(path, sheet), dialect=Dialect(), sheet=sheet)
        else:
            table = Table(path=path, columns=tuple(_schema_of(path, suffix).names), dialect=Dialect())
    except (OSError, EOFError, pa.ArrowInvalid, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{path.name}: expected a {suffix[1:]} table, could not read it as one") from error
    _check_columns(table)
    return table


def known(path: Path) -> bool:
    """Return whether a file's name is one of a table."""
    return any(path.name.lower().endswith(suffix) for suffix in SUFFIXES)


def _suffix(path: Path) -> str:
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return suffix
    raise InvalidInput(f"{path.name}: expected a table ({', '.join(SUFFIXES)})")


def _check_columns(table: Table) -> None:
    columns = table.columns
    if not columns or len(columns) > MOST_COLUMNS:
        raise InvalidInput(f"{table.name}: expected 1 to {MOST_COLUMNS} columns, got {len(columns)}")
    empty = [place for place, name in enumerate(columns, start=1) if not str(name).strip()]
    if empty:
        raise InvalidInput(f"{table.name}: expected a name over every column, column {empty[0]} has none")
    repeated = [name for place, name in enumerate(columns) if name in columns[:place]] if len(columns) < 5000 else []
    if len(set(columns)) < len(columns):
        which = f", {visible(repeated[0])[:60]!r} stands there twice" if repeated else ""
        raise InvalidInput(f"{table.name}: expected every column once{which}; rename or drop one of them")


def _open_text(path: Path, dialect: Dialect) -> Table:
    head, whole = _head(path)
    other = told(head)
    if other:
        raise InvalidInput(f"{path.name}: expected a table as text, found {other}")
    notes: list[str] = []
    encoding = dialect.encoding or _encoding(head, whole, path, notes)
    try:
        text = head.decode(encoding) if whole else codecs.getincrementaldecoder(encoding)().decode(head)
    except (UnicodeDecodeError, LookupError) as error:
        raise InvalidInput(f"{path.name}: expected text in {encoding}, found other bytes; name its encoding") from error
    if "\0" in text:
        raise InvalidInput(
            f"{path.name}: expected a table as text, found bytes that are no text; if it is UTF-16 without its mark, "
            "name its encoding in the mapping: utf-16-le or utf-16-be"
        )
    lines = _LINE_END.split(text.lstrip("\ufeff"))
    told_separator = _SEPARATOR_LINE.fullmatch(lines[0]) if lines else None
    if told_separator:
        lines = lines[1:]
    if not lines or not lines[0].strip():
        raise InvalidInput(f"{path.name}: expected names of columns in the first line, found nothing")
    told_one = told_separator[1] if told_separator else ""
    separator = dialect.separator or told_one or _separator(lines if whole else lines[:-1] or lines, path)
    first = csv.reader(lines, delimiter=separator)
    columns = tuple(name.strip() for name in next(first))
    return Table(
        header_lines=first.line_num + bool(told_separator),
        path=path,
        columns=columns,
        dialect=Dialect(encoding=encoding, separator=separator),
        notes=notes,
        commas=separator == ";" or _decimal_commas(lines if whole else lines[:-1], separator),
    )


def _head(path: Path) -> tuple[bytes, bool]:
    with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
        head = file.read(_HEAD_BYTES + 1)
    return head[:_HEAD_BYTES], len(head) <= _HEAD_BYTES


def _encoding(head: bytes, whole: bool, path: Path, notes: list[str]) -> str:
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=whole)
        return "utf-8"
    except UnicodeDecodeError:
        notes.append(
            say(
                "{file} is not UTF-8; it is read as Windows-1252, as Western European programs write it", file=path.name
            )
        )
        return "cp1252"


def _separator(lines: Sequence[str], path: Path) -> str:
    """Return the separator under which the first rows are as long as the header; of several the one that parts most."""
    widths = {s: [len(row) for row in csv.reader(lines[:_LOOKED_AT], delimiter=s) if row] for s in _SEPARATORS}
    parted = {s: found for s, found in widths.items() if found and found[0] > 1}
    if not parted:
        below = [found[1:] for found in widths.values() if len(found) > _TITLE_ROWS]
        if any(2 * sum(width > 1 for width in found) > len(found) for found in below):
            raise InvalidInput(
                f"{path.name}: the first line is one cell and rows below it are several; the names of the columns "
                "must stand in the first line: remove what is above them, or name the separator"
            )
        return _SEPARATORS[0]  # one column
    even = {s: found[0] for s, found in parted.items() if len(set(found)) == 1}
    if even:
        return max(even, key=lambda s: even[s])
    likely = max(parted, key=lambda s: parted[s][0])
    row, width = next((n, w) for n, w in enumerate(parted[likely], start=1) if w != parted[likely][0])
    raise InvalidInput(
        f"{path.name}: the header has {parted[likely][0]} columns, row {row} has {width} cells; correct the row, put "
        "quotes around cells that hold the separator, or name the separator"
    )


def _schema_of(path: Path, suffix: str) -> pa.Schema:
    if suffix == ".parquet":
        return pa.parquet.read_schema(path)
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).schema


def _pieces(table: Table, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    import pandas as pd

    suffix = _suffix(table.path)
    try:
        if suffix in TEXT_SUFFIXES:
            yield from _text_pieces(table, columns)
        elif suffix == ".xlsx":
            places, rows = [table.columns.index(name) for name in columns], _rows_at_once(table.columns)
            for cells in excel_pieces(table.path, table.sheet, len(table.columns), places, rows):
                yield pd.DataFrame(cells, columns=list(columns), dtype=object)
        elif suffix == ".parquet":
            # buffered: files often have one row group of everything, which would be read whole
            with pa.parquet.ParquetFile(table.path, buffer_size=_BUFFER_BYTES) as file:
                for batch in file.iter_batches(batch_size=_rows_at_once(columns), columns=list(columns)):
                    yield _plain(batch)
        else:
            with pa.memory_map(str(table.path)) as source:
                file = pa.ipc.open_file(source)
                step = _rows_at_once(columns)
                for number in range(file.num_record_batches):
                    batch = file.get_batch(number).select(list(columns))
                    for start in range(0, batch.num_rows, step):
                        yield _plain(batch.slice(start, step))
    except (OSError, EOFError, UnicodeError, pa.ArrowException, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{table.name}: could not read every row: {_reason(error)}; correct the file") from error


def _rows_at_once(columns: Sequence[str]) -> int:
    return max(1, min(_PIECE_ROWS, _PIECE_CELLS // max(1, len(columns))))


def _reason(error: Exception) -> str:
    """Return what went wrong without the row itself, which pyarrow quotes."""
    text = str(error)
    expected = re.search(r"Expected (\d+) columns, got (\d+)", text)
    if expected:
        row = re.search(r"Row #(\d+)", text)
        where = f"row {row[1]}" if row else "a row"
        return f"{where} has {expected[2]} cells where the header has {expected[1]} columns"
    if "UTF8" in text or "codec" in text or isinstance(error, UnicodeError):
        return "it is not in the encoding of its first lines; name its encoding"
    if isinstance(error, pa.ArrowNotImplementedError):
        return "a column holds lists, records or bytes, which are no single values"
    return "it ends early or is damaged"


def _text_pieces(table: Table, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    kinds = {name: pa.string() for name in table.columns}
    lines = Lines(pa.input_stream(str(table.path), compression="detect"))
    reader = pa.csv.open_csv(
        pa.PythonFile(lines),
        read_options=pa.csv.ReadOptions(
            encoding=table.dialect.encoding.replace("utf-8-sig", "utf-8"),
            block_size=_PIECE_BYTES,
            column_names=list(table.columns),
            skip_rows=table.header_lines,
            use_threads=False,
        ),
        parse_options=pa.csv.ParseOptions(delimiter=table.dialect.separator, newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            column_types=kinds, include_columns=list(columns), strings_can_be_null=False
        ),
    )
    rows = 0
    with reader:
        for batch in reader:
            rows += batch.num_rows
            yield _plain(batch)
    if lines.quotes and lines.ends > rows + table.header_lines:
        refuse_swallowed(table.path, table.dialect.encoding, table.dialect.separator, len(table.columns))


def _plain(batch: pa.RecordBatch) -> pd.DataFrame:
    import pandas as pd

    found: dict[str, object] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        kind = column.type
        if pa.types.is_dictionary(kind):
            column = column.dictionary_decode()
            kind = column.type
        if pa.types.is_floating(kind) or (pa.types.is_integer(kind) and _exact(column)):
            found[name] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
        else:
            texts = column.cast(pa.string(), safe=False) if not pa.types.is_string(kind) else column
            found[name] = pd.array(texts.fill_null(""), dtype="str")
    return pd.DataFrame(found)


def _exact(column: pa.Array) -> bool:
    """Return whether every integer is exact as float64; long ids are not, and stay text."""
    found = pa.compute.min_max(column)
    ends = [found[end].as_py() for end in ("min", "max")]
    return all(end is None or abs(end) <= _LARGEST_EXACT for end in ends)


def _decimal_commas(lines: Sequence[str], separator: str) -> bool:
    """Return whether some cell of the first rows can only have a comma before its decimals, as `4,5` has."""
    rows = csv.reader(lines[1:_LOOKED_AT], delimiter=separator)
    return separator != "," and any(_COMMA_DECIMAL.fullmatch(cell.strip()) for row in rows for cell in row)
