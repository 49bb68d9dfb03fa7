"""From a scientist's wishes to a canonical proposal that hospitals can approve.

Everything a proposal says is public: released patient counts, schemas, parameters. Noise is calibrated here so that
the study's worst case meets the wished-for epsilon exactly; each datasite computes the cost again by itself.
"""

from __future__ import annotations

import datetime as dt
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from datasites.review.environment import current_environment
from datasites.strategy.own_step import STEP_FILE, OwnStep
from datasites.strategy.registry import STRATEGIES, noise_named, strategy_named
from datasites.study.counting import box_of
from datasites.study.patience import WAITS_FOR_ALL, Patience
from datasites.study.proposal import (
    Block,
    Chain,
    Custody,
    Environment,
    Participant,
    Party,
    Plan,
    Proposal,
    Training,
)
from datasites.study.protocol import PROPOSALS
from datasites.study.recomputed.checks import exchanges_nothing
from datasites.study.recomputed.next_model import model_from_bytes
from datasites.study.recomputed.released_numbers import VALIDATION
from datasites.study.schema.public_constants import PublicConstants
from models.config import ModelConfig
from orchestrator.studies.proposing.beginning import Beginning, continued
from orchestrator.studies.proposing.brought import NOTHING, Brought
from orchestrator.studies.proposing.constants import begun_with
from orchestrator.studies.proposing.mechanisms import calibrated_mechanism, fewest_sites
from orchestrator.studies.proposing.settings import Offer, StudySettings
from privacy.canonical import NEWEST, sha256_hex
from privacy.dp.mechanism import Mechanism
from privacy.encryption.parameters import EncryptionParameters, choose_parameters, default_levels
from privacy.errors import InvalidInput

