"""What copy number and mutations add to the staging models, as fourth and fifth modality of the nine hospitals.

    python benchmarks/modalities.py --data ../shared/data/tcga --seeds 10 --json > OUT

Exact AUROC on held-out patients of public data, outside the protocol; the studies are those of ``tessera simulate``
with the linear model and FedAvg. Every seed trains the same hospitals without and with the further modalities; a
difference is paired over seeds, with Student's t at 95 %. Every hospital holds copy number and mutations of those of
its patients who have them; who holds gene expression, slides and clinical facts is the tri-modal federation's matter.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasites.data.federations import Federation, build
from datasites.data.reading.schema_files import read_schema_document
from datasites.data.tcga.study_schemas import COPY_NUMBER, MUTATIONS, read_calls
from datasites.data.tcga.tables import Tables, read_tables
from models.config import in_order
from orchestrator.simulation.engine import Shard, run_study
from orchestrator.simulation.runs import scores_of_round
from orchestrator.simulation.sites import Patients, patients, simulated_study
from orchestrator.studies.evaluation import Metrics, interval
from orchestrator.studies.proposing.schedule import PLAIN_ROUNDS, with_schedule
from orchestrator.studies.proposing.settings import StudySettings

SETS: Mapping[str, tuple[str, ...]] = {
    "three": (),
    COPY_NUMBER: (COPY_NUMBER,),
    MUTATIONS: (MUTATIONS,),
    "five": (COPY_NUMBER, MUTATIONS),
}
NOISES: Mapping[str, tuple[float, str]] = {"no privacy": (math.inf, "local"), "epsilon 8, shared": (8.0, "shared")}
TASKS = ("early-late", "I-II")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of TCGA cohorts with cna.npz and mut.npz")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    started = time.monotonic()
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    jobs = [(given.data, task, seed) for seed in seeds for task in TASKS]
    found = []
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as executor:
        for runs in executor.map(run_seed, jobs):
            found.append(runs)
            print(f"{len(found)} of {len(jobs)} done", file=sys.stderr)
    lost = list(_tables(given.data).notes)
    for line in lost:
        print(f"note: {line}", file=sys.stderr)
    report = {
        "metrics": "exact AUROC on public data, outside the protocol",
        "settings": {"seeds": given.seeds, "first_seed": given.first_seed, "delta": 1e-4, "model": "linear, fedavg"},
        "tasks": {
            task: summary([runs for (_, other, _), runs in zip(jobs, found, strict=True) if other == task])
            for task in TASKS
        },
        "lost": lost,
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(report, separators=(",", ":")) if given.json else table(report))
    return 0


def run_seed(job: tuple[Path, str, int]) -> dict[str, dict[str, dict[str, float]]]:
    """Return AUROC by noise, set of modalities and cohort ("mean" is over cohorts) of one task and seed."""
    data, task, seed = job
    torch.set_num_threads(1)
    tables = _tables(data)
    plan = build("tri-modal", tables, task=task, seed=seed)
    everyone = _patients(data, task, plan.cohorts)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, extra in SETS.items():
        more, dealt = with_calls(everyone, plan, data, extra)
        for noise, (epsilon, kind) in NOISES.items():
            metrics = trained(more, dealt, task, seed, epsilon, kind)
            found.setdefault(noise, {})[name] = {"mean": metrics.auroc, **metrics.auroc_by_cohort}
    return found


@lru_cache(maxsize=1)
def _tables(data: Path) -> Tables:
    return read_tables(data, columns="all")


@lru_cache(maxsize=2)
def _patients(data: Path, task: str, cohorts: tuple[str, ...]) -> Patients:
    return patients(_tables(data), task, cohorts)


def with_calls(everyone: Patients, plan: Federation, data: Path, extra: Sequence[str]) -> tuple[Patients, Federation]:
    """Return the patients with further modalities, and the federation in which every hospital holds them."""
    document = read_schema_document(Path("tcga-staging-5"))
    arrays = dict(everyone.arrays)
    held = [m for m in everyone.arrays if m not in ("presence", "cohort", "label")]
    before = in_order(held)
    order = in_order([*held, *extra])
    presence = np.zeros((len(everyone.rows), len(order)), dtype=np.float32)
    presence[:, [order.index(m) for m in before]] = everyone.arrays["presence"]
    for modality in extra:
        width = len(document.modality(modality).names)
        values = np.zeros((len(everyone.rows), width), dtype=np.float32)
        for cohort in everyone.cohorts:
            cases, genes, calls = read_calls(data / cohort, modality)
            if len(genes) != width:
                raise SystemExit(f"expected {width} genes, {cohort} has {len(genes)}")
            known = [place for place, case in enumerate(cases) if case in everyone.rows]
            rows = [everyone.rows[cases[place]] for place in known]
            values[rows] = calls[known]
            presence[rows, order.index(modality)] = 1.0
        arrays[modality] = values
    gains = {m: float(document.modality(m).gain or 1.0) for m in extra}
    sites = tuple(replace(site, modalities=in_order([*site.modalities, *extra])) for site in plan.sites)
    return replace(everyone, arrays={**arrays, "presence": presence}, gains=gains), replace(plan, sites=sites)


def trained(everyone: Patients, plan: Federation, task: str, seed: int, epsilon: float, noise: str) -> Metrics:
    """Return the scores of one study on the held-out patients."""
    settings = StudySettings(
        study=f"modalities-{seed}",
        purpose="Simulation.",
        legal_basis="Public data.",
        task=task,
        rounds=PLAIN_ROUNDS,
        epsilon=None if math.isinf(epsilon) else epsilon,
        noise=noise,
        seed=seed,
    )
    study = simulated_study(everyone, plan, with_schedule(settings, None))
    *_, last = run_study(study.proposal, study.model, Shard(study.proposal, study.sites))
    found = scores_of_round(study, last)
    if not isinstance(found, Metrics):
        raise TypeError("stages are classes")
    return found


def summary(runs: Sequence[dict[str, dict[str, dict[str, float]]]]) -> dict[str, Any]:
    """Return mean and half-width of AUROC, and of the paired difference to three modalities, by noise and set."""
    report: dict[str, Any] = {}
    for noise in NOISES:
        for name in SETS:
            groups = list(runs[0][noise][name])
            auroc = {group: [run[noise][name][group] for run in runs] for group in groups}
            gain = {g: [run[noise][name][g] - run[noise]["three"][g] for run in runs] for g in groups}
            report.setdefault(noise, {})[name] = {
                "auroc": {g: _rounded(values) for g, values in auroc.items()},
                "gain": {g: _rounded(values) for g, values in gain.items()},
            }
    return report


def _rounded(values: Sequence[float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in interval(values).items()}


def table(report: dict[str, Any]) -> str:
    lines = []
    for task, noises in report["tasks"].items():
        for noise, sets in noises.items():
            for name, entry in sets.items():
                gains = ", ".join(f"{g} {v['mean']:+.3f} +- {v['half_width']:.3f}" for g, v in entry["gain"].items())
                lines.append(f"{task}, {noise}, {name}: AUROC {entry['auroc']['mean']['mean']:.3f}; gain {gains}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
