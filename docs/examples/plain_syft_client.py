"""A plain PySyft scientist over Tessera's mailbox: list datasets, print a mock table, submit a job, read its output.

    tessera scientist init --home ada --name ada --institution "Example Institute" --orchestrator-url URL
    python docs/examples/plain_syft_client.py URL roster.json ada/identity.pem north

The consortium runs already, and its roster names this scientist (docs/pysyft.md says how to try it on one machine).
The client is ``syft_rds.SyftRDSClient`` as it comes; only its transport is ours. A plain job runs on the *mock* once
the hospital has approved it; training on private records goes through a proposal and encrypted rounds instead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from datasites.node.roster import Roster
from datasites.syft.connection import address
from datasites.syft.postbox import Postbox
from datasites.syft.session import connect
from privacy.identity import Identity

JOB = """
import json, pathlib, pandas, syft

path = next(path for path in syft.resolve_dataset_files_path("{dataset}") if path.name == "{table}")
table = pandas.read_parquet(path) if path.suffix == ".parquet" else pandas.read_csv(path)
pathlib.Path("outputs/summary.json").write_text(json.dumps({{"rows": len(table), "columns": len(table.columns)}}))
"""


def first_table(dataset: Any) -> Path:
    """Return the first table among a dataset's mock files; schemas and cards lie beside them."""
    tables = [path for path in sorted(dataset.mock_files) if path.suffix in (".parquet", ".csv")]
    if not tables:
        raise SystemExit(f"{dataset.owner} published {dataset.name} without a table")
    return min(tables, key=lambda path: path.stem != "records")


def read_table(path: Path) -> pd.DataFrame:
    """Return a mock table."""
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="the orchestrator's address")
    parser.add_argument("roster", type=Path, help="the consortium's roster")
    parser.add_argument("identity", type=Path, help="the private key of a scientist of the roster")
    parser.add_argument("site", help="the hospital to ask")
    parser.add_argument("--folder", type=Path, default=Path("SyftBox"), help="where syft keeps its files")
    parser.add_argument("--wait", type=float, default=300.0, help="seconds to wait for the hospital")
    arguments = parser.parse_args()

    postbox = Postbox.of(Identity.load_or_create(arguments.identity), Roster.load(arguments.roster), arguments.url)
    client = connect(postbox, arguments.folder, role="scientist")
    hospital = address(arguments.site)
    deadline = time.monotonic() + arguments.wait

    def wait_until(done: object, what: str) -> None:
        while not done():  # type: ignore[operator]
            if time.monotonic() > deadline:
                raise SystemExit(f"{arguments.site} did not {what} within {arguments.wait:g} s; ask its staff")
            postbox.wait_for_news(2.0)
            client.sync()

    client.add_peer(hospital, verbose=False)
    wait_until(lambda: list(client.dataset_manager.get_all()), "share a dataset")
    for dataset in client.dataset_manager.get_all():
        print(f"dataset {dataset.name} of {dataset.owner}: {dataset.summary}")
    dataset = client.dataset_manager.get_all()[0]
    path = first_table(dataset)
    table = read_table(path)
    print(f"mock table {path.name}: {len(table)} rows, {len(table.columns)} columns")
    print(table.head().to_string(max_cols=8))

    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "main.py"
        code.write_text(JOB.format(dataset=dataset.name, table=path.name))
        client.submit_python_job(hospital, str(code), job_name="plain-example", force_submission=True)
    print("job plain-example submitted")

    wait_until(lambda: client.job_client.jobs["plain-example"].status in ("done", "failed", "rejected"), "answer")
    job = client.job_client.jobs["plain-example"]
    print(f"job plain-example is {job.status}")
    for path in job.output_paths:
        print(f"{path.name}: {path.read_text()}")
    return 0 if job.status == "done" else 1


if __name__ == "__main__":
    sys.exit(main())
