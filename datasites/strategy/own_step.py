"""A server's rule of the scientist's own: part of the approved code, and computed again by every hospital.

The proposal names it ``own``; the code tree holds it in ``server_step.py``, whose function ``server_step()`` returns a
:class:`~datasites.strategy.server_steps.ServerStep`. It sees the model, the decrypted mean update and what it kept of
the rounds before: public numbers, so it costs no privacy. Whoever runs it does so away from keys and records
(:mod:`datasites.worker.rule`), anew in every round: what a rule keeps in itself and not in ``state`` is gone.

A rule of one's own chooses models, and chosen models can single out one hospital's update (docs/threat-model.md).
Therefore people review it like any code that a study brings.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from datasites.strategy.server_steps import ServerStep, State, Vector
from privacy.errors import InvalidInput, Refused

OWN = "own"
STEP_FILE = "server_step.py"
PLAN_FILE = "plan.py"
RULE_PLAN = '''"""Model and loss of this study are Tessera's; `server_step.py` has the scientist's own rule."""

from models.build import build_model, record_loss

__all__ = ["build_model", "record_loss"]
'''
"""``plan.py`` of a study that brings a rule and no network: its own code never sees a record."""
MOST_KEPT = 8
"""How many arrays a rule may keep of one block, each with at most as many values as the block has."""

_HEADER_BYTES = 1 << 16
_MODEL, _UPDATE, _STATE = "model/", "update/", "state/"
_NAME_CHARACTERS = 40


@dataclass(frozen=True, kw_only=True)
class OwnStep(ServerStep):
    """Stands for the rule in a study's code tree."""

    name: ClassVar[str] = OWN

    def step(self, model: Vector, mean_update: Vector, state: State) -> Vector:
        """Refuse: the rule is in the code tree.

        Raises:
            Refused: always.
        """
        raise Refused("this study brings a server's rule of its own: expected its code tree, and got none")


@dataclass(frozen=True, kw_only=True)
class Stepped:
    """What a rule made of a round: by block the next parameters, float32 [n], and the arrays that it keeps."""

    models: Mapping[str, Vector]
    states: Mapping[str, Mapping[str, Vector]]


class Stepping(Protocol):
    """Takes the step of a study's own rule on all blocks of a round."""

    def __call__(
        self,
        models: Mapping[str, Vector],
        updates: Mapping[str, Vector],
        states: Mapping[str, Mapping[str, Vector]],
    ) -> Stepped:
        """Return the step.

        Args:
            models: by block, the parameters before the round, float32 [n].
            updates: by block, the mean update, float32 [n].
            states: by block, what the rule kept in the round before.

        Raises:
            Refused: the rule failed, or gave something else than a model.
        """


@dataclass(frozen=True, kw_only=True)
class InThisProcess:
    """Runs the rule of a code tree with the rights of this process: for the scientist's own machine.

    ``folder`` is the code tree; its code is run anew for every round, as in a sandbox.
    """

    folder: Path

    def __call__(
        self,
        models: Mapping[str, Vector],
        updates: Mapping[str, Vector],
        states: Mapping[str, Mapping[str, Vector]],
    ) -> Stepped:
        """Return the step."""
        return stepped(load_rule(self.folder), models, updates, states)


