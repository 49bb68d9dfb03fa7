"""Constants from public tables: the file that holds them, and the initial model that a study makes of them.

The file names features, so that tables with other features, or in another order, serve as well. Its values are of
inputs as hospitals encode them, before the model scales them: :func:`begun_with` scales them for a study's own model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasites.study.recomputed.next_model import Arrays, model_from_bytes, model_to_bytes
from datasites.study.schema.public_constants import MOST_CENTRE, MOST_WEIGHT, PublicConstants
from datasites.study.signing import Message, dump, parse
from models.config import CENTRES, ModelConfig
from privacy.canonical import canonical_json, sha256_hex
from privacy.errors import InvalidInput

_LARGEST_FILE = 64 << 20
_ENOUGH = 0.5
"""Of a modality's features, so many must be in the public tables."""


@dataclass(frozen=True, kw_only=True)
class ModalityConstants(Message):
    """One modality: a mean and a weight (nothing without weights) for each of ``names``, in their order."""

    names: tuple[str, ...]
    centres: tuple[float, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.centres) != len(self.names) or len(self.weights) not in (0, len(self.names)):
            raise InvalidInput("expected a centre for every feature, and a weight for every one or for none")
        if len(set(self.names)) < len(self.names) or not all(map(math.isfinite, (*self.centres, *self.weights))):
            raise InvalidInput("expected every feature once, with finite numbers")


@dataclass(frozen=True, kw_only=True)
class ConstantsFile(Message):
    """What ``tessera constants make`` writes. ``tables`` has the SHA-256 of every file that was read, by name.

    ``task`` is what the weights tell apart; they serve no other one, the means serve any.
    """

    source: str
    task: str
    patients: int
    tables: Mapping[str, str]
    modalities: Mapping[str, ModalityConstants]
    format: str = field(default="tessera-constants-1")

    def __post_init__(self) -> None:
        if self.format != "tessera-constants-1" or not self.modalities or not self.tables:
            raise InvalidInput("expected a file of constants as `tessera constants make` writes it")
        _ = self.stated  # refuses a source that is no text

    @property
    def data(self) -> bytes:
        """The file's bytes."""
        return canonical_json(dump(self))

    @property
    def constants_hash(self) -> str:
        """SHA-256 of the file."""
        return sha256_hex(self.data)

    @property
    def stated(self) -> PublicConstants:
        """What the proposal says of these constants."""
        return PublicConstants(
            source=self.source,
            tables_hash=sha256_hex(canonical_json(dict(sorted(self.tables.items())))),
            constants_hash=self.constants_hash,
            patients=self.patients,
            weights=any(m.weights for m in self.modalities.values()),
        )


def read_constants(path: Path) -> ConstantsFile:
    """Read a file of constants.

    Raises:
        InvalidInput: it is missing, too large, or none.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InvalidInput(f"{path.name}: expected at most {_LARGEST_FILE >> 20} MiB of constants")
        return parse(ConstantsFile, json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"expected a file of `tessera constants make` at {path}, could not read one") from error


def begun_with(
    constants: ConstantsFile | None, model: bytes, config: ModelConfig, *, task: str, names: Mapping[str, Sequence[str]]
) -> tuple[PublicConstants, bytes]:
    """Return what a proposal states of its constants, and the initial model that holds them (safetensors).

    Features that the public tables lack have mean and weight zero. Weights beyond :data:`MOST_WEIGHT` are scaled down.

    Args:
        constants: as they were brought.
        model: the initial model without them.
        config: of the study's model.
        task: of the study.
        names: of each modality's features in their order, as the hospitals' published schema has them.

    Raises:
        InvalidInput: no constants, of another task, or of too few of a modality's features; or means that are too
            large to be those of inputs like the study's.
    """
    if constants is None:
        raise InvalidInput("expected constants from public tables for public centres; give --constants FILE")
    stated, arrays = constants.stated, model_from_bytes(model)
    if stated.weights and constants.task != task:
        raise InvalidInput(
            f"the constants' weights are of the task {constants.task}, the study's is {task}; make constants of "
            "that task, or with --centres-only"
        )
    for modality in config.modalities:
        _write(arrays, modality, constants, config, names.get(modality, ()))
    branches = [name for name in arrays if name.startswith("branches.")]
    norm = math.sqrt(sum(float(np.square(arrays[n].astype(np.float64)).sum()) for n in branches))
    if norm > MOST_WEIGHT:
        for name in branches:
            arrays[name] = (arrays[name] * (MOST_WEIGHT / norm)).astype(np.float32)
    return stated, model_to_bytes(arrays)


def _write(arrays: Arrays, modality: str, constants: ConstantsFile, config: ModelConfig, names: Sequence[str]) -> None:
    wanted, found = config.features[modality], constants.modalities.get(modality)
    if len(names) != wanted:
        raise InvalidInput(f"no hospital's published schema names the {wanted} features of {modality}; publish again")
    known = {name: place for place, name in enumerate(found.names)} if found else {}
    places = np.array([known.get(name, -1) for name in names], dtype=np.int64)
    has = places >= 0
    if found is None or has.mean() < _ENOUGH:
        raise InvalidInput(
            f"the constants have {int(has.sum())} of the study's {wanted} features of {modality}; expected at least "
            "half of them: make constants of tables that measure it"
        )
    scale = config.gain(modality) / math.sqrt(wanted)
    centres = np.where(has, np.array(found.centres)[places] * scale, 0.0)
    if np.linalg.norm(centres) > MOST_CENTRE:
        raise InvalidInput(
            f"the public means of {modality} are too large ({np.linalg.norm(centres):.3g}, at most {MOST_CENTRE:g}): "
            "encode the public tables as the hospitals do, by the study's schema"
        )
    arrays[CENTRES + modality] = centres.astype(np.float32)
    if found.weights:
        name = f"branches.{modality}.weight"
        if name not in arrays:
            raise InvalidInput("expected --centres-only for an outcome of classes without an order")
        weights = np.where(has, np.array(found.weights)[places] / scale, 0.0)
        arrays[name] = weights.reshape(arrays[name].shape).astype(np.float32)
