"""Parameters as named blocks, flat vectors and safetensors bytes.

What is exchanged is a flat float32 vector per block; a whole model travels as safetensors, never as a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import nn

from models.config import InvalidModel, ModelConfig

BlockTuple = tuple[str, str | None, list[str], int]
_HEADER_LIMIT_BYTES = 1 << 16


def blocks(model: nn.Module, config: ModelConfig) -> list[BlockTuple]:
    """Return the blocks that are exchanged: one per modality, then ``shared``, as (name, modality, names, length).

    Heads per combination are in no block: most belong to one institution, so they stay at their site. Nor are centres:
    the server writes them. A counting study has the one block of all its cells.
    """
    sizes = {name: p.numel() for name, p in model.named_parameters() if not config.is_centre(name)}
    found: list[BlockTuple] = []
    for modality in () if config.counting is not None else config.modalities:
        names = [n for n in sizes if _belongs(n, modality) and not is_local(n, config)]
        found.append((modality, modality, names, sum(sizes[n] for n in names)))
    taken = {n for _, _, names, _ in found for n in names}
    rest = [n for n in sizes if n not in taken and not is_local(n, config)]
    found.append(("shared", None, rest, sum(sizes[n] for n in rest)))
    return found


def _belongs(name: str, modality: str) -> bool:
    part, owner = name.split(".")[:2]
    return owner == modality and part != "tokens"  # a missing-token is trained by those who lack the modality


def is_local(name: str, config: ModelConfig) -> bool:
    """Return whether parameter ``name`` stays at its site: a head of one modality combination."""
    return config.heads == "combination" and config.architecture != "mlp-auxiliary" and name.startswith("heads.")


def flatten(model: nn.Module, names: Sequence[str]) -> NDArray[np.float32]:
    """Return the parameters ``names`` one after the other, float32 [n]."""
    parameters = dict(model.named_parameters())
    parts = [parameters[name].detach().reshape(-1).cpu().numpy() for name in names]
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, dtype=np.float32)


def assign(model: nn.Module, names: Sequence[str], values: NDArray[np.floating]) -> None:
    """Write ``values`` [n] into the parameters ``names``, in the order of :func:`flatten`.

    Raises:
        InvalidModel: another number of values than the parameters have.
    """
    parameters = dict(model.named_parameters())
    expected = sum(parameters[name].numel() for name in names)
    if values.shape != (expected,):
        raise InvalidModel(f"expected {expected} parameter values, got an array of shape {values.shape}")
    start = 0
    with torch.no_grad():
        for name in names:
            parameter = parameters[name]
            piece = np.ascontiguousarray(values[start : start + parameter.numel()], dtype=np.float32)
            parameter.copy_(torch.from_numpy(piece).view_as(parameter))
            start += parameter.numel()


def to_bytes(model: nn.Module) -> bytes:
    """Return all parameters as safetensors bytes; the same parameters give the same bytes."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in sorted(model.named_parameters())}
    data: bytes = safetensors.torch.save(tensors)
    return data


def from_bytes(model: nn.Module, data: bytes) -> None:
    """Load parameters written by :func:`to_bytes`; names, shapes and lengths are checked before they are parsed.

    Raises:
        InvalidModel: the bytes are not exactly this model's parameters.
    """
    _check_layout(model, data)
    with torch.no_grad():
        for name, tensor in safetensors.torch.load(data).items():
            model.get_parameter(name).copy_(tensor)


def _check_layout(model: nn.Module, data: bytes) -> None:
    expected = {n: {"dtype": "F32", "shape": list(p.shape)} for n, p in model.named_parameters()}
    body = 4 * sum(p.numel() for p in model.parameters())
    header_bytes = int.from_bytes(data[:8], "little") if len(data) >= 8 else -1
    if not 0 < header_bytes <= _HEADER_LIMIT_BYTES or len(data) != 8 + header_bytes + body:
        raise InvalidModel(f"expected a model of {body} bytes of float32, got {len(data)} bytes in all")
    try:
        header = json.loads(data[8 : 8 + header_bytes])
        header.pop("__metadata__", None)
        found = {n: {"dtype": v["dtype"], "shape": v["shape"]} for n, v in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidModel("the model bytes have no readable safetensors header") from error
    if found != expected:
        raise InvalidModel("the model bytes hold other parameters than this model has")