def load_rule(folder: Path) -> ServerStep:
    """Run ``server_step.py`` of a code tree and return its rule.

    Raises:
        InvalidInput: the file or its function ``server_step`` is missing, or it gives something else.
    """
    path = folder / STEP_FILE
    spec = importlib.util.spec_from_file_location("server_step", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InvalidInput(f"expected the code tree to have a file {STEP_FILE}")
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
        make = getattr(module, "server_step", None)
        if not callable(make):
            raise InvalidInput(f"expected {STEP_FILE} to define server_step(), which returns a tessera.ServerStep")
        rule = make()
    finally:
        sys.path[:] = before
    if not isinstance(rule, ServerStep) or isinstance(rule, OwnStep):
        raise InvalidInput(f"expected server_step() to return a tessera.ServerStep, got a {type(rule).__name__}")
    return rule


def stepped(
    rule: ServerStep,
    models: Mapping[str, Vector],
    updates: Mapping[str, Vector],
    states: Mapping[str, Mapping[str, Vector]],
) -> Stepped:
    """Take a rule's step on every block, in the order of their names.

    Raises:
        InvalidInput: what it gives is no model, or what it keeps is too much.
    """
    found: dict[str, Vector] = {}
    kept: dict[str, dict[str, Vector]] = {}
    for block in sorted(models):
        state: dict[str, Vector] = {name: np.array(value, np.float32) for name, value in states.get(block, {}).items()}
        found[block] = rule.step(np.array(models[block], np.float32), np.array(updates[block], np.float32), state)
        kept[block] = state
    return checked(Stepped(models=found, states=kept), models)


def checked(step: Stepped, models: Mapping[str, Vector]) -> Stepped:
    """Return a step as float32 arrays once every number of it was looked at.

    Args:
        step: what a rule gave.
        models: the parameters before, by block.

    Raises:
        InvalidInput: other blocks or shapes, numbers that are not finite, or too much that is kept.
    """
    if set(step.models) != set(models) or not set(step.states) <= set(models):
        raise InvalidInput("the server's rule gave other blocks than the study has")
    found = {name: _floats(step.models[name], "the next model") for name in models}
    for name, value in found.items():
        if value.shape != models[name].shape:
            raise InvalidInput(
                f"expected {models[name].size} values for block {name!r} from the server's rule, got {value.shape}"
            )
    kept = {name: _kept(state, models[name].size) for name, state in step.states.items()}
    return Stepped(models=found, states=kept)


def _kept(state: Mapping[str, Vector], size: int) -> dict[str, Vector]:
    if len(state) > MOST_KEPT:
        raise InvalidInput(f"a server's rule may keep {MOST_KEPT} arrays of a block, this one keeps {len(state)}")
    for name in state:
        if not (isinstance(name, str) and name.isidentifier() and len(name) <= _NAME_CHARACTERS):
            raise InvalidInput("expected what a server's rule keeps by plain names, such as 'momentum'")
    found = {name: _floats(state[name], "what is kept") for name in sorted(state)}
    if any(value.size > max(size, 1) for value in found.values()):
        raise InvalidInput(f"an array that a server's rule keeps may have {size} values here, as many as the block")
    return found


def _floats(value: object, what: str) -> Vector:
    try:
        found = np.array(value, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"expected numbers from the server's rule for {what}") from error
    if not np.isfinite(found).all():
        raise InvalidInput(f"the server's rule gave numbers that are not finite for {what}")
    return found


def check_rule(rule_of: Stepping, lengths: Mapping[str, int]) -> None:
    """Try a rule on made-up numbers, two rounds and each of them twice.

    Args:
        rule_of: runs the rule.
        lengths: the number of parameters of each block.

    Raises:
        InvalidInput, Refused: it fails, or gives something else the second time.
    """
    draw = np.random.default_rng(0)

    def numbers(length: int) -> Vector:
        return draw.standard_normal(length).astype(np.float32)

    models: Mapping[str, Vector] = {name: numbers(length) for name, length in lengths.items()}
    states: Mapping[str, Mapping[str, Vector]] = {}
    for _ in range(2):
        updates = {name: numbers(length) for name, length in lengths.items()}
        first, again = (rule_of(models, updates, states) for _ in range(2))
        if output_bytes(first) != output_bytes(again):
            raise InvalidInput("the server's rule gives another model for the same numbers: hospitals could not follow")
        models, states = first.models, first.states


# files between a process and its sandbox ---------------------------------------------------------------------------


def input_bytes(
    models: Mapping[str, Vector], updates: Mapping[str, Vector], states: Mapping[str, Mapping[str, Vector]]
) -> bytes:
    """Return a rule's input as safetensors."""
    arrays = {_MODEL + name: value for name, value in models.items()}
    arrays |= {_UPDATE + name: value for name, value in updates.items()}
    return bytes(save({name: np.ascontiguousarray(value) for name, value in (arrays | _flat(states)).items()}))


def read_input(data: bytes) -> tuple[dict[str, Vector], dict[str, Vector], dict[str, dict[str, Vector]]]:
    """Read what :func:`input_bytes` wrote."""
    arrays = load(data)
    models, updates = (
        {n.removeprefix(start): v for n, v in arrays.items() if n.startswith(start)} for start in (_MODEL, _UPDATE)
    )
    return models, updates, _unflat(arrays)


def output_bytes(step: Stepped) -> bytes:
    """Return a step as safetensors; the same step gives the same bytes."""
    arrays = {_MODEL + name: value for name, value in step.models.items()} | _flat(step.states)
    return bytes(save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}))


def read_output(path: Path, models: Mapping[str, Vector]) -> Stepped:
    """Read a step that foreign code wrote, and check it.

    Args:
        path: the file.
        models: the parameters before, by block.

    Raises:
        InvalidInput: too long, no safetensors, or no step.
    """
    most = 4 * (1 + MOST_KEPT) * sum(value.size + 1 for value in models.values()) + _HEADER_BYTES * (1 + len(models))
    if path.stat().st_size > most:
        raise InvalidInput("expected a model from the server's rule, got a longer file")
    try:
        arrays = load(path.read_bytes())
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInput("expected a safetensors file from the server's rule, could not read one") from error
    if any(value.dtype != np.float32 for value in arrays.values()):
        raise InvalidInput("expected float32 numbers from the server's rule, got another type")
    found = {name.removeprefix(_MODEL): value for name, value in arrays.items() if name.startswith(_MODEL)}
    return checked(Stepped(models=found, states=_unflat(arrays)), models)


def _flat(states: Mapping[str, Mapping[str, Vector]]) -> dict[str, Vector]:
    return {f"{_STATE}{block}/{name}": value for block, state in states.items() for name, value in state.items()}


def _unflat(arrays: Mapping[str, Vector]) -> dict[str, dict[str, Vector]]:
    found: dict[str, dict[str, Vector]] = {}
    for name, value in arrays.items():
        if name.startswith(_STATE):
            block, _, own = name.removeprefix(_STATE).rpartition("/")
            found.setdefault(block, {})[own] = value
    return found
