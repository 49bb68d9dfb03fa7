"""Statistics of public or synthetic patients: a consortium's noise and intervals, and the truth beside them."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from datasites.data.federations import Federation
from datasites.data.reading.schema_files import read_schema_document
from datasites.study.counting import deviation_of, totals_of
from datasites.study.recomputed.next_model import model_from_bytes
from models.counter import contributions
from models.counting import Counting
from orchestrator.analytics.answers import answers_of
from orchestrator.analytics.columns import Columns
from orchestrator.simulation.engine import Shard, run_study
from orchestrator.simulation.runs import SimulationRequest, people_of
from orchestrator.simulation.sites import Patients, simulated_study
from orchestrator.studies.proposing.counting import counting_settings
from orchestrator.studies.proposing.propose import price_of_min_sites
from privacy.errors import InvalidInput
from tessera.statistics.answer import Statistic
from tessera.statistics.asking import Analytics
from tessera.statistics.live import privacy_of

_USUAL_SITES = 9


def analytics(
    data: str | os.PathLike[str] | None = None,
    *,
    epsilon: float,
    delta: float = 1e-4,
    noise: str = "shared",
    schema: str | os.PathLike[str] | None = None,
    outcome: str | None = None,
    task: str = "early-late",
    sites: int | None = None,
    patients: int = 1500,
    federation: str | None = None,
    min_sites: int | None = None,
    colluders: int = 1,
    seed: int = 0,
) -> Analytics[tuple[Statistic, ...]]:
    """Return what asks made-up hospitals for statistics: the code of live rounds without network and encryption.

    ``tessera.analytics(epsilon=.3).means("age")[0].exact`` is the same table without noise: use public or synthetic
    data, nothing is protected here.

    Args:
        data: a folder of cohort tables (docs/data.md); synthetic patients without one.
        epsilon: of each question, above 0.
        delta: of that epsilon.
        noise: ``shared`` or ``local``.
        schema: made-up patients of a schema, by its file or the name of one that comes along; not with ``data``.
        outcome: of the schema; its first by default.
        task: of cohort tables: ``I-II``, ``early-late``, ``ordinal`` or ``I-IV``.
        sites: number of hospitals, at least 3; 9 by default, 4 of a schema.
        patients: how many, where no data is given.
        federation: as for :meth:`tessera.study.Study.simulate`.
        min_sites: fewest hospitals in the sum; None takes what suits the noise.
        colluders: hospitals that may work with the orchestrator.
        seed: of split and noise.

    Raises:
        InvalidInput: tables or a schema that cannot be read, or numbers that make no study.
    """
    request = SimulationRequest(
        data=None if data is None else Path(data),
        federation=federation or ("tri-modal" if (sites or _USUAL_SITES) <= _USUAL_SITES else "dirichlet"),
        sites=sites,
        task=task,
        methods=("fedavg",),
        architecture="linear",
        rounds=1,
        epsilon=epsilon,
        delta=delta,
        noise=noise,
        synthetic_patients=patients,
        min_sites=min_sites,
        colluders=colluders,
        schema=None if schema is None else Path(schema),
        outcome=outcome,
    )
    everyone, held = people_of(request, "fedavg", seed)
    study = partial(_simulated, request, everyone, held, seed)
    return Analytics(_columns(request, everyone), study)


def _simulated(
    request: SimulationRequest, everyone: Patients, held: Federation, seed: int, asked: Counting
) -> tuple[Statistic, ...]:
    settings = replace(request.settings("fedavg", seed), task=everyone.task)
    study = simulated_study(everyone, held, counting_settings(settings, asked))
    (done,) = run_study(study.proposal, study.model, Shard(study.proposal, study.sites))
    count = len(done.finished.sites)
    values = totals_of(study.proposal, model_from_bytes(done.model), count)
    parts = [contributions(site.records, asked.counts).double().sum(dim=0).numpy() for site in study.sites]
    truth = answers_of(asked, np.sum(parts, axis=0), 0.0)
    found = answers_of(asked, values, deviation_of(study.proposal, count))
    privacy = f"{privacy_of(study.proposal)}, simulated"
    price = () if study.proposal.noise_mode.covers_single_updates else (price_of_min_sites(study.proposal),)
    return tuple(
        Statistic(answer=one, privacy=privacy, hospitals=count, exact=exact.table, said=(*study.lost, *price))
        for one, exact in zip(found, truth, strict=True)
    )


def _columns(request: SimulationRequest, everyone: Patients) -> Columns:
    document = None if request.schema is None else read_schema_document(request.schema)
    features = everyone.names or ({m.name: m.inputs for m in document.modalities} if document is not None else {})
    if set(features) != set(everyone.features):
        raise InvalidInput("expected the names of all inputs of these patients")
    return Columns(
        features=features,
        cohorts=everyone.cohorts,
        task=everyone.task,
        classes=everyone.classes,
        predicts=everyone.predicts,
        document=document,
    )
