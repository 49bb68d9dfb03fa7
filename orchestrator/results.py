"""What a finished study is worth, measured on held-out patients of public or synthetic data, outside the protocol."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from datasites.contract import Proposal, parse
from datasites.dataset import load, read_schema
from datasites.http import SignedClient
from orchestrator.evaluation import evaluate

PUBLIC_LABEL = "exact, on public or synthetic data, outside the protocol"


def final_metrics(client: SignedClient, status: dict[str, Any], test: Path) -> dict[str, Any]:
    """Return the metrics of the last global model on the held-out dataset in ``test``.

    Args:
        client: of the orchestrator.
        status: as ``GET /studies/STUDY`` gives it.
        test: a dataset folder whose private part holds the held-out patients.
    """
    proposal = parse(Proposal, status["proposal"]["payload"])
    last = status["checkpoints"][-1] if status["checkpoints"] else status["initial"]
    return evaluate_model(proposal, client.get_bytes(f"/blobs/{last['model_hash']}"), test)


def learning_curve(
    client: SignedClient, status: dict[str, Any], test: Path, *, points: int = 40
) -> list[tuple[int, float]]:
    """Return (round, AUROC) on the held-out dataset, for at most ``points`` rounds evenly spread and the last one."""
    proposal = parse(Proposal, status["proposal"]["payload"])
    rounds = len(status["checkpoints"])
    chosen = sorted({round(1 + i * (rounds - 1) / max(1, points - 1)) for i in range(points)}) if rounds else []
    curve = []
    for number in chosen:
        model = client.get_bytes(f"/blobs/{status['checkpoints'][number - 1]['model_hash']}")
        curve.append((number, float(evaluate_model(proposal, model, test)["auroc"])))
    return curve


def last_evaluation(client: SignedClient, status: dict[str, Any], test: Path) -> dict[str, Any] | None:
    """Return the study's last differentially private evaluation beside exact figures of the very same model.

    None when the study released none. ``exact`` is on the held-out dataset in ``test``, not on the hospitals' records.
    """
    released = [c["evaluation"] for c in status["checkpoints"] if c.get("evaluation")]
    if not released:
        return None
    number = int(released[-1]["round"])
    scored = (
        status["checkpoints"][number - 2] if number > 1 else status["initial"]
    )  # the model that went into the round
    proposal = parse(Proposal, status["proposal"]["payload"])
    exact = evaluate_model(proposal, client.get_bytes(f"/blobs/{scored['model_hash']}"), test)
    kept = ("auroc", "cross_entropy", "test_patients", "label")
    return {**released[-1], "exact": {name: exact[name] for name in kept}}


def evaluate_model(proposal: Proposal, model_bytes: bytes, test: Path) -> dict[str, Any]:
    """Return the metrics of one model on the held-out dataset in ``test``, all modalities given."""
    import torch

    from models.batch import to_tensors
    from models.build import build_model
    from models.losses import probabilities
    from models.parameters import from_bytes

    torch.set_num_threads(1)
    model = build_model(proposal.model, seed=0)
    from_bytes(model, model_bytes)
    arrays = {name: np.array(array) for name, array in load(test / "private", read_schema(test)).items()}
    known = {*proposal.model.features, "presence", "cohort", "label"}
    with torch.no_grad():
        batch = {name: tensor for name, tensor in to_tensors(arrays).items() if name in known}
        predicted = probabilities(model(batch)).numpy()
    cohort, label = np.asarray(arrays["cohort"], np.int64), np.asarray(arrays["label"], np.int64)
    metrics = evaluate(predicted, label, cohort, proposal.model.cohorts)
    return {**asdict(metrics), "test_patients": metrics.cases, "label": PUBLIC_LABEL}
