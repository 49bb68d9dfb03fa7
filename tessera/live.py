"""A proposed study: who has decided, what was said, how far it is, what it gave. It runs without this object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from rich.console import Console

from datasites.data.dataset import Schema
from datasites.data.ingest import PREPROCESSING
from datasites.study.proposal import Proposal
from datasites.study.recomputed.next_model import model_from_bytes
from datasites.study.thread import ScientistKind
from orchestrator.demo.roles import TEST_FOLDER
from orchestrator.demo.view import DemoView
from orchestrator.studies import words
from orchestrator.studies.evaluation import evaluate_model, headline
from orchestrator.studies.facts import study_facts
from orchestrator.studies.run import wait as follow
from orchestrator.studies.status import client_of, proposal_of, said, study_line
from privacy.errors import InvalidInput, TesseraError
from tessera.facts import Reading, facts_of
from tessera.pictures import Picture, curve
from tessera.shown import html_table
from tessera.trained.evaluated import evaluation_table
from tessera.trained.model import Model

if TYPE_CHECKING:
    from tessera.hub import Dataset, Hub

_ANSWER_SECONDS = 30.0
_SCORES = ("auroc", "balanced_accuracy", "cross_entropy", "calibration_error", "concordance", "mean_absolute_error")
_CHARGED = ("auroc", "auroc_low", "auroc_high", "cross_entropy")
Test = str | Path | None


class Callback(Protocol):
    """Somebody who is told of a study's rounds; nothing that a hospital keeps to itself is told."""

    def begin(self, run: Run) -> None:
        """The study is followed from now on."""

    def round(self, run: Run, number: int, values: Mapping[str, float]) -> None:
        """A round is finished; ``values`` are public numbers: seconds, sites, norms."""

    def end(self, run: Run, metrics: Mapping[str, float]) -> None:
        """The study is finished; ``metrics`` are those of :attr:`Run.metrics`."""


