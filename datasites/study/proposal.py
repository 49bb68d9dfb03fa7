"""What may be asked of a data owner: one frozen proposal whose hash is what people approve.

The data owner defines these values; the orchestrator fills them in. Every value is frozen, travels as canonical
JSON and is checked when parsed: an unknown field, a missing field or a wrong type is refused. The messages of a round
are in :mod:`datasites.study.messages`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from datasites.strategy.noise import NoiseMode
from datasites.strategy.registry import Strategy, noise_named, server_step_named, strategy_named
from datasites.strategy.server_steps import ServerStep
from datasites.study.counting import check_counting
from datasites.study.filing import Filing
from datasites.study.later_fields import without_additions
from datasites.study.patience import WAITS_FOR_ALL, Patience
from datasites.study.public_constants import PublicConstants
from datasites.study.schema.variables import check_variable_name
from datasites.study.signing import Message, dump
from datasites.study.text import check_modality_name, check_name, check_prose, check_study_name, folded
from models.config import ModelConfig
from privacy.canonical import CanonicalVersion, canonical_hash
from privacy.dp.mechanism import Mechanism
from privacy.encryption.parameters import EncryptionParameters
from privacy.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Party(Message):
    """One institution and the Ed25519 key it is known by."""

    name: str
    institution: str
    public_key: str


@dataclass(frozen=True, kw_only=True)
class DatasetReference(Message):
    """One version of one dataset, as the study may refer to it.

    ``fingerprint`` is keyed (HMAC under the owner's secret), ``patients`` is the released DP count.
    """

    name: str
    version: int
    fingerprint: str
    schema_hash: str
    patients: int


@dataclass(frozen=True, kw_only=True)
class Participant(Party):
    """A hospital in a study: which modalities and which dataset it contributes."""

    modalities: tuple[str, ...]
    cohort: str
    dataset: DatasetReference


@dataclass(frozen=True, kw_only=True)
class Plan(Message):
    """The code of the study: our own reviewed code by specification, or free Python from the code tree.

    ``code`` maps each file of the submitted tree to its SHA-256; it is checked before every round.
    """

    kind: Literal["declarative", "python"]
    code: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Block(Message):
    """A run of parameters that is encrypted together: one modality's, or what all sites share.

    ``modality`` None means every participant contributes; otherwise those who hold the modality do.
    ``parameters`` names the model's parameters in the order in which they are laid out.
    """

    name: str
    modality: str | None
    length: int
    parameters: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Training(Message):
    """Local training and the server's step, both public.

    ``update_bound`` is the public half-width of the box every coordinate of an update is projected on.
    ``aggregation`` and ``server_optimizer`` are names of :mod:`datasites.strategy.registry`.
    """

    optimizer: Literal["sgd", "adam"]
    learning_rate: float
    weight_decay: float
    update_bound: float
    server_optimizer: str
    server_learning_rate: float
    aggregation: str
    proximal_mu: float = 0.0

    def __post_init__(self) -> None:
        strategy_named(self.aggregation)
        server_step_named(self.server_optimizer, self.server_learning_rate)

    @property
    def strategy(self) -> Strategy:
        """How sites are weighted and modalities blended."""
        return strategy_named(self.aggregation)

    @property
    def server_step(self) -> ServerStep:
        """The server's step, at the rate of this study."""
        return server_step_named(self.server_optimizer, self.server_learning_rate)


@dataclass(frozen=True, kw_only=True)
class Custody(Message):
    """Who may have the trained model, under which licence, for how long."""

    downloaders: tuple[str, ...]
    licence: str
    retention_days: int


@dataclass(frozen=True, kw_only=True)
class Environment(Message):
    """The software that will run: hashes over all versions and over Tessera's own code, and package versions.

    ``files_hash`` covers the content of every file of the installed dependencies; proposals from before that have none.
    The three hashes ``data_code``, ``data_lock`` and ``data_files`` cover the part that touches data, in the same ways:
    it must be the same under another ``release`` of Tessera, while the rest may differ within one minor version
    (:mod:`datasites.review.environment`). Proposals from before have none of these four: nothing may differ.
    """

    lock_hash: str
    code_hash: str
    packages: Mapping[str, str]
    files_hash: str = ""
    release: str = ""
    data_code: str = ""
    data_lock: str = ""
    data_files: str = ""


@dataclass(frozen=True, kw_only=True)
class Chain(Message):
    """Which model a study begins with, and whether every site recomputes each next one
    (:mod:`datasites.study.recomputed.chain`).

    ``model_hash`` is the SHA-256 of the initial model's safetensors bytes. ``origin`` says who can recompute it:
    everybody from the public ``seed`` and the model's configuration; everybody who knows the last model of an earlier
    study, whose proposal hash is ``study``; everybody who has the ``public`` tables that the proposal's constants name;
    or nobody (``given``), so that the initial model counts as unchecked.
    With ``checked`` False the orchestrator may name any model in any round.
    """

    model_hash: str
    origin: Literal["seed", "study", "public", "given"] = "seed"
    seed: int = 0
    study: str = ""
    checked: bool = True

    def __post_init__(self) -> None:
        if not _HASH.fullmatch(self.model_hash) or not 0 <= self.seed < 1 << 63:
            raise InvalidInput("expected the initial model's SHA-256 and a seed from 0 to 2^63 - 1")
        if (self.origin == "study") != bool(_HASH.fullmatch(self.study)) or (self.origin != "study" and self.study):
            raise InvalidInput("expected the proposal hash of the study whose last model this one begins with")


_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Proposal(Message):
    """Everything a study will do. Its hash is what people approve; nothing outside it may change a round.

    ``canonical`` is the version of the canonical JSON of this study's hashes (:mod:`privacy.canonical`); proposals from
    before RFC 8785 do not state it, which means 1. ``chain`` None (proposals from before there were chains) leaves
    the choice of every model to the orchestrator, as an unchecked chain does. ``helpers`` are nobody or two parties
    that hold part of the pads (docs/decisions/0018-pads-among-helpers.md). ``published`` says that a round's key
    and pad sums go to the participants once the round is answered, so that everybody can check the sum.
    ``constants`` says from which public tables the initial model's centres and weights come. ``filing`` says who
    answers for the study (None before there were filings); ``replaces`` is the hash of the version that this one
    replaces. ``protocol`` 2 says that the random part of every round's key follows from this proposal's hash, and
    that commitments to pad sums are salted (docs/decisions/0021-keys-by-hash.md); proposals from before that do not
    state it, which means 1. ``patience`` says whose absence rounds put up with (None: every round waits for all
    until the deadline).
    """

    study: str
    purpose: str
    legal_basis: str
    custody: Custody
    plan: Plan
    task: str
    model: ModelConfig
    training: Training
    mechanism: Mechanism
    noise: str
    rounds: int
    min_sites: int
    colluders: int
    blocks: tuple[Block, ...]
    encryption: EncryptionParameters
    deadline_seconds: int
    participants: tuple[Participant, ...]
    orchestrator: Party
    keyholder: Party
    environment: Environment
    seed: int | None
    created: str
    expires: str
    nonce: str
    canonical: CanonicalVersion = 1
    chain: Chain | None = None
    helpers: tuple[Party, ...] = ()
    published: bool = False
    filing: Filing | None = None
    replaces: str = ""
    protocol: Literal[1, 2] = 1
    patience: Patience | None = None
    constants: PublicConstants | None = None

    def __post_init__(self) -> None:
        self._check_texts()
        self.waits.check(min_sites=self.min_sites, participants=len(self.participants))
        self._check_helpers()
        self._check_noise()
        self.strategy.check(self)
        self._check_centring()
        check_counting(self)

    def _check_helpers(self) -> None:
        if len(self.helpers) not in (0, 2):
            raise InvalidInput(f"expected no helpers or two, got {len(self.helpers)}")
        if not self.published:
            return
        if not self.helpers:
            raise InvalidInput("only with helpers can a round's key and pad sums be published")
        if self.colluders >= 2 and self.helpers_inside == 2 and not self.noise_mode.covers_single_updates:
            raise InvalidInput(
                "orchestrator and both helpers together read single updates once a round's key is published; shared "
                "noise does not cover that for 2 or more colluders: take a helper from outside the study, or publish "
                "nothing"
            )

    @property
    def helpers_inside(self) -> int:
        """How many helpers are of institutions that take part."""
        inside = {folded(p.institution) for p in self.participants}
        return sum(folded(h.institution) in inside for h in self.helpers)

    def _check_noise(self) -> None:
        charged = self.noise_mode.accounted_as
        if not noise_named(self.mechanism.noise).covers_single_updates:
            # shares of too few sites would carry less noise than is charged
            self.mechanism.check_study(
                noise=charged,
                rounds=self.rounds,
                min_sites=self.min_sites,
                colluders=self.colluders,
                sites=len(self.participants),
            )
            self._check_blocks()  # a parameter sent twice would carry two noises where one is charged

    def _check_centring(self) -> None:
        public = self.chain is not None and self.chain.origin == "public"
        if not public == (self.constants is not None) == self.model.public_centres:
            raise InvalidInput("expected public constants, a model with public centres and a chain from them together")
        if not self.model.centred:
            return
        if self.chain is not None and self.chain.origin == "study":
            raise InvalidInput(
                "a centred study releases feature means through weights that are zero, so it cannot begin with the "
                "model of another study; propose it without centring"
            )
        linear, declared = self.model.architecture == "linear", self.plan.kind == "declarative"
        plain = self.training.optimizer == "sgd" and self.mechanism.clipping == "record"
        least = 4 if self.model.standardised else 1 if public else 2
        if not (linear and declared and plain and self.rounds >= least):
            raise InvalidInput(
                "the first round of a centred study (the first three of a standardised one) releases feature means "
                "through the linear model's own step: expected that model, a declarative plan, the optimizer sgd, "
                f"clipping by record and at least {'four' if self.model.standardised else 'two'} rounds"
            )
        pull = self.training.learning_rate * (self.training.weight_decay + self.training.proximal_mu)
        if not pull < 1.0:
            raise InvalidInput(f"expected learning rate times weight decay and proximal pull below 1, got {pull:g}")

    def _check_texts(self) -> None:
        check_study_name(self.study)
        if self.replaces and not _HASH.fullmatch(self.replaces):
            raise InvalidInput("expected the proposal hash of the version that this one replaces")
        for text in (self.purpose, self.legal_basis):
            check_prose(text, "a purpose and a legal basis")
        for party in (self.orchestrator, self.keyholder, *self.helpers, *self.participants):
            check_name(party.name, "a party's name")
            check_name(party.institution, "an institution")
        check_variable_name(self.task)
        blocks = (block.modality for block in self.blocks if block.modality is not None)
        for modality in (*blocks, *(name for p in self.participants for name in p.modalities)):
            check_modality_name(modality)

    def _check_blocks(self) -> None:
        for what, names in (
            ("block", [block.name for block in self.blocks]),
            ("parameter", [name for block in self.blocks for name in block.parameters]),
        ):
            if len(set(names)) < len(names):
                raise InvalidInput(f"expected every {what} once in a study with shared noise, got one twice")

    @cached_property
    def proposal_hash(self) -> str:
        """SHA-256 of the canonical proposal: the thing that is approved."""
        return canonical_hash(without_additions(dump(self)), self.canonical)

    @cached_property
    def plan_hash(self) -> str:
        """The proposal hash without dates and nonce: the same for an identical re-run."""
        value = without_additions(dump(self))
        for field in ("created", "expires", "nonce", "replaces"):
            value.pop(field, None)
        return canonical_hash(value, self.canonical)

    @property
    def waits(self) -> Patience:
        """Whose absence the rounds put up with."""
        return self.patience or WAITS_FOR_ALL

    @property
    def strategy(self) -> Strategy:
        """How sites are weighted and modalities blended."""
        return self.training.strategy

    @property
    def noise_mode(self) -> NoiseMode:
        """Who adds the noise, and what follows from it."""
        return noise_named(self.noise)

    def participant(self, name: str) -> Participant:
        """Return the participant called ``name``.

        Raises:
            InvalidInput: nobody of that name takes part.
        """
        found = self._by_name.get(name)
        if found is None:
            raise InvalidInput(f"{name!r} does not take part in study {self.study!r}")
        return found

    def contributors(self, block: Block) -> tuple[str, ...]:
        """Return the names of the sites that contribute to ``block``.

        Under shared noise every site sends every block, so that all shares are in the sum.
        """
        return tuple(p.name for p in self.participants if self._contributes(p, block))

    def institutions(self, sites: Iterable[str]) -> frozenset[str]:
        """Return the distinct institutions of some sites; ``min_sites`` counts these, however many keys one has."""
        return frozenset(folded(self.participant(s).institution) for s in sites)

    def exchanged_blocks(self) -> tuple[Block, ...]:
        """Return the blocks with at least ``min_sites`` contributing institutions; the others stay at their sites."""
        return self._exchanged

    def blocks_of(self, site: str) -> tuple[Block, ...]:
        """Return the exchanged blocks that ``site`` contributes to."""
        participant = self._by_name.get(site)
        return tuple(b for b in self._exchanged if participant is not None and self._contributes(participant, b))

    def _contributes(self, participant: Participant, block: Block) -> bool:
        return self.noise_mode.contributes(block.modality, participant.modalities)

    @cached_property
    def _by_name(self) -> Mapping[str, Participant]:
        return {p.name: p for p in reversed(self.participants)}  # of two namesakes the first

    @cached_property
    def _exchanged(self) -> tuple[Block, ...]:
        return tuple(b for b in self.blocks if len(self.institutions(self.contributors(b))) >= self.min_sites)
