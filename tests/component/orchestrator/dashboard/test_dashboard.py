"""The dashboard: who gets in, what it says of a study, that it follows by itself, and that everybody can read it."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
from dataclasses import replace

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from support.pilot_study import KEY, NAMES, checkpoint, proposal, status
from typer.testing import CliRunner

from datasites.language import speaking, tr
from datasites.language.remembered import retold
from datasites.node.home import Config, Home
from datasites.node.roster import Roster
from datasites.node.web.charts import Series, lines
from datasites.node.web.events import Streams
from datasites.study.proposal import Party
from datasites.study.signing import Signed, dump
from datasites.study.thread import SHOWN, STORED, Word
from orchestrator.cli.main import app as command_line
from orchestrator.dashboard.access import FILE, Visitors
from orchestrator.dashboard.app import MOUNT, create_dashboard
from orchestrator.dashboard.facts import study_now, traces
from orchestrator.rounds.board import WAITS
from orchestrator.rounds.service import Service
from orchestrator.rounds.store import Store
from privacy.canonical import sha256_hex
from privacy.errors import Refused
from privacy.identity import Identity
from privacy.ledger.journal import Journal

NOW = dt.datetime(2026, 3, 2, 12, tzinfo=dt.UTC)
HTML = {"accept": "text/html"}


def signed(kind, payload) -> Signed:
    return Signed(kind=kind, payload=payload, public_key=KEY, signature="x")


def put_study(store: Store, rounds: int, **changes) -> None:
    """Four hospitals after some rounds, the next one under way: alba's update is here, dora refuses."""
    study = proposal(**changes)
    store.add_study(study.study, signed("proposal", dump(study)))
    store.set_state(study.study, "running")
    known = status(study)
    for name in NAMES:
        store.put_document(study.study, 0, "approval", known["approvals"][name], author=name)
    for number in range(1, rounds + 1):
        put_round(store, study.study, number)
    store.put_document(study.study, rounds + 1, "key", {"payload": {}}, author="notary")
    store.put_document(study.study, rounds + 1, "update", {"payload": {"body_hash": "1" * 64}}, author="alba")
    refusal = {"payload": {"reason": "the approval was revoked"}}
    store.put_document(study.study, rounds + 1, "refusal", refusal, author="dora")


def put_round(store: Store, study: str, number: int) -> None:
    losses = {"loss.training.fused": 100.0 - 5 * number, "loss.training.mrna": 104.0 - 4 * number}
    releases = dict.fromkeys(checkpoint(number)["sites"], losses)
    scales = {"payload": {"scales": {"mrna": 1.0 + 0.1 * number}}}
    store.put_document(study, number, "plan", scales)
    store.put_document(study, number, "checkpoint", {**checkpoint(number), "releases": releases, "evaluation": None})


@pytest.fixture
def service(tmp_path):
    identity = Identity.generate()
    keyholder, *sites = (Party(name=n, institution=n, public_key=sha256_hex(n.encode())) for n in ("notary", *NAMES))
    orchestrator = Party(name="dr-lang", institution="University", public_key=identity.public_key)
    made = Service(
        identity=identity,
        roster=Roster(orchestrator=orchestrator, keyholder=keyholder, sites=tuple(sites)),
        store=Store(tmp_path / "store"),
        journal=Journal(tmp_path / "journal.sqlite", identity),
    )
    yield made
    made.journal.close()
    made.store.close()