_SURVIVAL_RATE = 4.0
FUSIONS = ("shared", "tokens", "combination")
_FUSIONS: Mapping[str, Mapping[str, Any]] = {
    "shared": {},
    "tokens": {"missing_tokens": True, "modality_dropout": 0.2},
    "combination": {"heads": "combination"},
}


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
    scientist: Party | None = None,
    environment: Environment | None = None,
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
        brought: own code, constants from public tables.
        built: the initial model (safetensors) that own code makes of the public seed.
        scientist: who asks with a key of their own; None where the orchestrator's people ask.
        environment: the software that will run; this process's own by default.

    Raises:
        InvalidInput: hospitals with different schemas or tasks, too few of them, or too few for every modality; or a
            study to begin with whose model has another layout.
    """
    settings = _checked(settings, offers)
    model_config = model_config_of(settings, offers)
    blocks, model = _blocks_and_model(model_config, settings.seed or 0, built)
    chain, model, stated = _begun(settings, offers[0], model_config, model, beginning, brought)
    proposal = _draft(
        settings,
        offers,
        model_config,
        blocks,
        chain=chain,
        plan=Plan(kind="python" if brought.tree else "declarative", code=code),
        orchestrator=orchestrator,
        keyholder=keyholder,
        helpers=helpers,
        packed_sites=packed_sites or len(offers),
        constants=stated,
    )
    reason = exchanges_nothing(proposal)
    if reason:
        raise InvalidInput(reason)
    proposal = replace(proposal, environment=environment or proposal.environment)
    if scientist is not None:
        custody = replace(proposal.custody, downloaders=(scientist.name, *proposal.custody.downloaders))
        proposal = replace(proposal, scientist=scientist, custody=custody)
    return replace(proposal, published=published(settings, proposal)), model


def _begun(
    settings: StudySettings,
    offer: Offer,
    config: ModelConfig,
    model: bytes,
    beginning: Beginning | None,
    brought: Brought,
) -> tuple[Chain, bytes, PublicConstants | None]:
    """Return the chain, its first model, and what is stated of constants from public tables."""
    chain, stated = Chain(model_hash=sha256_hex(model), seed=settings.seed or 0, checked=settings.check_chain), None
    if beginning is not None:
        chain, model = continued(chain, beginning, model), beginning.model
    if settings.public_centres and beginning is None:
        stated, model = begun_with(brought.constants, model, config, task=settings.task, names=offer.names)
        chain = replace(chain, origin="public", model_hash=sha256_hex(model), seed=0)
    return chain, model, stated


def _draft(
    settings: StudySettings,
    offers: Sequence[Offer],
    model_config: ModelConfig,
    blocks: tuple[Block, ...],
    *,
    chain: Chain,
    plan: Plan,
    orchestrator: Party,
    keyholder: Party,
    helpers: Sequence[Party],
    packed_sites: int,
    constants: PublicConstants | None,
) -> Proposal:
    cells, counts = max(1, sum(b.length for b in blocks)), settings.counting is not None
    mechanism = calibrated_mechanism(settings, offers, model_config, cells)
    training = _training(settings, mechanism, offers, plan)
    noise = noise_named(settings.noise)
    least = noise.least_levels(mechanism, bound=training.update_bound, values=cells, counts=counts)
    created = dt.datetime.now(dt.UTC).replace(microsecond=0)
    return Proposal(
        study=settings.study,
        purpose=settings.purpose,
        legal_basis=settings.legal_basis,
        filing=settings.filing,
        replaces=settings.replaces,
        custody=_custody(settings, orchestrator),
        plan=plan,
        task=settings.task,
        model=model_config,
        training=training,
        mechanism=mechanism,
        noise=settings.noise,
        rounds=settings.rounds,
        min_sites=fewest_sites(settings),
        colluders=settings.colluders,
        blocks=blocks,
        encryption=_encryption(blocks, packed_sites, least),
        deadline_seconds=settings.deadline_seconds,
        participants=tuple(_participant(o, "site" in settings.evaluation_by) for o in offers),
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
        constants=constants,
        patience=_patience(settings),
        evaluated_by_pattern="pattern" in settings.evaluation_by,
        protocol=PROPOSALS,
    )


def _patience(settings: StudySettings) -> Patience | None:
    """Return whose absence the rounds put up with; None, as in earlier proposals, where they wait for everybody."""
    chosen = Patience(
        grace_seconds=settings.grace, pass_over_after=settings.pass_over_after, starts_with=settings.start_with
    )
    return None if chosen == WAITS_FOR_ALL else chosen


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


def _encryption(blocks: Sequence[Block], sites: int, least: int) -> EncryptionParameters:
    levels = max(least, default_levels(sites))
    return choose_parameters(sites=sites, levels=levels, length=max(b.length for b in blocks))


_NO_HELPERS = (
    "No helpers hold part of the pads: orchestrator and keyholder together could read every single update. Let two "
    "hospitals run `tessera helper init`, take both into the roster, and propose the study with --helpers 2."
)


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
    covered = noise_named(settings.noise).covers_single_updates
    exposed = proposal.helpers_inside == 2 and settings.colluders >= 2 and not covered
    return settings.publish and settings.check_chain and bool(proposal.helpers) and not exposed


def with_min_sites(settings: StudySettings, hospitals: int) -> StudySettings:
    """Return ``settings`` with a ``min_sites``: where none is set, the one that suits the noise and the hospitals."""
    if settings.min_sites is not None:
        return settings
    return replace(settings, min_sites=noise_named(settings.noise).usual_min_sites(hospitals))


def notes_on(proposal: Proposal) -> tuple[str, ...]:
    """Return what a scientist should know about a study at once: its price, and what it means that nobody helps."""
    price = price_of_min_sites(proposal)
    return (price,) if proposal.helpers else (price, _NO_HELPERS)


def price_of_min_sites(proposal: Proposal) -> str:
    """Return in two sentences what ``min_sites`` of a study costs: in noise, and in how many may be missing."""
    hospitals, fewest, mechanism = len(proposal.participants), proposal.min_sites, proposal.mechanism
    missing = hospitals - fewest
    may = f"{missing or 'no'} hospital{'s' if missing > 1 else ''} may be missing"
    waits = f"A sum needs {fewest} of {hospitals} hospitals: {may}; else the round is repeated or the study waits."
    if proposal.noise_mode.covers_single_updates:
        return waits
    ratio = math.sqrt(hospitals / proposal.noise_mode.honest_sites(mechanism))
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
        shrunk=settings.shrunk,
        public_centres=settings.public_centres,
        counting=settings.counting,
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


def _participant(offer: Offer, evaluated_alone: bool) -> Participant:
    return Participant(
        name=offer.party.name,
        institution=offer.party.institution,
        public_key=offer.party.public_key,
        modalities=offer.modalities,
        cohort=offer.cohort,
        dataset=offer.dataset,
        evaluated_alone=evaluated_alone and offer.own_evaluation,
    )


def _training(settings: StudySettings, mechanism: Mechanism, offers: Sequence[Offer], plan: Plan) -> Training:
    strategy = strategy_named(settings.aggregation)
    patients = [o.dataset.patients for o in offers]
    server_step = OwnStep() if plan.kind == "python" and STEP_FILE in plan.code else strategy.server_step
    keeps_apart = mechanism.evaluation is not None or mechanism.losses is not None
    return Training(
        optimizer="sgd",
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        update_bound=box_of(mechanism, patients)
        if settings.counting is not None
        else noise_named(settings.noise).update_bound(
            mechanism,
            learning_rate=settings.learning_rate,
            patients=patients,
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
