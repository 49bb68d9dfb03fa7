"""What may be asked of a data owner: one frozen proposal whose hash is what people approve.

The data owner defines these values; the orchestrator fills them in. Every value is frozen, travels as canonical
JSON and is checked when parsed: an unknown field, a missing field or a wrong type is refused. Its parts are in
:mod:`datasites.study.parts`, the messages of a round in :mod:`datasites.study.messages`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from datasites.strategy.noise import NoiseMode
from datasites.strategy.own_step import OWN, PLAN_FILE, RULE_PLAN, STEP_FILE
from datasites.strategy.registry import Strategy, noise_named
from datasites.study.counting import check_counting
from datasites.study.filing import Filing
from datasites.study.parts import (
    HASH,
    Block,
    Chain,
    Custody,
    DatasetReference,
    Environment,
    Participant,
    Party,
    Plan,
    Training,
)
from datasites.study.patience import WAITS_FOR_ALL, Patience
from datasites.study.schema.public_constants import PublicConstants
from datasites.study.schema.variables import check_variable_name
from datasites.study.signing import Message, dump
from datasites.study.text import check_modality_name, check_name, check_prose, check_study_name, folded
from models.config import ModelConfig
from privacy.canonical import CanonicalVersion, canonical_hash, sha256_hex
from privacy.dp.mechanism import Mechanism
from privacy.encryption.parameters import EncryptionParameters
from privacy.errors import InvalidInput

__all__ = [
    "Block",
    "Chain",
    "Custody",
    "DatasetReference",
    "Environment",
    "Participant",
    "Party",
    "Plan",
    "Proposal",
    "Training",
]

_RULE_PLAN_HASH = sha256_hex(RULE_PLAN.encode())


@dataclass(frozen=True, kw_only=True)
class Proposal(Message):
    """Everything a study will do. Its hash is what people approve; nothing outside it may change a round.

    ``canonical`` is the version of the canonical JSON of this study's hashes (:mod:`privacy.canonical`); proposals from
    before RFC 8785 do not state it, which means 1. ``chain`` None (proposals from before there were chains) leaves the
    choice of every model to the orchestrator, as an unchecked chain does. ``helpers`` are nobody or two parties that
    hold part of the pads (docs/decisions/0018-pads-among-helpers.md). ``published`` says that a round's key and pad
    sums go to the participants once the round is answered, so that everybody can check the sum. ``filing`` says who
    answers for the study (None before there were filings); ``replaces`` is the hash of the version that this one
    replaces. ``protocol`` 2 says that the random part of every round's key follows from this proposal's hash, and that
    commitments to pad sums are salted (docs/decisions/0021-keys-by-hash.md); proposals from before that do not state
    it, which means 1; 3 says that a hospital that was started anew is cleared before it sends an update
    (docs/decisions/0025-cleared-after-a-start.md). ``patience`` says whose absence rounds put up with
    (None: every round waits for all until the deadline). ``scientist`` asks for the study with a key of
    their own (None: the orchestrator's people ask). ``constants`` says from which public tables the initial model's
    centres and weights come. ``evaluated_by_pattern`` says that score histograms are counted apart by which modalities
    a record has.
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
    protocol: Literal[1, 2, 3] = 1
    patience: Patience | None = None
    scientist: Party | None = None
    constants: PublicConstants | None = None
    evaluated_by_pattern: bool = False

    def __post_init__(self) -> None:
        self._check_texts()
        self.waits.check(min_sites=self.min_sites, participants=len(self.participants))
        self._check_helpers()
        self._check_noise()
        self.strategy.check(self)
        self._check_centring()
        self._check_server_rule()
        check_counting(self)

    @property
    def own_server_rule(self) -> bool:
        """Whether the server's rule is in the study's own code tree (:mod:`datasites.strategy.own_step`)."""
        return self.training.server_optimizer == OWN

    @property
    def own_network(self) -> bool:
        """Whether the study's own code makes the model, and so runs where the records are."""
        return self.plan.kind == "python" and self.plan.code.get(PLAN_FILE) != _RULE_PLAN_HASH

    def _check_server_rule(self) -> None:
        brings = self.plan.kind == "python" and STEP_FILE in self.plan.code
        if self.own_server_rule != brings:
            raise InvalidInput(
                f"expected the server's rule {OWN!r} and {STEP_FILE} in the code of a study with Python, or neither"
            )

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
        origin = "" if self.chain is None else self.chain.origin
        continues = origin == "study" and self.model.centred
        if continues and not self.model.public_centres:
            raise InvalidInput(
                "a centred study releases feature means through weights that are zero, so it cannot begin with the "
                "model of another study; propose it with the centres of that model, or without centring"
            )
        public = (origin == "public", self.constants is not None)
        if len(set(public)) > 1 or self.model.public_centres != (public[0] or continues):
            raise InvalidInput("expected public constants, a model with public centres and a chain from them together")
        if not self.model.centred:
            return
        linear, declared = self.model.architecture == "linear", self.plan.kind == "declarative"
        plain = self.training.optimizer == "sgd" and self.mechanism.clipping == "record"
        least = 4 if self.model.standardised else 1 if self.model.public_centres else 2
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
        if self.replaces and not HASH.fullmatch(self.replaces):
            raise InvalidInput("expected the proposal hash of the version that this one replaces")
        for text in (self.purpose, self.legal_basis):
            check_prose(text, "a purpose and a legal basis")
        for party in (self.orchestrator, self.keyholder, *self.helpers, *self.participants, *self.asker):
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
        return canonical_hash(_without_additions(dump(self)), self.canonical)

    @cached_property
    def plan_hash(self) -> str:
        """The proposal hash without dates and nonce: the same for an identical re-run."""
        value = _without_additions(dump(self))
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
    def charged(self) -> Mechanism:
        """What the study's epsilon is that of: its mechanism; without noise where one patient moves all inputs."""
        return replace(self.mechanism, noise_multiplier=0.0) if self.model.self_scaled else self.mechanism

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
        found = self._by_modality.get(block.modality)
        if found is None:
            found = tuple(p.name for p in self.participants if self._contributes(p, block))
            self._by_modality[block.modality] = found
        return found

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
    def _by_modality(self) -> dict[str | None, tuple[str, ...]]:
        return {}  # filled as it is asked for

    @property
    def asker(self) -> tuple[Party, ...]:
        """The scientist who asks for the study under a key of their own, or nobody: the orchestrator's people ask."""
        return () if self.scientist is None else (self.scientist,)

    @cached_property
    def _exchanged(self) -> tuple[Block, ...]:
        return tuple(b for b in self.blocks if len(self.institutions(self.contributors(b))) >= self.min_sites)


_ADDED: Mapping[str, tuple[Any, ...]] = {
    "centred": (False,),
    "cohort_gain": (1.0,),
    "standardised": ((), []),
    "gains": ({},),
    "shrunk": (False,),
    "public_centres": (False,),
    "counting": (None,),
}
"""Fields of the model that came later, with their defaults: not hashed there, so that approvals keep their names."""


def _without_additions(proposal: dict[str, Any]) -> dict[str, Any]:
    kept = {n: v for n, v in proposal["model"].items() if n not in _ADDED or v not in _ADDED[n]}
    found = {**proposal, "model": kept}
    for name in ("chain", "constants"):
        if found[name] is None:
            del found[name]
    return found
