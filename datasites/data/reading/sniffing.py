"""What a file holds that is not what it should be: said in words.

:func:`told` looks at its first bytes. :func:`refuse_swallowed` finds rows that a quotation mark swallowed: a cell that
begins with one and never ends it takes the next rows into itself. Whoever writes free text without quoting it makes
such files, and every reader of CSV takes the rows for one long cell, so that patients vanish.
"""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any

from privacy.errors import InvalidInput

_HEAD = 512
_LONGEST_CELL = 1 << 20
_FEW = 3
_MARKS = (
    (b"version https://git-lfs", "a pointer of Git LFS and not the file; fetch it with `git lfs pull`"),
    (b"\x1f\x8b", "a gzip archive; its name should end in .gz"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PAR1", "a Parquet file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"%PDF", "a PDF document"),
    (b"SQLite format 3", "an SQLite database"),
)


def what_is(path: Path) -> str:
    """Return what a file seems to be; its content is not repeated.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return told(head) or "other content"


def told(head: bytes) -> str:
    """Return what a file that begins so is, an empty text where it may be a table.

    >>> told(b"<html>proxy says no</html>")
    'an HTML page, as proxies and log-in pages send it'
    """
    if not head:
        return "nothing: it is empty"
    if not head.strip(b"\0"):
        return "zero bytes only, as a broken transfer leaves them"
    for mark, words in _MARKS:
        if head.startswith(mark):
            return words
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:200].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page, as proxies and log-in pages send it"
    if start.startswith(b"<?xml") or (start.startswith(b"<") and b"xmlns" in start):
        return "an XML document"
    if start.startswith((b'{"', b"{\n", b"{}", b'[{"')):
        return "JSON, perhaps an error message of the server"
    return ""


def shape(text: str) -> str:
    """Return how an id looks without saying whose it is: letters as A, digits as 9.

    >>> shape("TCGA-A1-A0SB-01A")
    'AAAA-A9-A9AA-99A'
    """
    return "".join("9" if c.isdigit() else "A" if c.isalpha() else c for c in text[:40])


class Lines(io.RawIOBase):
    """A stream that counts the ends of lines and the quotation marks that pass through it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._feeds = self._returns = self.quotes = 0

    @property
    def ends(self) -> int:
        """How many lines ended so far."""
        return max(self._feeds, self._returns)

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        data: bytes = self._stream.read(size)
        self._feeds += data.count(b"\n")
        self._returns += data.count(b"\r")
        self.quotes += data.count(b'"')
        return data

    def close(self) -> None:
        """Close the stream below."""
        self._stream.close()
        super().close()


def refuse_swallowed(path: Path, encoding: str, separator: str, columns: int) -> None:
    """Refuse a text table of which a cell holds rows.

    A cell that swallowed k rows holds k ends of lines and k times the separators of a row. In a table of few columns,
    where free text can hold as many, the text behind an end of line must also look like the table's first column.

    Raises:
        InvalidInput: so it is; the message has the number of the row.
    """
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    shapes: set[str] = set()
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        with opened(path, "rt", encoding=encoding, newline="") as file:
            for number, row in enumerate(csv.reader(file, delimiter=separator), start=1):
                for cell in row:
                    inside = cell.rstrip("\r\n")  # the last row's end is swallowed too
                    ends = max(inside.count("\n"), inside.count("\r"))
                    if ends and cell.count(separator) >= ends * max(1, columns - 1):
                        behind = [line.split(separator)[0] for line in cell.splitlines()[1:]]
                        if columns > _FEW or any(shape(text.strip()) in shapes for text in behind):
                            raise _swallowed(path, number)
                if number > 1 and row and "\n" not in row[0]:
                    shapes.add(shape(row[0].strip()))
    except csv.Error as error:
        raise _swallowed(path, 0) from error
    finally:
        csv.field_size_limit(limit)


def _swallowed(path: Path, row: int) -> InvalidInput:
    where = f"row {row}" if row else "a row"
    return InvalidInput(
        f"{path.name}: {where} holds whole other rows in one cell, because a quotation mark is not closed; put quotes "
        "around every cell that holds one, and write it twice there"
    )
