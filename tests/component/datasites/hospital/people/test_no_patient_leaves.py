"""Whatever a hospital's journal is exported to, no patient's id is in it: published, refused or named twice."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datasites.data.dataset import Part, Schema, write_dataset
from datasites.data.publishing import Datasets
from datasites.hospital.people.journal_export import export
from datasites.node.home import Config, Home
from datasites.review.endings import FAILED
from datasites.review.policy import Policy
from privacy.errors import TesseraError
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger

SCHEMA = Schema(
    name="staging",
    version=1,
    institution="Alba",
    cohort="LUSC",
    cohorts=("LUSC",),
    task="I-II",
    classes=2,
    modalities=("clinical",),
    features={"clinical": ("age",)},
    preprocessing={"clinical": "none"},
    source="test",
)
CASES = tuple(f"PLANTED-{number:04d}" for number in range(60))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A hospital that published a dataset and refused two others, in each of which a patient's id was at fault."""
    config = Config(name="alba", institution="Alba", role="datasite", orchestrator_url="http://127.0.0.1:1")
    home = Home.create(tmp_path / "home", config)
    inputs = {"clinical": (CASES, np.ones((len(CASES), 1), np.float32))}
    part = Part(cases=CASES, cohorts=("LUSC",) * len(CASES), labels=(0,) * len(CASES), inputs=inputs)
    with (
        closing(Journal(home.folder / "journal.sqlite", home.identity())) as journal,
        closing(Ledger(home.folder / "ledger.sqlite", home.identity())) as ledger,
    ):
        datasets = Datasets(home=home, ledger=ledger, journal=journal, policy=Policy())
        for name, second in (("whole", ""), ("twice", CASES[0]), ("alike", f" {CASES[1].lower()} ")):
            folder = home.folder / name
            write_dataset(folder, SCHEMA, part)
            if second:
                records = pd.read_parquet(folder / "private" / "records.parquet")
                copy = records.iloc[:1].assign(case_id=second)
                pd.concat([records, copy]).to_parquet(folder / "private" / "records.parquet")
            try:
                datasets.publish(folder)
            except TesseraError as error:
                assert "PLANTED" not in str(error).upper()
                journal.append("refused", {"reason": str(error)})
        journal.append(FAILED, {"study": "pilot", "round": 1})
    return home


def test_no_id_is_in_an_export(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "journal.csv"
    chosen = {"kind": "", "since": 0, "after": "", "before": ""}
    done = export(home.folder, out=out, syslog="", tcp=False, **chosen)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(120)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        sent = export(home.folder, out=None, syslog=address, tcp=False, **chosen)
        received = b"".join(server.recv(65535) for _ in range(sent.entries))
    assert done.entries >= 4 and sent.entries == done.entries + 1
    for text in (out.read_bytes(), received, (home.folder / "journal.sqlite").read_bytes()):
        assert b"count-released" in text and b"PLANTED" not in text.upper()
