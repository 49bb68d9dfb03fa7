"""Which device a simulation runs on. Rounds on private records run on processors (docs/simulation.md, "Devices").

>>> chosen_device("cpu")
device(type='cpu')
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.targets import InvalidModel


def chosen_device(name: str) -> torch.device:
    """Return the device called ``name``: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``, which is CUDA where there is one.

    Raises:
        InvalidModel: another name, or a device that this machine has not.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and number.isdecimal())):
        raise InvalidModel(f"expected a device out of auto, cpu, cuda and cuda:N, got {name[:40]!r}")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise InvalidModel(
            f"{name} was asked for, and there are {torch.cuda.device_count()} CUDA devices here; use auto"
        )
    return torch.device(name)


def on_device(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return a batch on a device; tensors that are there already are not copied."""
    return {name: value.to(device) for name, value in batch.items()}
