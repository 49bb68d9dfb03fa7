"""Beside a composed consortium: people read what to do next, and a made-up steward does it where that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.review_desk import NOW, make_context, make_desk, make_proposal
from support.web_server import serving
from typer.testing import CliRunner

from datasites.node.consortium import Consortium
from datasites.node.home import Config, Home
from datasites.portal.app import create_portal
from orchestrator.cli.main import app
from orchestrator.demo import attending
from orchestrator.demo.attending import dashboard_link, follow, guide, play_steward, portals_of
from orchestrator.rounds.checkpoints import NEXT_ROUND
from privacy.errors import TesseraError


class Quiet:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, text: str) -> None:
        pass

    def rounds(self, done: int, total: int, text: str) -> None:
        pass


def test_people_read_where_to_go_and_what_happens_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hospitals = {"participants": [{"name": f"hospital-{letter}"} for letter in "ab"]}
    monkeypatch.setattr(attending, "client_of", Answers({"proposal": {"payload": hospitals}}))
    home = Home.create(tmp_path, Config(name="o", institution="O", role="orchestrator", orchestrator_url=""))
    told = "hospital-a=http://127.0.0.1:8101, hospital-b=http://127.0.0.1:8102, hospital-c=http://127.0.0.1:8103,"
    portals = portals_of(home, "pilot", told)
    assert list(portals) == ["hospital-a", "hospital-b"]  # the third takes no part in this study
    text = "\n".join(guide("pilot", portals, "https://127.0.0.1:8100/dashboard/enter?token=x", Path("/results")))
    for words in (
        "http://127.0.0.1:8102",
        "docker compose logs hospital-b",
        "starts by itself",
        "/dashboard/enter?token=x",
    ):
        assert words in text


def test_the_link_to_the_dashboard_leads_where_people_reach_it(tmp_path: Path) -> None:
    config = Config(name="o", institution="O", role="orchestrator", orchestrator_url="")
    home = Home.create(tmp_path, config)
    (tmp_path / "address.json").write_text('{"url": "https://orchestrator:8443", "listens": "https://127.0.0.1:8443"}')
    link = dashboard_link(home, "https://127.0.0.1:8100")
    assert link.startswith("https://127.0.0.1:8100/dashboard/enter?token=")
    assert dashboard_link(home, "").startswith("https://orchestrator:8443/dashboard/enter?token=")


def test_a_made_up_steward_makes_an_account_and_approves_what_waits_once(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    config = Config(name="alba", institution="Hospital Alba", role="datasite", orchestrator_url="")
    home = Home.create(folder, config)

    desk = make_desk(folder)
    digests = [desk.submit(make_proposal(nonce=digit * 32)) for digit in "67"]
    looks = iter(range(5))
    with serving(create_portal(make_context(desk, NOW, tmp_path)), config) as (host, port):
        play_steward(home, f"http://{host}:{port}", over=lambda: next(looks) == 4, sleep=lambda _: None)
    assert [desk.store.request(digest).state for digest in digests] == ["approved", "approved"]
    assert desk.accounts.account("demo-steward").role == "steward"
    desk.close()


def test_a_steward_waits_for_a_portal_that_is_started_again(tmp_path: Path) -> None:
    home = Home.create(tmp_path, Config(name="alba", institution="A", role="datasite", orchestrator_url=""))
    looks = iter(range(4))
    play_steward(home, "http://127.0.0.1:9", over=lambda: next(looks) == 3, sleep=lambda _: None)


def test_nobody_approves_unread_without_saying_that_it_is_a_demonstration(tmp_path: Path) -> None:
    Home.create(tmp_path, Config(name="alba", institution="A", role="datasite", orchestrator_url=""))
    done = CliRunner().invoke(app, ["play-steward", "--home", str(tmp_path), "--portal", "http://127.0.0.1:9"])
    assert done.exit_code != 0 and "--demonstration" in str(done.exception)
    assert "play-steward" not in CliRunner().invoke(app, ["--help"]).output


class Answers:
    """In place of the orchestrator's client: one answer after another."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def __call__(self, *_: object, **__: object) -> Answers:
        return self

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def get_json(self, _: str) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def get_changed(self, path: str, _: str = "", **__: object) -> tuple[Any, str]:
        return self.get_json(path), ""


def status(state: str, reason: str = "", done: int = 0) -> dict[str, Any]:
    return {"state": state, "reason": reason, "rounds_completed": done, "rounds": 2}


def test_a_study_is_followed_through_restarts_and_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = (status("waiting"), TesseraError("no answer"), status("paused", "a disk"), status("finished", done=2))
    monkeypatch.setattr(attending, "client_of", Answers(*steps))
    seen = Quiet()
    home = Home.create(tmp_path, Config(name="o", institution="O", role="orchestrator", orchestrator_url=""))
    assert follow(home, "pilot", seen, sleep=lambda _: None)["rounds_completed"] == 2
    assert seen.notes == [
        "pilot is waiting",
        "pilot is out of reach: no answer",
        "pilot is paused: a disk",
        "pilot is finished",
    ]


COMPOSE = Path(__file__).parents[4] / "compose.yaml"


@pytest.mark.parametrize("profile", ["three", "paper"])
def test_compose_says_where_the_portal_of_every_hospital_is(profile: str) -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    told = dict(entry.strip().split("=") for entry in services["study"]["environment"]["TESSERA_PORTALS"].split(","))
    for hospital in Consortium.load(COMPOSE.parent / "docker" / f"{profile}.toml").hospitals:
        assert told[hospital.name] == services[hospital.name]["environment"]["TESSERA_PUBLIC_URL"]


def test_a_start_of_everybody_in_the_middle_of_rounds_costs_two_of_them_and_nobodys_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third round that is lost so, and every other pause, waits for people."""
    lost = [status("paused", f"round {n}: a, b cannot send an update; {NEXT_ROUND}", done=n) for n in (2, 3, 4)]
    other = status("paused", "round 4: the keyholder refused: its reason", done=4)
    monkeypatch.setattr(attending, "client_of", Answers(*lost, lost[2], other, status("finished", done=4)))
    outcomes = iter([TesseraError("no answer"), {}, {}])
    resumed = []

    def resume(_: Home, study: str) -> Any:
        resumed.append(study)
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(attending, "resume", resume)
    home = Home.create(tmp_path, Config(name="o", institution="O", role="orchestrator", orchestrator_url=""))
    seen = Quiet()
    follow(home, "pilot", seen, sleep=lambda _: None)
    assert resumed == ["pilot"] * 3 and seen.notes.count("pilot goes on with the next round") == 2
    assert "pilot could not be resumed: no answer" in seen.notes


@pytest.mark.parametrize("state", ["denied", "failed", "expired"])
def test_a_study_that_never_goes_on_ends_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.setattr(attending, "client_of", Answers(status(state, "a reason")))
    home = Home.create(tmp_path, Config(name="o", institution="O", role="orchestrator", orchestrator_url=""))
    with pytest.raises(TesseraError, match="a reason"):
        follow(home, "pilot", Quiet(), sleep=lambda _: None)
