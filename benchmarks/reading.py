"""One large hospital table: how long does reading take, and how much memory at most?

    python benchmarks/reading.py --rows 1000000 --columns 200 --form parquet --json

The table is written in pieces; reading is what ``tessera datasite ingest`` does before it writes a dataset, in a
process of its own. The target is a peak below 2 GB for a million rows of 200 columns.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from datasites.data.reading.hospital import read_hospital
from datasites.data.reading.schema_files import read_schema_document

_PIECE = 20_000
SCHEMA = """
name = "large"
version = 1
title = "large"
cohorts = [{{name = "all"}}]
patient = {{column = "pid"}}
[[modalities]]
name = "wide"
kind = "sequence-counts"
label = "wide"
columns = [{columns}]
measure = {{name = "x", low = -100, high = 100}}
[[outcomes]]
kind = "binary"
name = "o"
label = "o"
column = "o"
levels = [{{name = "no"}}, {{name = "yes"}}]
"""


def write(path: Path, rows: int, columns: int) -> None:
    draw, writer = np.random.default_rng(0), None
    for start in range(0, rows, _PIECE):
        size = min(_PIECE, rows - start)
        piece = pd.DataFrame(draw.normal(size=(size, columns)).astype(np.float32), columns=names(columns))
        piece.insert(0, "pid", [f"P{start + i:08d}" for i in range(size)])
        piece["o"] = np.where(draw.random(size) < 0.5, "yes", "no")
        table = pa.Table.from_pandas(piece, preserve_index=False)
        if writer is None:
            kind = pa.parquet.ParquetWriter if path.suffix == ".parquet" else pa.csv.CSVWriter
            writer = kind(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def names(columns: int) -> list[str]:
    return [f"c{i}" for i in range(columns)]


def read(folder: Path, form: str) -> None:
    started = time.perf_counter()
    schema = read_schema_document(folder / "schema.toml")
    data, report = read_hospital([folder / f"t.{form}"], schema, "o")
    seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"patients": len(data.patients), "problems": len(report.problems), "seconds": round(seconds, 1)}
                     | {"peak_mb": round(peak)}))  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=200)
    parser.add_argument("--form", choices=["parquet", "csv"], default="parquet")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.read:
        read(arguments.read, arguments.form)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "schema.toml").write_text(SCHEMA.format(columns=", ".join(f'"{n}"' for n in names(arguments.columns))))
        write(place / f"t.{arguments.form}", arguments.rows, arguments.columns)
        command = [sys.executable, __file__, "--form", arguments.form, "--read", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    facts = {"rows": arguments.rows, "columns": arguments.columns, "form": arguments.form} | json.loads(done.stdout)
    print(json.dumps(facts) if arguments.json else "\n".join(f"{k}: {v}" for k, v in facts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
