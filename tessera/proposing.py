"""From a study in Python to a proposal that hospitals read: settings, filing, and what is brought along."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console

from datasites.data.tcga.tables import TASKS
from datasites.study.recomputed.centring import moment_rounds
from models.config import Architecture
from orchestrator.demo.view import DemoView
from orchestrator.studies.proposing.brought import NOTHING, Brought
from orchestrator.studies.proposing.filings import Filed, filed
from orchestrator.studies.proposing.own_code import build_with
from orchestrator.studies.proposing.schedule import PLAIN_ROUNDS, with_schedule
from orchestrator.studies.proposing.settings import Fusion, StudySettings
from orchestrator.studies.run import propose as send
from privacy.errors import InvalidInput
from tessera.facts import STAGE_TASK
from tessera.live import Run

if TYPE_CHECKING:
    from tessera.hub import Hub
    from tessera.study import Study

FILING = "TESSERA_FILING"


def propose(
    study: Study,
    hub: Hub,
    *,
    sites: tuple[str, ...],
    filing: Path | None,
    answers: Mapping[str, Any],
    replaces: str,
    options: Mapping[str, Any],
    progress: bool,
) -> Run:
    """Send a study to hospitals; see :meth:`tessera.study.Study.propose`."""
    answered = filed_answers(filing, answers)
    names = sites or tuple(party.name for party in hub.roster.sites)
    settings = settings_of(study, answered, options, task_of(study, hub, names))
    code = study.code()
    brought, built = (Brought(tree=code), build_with(code)) if code else (NOTHING, None)
    view = DemoView(Console(stderr=True, quiet=not progress))
    with view:
        send(hub.home, settings, view, sites=names, replaces=replaces, brought=brought, built=built)
    return Run(hub, study.name)


def extend(study: Study, run: Run, changes: Mapping[str, Any]) -> Run:
    """Propose a study that begins with a run's last model; see :meth:`tessera.study.Study.extend`."""
    earlier, hub, given = run.proposal, run.hub, dict(changes)
    if study.rounds is None:
        study = study.replace(rounds=earlier.rounds - moment_rounds(earlier.model))
    answers = (
        {} if earlier.filing is None else {f.name: getattr(earlier.filing, f.name) for f in fields(earlier.filing)}
    )
    answers |= {name: getattr(earlier, name) for name in ("purpose", "legal_basis")}
    answers |= {"licence": earlier.custody.licence, "retention_days": earlier.custody.retention_days}
    answers["recipients"] = [f"{r.name}:{r.country}" for r in answers.get("recipients", ())]
    investigator = given.pop("investigator", "")
    answers |= {"principal_investigator": investigator} if investigator else {}
    known = {name: given.pop(name) for name in ("filing", "replaces", "options", "progress") if name in given}
    sites = tuple(given.pop("sites", ())) or tuple(p.name for p in earlier.participants)
    path = known.get("filing")
    return propose(
        study,
        hub,
        sites=sites,
        filing=None if path is None else Path(path),
        answers={**answers, **given},
        replaces=known.get("replaces", ""),
        options={"begin_with": run.name, **dict(known.get("options", {}))},
        progress=known.get("progress", True),
    )


def settings_of(study: Study, answered: Filed, options: Mapping[str, Any], task: str) -> StudySettings:
    """Return the settings that the command line would make of the same study.

    Raises:
        InvalidInput: an option that no study has.
    """
    unknown = sorted(set(options) - {field.name for field in fields(StudySettings)})
    if unknown:
        raise InvalidInput(f"a proposal has no option {unknown[0]!r}")
    settings = StudySettings(
        study=study.name,
        task=task,
        rounds=PLAIN_ROUNDS,
        epsilon=study.epsilon,
        delta=study.delta,
        noise=study.noise,
        architecture=cast(Architecture, study.architecture),
        fusion=cast(Fusion, study.fusion),
        aggregation=study.aggregation,
        min_sites=study.min_sites,
        colluders=study.colluders,
        evaluation_share=study.evaluation,
        evaluation_by=tuple(study.evaluation_by),
        **vars(answered),
    )
    return replace(with_schedule(settings, study.planned_rounds), **options)


def task_of(study: Study, hub: Hub, sites: tuple[str, ...]) -> str:
    """Return the task by its name in datasets: for ``stage`` whichever the asked hospitals have labels for."""
    if study.outcome != "stage":
        return study.outcome
    held = sorted({found.card.task for found in hub.datasets(sites).values()})
    return held[0] if len(held) == 1 and held[0] in TASKS else STAGE_TASK


def filed_answers(path: Path | None, answers: Mapping[str, Any]) -> Filed:
    """Return what a study is filed with: of a file (``TESSERA_FILING`` by default) and of answers beside it.

    Raises:
        InvalidInput: an answer is missing; all are named.
    """
    named = os.environ.get(FILING, "")
    try:
        return filed(path or (Path(named) if named else None), {**_BLANK, **answers})
    except InvalidInput as error:
        text = re.sub(r"--([a-z-]+)", lambda found: found[1].replace("-", "_"), str(error))
        raise InvalidInput(text.replace("principal_investigator", "investigator")) from error


_BLANK = {"ethics_vote": "", "no_ethics_vote": ""}