class Run:
    """One proposed study.

    Args:
        hub: the consortium.
        name: of the study.
        test: a dataset folder of held-out public or synthetic patients; the consortium's own by default, if it has one.
    """

    def __init__(self, hub: Hub, name: str, *, test: Test = None) -> None:
        self.hub, self.name = hub, name
        synthetic = hub.home.folder / TEST_FOLDER
        self.test = Path(test) if test is not None else (synthetic if synthetic.exists() else None)
        self._models: dict[str, bytes] = {}

    def status(self) -> dict[str, Any]:
        """Return what the orchestrator says of the study now."""
        with client_of(self.hub.home, answer_seconds=_ANSWER_SECONDS) as client:
            found: dict[str, Any] = client.get_json(f"/studies/{self.name}")
        return found

    @property
    def proposal(self) -> Proposal:
        """What was proposed, as hospitals approve it."""
        return proposal_of(self.status())

    @property
    def state(self) -> str:
        """``waiting``, ``running``, ``finished``, ``paused``, ``denied`` or another way to end."""
        return str(self.status()["state"])

    @property
    def reviews(self) -> pd.DataFrame:
        """Who has decided: a line for each hospital."""
        facts = study_facts(self.status())
        rows = [
            {"hospital": s.name, "approved": s.approved is not None, "at": s.approved, "by": ", ".join(s.approved_by)}
            for s in facts.sites
        ]
        return pd.DataFrame(rows).set_index("hospital")

    @property
    def thread(self) -> pd.DataFrame:
        """What was said about the study, oldest first."""
        rows = [{"at": w.at, "who": w.who, "kind": w.kind, "text": w.sentence} for w in said(self.status())]
        return pd.DataFrame(rows, columns=["at", "who", "kind", "text"])

    def wait(
        self, callbacks: Sequence[Callback] = (), *, timeout_seconds: float | None = None, progress: bool = True
    ) -> Run:
        """Wait for approvals and rounds until the study is finished; return this run.

        Interrupting ends the waiting alone: the study goes on, and another call takes up where this one stopped.

        Args:
            callbacks: told of every round; :mod:`tessera.tracking` has some.
            timeout_seconds: give up waiting after so long.
            progress: whether to show steps and a bar.

        Raises:
            StudyOver: it was denied, revoked, withdrawn, cancelled or has expired.
            TesseraError: it was paused or failed, or is not over in time.
        """
        for callback in callbacks:
            callback.begin(self)
        view = DemoView(Console(stderr=True, quiet=not progress))
        with view:
            follow(self.hub.home, self.name, _Told(self, view, callbacks), timeout_seconds=timeout_seconds)
        if callbacks:
            metrics = self.metrics
            for callback in callbacks:
                callback.end(self, metrics)
        return self

    def reply(self, hospital: str, text: str, *, accept: bool = False) -> None:
        """Answer one hospital; with ``accept`` the conditions of its approval are accepted as well.

        Raises:
            InvalidInput: no such hospital, or no text.
            Refused: ``accept`` without conditions that wait for it.
        """
        words.answer(self.hub.home, self.name, hospital, text, accept=accept, person=self.hub.person)

    def withdraw(self, reason: str) -> None:
        """Take the study back before its first round, or end it after; hospitals read the reason and free its budget.

        Raises:
            Refused: it is over already.
        """
        kind: ScientistKind = "cancelled" if self.status()["rounds_completed"] else "withdrawn"
        words.say(self.hub.home, self.name, kind, reason, person=self.hub.person)

    def values(self, number: int) -> dict[str, float]:
        """Return the public numbers of one finished round: seconds, sites, bytes sent, norms of model and step."""
        status = self.status()
        checkpoint = status["checkpoints"][number - 1]
        before = status["checkpoints"][number - 2] if number > 1 else status["initial"]
        now, then = self._flat(checkpoint["model_hash"]), self._flat(before["model_hash"])
        return {
            "seconds": float(checkpoint["seconds"]),
            "sites": float(len(checkpoint["sites"])),
            "uplink_bytes": float(checkpoint["uplink_bytes"]),
            "model_norm": float(np.linalg.norm(now)),
            "step_norm": float(np.linalg.norm(now - then)),
        }

    @property
    def rounds(self) -> pd.DataFrame:
        """The public numbers of every finished round (:meth:`values`): they cost no privacy."""
        lines = [self.values(number) for number in range(1, len(self.status()["checkpoints"]) + 1)]
        return pd.DataFrame(lines, index=pd.RangeIndex(1, len(lines) + 1, name="round"))

    @property
    def evaluation(self) -> pd.DataFrame:
        """The study's last own evaluation on private records: figures with intervals of 90 %, noise and chance in them.

        It scores the model that went into its round.

        Raises:
            TesseraError: the study released none; ``Study(evaluation=0.2)`` asks for one.
        """
        released = [c["evaluation"] for c in self.status()["checkpoints"] if c.get("evaluation")]
        if not released:
            raise TesseraError(f"{self.name} has released no evaluation; a study asks for one with evaluation=0.2")
        return evaluation_table(released[-1])

    @property
    def metrics(self) -> dict[str, float]:
        """Scores of the last model.

        ``auroc`` (mean over cohorts) and others are exact, on the held-out patients of ``test``; ``private_auroc`` and
        others are the study's own evaluation on private records, released with noise and charged. What there is not is
        left out.
        """
        status = self.status()
        found: dict[str, float] = {}
        released = [c["evaluation"] for c in status["checkpoints"] if c.get("evaluation")]
        if released:
            found |= {f"private_{n}": float(released[-1][n]) for n in _CHARGED if released[-1].get(n) is not None}
        if self.test is not None and status["checkpoints"]:
            exact = self._exact(status, len(status["checkpoints"]))
            found |= {name: float(exact[name]) for name in _SCORES if exact.get(name) is not None}
        return found

    def by_site(self) -> pd.DataFrame:
        """Return a line for each hospital: what it holds, its noised patients, and the rounds it was in."""
        rows = [
            {
                "hospital": s.name,
                "institution": s.institution,
                "cohort": s.cohort,
                "modalities": " + ".join(s.modalities),
                "patients": s.patients,
                "rounds": s.rounds,
                "missed": len(s.missed_rounds),
            }
            for s in study_facts(self.status()).sites
        ]
        return pd.DataFrame(rows).set_index("hospital")

    def by_modality(self) -> pd.DataFrame:
        """Return a line for each modality: how many hospitals and patients have it, and the AUROC of it alone.

        The AUROC is exact, on the held-out patients of ``test``; without them it is left out.
        """
        status = self.status()
        proposal = proposal_of(status)
        rows: dict[str, dict[str, Any]] = {}
        for modality in proposal.model.modalities:
            holders = [p for p in proposal.participants if modality in p.modalities]
            rows[modality] = {"hospitals": len(holders), "patients": sum(p.dataset.patients for p in holders)}
            if self.test is not None and status["checkpoints"]:
                rows[modality]["auroc"] = self._exact(status, len(status["checkpoints"]), only=modality).get("auroc")
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("modality")

    def plot(self) -> Picture:
        """Return a picture of the AUROC after every round, on the held-out patients; without them of the step's norm.

        Raises:
            TesseraError: no round is finished.
        """
        status = self.status()
        rounds = len(status["checkpoints"])
        if not rounds:
            raise TesseraError(f"{self.name} has no finished round yet; run.wait() waits for them")
        if self.test is None:
            steps = [self.values(number)["step_norm"] for number in range(1, rounds + 1)]
            return curve(self.name, [steps], label="norm of the step")
        scores = [headline(self._exact(status, number)) for number in range(1, rounds + 1)]
        return curve(self.name, [scores], label="AUROC, or concordance")

    @property
    def model(self) -> Model:
        """The model after the last finished round.

        Raises:
            TesseraError: no round is finished, or heads stay at their hospitals, so that no whole model is here.
        """
        status = self.status()
        proposal, rounds = proposal_of(status), len(status["checkpoints"])
        if not rounds:
            raise TesseraError(f"{self.name} has no finished round yet; run.wait() waits for them")
        if proposal.model.heads == "combination":
            raise TesseraError("this study's heads stay at their hospitals: no whole model is here")
        found = self.hub.datasets([p.name for p in proposal.participants])
        like = next(iter(found.values()))
        reading = _reading(like)
        parameters = self._bytes(status["checkpoints"][-1]["model_hash"])
        metrics = self.metrics
        facts = facts_of(
            proposal,
            parameters,
            rounds=rounds,
            features=like.schema.features,
            schema=like.study_schema,
            reading=reading,
            metrics=metrics,
            metrics_label="On held-out public or synthetic patients; private_ ones released with noise" * bool(metrics),
        )
        return Model(facts, parameters, self._code(proposal))

    def _code(self, proposal: Proposal) -> dict[str, bytes]:
        from orchestrator.studies.proposing.brought import files_of

        return files_of(self.hub.home, proposal) if proposal.own_network else {}

    def _exact(self, status: Mapping[str, Any], rounds: int, only: str = "") -> dict[str, Any]:
        if self.test is None:
            raise InvalidInput("expected held-out patients: hub.run(NAME) with test=FOLDER")
        return evaluate_model(
            proposal_of(status),
            self._bytes(status["checkpoints"][rounds - 1]["model_hash"]),
            self.test,
            only=(only,) if only else (),
            code=self._code(proposal_of(status)),
        )

    def _flat(self, digest: str) -> np.ndarray:
        arrays = model_from_bytes(self._bytes(digest))
        return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])

    def _bytes(self, digest: str) -> bytes:
        if digest not in self._models:
            with client_of(self.hub.home, answer_seconds=_ANSWER_SECONDS) as client:
                self._models[digest] = client.get_bytes(f"/blobs/{digest}")
        return self._models[digest]

    def __repr__(self) -> str:
        line = study_line(self.status())
        approved = sum(site.approved for site in line.sites)
        rounds = f"{line.rounds_completed} of {line.rounds} rounds"
        return f"Run({self.name!r}, {line.state}, {approved} of {len(line.sites)} approved, {rounds})"

    def _repr_html_(self) -> str:
        line = study_line(self.status())
        rows = [(site.name, "yes" if site.approved else "no", site.updates, site.dropouts) for site in line.sites]
        title = f"{self.name}: {line.state}, {line.rounds_completed} of {line.rounds} rounds. {line.reason}".strip()
        return html_table(title, rows, ("hospital", "approved", "updates", "missed"))


class _Told:
    """Shows what :func:`orchestrator.studies.run.wait` tells, and tells callbacks of every round once."""

    def __init__(self, run: Run, view: DemoView, callbacks: Sequence[Callback]) -> None:
        self._run, self._view, self._callbacks, self._told = run, view, callbacks, 0

    def step(self, text: str) -> None:
        self._view.step(text)

    def note(self, text: str) -> None:
        self._view.note(text)

    def rounds(self, done: int, total: int, text: str) -> None:
        self._view.rounds(done, total, text)
        while self._callbacks and self._told < done:
            self._told += 1
            values = self._run.values(self._told)
            for callback in self._callbacks:
                callback.round(self._run, self._told, values)


def _reading(dataset: Dataset) -> Reading:
    """Return how raw values become this dataset's inputs."""
    if dataset.study_schema is not None:
        return "schema"
    return "tables" if _of_tables(dataset.schema) else "inputs"


def _of_tables(schema: Schema) -> bool:
    return all(schema.preprocessing.get(m, "").startswith(PREPROCESSING.get(m, "?")) for m in schema.features)
