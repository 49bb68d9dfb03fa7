"""A plain PySyft data scientist over Tessera's mailbox: list datasets, read a mock, submit a job, read its output.

    python docs/examples/plain_syft_client.py http://127.0.0.1:8000 roster.json scientist.pem north

The client is ``syft_rds.SyftRDSClient`` as it comes; only its transport is ours. A plain job runs on the *mock* once
the hospital has approved it; training on private records goes through a proposal and encrypted rounds instead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from datasites.node.roster import Roster
from datasites.syft.connection import address
from datasites.syft.postbox import Postbox
from datasites.syft.session import connect
from privacy.identity import Identity

JOB = """
import json, pathlib, syft

lines = syft.resolve_dataset_file_path("{dataset}").read_text().splitlines()
pathlib.Path("outputs/summary.json").write_text(json.dumps({{"rows": len(lines) - 1, "header": lines[0]}}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="the orchestrator's address")
    parser.add_argument("roster", type=Path, help="the consortium's roster")
    parser.add_argument("identity", type=Path, help="this scientist's private key")
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
    print(f"first line of the mock: {dataset.mock_files[0].read_text().splitlines()[0]}")

    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "main.py"
        code.write_text(JOB.format(dataset=dataset.name))
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
