"""The strategies, server steps and noise modes by the names that proposals use; an unknown name is refused here.

    >>> strategy_named("dgb+pcw").blending.reads_losses
    True

A further rule is one file in this folder that ends with :func:`register_strategy`, :func:`register_server_step` or
:func:`register_noise_mode` (docs/adding-a-strategy.md). All files of the folder are loaded with this one. In a live
study every party has to know the rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import datasites.strategy
from datasites.strategy.blending import Blending, GradientBlending, NoBlending
from datasites.strategy.local_noise import LocalNoise
from datasites.strategy.noise import NoiseMode
from datasites.strategy.own_step import OwnStep
from datasites.strategy.proximity import ProximityWeights
from datasites.strategy.server_steps import AdagradStep, AdamStep, MeanStep, MomentumStep, ServerStep, YogiStep
from datasites.strategy.shared_noise import SharedNoise
from datasites.strategy.weights import EqualWeights, PatientCounts, WeightRule
from privacy.errors import InvalidInput, Refused

if TYPE_CHECKING:
    from datasites.study.proposal import Proposal

Rule = TypeVar("Rule")


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One value of ``training.aggregation``: how sites are weighted and modalities blended, and what is proposed.

    ``server_step`` and ``proximal_mu`` (FedProx: the pull of a site's steps to where they began) are what a new
    proposal of this strategy writes down; a round reads them from the proposal.
    """

    name: str
    weights: WeightRule = field(default_factory=PatientCounts)
    blending: Blending = field(default_factory=NoBlending)
    server_step: ServerStep = field(default_factory=MeanStep)
    proximal_mu: float = 0.0

    def check(self, proposal: Proposal) -> None:
        """Refuse a proposal that this strategy cannot run.

        Raises:
            InvalidInput: the message says what was expected.
        """
        self.blending.check(proposal)
        self.weights.check(proposal)

    def check_noise(self, noise: NoiseMode) -> None:
        """Refuse weights that read single updates where these carry only a share of the noise.

        Raises:
            Refused: they would.
        """
        if self.weights.compared_rounds and not noise.covers_single_updates:
            raise Refused(
                "proximity weighting reads single updates, which carry only a share of the noise here; "
                "use local noise, or weights that are all 1"
            )


STRATEGIES: dict[str, Strategy] = {
    s.name: s
    for s in (
        Strategy(name="fedavg"),
        Strategy(name="fedprox", proximal_mu=0.01),
        Strategy(name="fedadam", server_step=AdamStep(rate=0.05)),
        Strategy(name="dgb", blending=GradientBlending()),
        Strategy(name="pcw", weights=ProximityWeights()),
        Strategy(name="dgb+pcw", blending=GradientBlending(), weights=ProximityWeights()),
        Strategy(name="fedyogi", server_step=YogiStep(rate=0.05)),
        Strategy(name="fedadagrad", server_step=AdagradStep(rate=0.05)),
        Strategy(name="fedavgm", server_step=MomentumStep()),
        Strategy(name="equal", weights=EqualWeights()),
    )
}
SERVER_STEPS: dict[str, type[ServerStep]] = {
    s.name: s for s in (MeanStep, AdamStep, MomentumStep, YogiStep, AdagradStep, OwnStep)
}
NOISE_MODES: dict[str, NoiseMode] = {n.name: n for n in (LocalNoise(), SharedNoise())}


def strategy_named(name: str) -> Strategy:
    """Return the strategy that proposals call ``name``.

    Raises:
        InvalidInput: there is none of that name; the message lists those there are.
    """
    return _named("an aggregation", name, STRATEGIES)


def server_step_named(name: str, rate: float) -> ServerStep:
    """Return the server's step called ``name``, with the rate that the proposal gives.

    Raises:
        InvalidInput: there is none of that name.
    """
    return _named("a server optimizer", name, SERVER_STEPS)(rate=rate)


def noise_named(name: str) -> NoiseMode:
    """Return the noise mode called ``name``.

    Raises:
        InvalidInput: there is none of that name.
    """
    return _named("noise", name, NOISE_MODES)


def register_strategy(strategy: Strategy) -> None:
    """Let proposals ask for ``strategy``.

    Raises:
        InvalidInput: the name is taken.
    """
    _add(STRATEGIES, strategy.name, strategy)


def register_server_step(step: type[ServerStep]) -> None:
    """Let proposals ask for the server's step ``step``.

    Raises:
        InvalidInput: the name is taken.
    """
    _add(SERVER_STEPS, step.name, step)


def register_noise_mode(mode: NoiseMode) -> None:
    """Let proposals ask for the noise mode ``mode``.

    Raises:
        InvalidInput: the name is taken.
    """
    _add(NOISE_MODES, mode.name, mode)


def load_rules() -> None:
    """Import every source file of this folder, so that what they register is known.

    Nothing else is loaded: the hash of the code that an approval binds covers source files alone.
    """
    for path in sorted(path for folder in datasites.strategy.__path__ for path in Path(folder).glob("*.py")):
        import_module(f"datasites.strategy.{path.stem}".removesuffix(".__init__"))


def _named(what: str, name: str, known: Mapping[str, Rule]) -> Rule:
    if name not in known:
        raise InvalidInput(f"expected {what} out of {', '.join(known)}, got {name[:40]!r}")
    return known[name]


def _add(known: dict[str, Rule], name: str, rule: Rule) -> None:
    if name in known:
        raise InvalidInput(f"expected a new name, got {name[:40]!r}, which is taken")
    known[name] = rule


load_rules()
