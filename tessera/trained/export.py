"""A model as ONNX, checked against the model itself: the file runs where there is no Tessera and no torch.

Its inputs are those after the transforms: each modality float32 [patients, features], ``presence`` float32 [patients,
modalities] and ``cohort`` int64 [patients]; its output is ``probabilities`` float32 [patients, classes] (of another
outcome than classes: what :func:`models.outcomes.predicted` gives).
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.outcomes import predicted
from privacy.errors import InvalidInput, TesseraError

if TYPE_CHECKING:
    from tessera.facts import Calibration
    from tessera.trained.model import Model

TOLERANCE = 1e-5
_ROWS = 16


class _Exported(nn.Module):
    """The network behind named tensors, with class probabilities as its output."""

    def __init__(self, network: nn.Module, config: ModelConfig, calibration: Calibration | None) -> None:
        super().__init__()
        self.network, self.config, self.order = network, config, config.modalities
        self.calibration = calibration

    def forward(self, *inputs: Tensor) -> Tensor:
        batch = {**dict(zip(self.order, inputs[:-2], strict=True)), "presence": inputs[-2], "cohort": inputs[-1]}
        outputs = self.network(batch)
        outputs = outputs if self.calibration is None else self.calibration.apply(outputs)
        if self.config.predicts is not None:
            return predicted(outputs, self.config)
        rising = torch.sigmoid(outputs)
        later = [rising[:, :1]]
        for place in range(1, rising.shape[1]):  # ONNX has no running minimum
            later.append(torch.minimum(later[-1], rising[:, place : place + 1]))
        edge = torch.ones_like(later[0])
        return torch.cat([edge, *later], dim=1) - torch.cat([*later, 0 * edge], dim=1)


def to_onnx(model: Model) -> bytes:
    """Return the model as ONNX, after a check with onnxruntime on random inputs, to 1e-5.

    Raises:
        InvalidInput: the packages for ONNX are not installed.
        TesseraError: the file gives other numbers than the model, or torch cannot export the network.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise InvalidInput("ONNX needs more packages: install them with `pip install 'tessera-fl[model]'`") from error
    order = model.facts.config.modalities
    names = [*order, "presence", "cohort"]
    exported = _Exported(model.network, model.facts.config, model.facts.calibration).eval()
    data = _exported(exported, _random(model, 3), names)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    given = _random(model, _ROWS)
    found = session.run(["probabilities"], {n: v.numpy() for n, v in zip(names, given, strict=True)})[0]
    with torch.no_grad():
        expected = model.probabilities(dict(zip(names, given, strict=True))).numpy()
    difference = float((np.abs(found - expected) / np.maximum(1.0, np.abs(expected))).max())
    if not difference <= TOLERANCE:
        raise TesseraError(f"the ONNX file differs from the model by {difference:.1e}, above {TOLERANCE:g}")
    return data


def _exported(network: nn.Module, example: tuple[Tensor, ...], names: Sequence[str]) -> bytes:
    patients = torch.export.Dim("patients")
    log = logging.getLogger("torch.onnx._internal.exporter._registration")  # warns of torchvision, which is not needed
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                example,
                dynamo=True,
                input_names=list(names),
                output_names=["probabilities"],
                dynamic_shapes=(tuple({0: patients} for _ in names),),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise TesseraError("torch cannot export this network to ONNX; use safetensors, or change the layer") from error
    finally:
        log.setLevel(level)
    if program is None:
        raise TesseraError("torch gave no ONNX program")
    with tempfile.TemporaryDirectory() as scratch:
        program.save(Path(scratch) / "model.onnx")
        return (Path(scratch) / "model.onnx").read_bytes()


def _random(model: Model, rows: int) -> tuple[Tensor, ...]:
    config, draw = model.facts.config, torch.Generator().manual_seed(rows)
    inputs = [torch.randn(rows, config.features[m], generator=draw) for m in config.modalities]
    presence = (torch.rand(rows, len(config.modalities), generator=draw) > 0.3).float()
    cohort = torch.randint(0, len(config.cohorts), (rows,), generator=draw)
    return (*inputs, presence, cohort)
