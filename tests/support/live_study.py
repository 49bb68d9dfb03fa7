"""A small live study on synthetic patients: real orchestrator, keyholder and encryption, workers in this process."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.consortium import Consortium

from datasites.data.federations import Federation
from datasites.data.ingest import ingest
from datasites.data.tcga.tables import Tables
from datasites.study.proposal import DatasetReference, Proposal
from datasites.study.signing import seal
from datasites.worker import child
from datasites.worker.job import RESULT_NAME, OpenJob, Outcome, WorkerJob
from datasites.worker.pool import _encoded
from datasites.worker.trainer import SandboxedTrainer
from orchestrator.simulation.sites import offer, patients
from orchestrator.studies.proposing.propose import build_proposal
from orchestrator.studies.proposing.settings import Offer, StudySettings


class WorkersHere:
    """Runs what the worker pool would run, in this process and without a sandbox."""

    def run(self, job: WorkerJob) -> Outcome:
        log = job.output.parent / "log"
        log.touch()
        child.main(io.BytesIO(_encoded(job)))
        return Outcome(
            status="ok",
            reason="",
            seconds=0.0,
            peak_memory_bytes=0,
            layers=(),
            log=log,
            result=job.output / RESULT_NAME,
        )

    def run_open(self, job: OpenJob) -> Outcome:
        log = job.output.parent / "log"
        log.touch()
        missing = [path.name for path in job.files if not path.exists()]
        return Outcome(
            status="failed" if missing else "ok",
            reason=", ".join(missing),
            seconds=0.0,
            peak_memory_bytes=0,
            layers=(),
            log=log,
            result=None,
        )


@dataclass
class LiveStudies:
    """A consortium whose hospitals hold the sites of one federation."""

    consortium: Consortium
    federation: Federation
    offers: Sequence[Offer]

    @classmethod
    def start(cls, folder: Path, tables: Tables, *, federation: str, task: str, sites: int) -> LiveStudies:
        plan = ingest(tables, folder / "dealt", federation=federation, task=task, seed=5, sites=sites)
        names = [site.name for site in plan.sites]
        consortium = Consortium(folder, sites=len(names), names=names)
        consortium.start()
        everyone = patients(tables, task, plan.cohorts)
        offers = [
            replace(offer(everyone, plan, site), party=consortium.homes[site.name].party()) for site in plan.sites
        ]
        for hospital, made in zip(consortium.hospitals, offers, strict=True):
            trainer = SandboxedTrainer(
                site=made.party.name, pool=WorkersHere(), folder=folder / "jobs" / made.party.name, code_of=_no_code
            )
            place = folder / "dealt" / "sites" / made.party.name
            hospital.participant = replace(
                hospital.participant,
                train=trainer,
                build=trainer.initial_model,
                dataset=_dataset(made.dataset, place),
            )
        return cls(consortium=consortium, federation=plan, offers=offers)

    def run(self, settings: StudySettings) -> tuple[Proposal, bytes, dict[str, Any]]:
        """Return the proposal, the last model and the study's status."""
        made = self.consortium
        proposal, model = build_proposal(
            settings, self.offers, orchestrator=made.roster.orchestrator, keyholder=made.roster.keyholder, code={}
        )
        made.register(proposal, model)
        signed = seal(made.identity, "proposal", proposal)
        for hospital in made.hospitals:
            hospital.approve(signed)
        with made.working():
            status = made.wait(settings.study, "finished")
        last = made.client.get_bytes(f"/blobs/{status['checkpoints'][-1]['model_hash']}")
        return proposal, last, status

    def close(self) -> None:
        self.consortium.__exit__(None, None, None)


def _dataset(reference: DatasetReference, folder: Path) -> Callable[[str], tuple[DatasetReference, Path]]:
    return lambda _: (reference, folder)


def _no_code(_: str) -> Path:
    raise AssertionError("a declarative plan has no code")
