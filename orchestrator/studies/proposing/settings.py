"""What a scientist decides about a study, and what a hospital offers to it: two values that a proposal is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from datasites.study.filing import Filing
from datasites.study.proposal import DatasetReference, Party
from models.config import Architecture, Target
from models.counting import Counting

Fusion = Literal["shared", "tokens", "combination"]


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What one hospital shows of its dataset: who, which modalities, and the released facts.

    ``names`` are the inputs of each modality in order, as its published schema has them.
    """

    party: Party
    cohort: str
    modalities: tuple[str, ...]
    dataset: DatasetReference
    features: dict[str, int]
    cohorts: tuple[str, ...]
    task: str
    classes: int = 2
    predicts: Target | None = None
    gains: dict[str, float] = field(default_factory=dict)
    self_scaled: tuple[str, ...] = ()
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    own_evaluation: bool = False

    @property
    def shape(self) -> tuple[object, ...]:
        """What has to be the same at every hospital of a study."""
        return (self.features, self.cohorts, self.classes, self.predicts, self.gains, self.self_scaled)


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What the scientist decides.

    ``epsilon`` is the worst case per patient at ``delta`` (None: no privacy). ``evaluation_share`` of it pays for one
    evaluation in the last round, on a fifth of the patients that are kept out of every round; 0 leaves it out. A
    patient pays for training or for the evaluation, so a share of 1 takes nothing from training but that fifth. With
    blending (``dgb``) ``blending_share`` of it pays for the losses that are released early on. ``min_sites`` None is
    what suits the noise: under shared noise all hospitals but one, since the shares of all that may be missing are
    charged and not there (docs/shared-noise.md, section 7). ``fusion`` of an MLP: one ``shared`` head, ``tokens`` (that
    head with learned missing tokens and modality dropout), or one head per modality ``combination``, which every
    hospital keeps to itself. ``learning_rate`` is shortened for a linear model of numbers or survival
    (:func:`orchestrator.studies.proposing.propose.with_steady_steps`). ``steps_per_round`` None spreads the usual
    number of full-batch steps over the rounds, which is where the noise of small hospitals is best spent
    (docs/results.md). ``centred`` spends the first round on feature means and ``cohort_gain`` scales the cohort
    indicator, both of the linear model (:class:`models.config.ModelConfig`); ``standardised`` are the modalities of
    unknown scale, whose spreads a centred study releases as well; ``shrunk`` pulls released means towards zero and
    ``public_centres`` takes the constants that are brought in their place;
    :mod:`orchestrator.studies.proposing.schedule` knows which values suit which epsilon.
    ``check_chain`` False asks that no hospital recomputes the models; their people
    read what that voids (:func:`datasites.study.recomputed.chain.voids`). ``helpers`` None takes the roster's two
    helpers if it has any, 0 takes none. ``publish`` False keeps a round's key and pad sums with those who hold them, so
    that only the keyholder knows whether a sum is right. ``begin_with`` names a finished study whose last model this
    one begins with. ``grace``, ``pass_over_after`` and ``start_with`` say whose absence rounds put up with
    (:class:`datasites.study.patience.Patience`). ``filing`` says who answers for the study; ``replaces`` is the
    proposal hash of an earlier version of it.
    ``evaluation_by`` asks for figures by ``pattern`` (which modalities a record has) and by ``site``, of the hospitals
    that allow it. ``counting`` makes it a counting study (:mod:`orchestrator.studies.proposing.counting`).
    """

    study: str
    purpose: str
    legal_basis: str
    task: str
    rounds: int
    filing: Filing | None = None
    replaces: str = ""
    begin_with: str = ""
    epsilon: float | None = 8.0
    delta: float = 1e-4
    noise: str = "local"
    evaluation_share: float = 0.0
    evaluation_by: tuple[str, ...] = ()
    blending_share: float = 0.1
    architecture: Architecture = "linear"
    fusion: Fusion = "shared"
    aggregation: str = "fedavg"
    sampling_rate: float = 1.0
    steps_per_round: int | None = None
    max_grad_norm: float = 1.0
    learning_rate: float = 5.0
    weight_decay: float = 1e-3
    centred: bool = False
    cohort_gain: float = 1.0
    standardised: tuple[str, ...] = ()
    shrunk: bool = False
    public_centres: bool = False
    min_sites: int | None = None
    colluders: int = 1
    deadline_seconds: int = 600
    grace: int | None = None
    pass_over_after: int = 0
    start_with: int = 0
    expires_days: int = 30
    seed: int | None = None
    check_chain: bool = True
    helpers: int | None = None
    publish: bool = True
    licence: str = "research only"
    retention_days: int = 3650
    counting: Counting | None = None
