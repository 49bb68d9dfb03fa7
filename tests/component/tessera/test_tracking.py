"""Callbacks against the real libraries: what they write is read back, and holds public numbers alone."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

import tessera
from tessera.tracking import public_facts

VALUES = {"seconds": 1.5, "sites": 3.0, "step_norm": 0.25}
pytestmark = pytest.mark.filterwarnings("ignore")  # of the trackers' own imports


@pytest.fixture
def run() -> Any:
    """What a callback reads of a run."""
    mechanism = SimpleNamespace(epsilon=lambda: 4.0, target_delta=1e-4)
    proposal = SimpleNamespace(
        study="first", proposal_hash="ab" * 32, mechanism=mechanism, noise="shared", rounds=2,
        participants=("brca-1", "lusc-1", "lihc-1"), own_network=False,
        model=SimpleNamespace(architecture="linear"), training=SimpleNamespace(aggregation="fedavg"),
    )  # fmt: skip
    return SimpleNamespace(name="first", proposal=proposal)


def told(callback: Any, run: Any) -> None:
    callback.begin(run)
    for number in (1, 2):
        callback.round(run, number, {**VALUES, "step_norm": 0.25 * number})
    callback.end(run, {"auroc": 0.7})


def test_no_hospital_is_named(run):
    assert "brca-1" not in json.dumps(public_facts(run)) and public_facts(run)["hospitals"] == 3


def test_mlflow_holds_the_rounds_and_the_end(run, tmp_path):
    tracking = pytest.importorskip("mlflow.tracking")
    place = f"sqlite:///{tmp_path}/mlflow.db"
    callback = tessera.MLflow(tracking_uri=place)
    told(callback, run)
    client = tracking.MlflowClient(tracking_uri=place)
    found = client.get_run(callback.run_id)
    assert found.info.status == "FINISHED" and found.data.params["epsilon"] == "4.0"
    assert found.data.metrics["auroc"] == 0.7
    history = client.get_metric_history(callback.run_id, "step_norm")
    assert [(entry.step, entry.value) for entry in history] == [(1, 0.25), (2, 0.5)]


def test_tensorboard_holds_the_rounds_and_the_end(run, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    told(tessera.TensorBoard(tmp_path), run)
    events = accumulator.EventAccumulator(str(tmp_path / ("ab" * 8)))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("round/step_norm")] == [(1, 0.25), (2, 0.5)]
    assert events.Scalars("final/auroc")[0].value == pytest.approx(0.7)


def test_wandb_writes_offline(run, tmp_path):
    wandb = pytest.importorskip("wandb")
    told(tessera.WandB(folder=tmp_path), run)
    wandb.teardown()  # its process writes the file down
    written = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(written) == 1 and written[0].stat().st_size > 0
    assert b"step_norm" in written[0].read_bytes() and b"brca-1" not in written[0].read_bytes()


@pytest.mark.parametrize("kind", ["TensorBoard", "WandB"])
def test_a_round_before_the_beginning_is_refused(run, kind):
    pytest.importorskip("wandb")
    with pytest.raises(tessera.InvalidInput, match=r"begin\(\) before"):
        getattr(tessera, kind)().round(run, 1, VALUES)


def test_a_missing_library_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "mlflow.tracking", raising=False)
    with pytest.raises(tessera.InvalidInput, match="pip install mlflow-skinny"):
        tessera.MLflow()
