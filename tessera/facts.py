"""What a model carries beside its parameters: how to read its inputs, what it promises, and where it comes from."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from datasites.data.tcga.tables import TASKS
from datasites.study.proposal import Proposal
from datasites.study.schema.document import StudySchema
from datasites.study.schema.outcomes import Classes
from datasites.study.signing import Message
from models.config import ModelConfig
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

Reading = Literal["tables", "schema", "inputs"]
"""How raw values become inputs: as cohort tables, by the study's schema, or not at all: they are inputs already."""

STAGE_TASK = "early-late"
"""What ``outcome="stage"`` means where nobody says how stages are told apart."""
_STAGES = ("I", "II", "III", "IV")


@dataclass(frozen=True, kw_only=True)
class PrivacyFacts(Message):
    """What was charged: epsilon (None: no bound) at delta, under adding or removing one patient; PLD accountant."""

    epsilon: float | None
    delta: float
    noise: str
    statement: str


@dataclass(frozen=True, kw_only=True)
class Origin(Message):
    """Where a model comes from; hashes are SHA-256. ``hospitals`` maps each to its modalities, or to nothing said."""

    study: str
    proposal_hash: str
    model_hash: str
    code_hash: str
    lock_hash: str
    rounds: int
    hospitals: Mapping[str, tuple[str, ...]]
    patients: int
    simulated: bool
    began_with: str = ""


@dataclass(frozen=True, kw_only=True)
class Calibration(Message):
    """How outputs are scaled before they become probabilities.

    ``slope`` multiplies every log-odds, above 0; ``shifts`` are added, one for each output. ``patients`` they were
    fitted on, ``where`` says whose; ``error_before`` and ``error_after`` are expected calibration errors (10 bins) on
    those same patients. ``confined`` says that private records were used without noise.
    """

    slope: float
    shifts: tuple[float, ...]
    patients: int
    where: str
    error_before: float
    error_after: float
    confined: bool = False

    def __post_init__(self) -> None:
        numbers = (self.slope, *self.shifts, self.error_before, self.error_after)
        if not all(math.isfinite(number) for number in numbers) or not self.slope > 0:
            raise InvalidInput("expected finite numbers and a slope above 0 in a model's calibration")

    def apply(self, outputs: Tensor) -> Tensor:
        """Return scaled outputs, float32 [B, outputs].

        Raises:
            InvalidInput: it was fitted for another number of outputs.
        """
        if outputs.shape[1] != len(self.shifts):
            raise InvalidInput(f"the calibration is of {len(self.shifts)} outputs, the model has {outputs.shape[1]}")
        return self.slope * outputs + outputs.new_tensor(self.shifts)


@dataclass(frozen=True, kw_only=True)
class ModelFacts(Message):
    """Everything about a model but its parameters.

    ``features`` are the inputs of each modality, in order; ``partly`` those that a cohort's tables have, where it lacks
    some. ``schema`` is the study's schema where ``reading`` is ``schema``. ``code`` maps each file of an own network's
    code to its hash; without, the model is one of Tessera's. ``metrics`` are on public or synthetic patients.
    ``calibration`` scales the outputs, where somebody calibrated the model on patients of their own.
    """

    format: int = 1
    task: str
    classes: tuple[str, ...]
    config: ModelConfig
    features: Mapping[str, tuple[str, ...]]
    partly: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    reading: Reading = "inputs"
    schema: StudySchema | None = None
    code: Mapping[str, str] = field(default_factory=dict)
    privacy: PrivacyFacts
    origin: Origin
    licence: str
    purpose: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    metrics_label: str = ""
    made: str = ""
    calibration: Calibration | None = None

    @property
    def cohorts(self) -> tuple[str, ...]:
        """The cohorts that the model knows, in its order."""
        return self.config.cohorts


def schema_document(schema: str | Path) -> StudySchema:
    """Return a schema by its file, or by the name of one that comes along.

    Raises:
        InvalidInput: there is none, or it is malformed.
    """
    from datasites.data.reading.schema_files import read_schema_document

    return read_schema_document(Path(schema))


