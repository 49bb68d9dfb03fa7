"""The plain PySyft script of the documentation works as it stands."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from datasites.node.roster import Roster
from datasites.study.proposal import Party
from datasites.syft.client import OwnerNode
from datasites.syft.runner import Sandbox
from privacy.identity import Identity

SCRIPT = Path(__file__).parents[4] / "docs" / "examples" / "plain_syft_client.py"


def _roster(mailbox: Any, server_key: str) -> Roster:
    def party(name: str) -> Party:
        return Party(name=name, institution=name, public_key=mailbox.identity(name).public_key)

    orchestrator = Party(name="orchestrator", institution="Study group", public_key=server_key)
    return Roster(
        orchestrator=orchestrator, keyholder=party("keyholder"), sites=(party("north"),), scientists=(party("ada"),)
    )


def test_the_documented_client_lists_reads_submits_and_gets_its_answer(
    mailbox: Any, sandbox: Sandbox, tmp_path: Path, mailbox_identity: Identity
) -> None:
    roster, key = tmp_path / "roster.json", tmp_path / "scientist.pem"
    _roster(mailbox, mailbox_identity.public_key).save(roster)
    mailbox.identity("ada").save(key)
    mock = tmp_path / "mock"
    mock.mkdir()
    (mock / "card.json").write_text("{}")
    pd.DataFrame({"case_id": ["MOCK-1", "MOCK-2"], "age": [50, 61]}).to_parquet(mock / "records.parquet")
    owner = OwnerNode(tmp_path / "north", mailbox.postbox("north"), scientists=["ada"], sandbox=sandbox)
    owner.publish_dataset("ages", mock_path=mock, private_location="elsewhere", summary="ages")
    script = subprocess.Popen(
        [sys.executable, SCRIPT, mailbox.url, roster, key, "north", "--folder", tmp_path / "lab", "--wait", "240"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    while script.poll() is None and time.monotonic() < deadline:
        owner.sync()
        for job in owner.pending_jobs():
            owner.approve(job)
        owner.run_approved_on_mock()
        owner.sync()
        owner.wait_for_news(0.5)
    output, errors = script.communicate(timeout=240)
    assert script.returncode == 0, errors
    assert "dataset ages of north@tessera.invalid: ages" in output
    assert "mock table records.parquet: 2 rows, 2 columns" in output and "MOCK-2" in output
    assert 'summary.json: {"rows": 2, "columns": 2}' in output


def test_importing_the_node_loads_no_training_library() -> None:
    code = (
        "import sys, datasites.syft.client; print(sorted({'torch', 'opacus', 'tenseal', 'pandas'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
