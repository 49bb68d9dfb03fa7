"""The process in which a scientist's own network is tried before anybody is asked: JSON files on both sides.

It builds the model of the public seed, says of each layer whether it can be clipped per record, and has the checks of
a hospital's dry run on made-up records. It writes the model as safetensors and the rest as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from datasites.strategy.own_step import STEP_FILE, InThisProcess, check_rule
from datasites.study.signing import parse
from datasites.worker.child import RULE_HOLDS, load_plan
from datasites.worker.independence import check_independence
from models.config import ModelConfig
from models.parameters import to_bytes
from privacy.dp.clipping import check_model
from privacy.dp.layer_rules import RULES
from privacy.errors import TesseraError

_RECORDS = 6


def main() -> None:
    """Read the job in the first argument's file; write the model, and what was found into the second one's."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_bytes())
    torch.set_num_threads(1)
    try:
        answer = tried(Path(job["code"]), parse(ModelConfig, job["config"]), job["seed"], Path(job["model"]))
    except TesseraError as error:
        answer = {"error": str(error)}
    Path(sys.argv[2]).write_text(json.dumps(answer))


def tried(code: Path, config: ModelConfig, seed: int, target: Path) -> dict[str, Any]:
    """Return what is to be said about a plan's code: layers, checks, and whether its model is the same twice."""
    model, record_loss = load_plan(code, config, seed=seed)
    again, _ = load_plan(code, config, seed=seed)
    data = to_bytes(model)
    target.write_bytes(data)
    checks = [("the seed alone decides the initial model", data == to_bytes(again))]
    try:
        check_model(model)
    except TesseraError as error:  # such a model may not even run on one record
        return {"layers": layers(model), "checks": checks, "problem": str(error), "outputs": ""}
    checks += check_independence(model, record_loss, made_up(config))
    if (code / STEP_FILE).is_file():
        try:
            check_rule(InThisProcess(folder=code), {"shared": sum(p.numel() for p in model.parameters())})
        except TesseraError as error:
            return {"layers": layers(model), "checks": checks, "problem": str(error), "outputs": ""}
        checks.append((RULE_HOLDS, True))
    return {"layers": layers(model), "checks": checks, "problem": "", "outputs": _outputs(model, config)}


def layers(model: nn.Module) -> list[dict[str, Any]]:
    """Return each layer with parameters of its own: its name, type, number of parameters, and why it is not covered."""
    found = []
    for name, layer in model.named_modules():
        size = sum(p.numel() for p in layer.parameters(recurse=False) if p.requires_grad)
        if size:
            rule = RULES.get(type(layer))
            reason = "no rule for this type of layer" if rule is None else rule.refusal(layer) or ""
            found.append({"name": name, "type": type(layer).__name__, "parameters": size, "reason": reason})
    return found


def made_up(config: ModelConfig) -> Mapping[str, Tensor]:
    """Return a few made-up records of a study's shape (:mod:`models.batch`)."""
    draw = torch.Generator().manual_seed(0)
    batch = {m: torch.randn(_RECORDS, config.features[m], generator=draw) for m in config.modalities}
    presence = torch.ones(_RECORDS, len(config.modalities))
    for place, modality in enumerate(config.modalities[1:], start=1):  # the first records lack one modality each
        presence[place % _RECORDS, place] = 0.0
        batch[modality][place % _RECORDS] = 0.0
    cohort = torch.arange(_RECORDS) % len(config.cohorts)
    return {**batch, "presence": presence, "cohort": cohort, "label": torch.arange(_RECORDS) % config.classes}


def _outputs(model: nn.Module, config: ModelConfig) -> str:
    """Return what is wrong with the shape of the outputs; they have to be cumulative logits."""
    with torch.no_grad():
        found = tuple(model(made_up(config)).shape)
    expected = (_RECORDS, config.classes - 1)
    return "" if found == expected else f"expected cumulative logits [records, {expected[1]}], got {list(found)}"


if __name__ == "__main__":
    main()
