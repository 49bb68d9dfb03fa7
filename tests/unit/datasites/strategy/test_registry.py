"""A strategy is looked up by its name, an unknown one is refused, and a new one takes one file: the recipe runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import datasites.strategy
from datasites.data.federations import build
from datasites.data.synthetic import SyntheticShape, generate
from datasites.strategy import registry
from datasites.strategy.blending import Blending
from datasites.strategy.local_noise import LocalNoise
from datasites.strategy.registry import Strategy, register_noise_mode, register_server_step, register_strategy
from datasites.strategy.server_steps import MeanStep
from datasites.study.proposal import Block, Proposal
from datasites.study.recomputed.checks import check_scales, check_weights
from datasites.study.recomputed.next_model import ServerOptimizer, model_from_bytes, model_to_bytes
from datasites.study.signing import dump, parse
from orchestrator.simulation.engine import Shard, run_study
from orchestrator.simulation.sites import patients, simulated_study
from orchestrator.studies.proposing.settings import StudySettings
from privacy.errors import InvalidInput, Refused

torch.set_num_threads(1)
RECIPE = Path(__file__).parents[4] / "docs" / "adding-a-strategy.md"
SHAPE = SyntheticShape(patients={"BRCA": 60, "LUSC": 50, "LIHC": 50}, genes=12, image_features=8, signal=0.6)
SETTINGS = StudySettings(
    study="toy", purpose="p", legal_basis="l", task="early-late", rounds=3, epsilon=8.0, seed=11, min_sites=3
)


@pytest.fixture
def own_rules() -> Iterator[None]:
    """Forget at the end what a test registered."""
    known = (registry.STRATEGIES, registry.SERVER_STEPS, registry.NOISE_MODES)
    before = [dict(names) for names in known]
    yield
    for names, kept in zip(known, before, strict=True):
        names.clear()
        names.update(kept)


@pytest.fixture(scope="module")
def tables():
    return generate(seed=1, shape=SHAPE)


def run(tables, **changes):
    federation = build("tri-modal", tables, task="early-late", seed=5, sites=5)
    everyone = patients(tables, "early-late", federation.cohorts)
    study = simulated_study(everyone, federation, replace(SETTINGS, **changes))
    rounds = list(run_study(study.proposal, study.model, Shard(study.proposal, study.sites)))
    for done in rounds:  # as every site checks them
        check_weights(study.proposal, done.plan)
        check_scales(study.proposal, done.plan)
    return study.proposal, rounds


def test_the_recipe_of_the_documentation_is_one_file_and_runs_a_study(tables, own_rules, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", RECIPE.read_text(), re.S)
    (tmp_path / "root_yogi.py").write_text(code)
    monkeypatch.setattr(datasites.strategy, "__path__", [*datasites.strategy.__path__, str(tmp_path)])
    registry.load_rules()
    del sys.modules["datasites.strategy.root_yogi"]  # a second run loads it again
    proposal, rounds = run(tables, aggregation="root-yogi")
    assert (proposal.training.server_optimizer, proposal.training.server_learning_rate) == ("yogi", 0.01)
    counts = {p.name: p.dataset.patients for p in proposal.participants}
    weights = rounds[-1].plan.weights["shared"]
    largest = max(counts[site] for site in weights)
    assert weights == pytest.approx({s: (counts[s] / largest) ** 0.5 for s in weights}, abs=1e-5)
    _, plain = run(tables)
    assert rounds[-1].model != plain[-1].model
    assert rounds[-1].plan.weights != plain[-1].plan.weights
    again = parse(Proposal, dump(proposal))
    assert again == proposal and again.proposal_hash == proposal.proposal_hash


def test_what_a_step_keeps_of_each_block_survives_a_checkpoint(own_rules, new_proposal):
    class Counting(MeanStep):
        name = "counting"

        def step(self, model, mean_update, state):
            state["rounds"] = state.get("rounds", np.zeros(1, np.float32)) + 1
            return model + state["rounds"][0] * mean_update

    register_server_step(Counting)
    blocks = [Block(name=n, modality=None, length=2, parameters=(n,)) for n in ("a", "a.b")]
    training = replace(new_proposal().training, server_optimizer="counting")
    model = {n: np.zeros(2, np.float32) for n in ("a", "a.b")}
    first, update = ServerOptimizer(training), {n: np.ones(2, np.float32) for n in ("a", "a.b")}
    model = first.step(model, blocks, update)
    moments = model_from_bytes(model_to_bytes(first.moments))
    after = ServerOptimizer(training, moments=moments).step(model, blocks, update)
    assert sorted(moments) == ["a.b.rounds", "a.rounds"]
    assert all(values.tolist() == [3.0, 3.0] for values in after.values())


def test_a_toy_blending_rule_scales_the_modalities_it_names(tables, own_rules):
    class HalfImage(Blending):
        def scales(self, state, modalities):
            return {m: 0.5 if m == "image" else 1.0 for m in modalities}

    register_strategy(Strategy(name="half-image", blending=HalfImage()))
    proposal, rounds = run(tables, aggregation="half-image")
    assert {b: s for b, s in rounds[0].plan.scales.items() if s != 1.0} == {"image": 0.5}
    with pytest.raises(Refused, match="does not blend"):
        check_scales(replace(proposal, training=replace(proposal.training, aggregation="fedavg")), rounds[0].plan)


def test_a_toy_noise_mode_decides_weights_and_words_and_is_charged_as_it_says(tables, own_rules):
    class EqualLocal(LocalNoise):
        name = "equal"

        def weights(self, raw, *, min_sites):
            return dict.fromkeys(raw, 1.0)

        def check_weights(self, weights):
            if set(weights.values()) != {1.0}:
                raise Refused("expected equal weights")

        def honest_sites(self, mechanism):
            return 2

    register_noise_mode(EqualLocal())
    proposal, rounds = run(tables, noise="equal")
    assert proposal.noise_mode.honest_sites(proposal.mechanism) == 2
    assert (proposal.noise, proposal.mechanism.noise) == ("equal", "local")
    assert all(set(weights.values()) == {1.0} for weights in rounds[-1].plan.weights.values())
    unequal = replace(rounds[-1].plan, weights={b: {**w, min(w): 0.9} for b, w in rounds[-1].plan.weights.items()})
    with pytest.raises(Refused, match="equal weights"):
        check_weights(proposal, unequal)


def test_an_unknown_name_is_refused_with_the_names_there_are(new_proposal):
    made = new_proposal()
    for change, message in (
        ({"noise": "loud"}, "expected noise out of local, shared, got 'loud'"),
        ({"training": {**dump(made.training), "aggregation": "magic"}}, "out of fedavg, fedprox, fedadam, dgb, pcw,"),
        (
            {"training": {**dump(made.training), "server_optimizer": "lion"}},
            "out of sgd, adam, momentum, yogi-server, adagrad, own, got",
        ),
    ):
        with pytest.raises(InvalidInput, match=re.escape(message)):
            parse(Proposal, {**dump(made), **change})
    with pytest.raises(InvalidInput, match="expected an aggregation out of"):
        replace(made.training, aggregation="magic")
    with pytest.raises(InvalidInput, match="expected noise out of"):
        replace(made, noise="loud")


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(InvalidInput, match="taken"):
        register_strategy(Strategy(name="fedavg"))
    with pytest.raises(InvalidInput, match="taken"):
        register_server_step(MeanStep)
    with pytest.raises(InvalidInput, match="taken"):
        register_noise_mode(LocalNoise())


def test_only_source_files_are_loaded_as_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    for name in ("__init__.py", "rule.py", "hidden.pyc", "native.so"):
        (tmp_path / name).touch()
    monkeypatch.setattr(datasites.strategy, "__path__", [str(tmp_path)])
    monkeypatch.setattr(registry, "import_module", loaded.append)
    registry.load_rules()
    assert loaded == ["datasites.strategy", "datasites.strategy.rule"]


def test_no_room_asks_a_noise_mode_for_its_name():
    """What differs between noise modes stands in their classes, and what is charged in ``privacy.dp``."""
    asks = re.compile(r"\bnoise (==|!=|in) [\"'(]")
    root = Path(datasites.__file__).parents[1]
    files = [p for room in ("datasites", "orchestrator", "tessera") for p in (root / room).rglob("*.py")]
    assert len(files) > 300
    assert not [str(path) for path in files if asks.search(path.read_text())]