@pytest.fixture
def dashboard(service, tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.dashboard.app._SECONDS", 0.0)
    app = FastAPI()  # without the orchestrator's own, which would run the studies
    pages, _ = create_dashboard(service, tmp_path, https=False)
    app.mount(MOUNT, pages)
    return app


@pytest.fixture
def link(tmp_path):
    def make() -> str:
        visitors = Visitors(tmp_path / FILE)
        token = visitors.new_link(now=dt.datetime.now(dt.UTC))
        visitors.close()
        return token

    return make


@pytest.fixture
def client(dashboard, link):
    made = TestClient(dashboard, headers=HTML)
    made.post("/dashboard/enter", data={"token": link()})
    return made


def test_a_link_opens_one_session_once_and_for_a_while(tmp_path):
    visitors = Visitors(tmp_path / FILE)
    token = visitors.new_link(now=NOW)
    with pytest.raises(Refused, match="dashboard-link"):
        visitors.enter(token, now=NOW + dt.timedelta(minutes=31))
    session = visitors.enter(token, now=NOW)
    with pytest.raises(Refused):
        visitors.enter(token, now=NOW)
    assert visitors.knows(session, now=NOW + dt.timedelta(hours=11))
    assert not visitors.knows(session, now=NOW + dt.timedelta(hours=12))
    assert not visitors.knows(token, now=NOW)
    visitors.leave(session)
    assert not visitors.knows(session, now=NOW)
    visitors.close()
    kept = (tmp_path / FILE).read_bytes()
    assert token.encode() not in kept and session.encode() not in kept
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("path", ["/", "/events", "/studies/pilot", "/studies/pilot/events", "/studies/pilot/report"])
def test_a_stranger_sees_nothing_of_any_study(dashboard, service, path):
    put_study(service.store, 2)
    stranger = TestClient(dashboard, headers=HTML)
    stranger.cookies.set(f"tessera-dashboard-{service.identity.public_key[:12]}", "guessed")
    answer = stranger.get(f"/dashboard{path}")
    assert answer.url.path == "/dashboard/enter"
    assert "pilot" not in answer.text
    assert stranger.get(f"/dashboard{path}", headers={"accept": "application/json"}).status_code == 401


def test_a_page_fetched_after_an_event_is_as_new_as_the_event(client, service, monkeypatch):
    put_study(service.store, 1)
    monkeypatch.setattr("orchestrator.dashboard.app._SECONDS", 3600.0)  # a page's facts are kept for an hour
    assert "Round 1 of" in client.get("/dashboard/studies/pilot").text
    put_round(service.store, "pilot", 2)
    assert "Round 2 of" in client.get("/dashboard/studies/pilot").text
    assert "Round 2 of" in client.get("/dashboard/").text


def test_what_changed_between_the_drawing_of_a_page_and_its_stream_is_told_at_once(client, service, monkeypatch):
    monkeypatch.setattr("datasites.node.web.events._POLL_SECONDS", 3600.0)  # only the first look can tell it
    put_study(service.store, 1)
    drawn = client.get("/dashboard/studies/pilot").text
    path = re.search(r'data-live="([^"]+)"', drawn).group(1)
    put_round(service.store, "pilot", 2)
    streams = Streams()
    told = asyncio.run(first_event(streams, path, lambda: traces(service.store).get("pilot")))
    assert told.startswith("event: changed")


async def first_event(streams: Streams, path: str, snapshot) -> str:
    """Open a stream with the mark that a page carried and return what it says first."""
    request = Request({"type": "http", "method": "GET", "path": path, "headers": []}, receive=asyncio.Event().wait)
    stream = streams.events(request, snapshot, seen=path.split("seen=")[1]).body_iterator
    assert (await anext(stream)).startswith("retry:")
    return await asyncio.wait_for(anext(stream), 30.0)


def test_looking_at_a_link_does_not_use_it_up(dashboard, link):
    token = link()
    client = TestClient(dashboard, headers=HTML)
    assert "Open the dashboard" in client.get(f"/dashboard/enter?token={token}").text
    answer = client.post("/dashboard/enter", data={"token": token}, follow_redirects=False)
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "path=/dashboard" in cookie
    assert client.get("/dashboard/").status_code == 200
    assert client.post("/dashboard/enter", data={"token": token}).status_code == 403
    client.post("/dashboard/leave")
    assert client.get("/dashboard/").url.path == "/dashboard/enter"


def test_over_https_the_cookie_is_for_https_alone(service, tmp_path, link):
    app, _ = create_dashboard(service, tmp_path, https=True)
    answer = TestClient(app).post("/enter", data={"token": link()}, follow_redirects=False)
    assert "secure" in answer.headers["set-cookie"].lower()


def test_a_study_says_who_approved_who_is_missing_and_what_it_cost(client, service):
    put_study(service.store, 4)
    text = client.get("/dashboard/studies/pilot").text
    assert "anna (steward)" in text and "Hospital Dora" in text
    assert "Round 5: 1 of 4 encrypted updates are here." in text
    assert "refused: the approval was revoked" in text and "update is here" in text
    assert text.count('role="img"') == 2  # losses and weights
    assert "<b>of cancer</b>" not in text
    assert "4 of 4 hospitals have approved. 1 update missed." in client.get("/dashboard/").text


WORDS = ("approved", "conditions", "denied", "revoked", "accepted", "paused", "cancelled", "ended", "finished")


@pytest.mark.parametrize("language", ["de", "fr"])
def test_the_thread_the_reason_and_what_is_waited_for_are_in_the_readers_language(
    client, service, monkeypatch, language
):
    put_study(service.store, 1)
    monkeypatch.setattr(
        service, "waiting", lambda _: "waiting since 2026-03-02 12:00:00 UTC for round 2: updates of dora"
    )
    at, who = "2026-03-02T12:00:00+00:00", {"study": "pilot", "proposal_hash": "1" * 64, "author": "alba"}
    words = tuple(
        Word(**who, at=at, kind=kind, person="anna", number=number, text="Zq") for number, kind in enumerate(WORDS, 1)
    )

    def with_words(*given):
        found = study_now(*given)
        reason = "alba revoked its approval: “Zq”"
        return replace(found, words=words, facts=replace(found.facts, reason=reason))

    monkeypatch.setattr("orchestrator.dashboard.app.study_now", with_words)
    page = client.get("/dashboard/studies/pilot", headers={"accept-language": language}).text
    assert re.search(r"alba (hat die Genehmigung widerrufen: „Zq“|a révoqué son approbation\s?: «\sZq\s»)", page)
    assert re.search(r"(seit|depuis)( le)? 2026-03-02 12:00:00", page) and "dora" in page
    english = [SHOWN[kind] for kind in WORDS] + ["waiting since", "updates of", "02 Mar 2026"]
    shown = re.sub(r"<[^>]*>", " ", page)
    assert "T12:00" not in shown
    assert [text for text in english if text in shown] == []


@pytest.mark.parametrize("language", ["de", "fr"])
def test_whatever_a_study_waits_for_is_said_in_another_language(language):
    gaps = {"since": "s", "names": "alba, dora", "number": "7", "who": "alba", "site": "dora"}
    with speaking(language):
        for stored in STORED:
            text = stored.format_map({"who": "Anna", "words": "Zq", "site": "dora"})
            assert retold(text) != text and "Zq" in retold(text), text
        for what in WAITS[1:]:
            text = WAITS[0].format_map(gaps | {"what": what.format_map(gaps | {"what": "its key"})})
            assert "wait" not in retold(text).replace("gewartet", "") and what.format_map(
                gaps | {"what": "its key"}
            ) not in retold(text)


def test_the_figures_are_those_of_the_mechanism_and_the_rounds(service):
    put_study(service.store, 4)
    found = study_now(service.store, "pilot", "dr-lang")
    mechanism = proposal().mechanism
    alba, dora = found.sites[0], found.sites[3]
    assert (alba.epsilon_now, dora.epsilon_now) == (mechanism.epsilon(rounds=4), mechanism.epsilon(rounds=3))
    assert alba.epsilon_study == mechanism.epsilon()
    losses = found.charts[0].series
    assert [s.name for s in losses] == ["fused", "mrna"]
    assert losses[0].points[0] == (1, pytest.approx(95.0 * 4 / (150 + 160 + 170 + 180)))
    assert found.dropouts == 1
    with pytest.raises(Refused):
        study_now(service.store, "pilot", "somebody-else")


def test_a_lost_sum_is_charged_and_is_nobodys_dropout(service):
    put_study(service.store, 0)
    lost = {**checkpoint(1), "sites": [], "weights": {}, "releases": {}, "uplink_bytes": 0, "lost": "an unsafe slot"}
    service.store.put_document("pilot", 1, "checkpoint", lost)
    found = study_now(service.store, "pilot", "dr-lang")
    assert found.lost == {1: "an unsafe slot"} and found.dropouts == 0
    assert found.sites[0].epsilon_now == proposal().mechanism.epsilon(rounds=1)


def test_blending_and_proximity_weights_are_drawn_over_time(service):
    training = replace(proposal().training, aggregation="dgb+pcw")
    put_study(service.store, 3, training=training)
    said = {n: {"proximity.cosine": 0.3 if n != "dora" else -0.4} for n in NAMES}
    service.store.put_document("pilot", 4, "checkpoint", {**checkpoint(4), "releases": said, "evaluation": None})
    charts = {c.title: c for c in study_now(service.store, "pilot", "dr-lang").charts}
    assert charts["Proximity of the hospitals"].series[-1].points == ((3, -0.4),)
    assert charts["Blending weights"].series[0].points == ((1, 1.1), (2, 1.2), (3, pytest.approx(1.3)))
    weights = charts["Weights of the hospitals: mrna"]
    assert weights.note.startswith("Proximity weights")
    assert [s.last for s in weights.series] == pytest.approx([1.0, 0.9, 0.8, 0.7])


def test_a_chart_stays_inside_its_frame_and_names_its_newest_values():
    chart = lines([Series(name="<a>", points=((1, 0.0), (2, 7.3)))], title="t", unit="u")
    assert "&lt;a&gt; 7.3" in chart.picture and "<a>" not in chart.picture
    places = chart.picture.split('points="')[1].split('"')[0].split()
    assert all(12 <= float(p.split(",")[1]) <= 196 for p in places)


def test_the_report_of_this_moment_is_one_click_away(client, service):
    put_study(service.store, 2)
    answer = client.get("/dashboard/studies/pilot/report")
    assert answer.status_code == 200 and "Study report: pilot" in answer.text
    assert "script-src" not in answer.headers["content-security-policy"]


def test_an_unknown_study_is_said_on_a_page(client):
    answer = client.get("/dashboard/studies/nothing")
    assert answer.status_code == 400 and "no study of this name" in answer.text


def test_the_command_prints_a_link_that_works(tmp_path, dashboard):
    home = Home.create(tmp_path, Config(name="o", institution="O", role="orchestrator", orchestrator_url=""))
    runner = CliRunner()
    arguments = ["orchestrator", "dashboard-link", "--home", str(home.folder)]
    assert "running orchestrator" in str(runner.invoke(command_line, arguments).exception)
    (tmp_path / "address.json").write_text(json.dumps({"url": "http://127.0.0.1:1"}))
    printed = runner.invoke(command_line, arguments).stdout.strip()
    address, token = printed.split("?token=")
    assert address == "http://127.0.0.1:1/dashboard/enter"
    client = TestClient(dashboard, headers=HTML)
    assert client.post("/dashboard/enter", data={"token": token}).url.path == "/dashboard/"


@pytest.mark.browser
@pytest.mark.parametrize(
    ("width", "scheme", "language"), [(1280, "light", "en"), (360, "light", "de"), (1280, "dark", "fr")]
)
def test_in_a_browser_rounds_go_by_and_axe_finds_no_violation(
    browser, axe, shoot, serve_app, dashboard, service, link, width, scheme, language
):
    def at(number: int) -> str:
        with speaking(language):
            return tr("Round {done} of {planned}.", done=number, planned=6)

    put_study(service.store, 5, training=replace(proposal().training, aggregation="dgb+pcw"))
    address = serve_app(dashboard)
    size = {"width": width, "height": 900}
    page = browser.new_context(viewport=size, color_scheme=scheme, locale=language, bypass_csp=True).new_page()
    page.goto(f"{address}/dashboard/enter")
    found = {"how to enter": axe(page)}
    page.goto(f"{address}/dashboard/enter?token={link()}")
    found["enter"] = axe(page)
    page.locator("main form button").click()
    page.get_by_role("link", name="pilot").wait_for()
    assert page.locator("html").get_attribute("lang") == language
    found["studies"] = axe(page)
    shoot(page, f"dashboard-studies-{width}-{scheme}")
    page.get_by_role("link", name="pilot").click()
    page.get_by_text(at(5)).wait_for()
    put_round(service.store, "pilot", 6)
    page.get_by_text(at(6)).wait_for()  # told by the server, without a reload
    found["study"] = axe(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shoot(page, f"dashboard-study-{width}-{scheme}")
    assert {path: names for path, names in found.items() if names} == {}
