"""Statistics of a consortium: each question is proposed, reviewed, approved, charged and reported like any study."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console

from datasites.data.synthesis import ReleasedTables
from datasites.study.counting import asked_of, deviation_of, totals_of
from datasites.study.proposal import Proposal
from datasites.study.recomputed.next_model import model_from_bytes
from datasites.study.schema.document import StudySchema
from models.counting import Counting
from orchestrator.analytics.answers import answers_of
from orchestrator.analytics.columns import Columns
from orchestrator.analytics.marginals import released_tables
from orchestrator.analytics.scales import rescaled
from orchestrator.demo.view import DemoView
from orchestrator.studies.proposing.counting import counting_settings
from orchestrator.studies.proposing.settings import StudySettings
from orchestrator.studies.run import propose as send
from orchestrator.studies.status import proposal_of, study_line
from privacy.errors import InvalidInput, TesseraError
from tessera.live import Run
from tessera.pictures import Picture
from tessera.shown import html_table
from tessera.statistics.answer import Statistic
from tessera.statistics.asking import Analytics
from tessera.trained.model import Model

if TYPE_CHECKING:
    from tessera.hub import Dataset, Hub


class StatisticsRun(Run):
    """A proposed counting study: :class:`tessera.live.Run` with statistics in the place of a model."""

    def __init__(self, hub: Hub, name: str) -> None:
        super().__init__(hub, name)
        self.test = None

    @property
    def answers(self) -> tuple[Statistic, ...]:
        """The answer of every question, in order.

        Raises:
            TesseraError: the round is not finished; ``wait`` waits for it.
        """
        status = self.status()
        if not status["checkpoints"]:
            raise TesseraError(f"{self.name} has no answer yet; run.wait() waits for approvals and the round")
        proposal, done = proposal_of(status), status["checkpoints"][-1]
        sites = len(done["sites"])
        values = totals_of(proposal, model_from_bytes(self._bytes(done["model_hash"])), sites)
        found = answers_of(asked_of(proposal), values, deviation_of(proposal, sites))
        return tuple(Statistic(answer=one, privacy=privacy_of(proposal), hospitals=sites) for one in found)

    @property
    def answer(self) -> Statistic:
        """The answer of the first question."""
        return self.answers[0]

    @property
    def table(self) -> pd.DataFrame:
        """The table of the first answer."""
        return self.answer.table

    def rescaled(self, schema: StudySchema) -> tuple[StudySchema, tuple[str, ...]]:
        """Return the schema's next version, scaled by this study's quantiles or means, and what kept its own scale.

        Every number in it was released by the study, which hospitals approved and charged. Its name, hash and cost
        stand in the schema as the source. Hospitals sign the new version with ``tessera schema agree``.

        Args:
            schema: the one that the hospitals' datasets were read by.

        Raises:
            InvalidInput: they were read by another, or no answer can scale a number.
            TesseraError: the round is not finished.
        """
        answers = self.answers
        for site, dataset in self._datasets().items():
            if dataset.study_schema is None or dataset.study_schema.schema_hash != schema.schema_hash:
                raise InvalidInput(
                    f"the dataset of {site} was not read by {schema.name} version {schema.version} "
                    f"({schema.schema_hash[:16]}); name the schema that hospitals read their tables by"
                )
        return rescaled(schema, [one.answer for one in answers], source=self._source(answers))

    def marginals(self) -> ReleasedTables:
        """Return the released tables by which hospitals draw mocks, of a study that :meth:`Analytics.synthesis` asked.

        Raises:
            InvalidInput: the study asked something else, or its datasets were read by no study's schema.
            TesseraError: the round is not finished.
        """
        answers = self.answers
        columns = columns_of(self._datasets())
        return released_tables(columns, [one.answer for one in answers], source=self._source(answers))

    def _datasets(self) -> Mapping[str, Dataset]:
        return self.hub.datasets(tuple(party.name for party in self.proposal.participants))

    def _source(self, answers: Sequence[Statistic]) -> str:
        proposal = self.proposal
        return (
            f"the study {self.name} ({proposal.proposal_hash}): {privacy_of(proposal)}, charged to every patient, "
            f"{answers[0].hospitals} hospitals"
        )

    def plot(self) -> Picture:
        """Return a picture of the first answer."""
        return self.answer.plot()

    @property
    def metrics(self) -> dict[str, float]:
        """Nothing: no model is scored."""
        return {}

    @property
    def model(self) -> Model:
        """Refuse: nothing was trained.

        Raises:
            TesseraError: always.
        """
        raise TesseraError(f"{self.name} counts and trains nothing: it has answers, and no model")

    def _repr_html_(self) -> str:
        line = study_line(self.status())
        if line.rounds_completed:
            return "".join(one._repr_html_() for one in self.answers)
        rows = [(site.name, "yes" if site.approved else "no") for site in line.sites]
        return html_table(f"{self.name}: {line.state}. {line.reason}".strip(), rows, ("hospital", "approved"))


def privacy_of(proposal: Proposal) -> str:
    """Return what the answer cost every patient, in one phrase."""
    mechanism = proposal.mechanism
    return f"epsilon {mechanism.epsilon():.2g} at delta {mechanism.target_delta:g}, {proposal.noise} noise"


def columns_of(datasets: Mapping[str, Dataset]) -> Columns:
    """Return what may be asked of the datasets that hospitals published.

    Raises:
        InvalidInput: they are of different schemas or outcomes.
    """
    found = list(datasets.values())
    like = found[0]
    for other in found[1:]:
        same = (other.schema.features, other.schema.cohorts, other.schema.task, other.schema.predicts)
        if same != (like.schema.features, like.schema.cohorts, like.schema.task, like.schema.predicts):
            raise InvalidInput(
                f"{other.site} and {like.site} hold datasets of different schemas or outcomes; name hospitals with "
                "the same one: hub.analytics(sites=[...])"
            )
    schema = like.schema
    return Columns(
        features=schema.features,
        cohorts=schema.cohorts,
        task=schema.task,
        classes=schema.classes,
        predicts=schema.predicts,
        document=like.study_schema,
    )


def analytics(
    hub: Hub,
    *,
    epsilon: float,
    delta: float,
    noise: str,
    sites: Sequence[str],
    name: str,
    min_sites: int | None,
    colluders: int,
    filing: Path | None,
    answers: Mapping[str, Any],
    options: Mapping[str, Any],
    progress: bool,
) -> Analytics[StatisticsRun]:
    """Return what asks a consortium; see :meth:`tessera.hub.Hub.analytics`."""
    from tessera.proposing import filed_answers

    names = tuple(sites) or tuple(party.name for party in hub.roster.sites)
    columns = columns_of(hub.datasets(names))

    def ask(asked: Counting) -> StatisticsRun:
        titles = "; ".join(question.title for question in asked.questions)
        given = {**answers, "purpose": answers.get("purpose") or f"Statistics: {titles}"[:400]}
        kind = asked.questions[0].kind.replace("_", "-")
        settings = StudySettings(
            study=name or f"{kind}-{secrets.token_hex(3)}",
            task=columns.task,
            rounds=1,
            epsilon=epsilon,
            delta=delta,
            noise=noise,
            min_sites=min_sites,
            colluders=colluders,
            **vars(filed_answers(filing, given)),
        )
        settings = replace(counting_settings(settings, asked), **options)
        with DemoView(Console(stderr=True, quiet=not progress)) as view:
            send(hub.home, settings, view, sites=names)
        return StatisticsRun(hub, settings.study)

    return Analytics(columns, ask)
