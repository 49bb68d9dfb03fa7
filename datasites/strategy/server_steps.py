"""The server's step: from the mean update of a round to the next model, block by block.

The mean update serves as a pseudo-gradient (Reddi et al. 2021, "Adaptive federated optimization", Algorithm 2):
:class:`MeanStep` with rate 1 is FedAvg, :class:`AdamStep` is FedAdam,
:class:`YogiStep` FedYogi and :class:`AdagradStep` FedAdagrad.

    >>> MeanStep(rate=0.5).step(np.ones(2, np.float32), np.full(2, 4, np.float32), {})
    array([3., 3.], dtype=float32)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
State = MutableMapping[str, Vector]

_BETA_1, _BETA_2, _TAU = 0.9, 0.99, 1e-3
_MOMENTUM = 0.7
"""FedAvg with server momentum (Hsu, Qi and Brown 2019): 0.9, usual over thousands of rounds, overshoots in forty."""


@dataclass(frozen=True, kw_only=True)
class ServerStep(ABC):
    """One step of the server on one block; subclass it, give it a ``name`` and write :meth:`step`.

    ``plain`` says that the model moves by ``rate`` times the mean update. Then two models in a row tell the mean
    update, which is what sites compare their own update with.
    """

    name: ClassVar[str]
    plain: ClassVar[bool] = False
    rate: float = 1.0

    @abstractmethod
    def step(self, model: Vector, mean_update: Vector, state: State) -> Vector:
        """Return the block's next parameters.

        Args:
            model: float32 [n], the block's parameters before the round.
            mean_update: float32 [n], the weighted mean of the sites' updates.
            state: what this step keeps of this block, by a name without dots; empty at first. What is written into it
                travels in the checkpoint.
        """


@dataclass(frozen=True, kw_only=True)
class MeanStep(ServerStep):
    """FedAvg: add the mean update."""

    name: ClassVar[str] = "sgd"
    plain: ClassVar[bool] = True

    def step(self, model: Vector, mean_update: Vector, state: State) -> Vector:
        """Return the model plus ``rate`` times the mean update."""
        return model + self.rate * mean_update


@dataclass(frozen=True, kw_only=True)
class MomentumStep(ServerStep):
    """FedAvg with server momentum."""

    name: ClassVar[str] = "momentum"

    def step(self, model: Vector, mean_update: Vector, state: State) -> Vector:
        """Add ``rate`` times the running mean of the updates."""
        return model + self.rate * _running(state, "first", _MOMENTUM, mean_update)


@dataclass(frozen=True, kw_only=True)
class AdamStep(ServerStep):
    """FedAdam, without bias correction, as published."""

    name: ClassVar[str] = "adam"

    def step(self, model: Vector, mean_update: Vector, state: State) -> Vector:
        """Add ``rate`` times the running mean over the root of the running square."""
        first = _running(state, "first", _BETA_1, mean_update)
        second = _running(state, "second", _BETA_2, mean_update**2)
        return model + self.rate * np.asarray(first / (np.sqrt(second) + _TAU), np.float32)


@dataclass(frozen=True, kw_only=True)
class YogiStep(ServerStep):
    """FedYogi: the running square moves by the sign of its error, so that one large update does not swell it."""

    name: ClassVar[str] = "yogi-server"

    def step(self, model: Vector, mean_update: Vector, state: State) -> Vector:
        """Add ``rate`` times the running mean over the root of the running square, which starts at tau squared."""
        first = _running(state, "first", _BETA_1, mean_update)
        square = mean_update**2
        past = state.get("second", np.full_like(mean_update, _TAU**2))
        state["second"] = (past - (1 - _BETA_2) * square * np.sign(past - square)).astype(np.float32)
        return model + self.rate * np.asarray(first / (np.sqrt(state["second"]) + _TAU), np.float32)


@dataclass(frozen=True, kw_only=True)
class AdagradStep(ServerStep):
    """FedAdagrad: coordinates that have moved much move less; without a running mean, as published."""

    name: ClassVar[str] = "adagrad"

    def step(self, model: Vector, mean_update: Vector, state: State) -> Vector:
        """Add ``rate`` times the mean update over the root of the sum of squares, which starts at tau squared."""
        past = state.get("second", np.full_like(mean_update, _TAU**2))
        state["second"] = (past + mean_update**2).astype(np.float32)
        return model + self.rate * np.asarray(mean_update / (np.sqrt(state["second"]) + _TAU), np.float32)


def _running(state: State, name: str, keep: float, new: Vector) -> Vector:
    """Return the running mean under ``name``, with ``keep`` of the past in it, and remember it."""
    past = state.get(name, np.zeros_like(new))
    state[name] = (keep * past + (1 - keep) * new).astype(np.float32)
    return state[name]
