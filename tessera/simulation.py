"""A simulated study over some seeds: run in this process or in several, kept, resumed, shown."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from datasites.node.files import write_atomically
from datasites.study.proposal import Proposal
from datasites.study.schema.document import StudySchema
from datasites.study.signing import parse
from orchestrator.simulation.runs import SimulationRequest
from orchestrator.studies.evaluation import interval
from privacy.canonical import sha256_hex
from privacy.errors import TesseraError
from tessera.facts import facts_of, schema_document
from tessera.pictures import Picture, curve
from tessera.running import Job, run_jobs
from tessera.shown import html_table
from tessera.trained.evaluated import evaluation_table
from tessera.trained.model import Model

if TYPE_CHECKING:
    from tessera.study import Study

_CLASSES = ("auroc", "balanced_accuracy", "cross_entropy", "calibration_error")
_NAMES = {"auroc": "AUROC", "concordance": "concordance"}
_OTHERS = ("concordance", "mean_absolute_error", "deviance")


@dataclass(frozen=True, kw_only=True, eq=False)
class Simulation:
    """What a simulated study gave; all scores are exact, on held-out public or synthetic patients.

    ``runs`` has one entry a seed, as ``tessera simulate --json`` prints it; ``model`` is the first seed's.
    """

    study: Study
    runs: tuple[Mapping[str, Any], ...]
    seconds: float
    data: str
    model: Model

    @property
    def metrics(self) -> dict[str, float]:
        """The mean of every score over the seeds; ``auroc`` is the mean over cohorts."""
        return {name: float(np.mean([run[name] for run in self.runs])) for name in _scores(self.runs[0])}

    @property
    def lost(self) -> tuple[str, ...]:
        """A line for everything that was left out when the tables were read."""
        return tuple(dict.fromkeys(line for run in self.runs for line in run.get("lost", ())))

    @property
    def half_widths(self) -> dict[str, float]:
        """Half of the 95 % interval (Student's t over seeds) of every score; 0 for one seed."""
        return {name: interval([run[name] for run in self.runs])["half_width"] for name in _scores(self.runs[0])}

    @property
    def curves(self) -> list[list[float]]:
        """The AUROC after every round, a list for each seed."""
        return [list(run["curve"]) for run in self.runs]

    @property
    def evaluation(self) -> pd.DataFrame:
        """The first seed's own evaluation, with the noise of a live one (:attr:`tessera.live.Run.evaluation`).

        Raises:
            TesseraError: the study asked for none.
        """
        found = self.runs[0].get("evaluation")
        if found is None:
            raise TesseraError(
                f"{self.study.name} has released no evaluation; a study asks for one with evaluation=0.2"
            )
        return evaluation_table(found)

    def by_cohort(self) -> pd.DataFrame:
        """Return the mean AUROC and balanced accuracy of every cohort."""
        columns = {
            score: pd.DataFrame([run[f"{score}_by_cohort"] for run in self.runs]).mean()
            for score in ("auroc", "balanced_accuracy", "concordance")
            if f"{score}_by_cohort" in self.runs[0]
        }
        return pd.DataFrame(columns).rename_axis("cohort")

    def plot(self) -> Picture:
        """Return a picture of the AUROC after every round: mean over seeds, and their range."""
        return curve(
            f"{self.study.name}: {self.study.privacy}", self.curves, label=_NAMES.get(next(iter(self.metrics)), "score")
        )

    def __repr__(self) -> str:
        first = next(iter(self.metrics))
        score, half = self.metrics[first], self.half_widths[first]
        seeds = f"{len(self.runs)} seed{'s' * (len(self.runs) > 1)}"
        shown = f"{_NAMES.get(first, first)} {score:.3f} +- {half:.3f}"
        return f"Simulation({self.study.name!r}, {seeds}, {shown}, {self.study.privacy})"

    def _repr_html_(self) -> str:
        widths = self.half_widths
        rows = [(name, value, widths[name]) for name, value in self.metrics.items()]
        title = f"{self.study.name}: {len(self.runs)} seeds on {self.data}, {self.study.privacy}"
        return html_table(title, rows, ("score", "mean", "95 % interval +-"))


def _scores(run: Mapping[str, Any]) -> list[str]:
    """Return the scores that the study's outcome has."""
    return [name for name in (*_CLASSES, *_OTHERS) if run.get(name) is not None]


def simulate(
    study: Study, request: SimulationRequest, seeds: Sequence[int], *, jobs: int, keep: Path | None, progress: bool
) -> Simulation:
    """Run a request with every seed and return what they gave; see :meth:`tessera.study.Study.simulate`."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        place = keep or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        code = study.code()
        for name, data in code.items():
            write_atomically(place / "code" / name, data)
        key = _key(request, code)
        request = replace(request, plan=place / "code" if code else None)
        every = [Job(request=request, seed=seed, key=key, folder=place) for seed in seeds]
        run_jobs([job for job in every if not job.done], processes=jobs, show=progress)
        runs = [job.result() for job in every]
        model = _model(every[0], code, None if study.schema is None else schema_document(study.schema))
    return Simulation(
        study=study,
        runs=tuple(runs),
        seconds=round(time.monotonic() - started, 2),
        data=_data(study, request),
        model=model,
    )


def _data(study: Study, request: SimulationRequest) -> str:
    if request.data is not None:
        return f"the tables of {request.data.name}"
    return "synthetic patients" if study.schema is None else f"made-up patients of the schema {Path(study.schema).stem}"


def _model(job: Job, code: Mapping[str, bytes], schema: StudySchema | None) -> Model:
    facts, parameters = job.facts(), job.model_file.read_bytes()
    proposal = parse(Proposal, facts["proposal"])
    made = facts_of(
        proposal,
        parameters,
        rounds=proposal.rounds,
        features=facts["names"],
        partly={c: {m: tuple(names) for m, names in own.items()} for c, own in facts["partly"].items()},
        reading="tables" if schema is None else "schema",
        schema=schema,
        metrics={name: facts["result"][name] for name in _scores(facts["result"])},
        metrics_label="Exact, on held-out public or synthetic patients of the simulation",
        simulated=True,
    )
    return Model(made, parameters, code if proposal.own_network else {})


def _key(request: SimulationRequest, own: Mapping[str, bytes]) -> str:
    """Return a hash of everything that a result depends on: the request, the tables, own code and Tessera's."""
    from datasites.review.environment import code_hash

    hashes = {name: sha256_hex(data) for name, data in own.items()}
    tables: list[tuple[str, int, int]] = []
    if request.data is not None and request.data.is_dir():
        files = sorted(path for path in request.data.rglob("*") if path.is_file())
        tables = [(str(p.relative_to(request.data)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return sha256_hex(json.dumps([asdict(request), tables, hashes, code_hash()], default=str).encode())
