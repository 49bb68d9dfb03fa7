"""From a scientist's wishes to a canonical proposal that hospitals can approve.

Everything a proposal says is public: released patient counts, schemas, parameters. Noise is calibrated here so that
the study's worst case meets the wished-for epsilon exactly; each datasite computes the cost again by itself.
"""

from __future__ import annotations

import datetime as dt
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from datasites.review.environment import current_environment
from datasites.strategy.own_step import STEP_FILE, OwnStep
from datasites.strategy.registry import STRATEGIES, noise_named, strategy_named
from datasites.study.checks import exchanges_nothing
from datasites.study.filing import Filing
from datasites.study.next_model import model_from_bytes
from datasites.study.proposal import (
    Block,
    Chain,
    Custody,
    DatasetReference,
    Participant,
    Party,
    Plan,
    Proposal,
    Training,
)
from datasites.study.released_numbers import VALIDATION
from models.config import Architecture, ModelConfig, Target
from orchestrator.studies.beginning import Beginning, continued
from orchestrator.studies.brought import NOTHING, Brought
from orchestrator.studies.mechanisms import calibrated_mechanism, fewest_sites
from privacy.canonical import NEWEST, sha256_hex
from privacy.dp.mechanism import Mechanism
from privacy.encryption.parameters import EncryptionParameters, choose_parameters, default_levels
from privacy.errors import InvalidInput

