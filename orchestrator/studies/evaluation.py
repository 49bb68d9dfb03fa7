"""How good a model is on held-out patients of public or synthetic data, outside the protocol.

Four kinds of scores: discrimination (AUROC), decisions (balanced accuracy), likelihood (cross entropy) and calibration.
Every score but the last two is taken cohort by cohort and averaged, so that telling cancers apart earns nothing.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from scipy.stats import t as student

from datasites.data.dataset import load, read_schema
from datasites.language import mark
from datasites.node.files import write_atomically
from datasites.node.http import SignedClient
from datasites.study.proposal import Proposal
from datasites.study.signing import parse
from models.config import ModelConfig, in_order
from orchestrator.rounds.scoring.outcome_figures import OutcomeMetrics, outcome_metrics
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput

if TYPE_CHECKING:
    from torch import nn

Files = Mapping[str, bytes]
Floats = NDArray[np.floating]
Integers = NDArray[np.integer]
CALIBRATION_BINS = 10
_TINY = 1e-7


def interval(values: Sequence[float]) -> dict[str, float]:
    """Return the mean and the half-width of its 95 % interval (Student's t): 0 for one value, NaN mean for none."""
    array = np.array(values, dtype=float)
    if len(array) < 2:
        return {"mean": float(array.mean()) if len(array) else math.nan, "half_width": 0.0}
    half = student.ppf(0.975, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array))
    return {"mean": float(array.mean()), "half_width": float(half)}


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Scores of one set of predictions; ``auroc`` is the mean of ``auroc_by_cohort``.

    ``balanced_accuracy`` is also averaged over cohorts, decided by what stands out in the cohort (label-free);
    ``cross_entropy`` is in nats; ``calibration_error`` is the expected calibration error in 10 equal-width bins.
    """

    cases: int
    auroc: float
    auroc_by_cohort: dict[str, float]
    balanced_accuracy: float
    balanced_accuracy_by_cohort: dict[str, float]
    cross_entropy: float
    calibration_error: float


def evaluate(
    probability: Floats, label: Integers, cohort: Integers, cohorts: Sequence[str], *, ordered: bool = True
) -> Metrics:
    """Score class probabilities [n, classes] against labels [n], cohort by cohort.

    ``ordered`` classes are told apart at every threshold, others each from the rest. A cohort without two classes
    among its cases is left out of the means.

    Raises:
        InvalidInput: shapes disagree, nothing to score, or probabilities are not finite.
    """
    if probability.ndim != 2 or not len(probability) == len(label) == len(cohort) or not len(label):
        raise InvalidInput(f"expected probabilities [n, classes] and n labels, got {probability.shape}, {label.shape}")
    if not np.isfinite(probability).all():
        raise InvalidInput("expected finite probabilities; the model has diverged, lower the learning rate")
    areas, accuracies = {}, {}
    for index, name in enumerate(cohorts):
        rows = cohort == index
        if len(set(label[rows].tolist())) > 1:
            areas[name] = auroc(probability[rows], label[rows], ordered=ordered)
            accuracies[name] = balanced_accuracy(probability[rows], label[rows])
    return Metrics(
        cases=len(label),
        auroc=_mean(areas.values()),
        auroc_by_cohort=areas,
        balanced_accuracy=_mean(accuracies.values()),
        balanced_accuracy_by_cohort=accuracies,
        cross_entropy=cross_entropy(probability, label),
        calibration_error=calibration_error(probability, label),
    )


def auroc(probability: Floats, label: Integers, *, ordered: bool = True) -> float:
    """Return the area under the ROC curve of "later than class k", averaged over the thresholds k with both sides.

    Of classes without an order it is that of "class k", averaged over the classes that occur beside others.

    Ties count half: a constant score gives 0.5.
    """
    count = probability.shape[1]
    sides = (
        [(probability[:, k + 1 :].sum(axis=1), label > k) for k in range(count - 1)]
        if ordered
        else [(probability[:, k], label == k) for k in range(count)]
    )
    return _mean([binary_auroc(score, side) for score, side in sides if 0 < side.sum() < len(side)])


def binary_auroc(score: Floats, positive: NDArray[np.bool_]) -> float:
    """Return the probability that a positive case scores above a negative one (Mann-Whitney), ties half."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    ranks = rankdata(score)
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def balanced_accuracy(probability: Floats, label: Integers) -> float:
    """Return the recall averaged over the classes that occur, deciding as if they were equally common.

    The decision is the class whose probability stands out most against its mean over these cases: no label is used,
    and a rare late stage is not lost to the commoner early one.
    """
    usual = probability.mean(axis=0)
    hits = (probability / np.maximum(usual, _TINY)).argmax(axis=1) == label
    return _mean([float(hits[label == value].mean()) for value in sorted(set(label.tolist()))])


def cross_entropy(probability: Floats, label: Integers) -> float:
    """Return the mean negative log-likelihood of the labels, in nats."""
    chosen = probability[np.arange(len(label)), label]
    return float(-np.log(np.maximum(chosen, _TINY)).mean())


def calibration_error(probability: Floats, label: Integers, *, bins: int = CALIBRATION_BINS) -> float:
    """Return the expected calibration error: |accuracy - confidence| per equal-width bin, weighted by its cases."""
    confidence = probability.max(axis=1)
    hits = probability.argmax(axis=1) == label
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(hits[place == b].mean() - confidence[place == b].mean()) * (place == b).mean() for b in set(place.tolist())
    ]
    return float(sum(gaps))


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else float("nan")


