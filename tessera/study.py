"""A study as a scientist describes it, before any hospital is asked."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy.errors import InvalidInput
from tessera.shown import html_table

if TYPE_CHECKING:
    from datasites.strategy.server_steps import ServerStep
    from orchestrator.simulation.runs import SimulationRequest
    from tessera.hub import Hub
    from tessera.live import Run
    from tessera.simulation import Simulation

ARCHITECTURES = ("linear", "mlp", "mlp-auxiliary", "convolutional")
_MOST_PRESET_SITES = 9
_FEWEST_SITES = 3


@dataclass(frozen=True)
class Study:
    """What is asked: outcome, model, privacy and rounds. Nothing is sent before :meth:`propose`.

    >>> Study("pfs", epsilon=4).replace(rounds=6).rounds
    6

    Args:
        name: of the study; hospitals see it.
        outcome: ``stage``, or a task or outcome by its name (``I-II``, ``early-late``, ``ordinal``); of a schema, by
            default its first.
        schema: of a study of other data than cohort tables: a file, or the name of one that comes along
            (``tcga-survival``, ``heart``, ...). A simulation takes made-up patients of it.
        model: ``linear``, ``mlp``, ``mlp-auxiliary`` or ``convolutional``; or a network of your own: a
            ``torch.nn.Module`` class whose source can be read (:mod:`tessera.own_code`), or a folder with ``plan.py``.
        loss: of an own network: ``loss(logits, label)``, float32 [B]; the ordinal cross-entropy by default.
        epsilon: worst case per patient over the whole study, above 0; ``math.inf`` means no privacy.
        delta: of that epsilon.
        noise: ``shared`` (hospitals share one noise) or ``local`` (each adds its own).
        rounds: of plain training; None takes the schedule that suits model, epsilon and noise.
        aggregation: ``fedavg``, ``fedprox``, ``fedadam``, ``fedyogi``, ``fedadagrad``, ``fedavgm`` (server momentum),
            ``dgb``, ``pcw`` or ``dgb+pcw``.
        server_step: a server's rule of your own, in the place of the aggregation's: a subclass of
            :class:`tessera.ServerStep` or an object of it, or a file that defines ``server_step()``.
        fusion: of a network: ``shared`` head, or ``tokens`` for what is missing.
        evaluation: share of epsilon, 0 to 1, for one evaluation on private records in the last round.
        evaluation_by: groups of which the evaluation shows figures as well: ``site`` (hospitals whose policy allows it)
            and ``pattern`` (which modalities a patient has); cohorts always.
        min_sites: fewest hospitals in a sum that is decrypted, at least 3; None takes what suits the noise.
        colluders: hospitals that may work with the orchestrator; shared noise is charged for that.

    Raises:
        InvalidInput: a value that no study can have; the message says what was expected.
    """

    name: str
    _: KW_ONLY
    outcome: str = "stage"
    schema: str | Path | None = None
    model: str | Path | Callable[..., Any] = "linear"
    loss: Callable[..., Any] | None = None
    epsilon: float = 8.0
    delta: float = 1e-4
    noise: str = "shared"
    rounds: int | None = None
    aggregation: str = "fedavg"
    server_step: type[ServerStep] | ServerStep | Path | None = None
    fusion: str = "shared"
    evaluation: float = 0.0
    evaluation_by: Sequence[str] = ()
    min_sites: int | None = None
    colluders: int = 1

    def __post_init__(self) -> None:
        from datasites.study.text import check_study_name
        from orchestrator.studies.proposing.mechanisms import check_evaluation_by
        from orchestrator.studies.proposing.propose import check_aggregation, check_fusion

        check_study_name(self.name)
        if self.loss is not None and not callable(self.model):
            raise InvalidInput("expected a network of your own beside a loss of your own: model=Net, loss=focal")
        if isinstance(self.model, str) and self.model not in ARCHITECTURES:
            raise InvalidInput(
                f"expected a model out of {', '.join(ARCHITECTURES)}, a class or a Path, got {self.model[:40]!r}"
            )
        if not self.epsilon > 0:
            raise InvalidInput(f"expected epsilon above 0, got {self.epsilon:g}; math.inf means no privacy")
        if not 0.0 <= self.evaluation <= 1.0:
            raise InvalidInput(f"expected a share of epsilon from 0 to 1 for the evaluation, got {self.evaluation:g}")
        check_evaluation_by(self.evaluation_by, self.evaluation)
        if self.rounds is not None and not 1 <= self.rounds <= 1000:
            raise InvalidInput(f"expected 1 to 1000 rounds, got {self.rounds}")
        if self.schema is not None:
            from tessera.facts import schema_document

            schema_document(self.schema)
        check_aggregation(self.aggregation, self.noise)
        check_fusion(self.fusion, self.architecture, self.noise)

    def replace(self, **changes: Any) -> Study:
        """Return this study with some fields changed, ``study.replace(epsilon=2)`` say.

        Raises:
            InvalidInput: no such field, or a value that no study can have.
        """
        unknown = sorted(set(changes) - {field.name for field in fields(self)})
        if unknown:
            known = ", ".join(field.name for field in fields(self))
            raise InvalidInput(f"a study has no field {unknown[0]!r}; it has {known}")
        return replace(self, **changes)

    def simulate(
        self,
        data: str | os.PathLike[str] | None = None,
        *,
        sites: int | None = None,
        seeds: int = 1,
        first_seed: int = 0,
        federation: str | None = None,
        patients: int = 1500,
        split: str = "stratified",
        alpha: float = 0.5,
        jobs: int | None = None,
        keep: str | os.PathLike[str] | None = None,
        progress: bool = True,
        device: str = "cpu",
    ) -> Simulation:
        """Run the study without network and encryption: the code of live rounds, the same model for the same seed.

        Scores are exact, on held-out patients, outside the protocol: use public or synthetic data.

        Args:
            data: a folder of cohort tables (docs/data.md); synthetic patients without one.
            sites: number of hospitals, at least 3; the federation's own by default.
            seeds: how many times; each seed gives a split, a first model and all noise.
            first_seed: the first of them.
            federation: ``tri-modal``, ``bi-modal``, ``upper-bound``, ``tissue-source-sites`` or ``dirichlet``; by
                default ``tri-modal`` up to nine hospitals and ``dirichlet`` beyond.
            patients: how many synthetic patients, where no data is given.
            split: of held-out patients: ``stratified`` or ``site-held-out``.
            alpha: evenness of the ``dirichlet`` federation.
            jobs: processes; as many as there are processors by default.
            keep: a folder in which every seed's result and model stay. Called again after an interruption, only the
                seeds that are missing run.
            progress: whether to show a bar.
            device: ``cpu``, ``cuda`` or ``auto``: CUDA where there is one, with other last bits.

        Raises:
            InvalidInput: tables that cannot be read, numbers that make no study, or no such device.
        """
        from tessera.simulation import simulate

        if seeds < 1:
            raise InvalidInput(f"expected at least one seed, got {seeds}")
        request = self._request(
            data=None if data is None else Path(data),
            sites=sites,
            federation=federation or _federation(sites),
            synthetic_patients=patients,
            split=split,
            alpha=alpha,
            device=device,
        )
        return simulate(
            self,
            request,
            range(first_seed, first_seed + seeds),
            jobs=jobs or os.cpu_count() or 1,
            keep=None if keep is None else Path(keep),
            progress=progress,
        )

    def propose(
        self,
        hub: Hub,
        *,
        sites: Sequence[str] = (),
        purpose: str = "",
        investigator: str = "",
        filing: str | os.PathLike[str] | None = None,
        replaces: str = "",
        options: Mapping[str, Any] | None = None,
        progress: bool = True,
        **answers: Any,
    ) -> Run:
        """Send the study to hospitals for review; it starts by itself once all have approved.

        Args:
            hub: the consortium.
            sites: names of hospitals; all of the roster when empty.
            purpose: what it is for; every hospital reads it.
            investigator: who answers for it, with name and title; without a filing, by default the hub's person.
            filing: TOML file with everything else that hospitals read before they decide (docs/deploy.md).
            replaces: name of an earlier study that this is a new version of.
            options: further fields of :class:`orchestrator.studies.proposing.settings.StudySettings`, such as ``seed``.
            progress: whether to show steps.
            answers: what the file lacks, or another text than it has: ``legal_basis``, ``contact``, ``recipients``, ...

        Raises:
            InvalidInput: an answer is missing (all are named), or hospitals' datasets do not fit the study.
            Refused: a study of this name exists.
        """
        from tessera.proposing import propose

        person = investigator or (hub.person if filing is None else "")
        given = {"purpose": purpose, "principal_investigator": person, **answers}
        return propose(
            self,
            hub,
            sites=tuple(sites),
            filing=None if filing is None else Path(filing),
            answers=given,
            replaces=replaces,
            options=options or {},
            progress=progress,
        )

    def extend(
        self, run: Run, *, epsilon: float | None = None, name: str = "", rounds: int | None = None, **changes: Any
    ) -> Run:
        """Propose another study that begins with a run's last model; hospitals approve and charge it by itself.

        Args:
            run: a finished study of the same model, modalities, cohorts and classes.
            epsilon: of the new study alone; this study's by default.
            name: of the new study; by default the earlier one's with a number.
            rounds: of the new study; those of the earlier one by default.
            changes: as for :meth:`propose`: other hospitals, another purpose, other answers.

        Raises:
            InvalidInput: its model does not fit, or divides by released spreads; or an evaluation is asked for, and the
                run kept no patients out of training.
            Refused: the run is not finished.
        """
        from tessera.proposing import extend

        study = self.replace(name=name or f"{run.name}-more", rounds=self.rounds if rounds is None else rounds)
        return extend(study if epsilon is None else study.replace(epsilon=epsilon), run, changes)

    def evaluate(
        self,
        run: Run,
        *,
        epsilon: float,
        sites: Sequence[str] = (),
        by: Sequence[str] = ("site",),
        name: str = "",
        **changes: Any,
    ) -> Run:
        """Propose one evaluation of a run's last model on private records of these or other hospitals.

        It is a study of one round that begins with the model, with its own approval and charge: ``wait`` for it and
        read its ``evaluation``. Patients are scored who trained in no round: a fifth of each hospital. The round's
        training step, on the others, is a by-product; no patient pays for both.

        Args:
            run: a finished study of this model.
            epsilon: worst case per patient of this evaluation alone, above 0.
            sites: names of hospitals, also such that did not train the model; the run's own when empty.
            by: ``site`` (hospitals whose policy allows it) and ``pattern`` (which modalities a patient has).
            name: of the evaluation; by default the run's with ``-evaluated``.
            changes: as for :meth:`propose`: another purpose, other answers.

        Raises:
            InvalidInput: the run kept no patients of these hospitals out of training, or divides by released spreads.
            Refused: the run is not finished.
        """
        asked = self.replace(evaluation=1.0, evaluation_by=tuple(by), server_step=None, aggregation="fedavg")
        named = name or f"{run.name}-evaluated"
        return asked.extend(run, epsilon=epsilon, name=named, rounds=1, sites=sites, **changes)

    def _request(self, **where: Any) -> SimulationRequest:
        from orchestrator.simulation.runs import SimulationRequest
        from tessera.facts import STAGE_TASK

        return SimulationRequest(
            task=STAGE_TASK if self.outcome == "stage" or self.schema is not None else self.outcome,
            schema=None if self.schema is None else Path(self.schema),
            outcome=self.schema_outcome,
            methods=(self.aggregation,),
            architecture=self.architecture,
            rounds=self.planned_rounds,
            epsilon=self.epsilon,
            delta=self.delta,
            noise=self.noise,
            fusion=self.fusion,
            min_sites=self.min_sites,
            colluders=self.colluders,
            evaluation_share=self.evaluation,
            evaluation_by=tuple(self.evaluation_by),
            **where,
        )

    @property
    def architecture(self) -> str:
        """The architecture that a proposal names; for a network of one's own it is ``mlp``, and the code decides."""
        return self.model if isinstance(self.model, str) else "mlp"

    def code(self) -> dict[str, bytes]:
        """Return the files that hospitals review: own network, loss and server's rule; none where all is Tessera's.

        Raises:
            InvalidInput: the source cannot be read, or names something that hospitals' workers have not.
        """
        from orchestrator.studies.proposing.own_code import read_plan, with_rule
        from tessera.own_code import rule_tree, tree_of

        if isinstance(self.model, Path):
            network: Mapping[str, bytes] = read_plan(self.model)
        else:
            network = {} if isinstance(self.model, str) else tree_of(self.model, self.loss)
        return with_rule(network, rule_tree(self.server_step))

    @property
    def schema_outcome(self) -> str | None:
        """The outcome of the schema; None is its first, or that there is no schema."""
        return None if self.schema is None or self.outcome == "stage" else self.outcome

    @property
    def planned_rounds(self) -> int | None:
        """The rounds that were asked for; None takes the schedule, which suits Tessera's plain step alone."""
        if self.rounds is None and self.server_step is not None:
            from orchestrator.studies.proposing.schedule import PLAIN_ROUNDS

            return PLAIN_ROUNDS
        return self.rounds

    @property
    def privacy(self) -> str:
        """What the study promises, in one line."""
        if math.isinf(self.epsilon):
            return "no privacy"
        return f"epsilon {self.epsilon:g} at delta {self.delta:g}, {self.noise} noise"

    def _chosen(self) -> Mapping[str, object]:
        usual = {field.name: field.default for field in fields(self)}
        return {n: v for n, v in vars(self).items() if n == "model" or (n != "name" and v != usual[n])}

    def __repr__(self) -> str:
        chosen = "".join(f", {name}={_shown(value)}" for name, value in self._chosen().items())
        return f"Study({self.name!r}{chosen})"

    def _repr_html_(self) -> str:
        rows = [(name, _shown(value)) for name, value in vars(self).items() if name not in ("name", "epsilon", "delta")]
        return html_table(f"Study {self.name}", [("privacy", self.privacy), *rows])


def _shown(value: object) -> str:
    return str(getattr(value, "__name__", value)) if callable(value) else repr(value)


def _federation(sites: int | None) -> str:
    return "tri-modal" if sites is None or sites <= _MOST_PRESET_SITES else "dirichlet"
