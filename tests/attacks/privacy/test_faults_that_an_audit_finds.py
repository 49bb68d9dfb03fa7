"""Somebody breaks private training in ways that are on no list, and the audit of the whole path has to notice.

Played, in the code itself: noise at half of the values, or at all but one; the same noise in every round, at every
hospital, or in the update and the histograms; noise that repeats in part, that mirrors itself, that is uniform, that is
less where there are patients, or that one modality lacks; the same batch in every round; a rate that is a tenth too
high; a clip that is a tenth too wide, by the largest value, or layer by layer; a patient who counts twice in a
histogram, or whose losses nobody clips. Most of them passed the audit before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import orchestrator.simulation.audited_path as audited_path
from datasites.strategy.shared_noise import SharedNoise
from datasites.study import streams
from datasites.training import statistics
from orchestrator.simulation.audit import PathResult, audit_path
from privacy.dp import discrete_gaussian, releases
from privacy.dp.clipping import PerExampleClipper
from privacy.dp.layer_rules import RULES
from privacy.dp.randomness import Randomness

torch.set_num_threads(1)
Patch = pytest.MonkeyPatch
grid_gaussian, poisson, child = Randomness.grid_gaussian, Randomness.poisson_sample, Randomness.child
FIXED = {"site": "one", "study": "one", "round": 1, "plan_hash": "one"}


def noise(change: Callable[[Randomness, int], np.ndarray]) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(Randomness, "grid_gaussian", change)


def at_half(self: Randomness, n: int) -> np.ndarray:
    found = grid_gaussian(self, n)
    found[1::2] = 0
    return found


def but_one(self: Randomness, n: int) -> np.ndarray:
    found = grid_gaussian(self, n)
    found[-1] = 0
    return found


def mirrored(self: Randomness, n: int) -> np.ndarray:
    found = grid_gaussian(self, n)
    found[n - n // 2 :] = -found[: n // 2]
    return found


def uniform(self: Randomness, n: int) -> np.ndarray:
    return np.rint((self.uniform(n) - 0.5) * np.sqrt(12.0) * discrete_gaussian.DEVIATION).astype(np.int64)


def repeated(self: Randomness, n: int) -> np.ndarray:
    return grid_gaussian(Randomness.public(n, **FIXED), n)  # type: ignore[arg-type]


def repeated_in_part(self: Randomness, n: int) -> np.ndarray:
    return np.rint(0.8**0.5 * grid_gaussian(self, n) + 0.2**0.5 * repeated(self, n)).astype(np.int64)


def without_rounds(patch: Patch) -> None:
    derive = streams.derive
    patch.setattr(streams, "derive", lambda s, label, facts: derive(s, label, {**facts, "round": 1}))
    patch.setattr(streams, "_stream", lambda _p, _plan, _site, s: Randomness.public(int.from_bytes(s[:6]), **FIXED))


def one_secret(patch: Patch) -> None:
    secret = streams.public_secret
    patch.setattr(audited_path, "public_secret", lambda seed, _site: secret(seed, "all"))


def one_stream(patch: Patch) -> None:
    patch.setattr(Randomness, "child", lambda self, _label: child(self, "all"))


def higher_rate(patch: Patch) -> None:
    patch.setattr(Randomness, "poisson_sample", lambda self, n, q: poisson(self, n, min(1.0, 1.1 * q)))


def one_batch(patch: Patch) -> None:
    patch.setattr(Randomness, "poisson_sample", lambda _, n, q: poisson(Randomness.public(0, **FIXED), n, q))  # type: ignore[arg-type]


def wider_clip(patch: Patch) -> None:
    factors = PerExampleClipper._factors

    def wider(self: PerExampleClipper, pairs: Any, bounds: dict[str, float], records: int) -> Any:
        return factors(self, pairs, {group: 1.1 * bound for group, bound in bounds.items()}, records)

    patch.setattr(PerExampleClipper, "_factors", wider)


def by_largest_value(patch: Patch) -> None:
    def largest(layer: Any, x: torch.Tensor, g: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"weight": (g.abs().amax(1) * x.abs().amax(1)).square()}

    patch.setitem(RULES, torch.nn.Linear, replace(RULES[torch.nn.Linear], squared_norms=largest))


def by_layer(patch: Patch) -> None:
    norms = PerExampleClipper._norms

    def worst(self: PerExampleClipper, pairs: dict[str, Any], records: int) -> dict[str, torch.Tensor]:
        alone = [norms(self, {name: pair}, records) for name, pair in pairs.items()]
        return {group: torch.stack([found[group] for found in alone]).amax(0) for group in alone[0]}

    patch.setattr(PerExampleClipper, "_norms", worst)


def one_modality_bare(patch: Patch) -> None:
    share = SharedNoise.share

    def bare(self: SharedNoise, proposal: Any, block: Any, sums: Any, stream: Randomness) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            if block.modality == "image":
                inner.setattr(Randomness, "grid_gaussian", lambda _, n: np.zeros(n, np.int64))
            return share(self, proposal, block, sums, stream)

    patch.setattr(SharedNoise, "share", bare)


def less_where_patients_are(patch: Patch) -> None:
    summed, seen = PerExampleClipper.clipped_sum, {"records": 0}

    def counted(self: PerExampleClipper, inputs: Any, *rest: Any) -> Any:
        seen["records"] = len(inputs["label"])
        return summed(self, inputs, *rest)

    def less(self: Randomness, n: int) -> np.ndarray:
        return np.rint(grid_gaussian(self, n) * (0.6 if seen["records"] else 1.0)).astype(np.int64)

    patch.setattr(PerExampleClipper, "clipped_sum", counted)
    patch.setattr(Randomness, "grid_gaussian", less)


def counted_twice(patch: Patch) -> None:
    histograms = releases.score_histograms

    def twice(scores: np.ndarray, labels: np.ndarray, **more: Any) -> Any:
        return histograms(np.concatenate([scores, scores]), np.concatenate([labels, labels]), **more)

    patch.setattr(statistics, "score_histograms", twice)


def losses_as_they_are(patch: Patch) -> None:
    patch.setattr(releases, "_clipped", lambda losses, terms, _: np.asarray(losses, np.float64).reshape(-1, len(terms)))


FAULTS: dict[str, tuple[Callable[[Patch], None], str]] = {
    "noise at half of the values": (noise(at_half), "silent"),
    "noise at all values but one": (noise(but_one), "silent"),
    "noise that mirrors itself": (noise(mirrored), "alike"),
    "uniform noise": (noise(uniform), "shape"),
    "the same noise in every round": (noise(repeated), "alike"),
    "noise of which a fifth repeats": (noise(repeated_in_part), "alike"),
    "streams that do not know the round": (without_rounds, "alike"),
    "the same noise at every hospital": (one_secret, "alike"),
    "the same noise in update and histograms": (one_stream, "alike"),
    "the same batch in every round": (one_batch, "batches"),
    "a rate a tenth too high": (higher_rate, "batches"),
    "a clip a tenth too wide": (wider_clip, "update"),
    "a clip by the largest value": (by_largest_value, "update"),
    "a clip layer by layer": (by_layer, "update"),
    "a modality without noise": (one_modality_bare, "update of image"),
    "less noise where patients are": (less_where_patients_are, "update of many patients"),
    "a patient counted twice in histograms": (counted_twice, "histograms"),
    "losses that nobody clips": (losses_as_they_are, "losses"),
}


def accused_by(result: PathResult) -> set[str]:
    level = result.failure / 10
    found = {name for name, p in {**result.quiet, **result.patterns}.items() if p < level}
    return found | {name for name, distance in result.moved.items() if distance > 1 + 2.0**-13}


QUICK = (
    "noise at all values but one",
    "uniform noise",
    "the same noise in every round",
    "the same noise at every hospital",
    "the same noise in update and histograms",
    "a rate a tenth too high",
    "a clip layer by layer",
    "less noise where patients are",
)


@pytest.mark.parametrize("fault", [f if f in QUICK else pytest.param(f, marks=pytest.mark.thorough) for f in FAULTS])
def test_a_fault_on_no_list_is_found_by_what_should_find_it(monkeypatch: Patch, fault: str) -> None:
    break_it, test = FAULTS[fault]
    break_it(monkeypatch)
    result = audit_path("shared", canaries=700)
    assert result.flagged
    assert test in accused_by(result)


def test_the_honest_path_is_not_accused() -> None:
    assert accused_by(audit_path("shared", canaries=700)) == set()
