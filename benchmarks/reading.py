"""One large hospital table: how long does its ingest take, and how much memory at most?

    python benchmarks/reading.py --rows 1000000 --columns 200 --form parquet --json

Ids are in no order, and a Parquet file has one row group, as pandas writes it. Reading, the checks of the inputs and
writing the dataset are what ``tessera datasite ingest`` does, in a process of its own. The target is a peak below 2 GB
for a million rows of 200 columns, as Parquet or with ``--form csv``. ``--kind mixed`` has numbers and words that are
variables of their own instead of columns that are measured alike. CPU seconds are of reading, and of everything.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet

from datasites.data.guard.judging import warnings_of
from datasites.data.reading.hospital import read_hospital
from datasites.data.reading.schema_files import read_schema_document
from datasites.data.reading.writing import write_hospital, write_report

_PIECE = 20_000
_WORDS = ("low", "middle", "high")
HEAD = """
name = "large"
version = 1
title = "large"
cohorts = [{name = "all"}]
patient = {column = "pid"}
[[outcomes]]
kind = "binary"
name = "o"
label = "o"
column = "o"
levels = [{name = "no"}, {name = "yes"}]
[[modalities]]
name = "wide"
label = "wide"
"""
MEASURE = 'kind = "sequence-counts"\ncolumns = [{columns}]\nmeasure = {{name = "x", low = -100, high = 100}}\n'
NUMBER = '[[modalities.variables]]\nkind = "number"\nname = "{name}"\nlow = -100\nhigh = 100\ncentre = 0\nscale = 1\n'
LEVELS = ", ".join(f'{{{{name = "{word}"}}}}' for word in _WORDS)
WORD = '[[modalities.variables]]\nkind = "category"\nname = "{name}"\nlevels = [' + LEVELS + "]\n"


def schema(columns: int, kind: str) -> str:
    names = [f"c{i}" for i in range(columns)]
    if kind == "alike":
        return HEAD + MEASURE.format(columns=", ".join(f'"{name}"' for name in names))
    made = [(WORD if place % 4 == 3 else NUMBER).format(name=name) for place, name in enumerate(names)]
    return HEAD + 'kind = "tabular"\n' + "".join(made)


def write(path: Path, rows: int, columns: int, kind: str) -> None:
    """Write the table piece by piece; a Parquet file is then written again with one row group."""
    draw = np.random.default_rng(0)
    ids, writer = draw.permutation(rows), None
    whole = path.suffix == ".parquet"
    raw = path.with_suffix(".feather") if whole else path
    for start in range(0, rows, _PIECE):
        size = min(_PIECE, rows - start)
        values = draw.normal(size=(size, columns)).astype(np.float32)
        made = {f"c{i}": pa.array(values[:, i]) for i in range(columns)}
        if kind == "mixed":
            made |= {f"c{i}": pa.array(draw.choice(_WORDS, size=size)) for i in range(3, columns, 4)}
        table = pa.table(
            {"pid": [f"P{i:08d}" for i in ids[start : start + size]], **made}
            | {"o": np.where(draw.random(size) < 0.5, "yes", "no")}
        )
        if writer is None:
            writer = (
                pa.csv.CSVWriter(path, table.schema) if path.suffix == ".csv" else pa.ipc.new_file(raw, table.schema)
            )
        writer.write_table(table)
    if writer is not None:
        writer.close()
    if whole:
        with pa.memory_map(str(raw)) as source:
            pa.parquet.write_table(pa.ipc.open_file(source).read_all(), path, row_group_size=rows)
        raw.unlink()


def read(folder: Path, form: str) -> None:
    started, used = time.perf_counter(), time.process_time()
    document = read_schema_document(folder / "schema.toml")
    data, report = read_hospital([folder / f"t.{form}"], document, "o", scratch=folder)
    after_reading, seconds_reading, cpu_reading = peak(), time.perf_counter() - started, time.process_time() - used
    report = replace(report, warnings=tuple(warnings_of(document, document.outcome("o"), data)))
    write_report(folder / "reading", report)
    write_hospital(folder / "dataset", document, "o", data, name="large", version=1, institution="large", cohort="all")
    facts = {"patients": len(data.patients), "problems": len(report.problems), "reading_mb": after_reading}
    facts |= {"peak_mb": peak(), "reading_seconds": round(seconds_reading, 1)}
    facts |= {"reading_cpu_seconds": round(cpu_reading, 1), "cpu_seconds": round(time.process_time() - used, 1)}
    print(json.dumps(facts | {"seconds": round(time.perf_counter() - started, 1)}))


def peak() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=200)
    parser.add_argument("--form", choices=["parquet", "csv", "feather"], default="parquet")
    parser.add_argument("--kind", choices=["alike", "mixed"], default="alike")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.read:
        read(arguments.read, arguments.form)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "schema.toml").write_text(schema(arguments.columns, arguments.kind))
        write(place / f"t.{arguments.form}", arguments.rows, arguments.columns, arguments.kind)
        command = [sys.executable, __file__, "--form", arguments.form, "--read", str(place)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    facts = {k: getattr(arguments, k) for k in ("rows", "columns", "form", "kind")} | json.loads(done.stdout)
    print(json.dumps(facts) if arguments.json else "\n".join(f"{k}: {v}" for k, v in facts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
