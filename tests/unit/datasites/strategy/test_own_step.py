"""A server's rule of one's own: what it may give and keep, and that it runs anew in every round."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasites.strategy.own_step import (
    MOST_KEPT,
    InThisProcess,
    OwnStep,
    check_rule,
    input_bytes,
    load_rule,
    output_bytes,
    read_input,
    read_output,
    stepped,
)
from datasites.strategy.server_steps import ServerStep, YogiStep
from privacy.errors import InvalidInput, Refused

MODEL = {"mrna": np.arange(3, dtype=np.float32), "a/b": np.ones(2, np.float32)}
UPDATE = {"mrna": np.full(3, 2, np.float32), "a/b": np.array([1, -1], np.float32)}
HEAD = """import numpy as np
import tessera


class Rule(tessera.ServerStep):
    def step(self, model, mean_update, state):
"""
TAIL = "\n\n\ndef server_step():\n    return Rule()\n"


def rule(folder: Path, *lines: str) -> InThisProcess:
    """A code tree whose rule's body are these lines."""
    (folder / "server_step.py").write_text(HEAD + "\n".join(f"        {line}" for line in lines) + TAIL)
    return InThisProcess(folder=folder)


def test_a_rule_gets_each_block_and_keeps_what_it_writes_into_state(tmp_path):
    run = rule(tmp_path, "state['n'] = state.get('n', np.zeros(1)) + 1", "return model + state['n'] * mean_update")
    first = run(MODEL, UPDATE, {})
    second = run(first.models, UPDATE, first.states)
    assert np.array_equal(second.models["mrna"], MODEL["mrna"] + 3 * UPDATE["mrna"])
    assert second.states["a/b"]["n"] == [2.0] and MODEL["mrna"][0] == 0


def test_a_rule_that_is_written_out_gives_what_the_shipped_one_gives(tmp_path):
    class Same(YogiStep):
        pass

    (tmp_path / "server_step.py").write_text(
        "from datasites.strategy.server_steps import YogiStep\n\n\ndef server_step():\n    return YogiStep(rate=0.05)\n"
    )
    own, shipped = InThisProcess(folder=tmp_path), Same(rate=0.05)
    states = {}
    for _ in range(3):
        ours, theirs = own(MODEL, UPDATE, states), stepped(shipped, MODEL, UPDATE, states)
        assert output_bytes(ours) == output_bytes(theirs)
        states = ours.states


def test_what_a_rule_keeps_in_itself_is_gone_in_the_next_round(tmp_path):
    run = rule(tmp_path, "SEEN.append(1)", "return model + len(SEEN)")
    path = tmp_path / "server_step.py"
    path.write_text("SEEN = []\n" + path.read_text())
    assert output_bytes(run(MODEL, UPDATE, {})) == output_bytes(run(MODEL, UPDATE, {}))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["return model[:-1]"], "values for block"),
        (["return model * np.nan"], "not finite"),
        (["return 'model'"], "expected numbers"),
        (["state['x.y'] = model", "return model"], "plain names"),
        (["state['x'] = np.ones(len(model) + 1)", "return model"], "as many as the block"),
        (["state['x'] = model / 0", "return model"], "not finite"),
        ([f"state.update({{f'x{{i}}': model for i in range({MOST_KEPT + 1})}})", "return model"], "may keep"),
    ],
    ids=["short", "nan", "text", "name", "large", "infinite", "many"],
)
def test_what_is_no_model_is_refused(tmp_path, lines, message):
    with np.errstate(all="ignore"), pytest.raises(InvalidInput, match=message):
        rule(tmp_path, *lines)(MODEL, UPDATE, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "define server_step"),
        ("def server_step():\n    return 3\n", "got a int"),
        ("from datasites.strategy.own_step import OwnStep as server_step\n", "got a OwnStep"),
    ],
    ids=["nothing", "number", "placeholder"],
)
def test_a_file_without_a_rule_is_refused(tmp_path, text, message):
    (tmp_path / "server_step.py").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        load_rule(tmp_path)
    with pytest.raises(InvalidInput, match=r"a file server_step\.py"):
        load_rule(tmp_path / "nowhere")


def test_a_rule_that_draws_is_found_before_anybody_is_asked(tmp_path):
    check_rule(rule(tmp_path, "return model + mean_update"), {"shared": 5})
    with pytest.raises(InvalidInput, match="another model for the same numbers"):
        check_rule(rule(tmp_path, "return model + np.random.default_rng().standard_normal(len(model))"), {"shared": 5})


def test_numbers_travel_to_a_sandbox_and_back(tmp_path):
    states = {"a/b": {"first": np.ones(2, np.float32)}}
    models, updates, kept = read_input(input_bytes(MODEL, UPDATE, states))
    assert models.keys() == MODEL.keys() and np.array_equal(updates["a/b"], UPDATE["a/b"])
    assert np.array_equal(kept["a/b"]["first"], [1, 1])
    step = stepped(YogiStep(), MODEL, UPDATE, {})
    path = tmp_path / "result"
    path.write_bytes(output_bytes(step))
    assert output_bytes(read_output(path, MODEL)) == output_bytes(step)
    for bad in (b"no safetensors", output_bytes(step) + bytes(1 << 20), output_bytes(replace(step, models={}))):
        path.write_bytes(bad)
        with pytest.raises(InvalidInput):
            read_output(path, MODEL)


def test_the_placeholder_never_steps():
    assert issubclass(OwnStep, ServerStep)
    with pytest.raises(Refused, match="expected its code tree"):
        OwnStep().step(MODEL["mrna"], UPDATE["mrna"], {})
