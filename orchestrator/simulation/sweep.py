"""Many simulated studies that differ in some settings, and what the same sweep would have cost on private patients.

>>> parse_grid(["epsilon=1,4", "rounds=10"])
({'epsilon': 1.0, 'rounds': 10}, {'epsilon': 4.0, 'rounds': 10})
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from datasites.node.files import write_atomically
from datasites.study.signing import parse
from orchestrator.simulation.runs import BASELINES, MakeEngine, OnRound, SimulationRequest, run_one, summary
from orchestrator.simulation.sites import SimulatedStudy
from privacy.dp.accounting import composed_epsilon
from privacy.dp.mechanism import Mechanism
from privacy.errors import InvalidInput

Cell = Mapping[str, Any]
_MOST_CELLS = 500
_KINDS: Mapping[str, Callable[[str], Any]] = {
    "epsilon": float,
    "delta": float,
    "rounds": int,
    "sites": int,
    "noise": str,
    "method": str,
    "architecture": str,
    "fusion": str,
    "alpha": float,
    "split": str,
    "federation": str,
    "task": str,
    "outcome": str,
    "min_sites": int,
    "colluders": int,
    "evaluation_share": float,
    "synthetic_patients": int,
    "device": str,
}
_ALSO = {"model": "architecture", "patients": "synthetic_patients"}


def parse_grid(given: Sequence[str]) -> tuple[Cell, ...]:
    """Return every combination of what was given as ``NAME=VALUE,VALUE``; one empty cell for nothing.

    Raises:
        InvalidInput: no such setting, a value of another kind, a name twice, or too many combinations.
    """
    axes: dict[str, list[Any]] = {}
    for text in given:
        name, equals, values = text.partition("=")
        name = _ALSO.get(name.strip().replace("-", "_"), name.strip().replace("-", "_"))
        if not equals or name not in _KINDS or name in axes:
            raise InvalidInput(f"expected --grid NAME=VALUE,VALUE once each of {', '.join(_KINDS)}, got {text[:60]!r}")
        try:
            axes[name] = [_KINDS[name](value.strip()) for value in values.split(",") if value.strip()]
        except ValueError as error:
            raise InvalidInput(f"expected numbers in --grid {text[:60]!r}") from error
        if not axes[name]:
            raise InvalidInput(f"expected at least one value in --grid {text[:60]!r}")
    cells = tuple(dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
    if len(cells) > _MOST_CELLS:
        raise InvalidInput(f"expected at most {_MOST_CELLS} combinations, got {len(cells)}")
    return cells


@dataclass(frozen=True, kw_only=True)
class Job:
    """One study of a sweep: a cell of the grid, a method and a seed. ``keep`` is where its model and curve stay."""

    cell: Cell
    request: SimulationRequest
    method: str
    seed: int
    keep: Path | None = None

    def run(self, *, make_engine: MakeEngine | None = None, on_round: OnRound | None = None) -> dict[str, Any]:
        """Run the study, keep what is to be kept, and return its result with the cell."""
        ended: list[tuple[SimulatedStudy, bytes]] = []
        result = run_one(
            self.request,
            self.method,
            self.seed,
            make_engine=make_engine,
            on_round=on_round,
            on_end=lambda study, model: ended.append((study, model)),
        )
        found = {"cell": dict(self.cell), **result}
        for study, model in ended:
            found["mechanism"] = asdict(study.proposal.mechanism)
            self._keep_model(model)
        if self.keep is not None:
            self.keep.mkdir(parents=True, exist_ok=True)
            write_atomically(self.keep / f"{self.name}.json", json.dumps(found, indent=2).encode())
        return found

    @property
    def name(self) -> str:
        """A file's name that tells this study from the others of its sweep."""
        parts = [f"{key}-{value}" for key, value in self.cell.items() if key != "method"]
        return "_".join([*parts, self.method.replace("+", "-and-"), f"seed-{self.seed}"]).replace("/", "-")

    def _keep_model(self, model: bytes) -> None:
        if self.keep is not None:
            self.keep.mkdir(parents=True, exist_ok=True)
            write_atomically(self.keep / f"{self.name}.safetensors", model)


def jobs_of(
    request: SimulationRequest, cells: Sequence[Cell], seeds: Sequence[int], keep: Path | None = None
) -> list[Job]:
    """Return every study of a sweep, checked: a cell that makes no study is refused before anything runs.

    Raises:
        InvalidInput: as :class:`orchestrator.simulation.runs.SimulationRequest`.
    """
    found = []
    for cell in cells:
        changes = {name: value for name, value in cell.items() if name != "method"}
        methods = (str(cell["method"]),) if "method" in cell else request.methods
        asked = replace(request, **changes, methods=methods)
        found += [Job(cell=cell, request=asked, method=m, seed=s, keep=keep) for s in seeds for m in methods]
    return found


def run_jobs(jobs: Sequence[Job], *, processes: int, done: Callable[[int], None] = lambda _: None) -> list[Any]:
    """Run studies in up to ``processes`` processes and return their results in order; ``done`` is told how many.

    One process is this one: another would import everything again, which takes seconds.
    """
    found: dict[int, Any] = {}
    if min(processes, len(jobs)) == 1:
        for place, job in enumerate(jobs):
            found[place] = job.run()
            done(len(found))
        return [found[place] for place in range(len(jobs))]
    with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=get_context("spawn")) as executor:
        futures = {executor.submit(job.run): place for place, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                found[futures[future]] = future.result()
                done(len(found))
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    return [found[place] for place in range(len(jobs))]


def by_cell(cells: Sequence[Cell], results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for every cell of the grid its settings and the mean scores of its methods over seeds."""
    lines = []
    for cell in cells:
        own = [dict(result) for result in results if result["cell"] == cell]
        lines.append({"cell": dict(cell), "epsilon": own[0]["epsilon"], "methods": summary(own)})
    return lines


def private_cost(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the same sweep would have cost every patient of live hospitals: each study once, and all together.

    Seeds are no studies of their own: a live sweep runs each combination once. Baselines are none either.

    Args:
        results: of :meth:`Job.run`.

    Returns:
        ``studies``; ``epsilon`` of all of them composed (None without privacy, 0 without studies) at ``delta``, the
        smallest of them; ``largest``, of the costliest alone.
    """
    first = min((int(result["seed"]) for result in results), default=0)
    studies = [r for r in results if r["seed"] == first and r["method"] not in BASELINES]
    mechanisms = [parse(Mechanism, result["mechanism"]) for result in studies]
    if not mechanisms:
        return {"studies": 0, "epsilon": 0.0, "delta": 0.0, "largest": 0.0}
    delta = min(mechanism.target_delta for mechanism in mechanisms)
    if not all(mechanism.private for mechanism in mechanisms):
        return {"studies": len(mechanisms), "epsilon": None, "delta": delta, "largest": None}
    largest, together = max(m.epsilon(delta) for m in mechanisms), composed_epsilon(mechanisms, delta)
    return {
        "studies": len(mechanisms),
        "epsilon": together if math.isfinite(together) else None,
        "delta": delta,
        "largest": largest,
    }