def facts_of(
    proposal: Proposal,
    parameters: bytes,
    *,
    rounds: int,
    features: Mapping[str, tuple[str, ...]],
    partly: Mapping[str, Mapping[str, tuple[str, ...]]] | None = None,
    schema: StudySchema | None = None,
    reading: Reading = "inputs",
    metrics: Mapping[str, float] | None = None,
    metrics_label: str = "",
    simulated: bool = False,
) -> ModelFacts:
    """Return what is to be said about a study's model.

    Args:
        proposal: the study's.
        parameters: safetensors bytes.
        rounds: how many were finished.
        features: names of the inputs by modality.
        partly: see :class:`ModelFacts`.
        schema: the study's schema, if it has one.
        reading: how raw values become inputs.
        metrics: scores on held-out public or synthetic patients.
        metrics_label: says what the scores are.
        simulated: whether no hospital took part.
    """
    return ModelFacts(
        task=proposal.task,
        classes=output_names(proposal, schema),
        config=proposal.model,
        features={m: tuple(features[m]) for m in proposal.model.features},
        partly=partly or {},
        reading=reading,
        schema=schema,
        code=dict(proposal.plan.code) if proposal.own_network else {},
        privacy=_privacy(proposal, rounds, simulated),
        origin=Origin(
            study=proposal.study,
            proposal_hash=proposal.proposal_hash,
            model_hash=sha256_hex(parameters),
            code_hash=proposal.environment.code_hash,
            lock_hash=proposal.environment.lock_hash,
            rounds=rounds,
            hospitals={p.institution: p.modalities for p in proposal.participants},
            patients=sum(p.dataset.patients for p in proposal.participants),
            simulated=simulated,
            began_with=proposal.chain.study if proposal.chain is not None else "",
        ),
        licence=proposal.custody.licence,
        purpose=proposal.purpose,
        metrics={name: float(value) for name, value in (metrics or {}).items() if math.isfinite(value)},
        metrics_label=metrics_label,
        made=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )


def output_names(proposal: Proposal, schema: StudySchema | None = None) -> tuple[str, ...]:
    """Return what the columns of a model's predictions are called: its classes, a number, or times."""
    target = proposal.model.predicts
    if target is None or target.kind == "categorical":
        return class_names(proposal.task, proposal.model.classes, schema)
    if target.is_quantity:
        return (f"{proposal.task}, {target.unit}".rstrip(", "),)
    return tuple(f"no event until {edge:g} {target.unit}".rstrip() for edge in target.edges)


def class_names(task: str, classes: int, schema: StudySchema | None = None) -> tuple[str, ...]:
    """Return what the classes of a task are called, the mildest first.

    >>> class_names("early-late", 2)
    ('I-II', 'III-IV')
    """
    if schema is not None:
        outcome = schema.outcome(task)
        if isinstance(outcome, Classes):
            return tuple(level.name for level in outcome.levels)
    if task not in TASKS:
        return tuple(f"class {number}" for number in range(classes))
    members = [[s for s, c in zip(_STAGES, TASKS[task], strict=True) if c == number] for number in range(classes)]
    return tuple(stages[0] if len(stages) == 1 else f"{stages[0]}-{stages[-1]}" for stages in members)


def _privacy(proposal: Proposal, rounds: int, simulated: bool) -> PrivacyFacts:
    mechanism = proposal.mechanism
    found = mechanism.epsilon(rounds=rounds) if rounds else 0.0
    charged = f"epsilon {found:.4g} at delta {mechanism.target_delta:g} for adding or removing one patient"
    if not math.isfinite(found):
        charged = "no bound: the study ran without noise"
    if simulated:
        statement = f"Simulated with a public seed, which protects nobody. A live study would be charged {charged}."
    elif proposal.seed is not None:
        statement = "The study's seed is public, so its noise protects nobody."
    else:
        statement = f"Every hospital was charged {charged}, in the worst case over the whole study."
    return PrivacyFacts(
        epsilon=found if math.isfinite(found) else None,
        delta=mechanism.target_delta,
        noise=proposal.noise,
        statement=statement,
    )