Fusion = Literal["shared", "tokens", "combination"]
_SURVIVAL_RATE = 4.0
FUSIONS = ("shared", "tokens", "combination")
_FUSIONS: Mapping[str, Mapping[str, Any]] = {
    "shared": {},
    "tokens": {"missing_tokens": True, "modality_dropout": 0.2},
    "combination": {"heads": "combination"},
}


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What one hospital shows of its dataset: who, which modalities, and the released facts."""

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
    blending (``dgb``) ``blending_share`` of it pays for the losses that are released early on.
    ``min_sites`` None is what suits the noise: under shared noise all hospitals but one, since the shares of all that
    may be missing are charged and not there (docs/shared-noise.md, section 7).
    ``fusion`` of an MLP: one ``shared`` head, ``tokens`` (that head with learned missing tokens and modality dropout),
    or one head per modality ``combination``, which every hospital keeps to itself.
    ``learning_rate`` is shortened for a linear model of numbers or survival (:func:`with_steady_steps`).
    ``steps_per_round`` None spreads the usual number of full-batch steps over the rounds, which is where the noise of
    small hospitals is best spent (docs/results.md). ``centred`` spends the first round on feature means and
    ``cohort_gain`` scales the cohort indicator, both of the linear model (:class:`models.config.ModelConfig`);
    ``standardised`` are the modalities of unknown scale, whose spreads a centred study releases as well;
    :mod:`orchestrator.studies.schedule` knows which values suit which epsilon. ``check_chain`` False asks that no
    hospital recomputes the models; their people read what that voids (:func:`datasites.study.chain.voids`).
    ``helpers`` None takes the roster's two helpers if it has any, 0 takes none. ``publish`` False keeps a round's key
    and pad sums with those who hold them, so that only the keyholder knows whether a sum is right.
    ``begin_with`` names a finished study whose last model this one begins with.
    ``filing`` says who answers for the study; ``replaces`` is the proposal hash of an earlier version of it.
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
    min_sites: int | None = None
    colluders: int = 1
    deadline_seconds: int = 600
    expires_days: int = 30
    seed: int | None = None
    check_chain: bool = True
    helpers: int | None = None
    publish: bool = True
    licence: str = "research only"
    retention_days: int = 3650


def build_proposal(
    settings: StudySettings,
    offers: Sequence[Offer],
    *,
    orchestrator: Party,
    keyholder: Party,
    code: dict[str, str],
    helpers: Sequence[Party] = (),
    packed_sites: int | None = None,
    beginning: Beginning | None = None,
    brought: Brought = NOTHING,
    built: bytes | None = None,
) -> tuple[Proposal, bytes]:
    """Return the proposal and the initial model.

    Args:
        settings: the scientist's wishes.
        offers: the hospitals that will be asked, at least ``min_sites``.
        orchestrator, keyholder: who signs, and who decrypts sums; neither takes part.
        helpers: those of the roster, of whom the study takes two or none.
        code: file name to SHA-256 of the submitted tree.
        packed_sites: how many sites the packing carries; as many as there are offers unless nothing is encrypted.
        beginning: the earlier study that this one continues; None begins with the model of a public seed.
        brought: own code.
        built: the initial model (safetensors) that own code makes of the public seed.

    Raises:
        InvalidInput: hospitals with different schemas or tasks, too few of them, or too few for every modality; or a
            study to begin with whose model has another layout.
    """
    settings = _checked(settings, offers)
    model_config = model_config_of(settings, offers)
    blocks, model = _blocks_and_model(model_config, settings.seed or 0, built)
    chain = Chain(model_hash=sha256_hex(model), seed=settings.seed or 0, checked=settings.check_chain)
    if beginning is not None:
        chain, model = continued(chain, beginning, model), beginning.model
    mechanism = calibrated_mechanism(settings, offers, model_config, max(1, sum(b.length for b in blocks)))
    created = dt.datetime.now(dt.UTC).replace(microsecond=0)
    proposal = Proposal(
        study=settings.study,
        purpose=settings.purpose,
        legal_basis=settings.legal_basis,
        filing=settings.filing,
        replaces=settings.replaces,
        custody=_custody(settings, orchestrator),
        plan=Plan(kind="python" if brought.tree else "declarative", code=code),
        task=settings.task,
        model=model_config,
        training=_training(settings, mechanism, offers, brought),
        mechanism=mechanism,
        noise=settings.noise,
        rounds=settings.rounds,
        min_sites=fewest_sites(settings),
        colluders=settings.colluders,
        blocks=blocks,
        encryption=_encryption(blocks, packed_sites or len(offers)),
        deadline_seconds=settings.deadline_seconds,
        participants=tuple(_participant(o) for o in offers),
        orchestrator=orchestrator,
        keyholder=keyholder,
        helpers=chosen_helpers(settings, helpers),
        environment=current_environment(),
        seed=settings.seed,
        created=created.isoformat(),
        expires=(created + dt.timedelta(days=settings.expires_days)).isoformat(),
        nonce=secrets.token_hex(16),
        canonical=NEWEST,
        chain=chain,
    )
    reason = exchanges_nothing(proposal)
    if reason:
        raise InvalidInput(reason)
    return replace(proposal, published=published(settings, proposal)), model


def _checked(settings: StudySettings, offers: Sequence[Offer]) -> StudySettings:
    settings = with_min_sites(settings, len(offers))
    _check_offers(settings, offers)
    check_fusion(settings.fusion, settings.architecture, settings.noise)
    check_aggregation(settings.aggregation, settings.noise)
    return with_steady_steps(settings, offers[0])


def with_steady_steps(settings: StudySettings, offer: Offer) -> StudySettings:
    """Return ``settings`` with a learning rate at which a linear model of numbers or survival does not overshoot.

    A cross-entropy's gradient is at most 1 per unit of input, however far a step went. That of a number grows with the
    error: steps that are long against the inverse of a record's squared norm, near 1 for every modality, diverge. Of
    survival every interval adds to the gradient; long steps rank patients right and make their chances extreme.
    """
    if offer.predicts is None or offer.predicts.kind == "categorical" or settings.architecture != "linear":
        return settings
    most = 4.0 / (4.0 + len(offer.features)) if offer.predicts.is_quantity else _SURVIVAL_RATE
    return replace(settings, learning_rate=min(settings.learning_rate, most))


def _custody(settings: StudySettings, orchestrator: Party) -> Custody:
    return Custody(downloaders=(orchestrator.name,), licence=settings.licence, retention_days=settings.retention_days)


def _encryption(blocks: Sequence[Block], sites: int) -> EncryptionParameters:
    return choose_parameters(sites=sites, levels=default_levels(sites), length=max(b.length for b in blocks))


def chosen_helpers(settings: StudySettings, helpers: Sequence[Party]) -> tuple[Party, ...]:
    """Return the helpers of a study: none, or the first two of the roster.

    Raises:
        InvalidInput: two were asked for, and the roster has fewer.
    """
    wanted = settings.helpers if settings.helpers is not None else 2 * (len(helpers) >= 2)
    if wanted not in (0, 2) or wanted > len(helpers):
        raise InvalidInput(
            f"expected --helpers 0, or 2 of them in the roster, got {wanted} with {len(helpers)} in the roster; make "
            "each with `tessera helper init` and build the roster again"
        )
    return tuple(helpers[:wanted])


def published(settings: StudySettings, proposal: Proposal) -> bool:
    """Return whether a study's rounds are published: where helpers allow it, and hospitals follow the models."""
    exposed = proposal.helpers_inside == 2 and settings.colluders >= 2 and settings.noise == "shared"
    return settings.publish and settings.check_chain and bool(proposal.helpers) and not exposed


def with_min_sites(settings: StudySettings, hospitals: int) -> StudySettings:
    """Return ``settings`` with a ``min_sites``: where none is set, the one that suits the noise and the hospitals."""
    if settings.min_sites is not None:
        return settings
    return replace(settings, min_sites=noise_named(settings.noise).usual_min_sites(hospitals))


def price_of_min_sites(proposal: Proposal) -> str:
    """Return in two sentences what ``min_sites`` of a study costs: in noise, and in how many may be missing."""
    hospitals, fewest, mechanism = len(proposal.participants), proposal.min_sites, proposal.mechanism
    missing = hospitals - fewest
    may = f"{missing or 'no'} hospital{'s' if missing > 1 else ''} may be missing"
    waits = f"A sum needs {fewest} of {hospitals} hospitals: {may}; else the round is repeated or the study waits."
    if mechanism.noise != "shared":
        return waits
    ratio = math.sqrt(hospitals / (mechanism.min_sites - mechanism.colluders))
    return f"{waits} A sum of all carries {ratio:.2f} times the noise that is charged."


