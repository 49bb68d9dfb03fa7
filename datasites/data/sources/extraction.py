"""Tables of text, written piece by piece into a private folder that appears complete or not at all."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from privacy.errors import InvalidInput

MOST_ROWS = 20_000_000
_PIECE_CELLS = 1_000_000
_MOST_TABLES = 2000
READING = "extracted.json"


@dataclass(kw_only=True)
class Extraction:
    """The tables that are being written, and how many records were passed over for which reason."""

    folder: Path
    passed_over: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    _columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _waiting: dict[str, list[Sequence[str]]] = field(default_factory=dict)
    _writers: dict[str, pa.parquet.ParquetWriter] = field(default_factory=dict)

    def add(self, table: str, row: Mapping[str, str]) -> None:
        """Add one row; all rows of a table have the same columns.

        Raises:
            InvalidInput: too many tables or rows.
        """
        if table not in self._columns:
            if len(self._columns) == _MOST_TABLES:
                raise InvalidInput(f"expected at most {_MOST_TABLES} tables; name the codes that you want")
            self._columns[table] = tuple(row)
        if tuple(row) != self._columns[table]:
            raise InvalidInput(f"table {table}: two records have different columns")
        self._waiting.setdefault(table, []).append(tuple(row.values()))
        self.rows[table] += 1
        if self.rows[table] > MOST_ROWS:
            raise InvalidInput(f"expected at most {MOST_ROWS} rows, {table} has more; narrow the question")
        if len(self._waiting[table]) * len(self._columns[table]) >= _PIECE_CELLS:
            self._write(table)

    def close(self) -> None:
        """Write what waits."""
        for table in list(self._waiting):
            self._write(table)
        for writer in self._writers.values():
            writer.close()

    def _write(self, table: str) -> None:
        rows, names = self._waiting.pop(table, []), self._columns[table]
        columns = [pa.array([row[place] for row in rows], pa.string()) for place in range(len(names))]
        piece = pa.Table.from_arrays(columns, names=list(names))
        if table not in self._writers:
            self._writers[table] = pa.parquet.ParquetWriter(self.folder / f"{table}.parquet", piece.schema)
        self._writers[table].write_table(piece)


@contextmanager
def extracting(out: Path) -> Iterator[Extraction]:
    """Yield an extraction whose folder becomes ``out`` at the end, readable by this user only.

    Raises:
        InvalidInput: ``out`` exists, or nothing was extracted.
    """
    if out.exists():
        raise InvalidInput(f"expected a new folder, {out} exists; choose another one or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    made = Extraction(folder=staging)
    try:
        yield made
        made.close()
        if not made.rows:
            passed = "; ".join(f"{reason}: {count}" for reason, count in made.passed_over.most_common(5))
            raise InvalidInput(f"found no record to extract{f' ({passed})' if passed else ''}")
        facts = {"rows": dict(made.rows), "passed_over": dict(made.passed_over)}
        (staging / READING).write_text(json.dumps(facts, indent=2, ensure_ascii=False), encoding="utf-8")
        staging.replace(out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def table_name(text: str) -> str:
    """Return a text as the name of a table and file: small letters, digits and dashes, never a path.

    >>> table_name("Creatinine [Mass/volume] ../x")
    'creatinine-mass-volume-x'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")[:60] or "other"