PUBLIC_LABEL = mark("exact, on public or synthetic data, outside the protocol")


def final_metrics(
    client: SignedClient, status: dict[str, Any], test: Path, code: Files | None = None
) -> dict[str, Any]:
    """Return the metrics of the last global model on the held-out dataset in ``test``.

    Args:
        client: of the orchestrator.
        status: as ``GET /studies/STUDY`` gives it.
        test: a dataset folder whose private part holds the held-out patients.
        code: the files of an own network.
    """
    proposal = parse(Proposal, status["proposal"]["payload"])
    last = status["checkpoints"][-1] if status["checkpoints"] else status["initial"]
    return evaluate_model(proposal, client.get_bytes(f"/blobs/{last['model_hash']}"), test, code=code)


def learning_curve(
    client: SignedClient, status: dict[str, Any], test: Path, *, points: int = 40, code: Files | None = None
) -> list[tuple[int, float]]:
    """Return (round, AUROC or concordance) on the held-out dataset, for at most ``points`` rounds and the last one."""
    proposal = parse(Proposal, status["proposal"]["payload"])
    rounds = len(status["checkpoints"])
    chosen = sorted({round(1 + i * (rounds - 1) / max(1, points - 1)) for i in range(points)}) if rounds else []
    curve = []
    for number in chosen:
        try:
            model = client.get_bytes(f"/blobs/{status['checkpoints'][number - 1]['model_hash']}")
        except InvalidInput:
            continue  # models of long studies are thinned out (orchestrator/rounds/keeping/tidying.py)
        curve.append((number, headline(evaluate_model(proposal, model, test, code=code))))
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
    kept = ("auroc", "cross_entropy", "test_patients", "label") if "auroc" in exact else tuple(exact)
    return {**released[-1], "exact": {name: exact[name] for name in kept}}


def evaluate_model(
    proposal: Proposal, model_bytes: bytes, test: Path, *, only: Collection[str] = (), code: Files | None = None
) -> dict[str, Any]:
    """Return the metrics of one model on the held-out dataset in ``test``.

    Args:
        proposal: the study's.
        model_bytes: parameters, safetensors.
        test: a dataset folder.
        only: the modalities that the model is given; all when empty. Patients without any of them are left out.
        code: the files of an own network, which run here.

    Raises:
        InvalidInput: no patient is left, or the study has a network of its own and ``code`` was not given.
    """
    import torch

    from models.batch import restricted, to_tensors
    from models.outcomes import predicted

    torch.set_num_threads(1)
    model = network_of(proposal, model_bytes, code)
    arrays = {name: np.array(array) for name, array in load(test / "private", read_schema(test)).items()}
    batch = restricted(to_tensors(arrays), proposal.model.features)
    kept = np.ones(len(batch["label"]), dtype=bool)
    if only:
        place = torch.tensor([float(name in only) for name in in_order(proposal.model.features)])
        batch["presence"] = batch["presence"] * place
        kept = batch["presence"].amax(dim=1).numpy() > 0
    with torch.no_grad():
        found = predicted(model(batch), proposal.model).numpy()[kept]
    cohort = np.asarray(arrays["cohort"], np.int64)[kept]
    metrics = scored(found, arrays["label"][kept], cohort, proposal.model)
    return {**asdict(metrics), "test_patients": metrics.cases, "label": PUBLIC_LABEL}


def network_of(proposal: Proposal, model_bytes: bytes, code: Files | None = None) -> nn.Module:
    """Return a study's network with these parameters; code of its own runs here, with the rights of this process.

    Raises:
        InvalidInput: ``code`` is missing, or is not what hospitals approved.
    """
    from models.build import build_model
    from models.parameters import from_bytes

    if not proposal.own_network:
        model = build_model(proposal.model, seed=0)
    else:
        if {name: sha256_hex(data) for name, data in (code or {}).items()} != dict(proposal.plan.code):
            raise InvalidInput("this study has a network of its own: expected its code as it was approved")
        from datasites.worker.child import load_plan

        with tempfile.TemporaryDirectory() as folder:
            for name, data in (code or {}).items():
                write_atomically(Path(folder) / name, data)
            model = load_plan(Path(folder), proposal.model, seed=0)[0].eval()
    from_bytes(model, model_bytes)
    return model


def scored(predicted: Floats, label: NDArray[Any], cohort: Integers, config: ModelConfig) -> Metrics | OutcomeMetrics:
    """Score what a model predicts (:func:`models.outcomes.predicted`), by its outcome.

    Raises:
        InvalidInput: shapes disagree, nothing to score, or predictions are not finite.
    """
    target = config.predicts
    if target is None or target.kind == "categorical":
        return evaluate(predicted, label.astype(np.int64), cohort, config.cohorts, ordered=target is None)
    return outcome_metrics(predicted.astype(np.float64), label.astype(np.float64), cohort, target, config.cohorts)


def headline(metrics: Mapping[str, Any]) -> float:
    """Return the one figure by which models of an outcome are compared: AUROC, or concordance."""
    return float(metrics["auroc"] if "auroc" in metrics else metrics["concordance"])