def model_config_of(settings: StudySettings, offers: Sequence[Offer]) -> ModelConfig:
    """Return the model that a study trains over what hospitals offer."""
    return ModelConfig(
        architecture=settings.architecture,
        features={m: n for m, n in offers[0].features.items() if any(m in o.modalities for o in offers)},
        cohorts=offers[0].cohorts,
        classes=offers[0].classes,
        predicts=offers[0].predicts,
        gains={m: gain for m, gain in offers[0].gains.items() if any(m in o.modalities for o in offers)},
        self_scaled=tuple(m for m in offers[0].self_scaled if any(m in o.modalities for o in offers)),
        centred=settings.centred,
        cohort_gain=settings.cohort_gain,
        standardised=settings.standardised if settings.centred else (),
        **_FUSIONS[settings.fusion],
    )


def check_aggregation(name: str, noise: str) -> None:
    """Refuse an unknown aggregation, and one that reads single updates where they carry too little noise.

    Raises:
        InvalidInput: unknown.
        Refused: proximity weighting under shared noise.
    """
    if name not in STRATEGIES:
        raise InvalidInput(f"expected --aggregation out of {', '.join(STRATEGIES)}, got {name[:40]!r}")
    strategy_named(name).check_noise(noise_named(noise))


def check_fusion(name: str, architecture: str, noise: str) -> None:
    """Refuse a fusion that this model or noise cannot carry.

    Raises:
        InvalidInput: unknown, not of this architecture, or heads that nobody would train.
    """
    if name not in FUSIONS:
        raise InvalidInput(f"expected --fusion out of {', '.join(FUSIONS)}, got {name[:40]!r}")
    if name != "shared" and architecture not in ("mlp", "convolutional"):
        raise InvalidInput(f"expected the model mlp or convolutional with --fusion {name}, got {architecture}")
    if name == "combination" and not noise_named(noise).sites_train:
        raise InvalidInput("under shared noise no hospital trains parameters of its own; use local noise")


def local_blocks(proposal: Proposal) -> list[str]:
    """Return the blocks that stay at their sites because fewer than ``min_sites`` hold them."""
    exchanged = {b.name for b in proposal.exchanged_blocks()}
    return [b.name for b in proposal.blocks if b.name not in exchanged]


def _check_offers(settings: StudySettings, offers: Sequence[Offer]) -> None:
    if len(offers) < fewest_sites(settings):
        raise InvalidInput(f"expected at least {fewest_sites(settings)} hospitals, got {len(offers)}; invite more")
    for offer in offers:
        if offer.task != settings.task:
            raise InvalidInput(
                f"{offer.party.name} holds labels for the task {offer.task}, the study asks for {settings.task}; "
                "ask for a dataset of that task"
            )
        if offer.shape != offers[0].shape:
            raise InvalidInput(
                f"{offer.party.name} and {offers[0].party.name} hold datasets of different schemas; "
                "ingest them with the same schema"
            )


def _participant(offer: Offer) -> Participant:
    return Participant(
        name=offer.party.name,
        institution=offer.party.institution,
        public_key=offer.party.public_key,
        modalities=offer.modalities,
        cohort=offer.cohort,
        dataset=offer.dataset,
    )


def _training(settings: StudySettings, mechanism: Mechanism, offers: Sequence[Offer], brought: Brought) -> Training:
    strategy = strategy_named(settings.aggregation)
    server_step = OwnStep() if STEP_FILE in brought.tree else strategy.server_step
    keeps_apart = mechanism.evaluation is not None or mechanism.losses is not None
    return Training(
        optimizer="sgd",
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        update_bound=noise_named(settings.noise).update_bound(
            mechanism,
            learning_rate=settings.learning_rate,
            patients=[o.dataset.patients for o in offers],
            training_share=1.0 - VALIDATION if keeps_apart else 1.0,
        ),
        server_optimizer=server_step.name,
        server_learning_rate=server_step.rate,
        aggregation=strategy.name,
        proximal_mu=strategy.proximal_mu,
    )


def _blocks_and_model(config: ModelConfig, seed: int, built: bytes | None) -> tuple[tuple[Block, ...], bytes]:
    from models.build import build_model
    from models.parameters import blocks, to_bytes

    if built is not None:
        sizes = {name: values.size for name, values in sorted(model_from_bytes(built).items())}
        return (Block(name="shared", modality=None, length=sum(sizes.values()), parameters=tuple(sizes)),), built
    model = build_model(config, seed=seed)
    found = tuple(
        Block(name=name, modality=modality, length=length, parameters=tuple(names))
        for name, modality, names, length in blocks(model, config)
    )
    return found, to_bytes(model)
