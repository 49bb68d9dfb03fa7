"""Build the model of a configuration; the same configuration and seed give the same parameters everywhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.batch import Batch
from models.config import SPREADS, InvalidModel, ModelConfig, check_modality
from models.counter import Counter
from models.losses import batch_loss
from models.networks import FusionNetwork, LateFusionNetwork, LinearFusion


def build_model(config: ModelConfig, *, seed: int) -> nn.Module:
    """Return the model that ``config`` describes, with initial values drawn from ``seed`` alone.

    The linear model starts at zero whatever the seed.

    Raises:
        InvalidModel: an unknown modality or architecture, no feature, or fewer than two classes or one cohort.
    """
    check_config(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # layers draw once while they are made; `_initialise` decides what stays
        model = _module(config)
    _initialise(model, torch.Generator().manual_seed(seed))
    model.tessera_config = config  # type: ignore[assignment]
    return model.eval()  # training switches dropout on, and off again


def record_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the loss of every record of ``batch`` under a model of :func:`build_model`, float32 [B]."""
    config = model.tessera_config
    if not isinstance(config, ModelConfig):
        raise InvalidModel("expected a model made by build_model")
    return batch_loss(model, batch, config)


def check_config(config: ModelConfig) -> None:
    """Refuse a configuration that describes no model."""
    for modality in config.features:
        check_modality(modality)
    if (config.counting is not None) != (config.architecture == "counts"):
        raise InvalidModel("the architecture counts goes with something to count, and no other has it")
    if config.counting is not None:
        config.counting.check(config.features, cohorts=len(config.cohorts), classes=config.classes)
    if not set(config.gains) <= set(config.features) or not all(0 < gain <= 1000 for gain in config.gains.values()):
        raise InvalidModel("expected gains above 0 of the model's own modalities")
    told_apart = config.predicts is None or config.predicts.kind == "categorical"
    if not config.features or min(config.features.values()) < 1 or not config.cohorts:
        raise InvalidModel("a model needs a feature per modality and a cohort")
    if config.classes < 2 if told_apart else config.classes != 0:
        raise InvalidModel("a model needs at least two classes, or none where it predicts a number or survival")
    if not 0.0 <= config.modality_dropout < 1.0:
        raise InvalidModel(f"expected a modality dropout of 0 to below 1, got {config.modality_dropout}")
    if config.class_weights and len(config.class_weights) != config.classes:
        raise InvalidModel(f"expected {config.classes} class weights or none, got {len(config.class_weights)}")
    if not 0.0 < config.cohort_gain <= 10.0:
        raise InvalidModel(f"expected a cohort gain above 0 and at most 10, got {config.cohort_gain}")
    if config.architecture != "linear" and (config.centred or config.cohort_gain != 1.0):
        raise InvalidModel(f"only the linear model is centred or has a cohort gain, got {config.architecture}")
    if config.standardised and not (config.centred and set(config.standardised) <= set(config.features)):
        raise InvalidModel("only modalities of a centred model are standardised: their means are released first")
    if config.public_centres and (not config.centred or config.standardised or config.shrunk):
        raise InvalidModel("public centres are of a centred model that releases no means or spreads of its own")
    if config.shrunk and not config.centred:
        raise InvalidModel("only a centred model releases means that can be shrunk")
    maps = config.side * config.side * 3
    if config.architecture == "convolutional" and config.features.get("image", maps) != maps:
        raise InvalidModel(f"the convolutional encoder reads {maps} image values (side {config.side})")


def _module(config: ModelConfig) -> nn.Module:
    if config.architecture == "linear":
        return LinearFusion(config)
    if config.architecture == "counts":
        return Counter(config)
    if config.architecture == "mlp-auxiliary":
        return LateFusionNetwork(config)
    if config.architecture in ("mlp", "convolutional"):
        return FusionNetwork(config)
    raise InvalidModel(
        f"unknown architecture {config.architecture!r}: expected linear, mlp, mlp-auxiliary or convolutional"
    )


def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("encoders.") and parameter.dim() == 2:
                bound = math.sqrt(6.0 / parameter.shape[1])  # He et al. 2015, for rectified units
                parameter.uniform_(-bound, bound, generator=generator)
            elif name.startswith("heads."):
                bound = 1.0 / math.sqrt(parameter.shape[1])
                parameter.uniform_(-bound, bound, generator=generator)
            elif not name.startswith(SPREADS):
                parameter.zero_()
