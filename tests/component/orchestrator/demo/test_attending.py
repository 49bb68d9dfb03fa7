"""Beside a composed consortium: people read what to do next, and a made-up steward does it where that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.review_desk import NOW, make_context, make_desk, make_proposal
from support.web_server import serving
from typer.testing import CliRunner

from datasites.node.home import Config, Home
from datasites.portal.app import create_portal
from orchestrator.cli.main import app
from orchestrator.demo import attending
from orchestrator.demo.attending import dashboard_link, follow, guide, play_steward, portals_of
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


def test_people_read_where_to_go_and_what_happens_then() -> None:
    portals = portals_of("hospital-a=http://127.0.0.1:8101, hospital-b=http://127.0.0.1:8102,")
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


@pytest.mark.parametrize("state", ["denied", "failed", "expired"])
def test_a_study_that_never_goes_on_ends_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.setattr(attending, "client_of", Answers(status(state, "a reason")))
    home = Home.create(tmp_path, Config(name="o", institution="O", role="orchestrator", orchestrator_url=""))
    with pytest.raises(TesseraError, match="a reason"):
        follow(home, "pilot", Quiet(), sleep=lambda _: None)
