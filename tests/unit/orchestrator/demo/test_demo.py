"""The demo stays with people who approve by hand, whatever they decide; roles that start slowly say where they are."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from orchestrator.demo import demo
from orchestrator.demo.processes import Processes
from orchestrator.demo.settings import DemoSettings
from orchestrator.demo.view import DemoView, reading_guide
from privacy.errors import InvalidInput, TesseraError

PROPOSAL = {"proposal": {"payload": {"participants": []}}}


class Told:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def step(self, text: str) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)

    def rounds(self, done: int, total: int, text: str) -> None: ...


def running(monkeypatch: pytest.MonkeyPatch, *states: str, **settings: Any) -> tuple[Any, Told]:
    """Return a demo whose study goes through these states, one a look."""
    monkeypatch.setattr(demo, "_POLL_SECONDS", 0.0)
    left, told = list(states), Told()

    def status(_: str) -> dict[str, Any]:
        return {"study": "s", "state": left.pop(0), "reason": "a revoked it: “No.”", "rounds_completed": 1}

    client = SimpleNamespace(get_json=status)
    client.get_changed = lambda path, tag, **_: (client.get_json(path), tag)
    made = demo._Demo(
        settings=DemoSettings(**settings),
        progress=told,
        prepared=SimpleNamespace(),  # type: ignore[arg-type]
        homes=SimpleNamespace(orchestrator=SimpleNamespace(folder=Path("o"))),  # type: ignore[arg-type]
        stewards=[],
        processes=SimpleNamespace(check=lambda: None),  # type: ignore[arg-type]
        client=client,  # type: ignore[arg-type]
    )
    return made, told


def test_min_sites_colluders_and_evaluation_are_those_of_a_proposed_study() -> None:
    asked = demo._study(DemoSettings(noise="shared", min_sites=5, colluders=2, evaluation_share=0.25), "early-late")
    assert (asked.min_sites, asked.colluders, asked.evaluation_share) == (5, 2, 0.25)
    usual = demo._study(DemoSettings(), "early-late")
    assert (usual.min_sites, usual.colluders, usual.evaluation_share) == (None, 1, 1.0)
    assert demo._study(DemoSettings(rounds=1), "early-late").evaluation_share == 0.0


def test_conditions_of_a_hospital_are_said_once_with_the_command_that_accepts_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, told = running(monkeypatch, "waiting", "waiting", "waiting", "running", "finished", manual_all=True)
    waits = iter(
        [
            "waiting since now UTC for approval by b",
            *["waiting since now UTC for the scientist to accept the conditions of a, b (tessera study answer)"] * 2,
            "",
            "",
        ]
    )
    plain = made.client.get_json
    made.client.get_json = lambda path: {**plain(path), "waiting": next(waits), "approvals": {}, **PROPOSAL}
    made._wait(3)
    assert [line for line in told.notes if "conditions" in line] == [
        "approved under conditions, which the dashboard shows: a, b; accept them with:",
        "tessera study answer cancer-staging --site a --accept-conditions --home o",
        "tessera study answer cancer-staging --site b --accept-conditions --home o",
    ]


@pytest.mark.parametrize("epsilon", [101.0, 1e6])
def test_an_epsilon_that_no_study_may_have_is_refused_before_anything_starts(tmp_path: Path, epsilon: float) -> None:
    with pytest.raises(InvalidInput, match="take at most 100"):
        demo._check(DemoSettings(epsilon=epsilon, out=tmp_path))


@pytest.mark.parametrize("settings", [{"manual": True}, {"manual_all": True}], ids=lambda s: next(iter(s)))
@pytest.mark.parametrize("state", ["denied", "revoked", "expired", "withdrawn", "cancelled"])
def test_a_study_that_people_end_by_hand_does_not_end_the_demo(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, bool], state: str
) -> None:
    made, _ = running(monkeypatch, "running", state, **settings)
    found = made._wait(3)
    shown = demo._ended(found, out=Path("x"), seconds=1.0)
    console = Console(file=io.StringIO(), width=200)
    DemoView(console).summary(shown)
    assert f"The study is {state} after 1 rounds: a revoked it: “No.”" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "a  http://a/budget" in "\n".join(reading_guide({"a": "http://a"}, ended=True))


def test_a_pause_is_said_once_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made, told = running(monkeypatch, "running", "paused", "paused", "running", "finished", manual=True)
    assert made._wait(3)["state"] == "finished"
    assert len(told.notes) == 2
    assert "the study is paused" in told.notes[0]
    assert "tessera study resume" in told.notes[1]


@pytest.mark.parametrize("state", ["denied", "revoked", "paused", "failed"])
def test_without_people_every_other_end_is_a_failure(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    made, _ = running(monkeypatch, "running", state)
    with pytest.raises(TesseraError, match=f"the study is {state}: a revoked it"):
        made._wait(3)


def test_a_role_that_is_late_is_named_with_what_it_said_last(tmp_path: Path) -> None:
    processes = Processes(logs=tmp_path)
    (tmp_path / "hospital-a.log").write_text("starting\nreading tables\n")
    with pytest.raises(TesseraError, match=r"not ready after 0 s: hospital-a, b.*--start-seconds.*is: reading tables"):
        processes.wait_until_ready([tmp_path / "hospital-a", tmp_path / "b"], 0.0)


def test_a_log_is_never_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        subprocess, "Popen", lambda *_, **__: SimpleNamespace(poll=lambda: 0, wait=lambda _: 0, stdin=None)
    )
    with Processes(logs=tmp_path) as processes:
        processes.start("a", ["datasite", "run"])
    assert "starting: tessera datasite run" in (tmp_path / "a.log").read_text()
