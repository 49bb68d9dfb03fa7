"""The parts of a proposal: parties and their data, code, blocks, training, custody, software, and the first model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from datasites.study.signing import Message
from privacy.errors import InvalidInput

if TYPE_CHECKING:  # the rules compute with numpy, which a command that names a party alone does not need
    from datasites.strategy.registry import Strategy
    from datasites.strategy.server_steps import ServerStep

HASH = re.compile("[0-9a-f]{64}")


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
    """A hospital in a study: which modalities and which dataset it contributes.

    ``evaluated_alone`` says that figures of this hospital's records alone are made of its noised score histograms and
    shown with its name. Its policy has to allow that.
    """

    modalities: tuple[str, ...]
    cohort: str
    dataset: DatasetReference
    evaluated_alone: bool = False


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
        from datasites.strategy.registry import server_step_named, strategy_named

        strategy_named(self.aggregation)
        server_step_named(self.server_optimizer, self.server_learning_rate)

    @property
    def strategy(self) -> Strategy:
        """How sites are weighted and modalities blended."""
        from datasites.strategy.registry import strategy_named

        return strategy_named(self.aggregation)

    @property
    def server_step(self) -> ServerStep:
        """The server's step, at the rate of this study."""
        from datasites.strategy.registry import server_step_named

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
        if not HASH.fullmatch(self.model_hash) or not 0 <= self.seed < 1 << 63:
            raise InvalidInput("expected the initial model's SHA-256 and a seed from 0 to 2^63 - 1")
        if (self.origin == "study") != bool(HASH.fullmatch(self.study)) or (self.origin != "study" and self.study):
            raise InvalidInput("expected the proposal hash of the study whose last model this one begins with")
