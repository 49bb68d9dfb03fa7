"""A scientist's own network and loss: read from a folder, tried on this side first, and sent as a code tree.

``plan.py`` at the root of the folder defines ``build_model(config, *, seed)`` and ``record_loss(model, batch)``; other
files may lie beside it. Hospitals review the tree, run it on mock data, and only then on records, in their sandbox.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasites.node.files import write_atomically
from datasites.node.warm import start_module
from datasites.review.findings import Finding, find
from datasites.strategy.own_step import PLAN_FILE, RULE_PLAN, STEP_FILE
from datasites.study.signing import parse
from datasites.syft.client import ScientistNode, read_tree
from datasites.syft.runner import PROPOSAL_FILE
from models.config import ModelConfig
from orchestrator.studies.proposing.brought import Brought
from orchestrator.studies.proposing.propose import model_config_of
from orchestrator.studies.proposing.settings import Offer, StudySettings
from privacy.errors import InvalidInput, Refused

_SECONDS = 600
_RULE_BYTES = 1 << 20
_TAIL = 300


@dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """One layer with parameters of its own; ``reason`` says why it is not clipped per record, empty where it is."""

    name: str
    type: str
    parameters: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What came out when own code was tried here on made-up records; ``problem`` is empty where all is well.

    ``model`` is the initial model (safetensors), ``findings`` are those that reviewers see beside the code.
    """

    model: bytes
    layers: tuple[LayerFacts, ...]
    checks: tuple[tuple[str, bool], ...]
    findings: tuple[Finding, ...]
    problem: str

    @property
    def parameters(self) -> int:
        """How many parameters are trained, and leave a hospital encrypted in each round."""
        return sum(layer.parameters for layer in self.layers)


def read_plan(folder: Path) -> dict[str, bytes]:
    """Return the files of a plan's folder.

    Raises:
        InvalidInput: no such folder, neither ``plan.py`` nor ``server_step.py``, a reserved name, a link, or too
            many or too large files.
    """
    rule_alone = (folder / STEP_FILE).is_file() and not (folder / PLAN_FILE).exists()
    if not (folder / PLAN_FILE).is_file() and not rule_alone:
        raise InvalidInput(
            f"expected {PLAN_FILE} in {folder}, with build_model(config, *, seed) and record_loss(model, batch), or "
            f"{STEP_FILE} with server_step()"
        )
    files = with_rule({}, read_tree(folder)) if rule_alone else read_tree(folder)
    if PROPOSAL_FILE in files:
        raise InvalidInput(f"{PROPOSAL_FILE} is written when the study is proposed; take it out of the folder")
    return files


def rule_file(path: Path) -> dict[str, bytes]:
    """Return a server's rule from a file, under the name that it has in a code tree.

    Raises:
        InvalidInput: no such file, or it is longer than a rule may be.
    """
    if not path.is_file() or path.stat().st_size > _RULE_BYTES:
        raise InvalidInput(f"expected a Python file with server_step(), of at most {_RULE_BYTES} bytes, at {path}")
    return {STEP_FILE: path.read_bytes()}


def with_rule(network: Mapping[str, bytes], rule: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the code tree of a network (no files: Tessera's) and a server's rule (no files: Tessera's).

    Raises:
        InvalidInput: both have a rule.
    """
    if set(network) & set(rule):
        raise InvalidInput(f"the folder of the network has a {STEP_FILE} already; give the rule once")
    return {**(network or ({PLAN_FILE: RULE_PLAN.encode()} if rule else {})), **rule}


def try_plan(files: Mapping[str, bytes], config: ModelConfig, *, seed: int = 0) -> Tried:
    """Build the initial model and have a hospital's checks, in a process of its own, on made-up records.

    Args:
        files: of the tree.
        config: modalities, cohorts and classes of the study.
        seed: of the initial model; public.

    Raises:
        InvalidInput: the code cannot be run; the message has its last line.
    """
    with tempfile.TemporaryDirectory() as scratch:
        tree, model = Path(scratch) / "code", Path(scratch) / "model.safetensors"
        for name, data in files.items():
            write_atomically(tree / name, data)
        job = {"code": str(tree), "config": asdict(config), "seed": seed, "model": str(model)}
        found = _answer(job, scratch)
        problem = found["problem"] or found["outputs"] or _first_broken(found["checks"])
        return Tried(
            model=model.read_bytes(),
            layers=tuple(parse(LayerFacts, layer) for layer in found["layers"]),
            checks=tuple((str(what), bool(held)) for what, held in found["checks"]),
            findings=find(tree, sorted(files)),
            problem=problem,
        )


def initial_of(files: Mapping[str, bytes], settings: StudySettings, offers: Sequence[Offer]) -> bytes | None:
    """Return the initial model of own code over what hospitals offer, once it has passed here; None for Tessera's.

    Raises:
        InvalidInput: the code cannot be run.
        Refused: a hospital's checks would refuse it; the message says why.
    """
    tried = try_plan(files, model_config_of(settings, offers), seed=settings.seed or 0)
    if tried.problem:
        raise Refused(f"hospitals would refuse this plan, so it was not sent: {tried.problem}")
    return tried.model if Brought(tree=files).network else None


def build_with(files: Mapping[str, bytes]) -> Any:
    """Return what :func:`orchestrator.studies.run.propose` takes as ``built``."""

    def built(settings: StudySettings, offers: Sequence[Offer], _: ScientistNode) -> bytes | None:
        return initial_of(files, settings, offers)

    return built


def _answer(job: Mapping[str, Any], scratch: str) -> dict[str, Any]:
    task, answer = Path(scratch) / "job.json", Path(scratch) / "answer.json"
    task.write_text(json.dumps(job))
    with (Path(scratch) / "said").open("w+b") as said:
        trying = "orchestrator.studies.proposing.trying"
        child = start_module(trying, [str(task), str(answer)], folder=scratch, output=said.fileno())
        try:
            code = child.wait(_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise InvalidInput(f"the plan's code ran longer than {_SECONDS} s on six made-up records") from error
        finally:
            child.kill()  # nothing where it has ended
            child.wait()
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    if code:
        last = lines[-1][:_TAIL] if lines else "no message"
        raise InvalidInput(f"the plan's code failed on made-up records: {last}")
    found: dict[str, Any] = json.loads(answer.read_bytes())
    if "error" in found:
        raise InvalidInput(f"the plan cannot be run: {found['error']}")
    return found


def _first_broken(checks: Sequence[Sequence[Any]]) -> str:
    broken = [str(what) for what, held in checks if not held]
    return f"this does not hold: {broken[0]}" if broken else ""
