"""A flood of sign-ins at the portal: who is too many is told so, and who is signed in reads and signs meanwhile."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from datasites.portal.app import create_portal
from datasites.portal.people.admission import Admission
from datasites.review.people.attempts import Standing

T = TypeVar("T")
PASSWORD = "correct horse battery staple"
WAITING = 4


@pytest.fixture
def flooded(desk, new_context) -> Iterator[TestClient]:
    """Yield a steward's browser at a portal where as many strangers wait as may."""
    app: FastAPI = create_portal(new_context(desk))
    people = app.state.service.people
    browser = TestClient(app, raise_server_exceptions=False, follow_redirects=False)
    session = browser.post("/api/login", json={"name": "anna", "password": PASSWORD}).json()
    browser.headers["x-csrf-token"] = session["csrf"]
    over, busy = threading.Event(), threading.Event()

    def hold() -> None:
        busy.set()
        assert over.wait(300)

    people.signing_in = Admission(threads=1, waiting=100, waiting_of_one=WAITING)
    waiting = [people.signing_in.submit("testclient", "nobody", hold)]
    assert busy.wait(120)
    waiting += [people.signing_in.submit("testclient", f"nobody-{index}", hold) for index in range(WAITING)]
    yield browser
    over.set()
    for future in waiting:
        future.result(120)


def test_one_sign_in_too_many_is_told_when_to_come_back(flooded: TestClient) -> None:
    answer = flooded.post("/api/login", json={"name": "otto", "password": PASSWORD})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 429


def test_a_form_of_one_too_many_is_answered_by_a_page(flooded: TestClient) -> None:
    stranger = TestClient(flooded.app, raise_server_exceptions=False, follow_redirects=False)
    answer = stranger.post("/login", data={"name": "otto", "password": PASSWORD}, headers={"accept": "text/html"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
    assert "too many people sign in at this moment" in answer.text


def test_who_is_signed_in_reads_and_signs_during_a_flood(flooded: TestClient, desk, new_proposal) -> None:
    hashed = desk.submit(new_proposal())
    assert flooded.get("/inbox", headers={"accept": "text/html"}).status_code == 200
    answer = flooded.post(f"/api/requests/{hashed}/approve", json={"password": PASSWORD})
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] in ("approved", "waiting", "received", "open"), answer.text


class Noted(Admission):
    """Notes with what standing each caller waits."""

    def __init__(self) -> None:
        super().__init__(threads=1, waiting=100, waiting_of_one=100)
        self.standings: list[Standing] = []

    def submit(self, address: str, name: str, work: Callable[[], T], *, standing: Standing = "new") -> Future[T]:
        self.standings.append(standing)
        return super().submit(address, name, work, standing=standing)


@pytest.fixture
def noted(desk, new_context) -> tuple[FastAPI, Noted]:
    app: FastAPI = create_portal(new_context(desk))
    app.state.service.people.signing_in = Noted()
    return app, app.state.service.people.signing_in


def signs_in(app: FastAPI, password: str = PASSWORD, *, name: str = "anna", address: str = "192.0.2.1") -> int:
    """Sign in with a browser that nobody knows."""
    stranger = TestClient(app, raise_server_exceptions=False, client=(address, 50000))
    return int(stranger.post("/api/login", json={"name": name, "password": password}).status_code)


def test_a_name_waits_with_what_is_known_of_it_at_its_address(noted: tuple[FastAPI, Noted]) -> None:
    app, admission = noted
    assert [signs_in(app, "a wrong sentence"), signs_in(app), signs_in(app)] == [403, 200, 200]
    assert [signs_in(app, address="192.0.2.2"), signs_in(app, name="nobody"), signs_in(app, name="nobody")][0] == 200
    assert admission.standings == ["new", "failed", "known", "new", "new", "failed"]


def test_who_uses_a_one_time_link_is_known_from_then_on(noted: tuple[FastAPI, Noted], desk, now) -> None:
    app, admission = noted
    newcomer = TestClient(app, client=("192.0.2.1", 50000))
    account = {"name": "carla", "password": PASSWORD}
    assert newcomer.post("/api/register", json={"token": "made up", **account}).status_code == 403
    token = desk.accounts.invite("steward", now=now)
    assert newcomer.post("/api/register", json={"token": token, **account}).status_code == 201
    assert signs_in(app, name="carla") == 200
    assert admission.standings == ["new", "known", "known"]


def test_to_be_known_at_an_address_allows_no_more_attempts(noted: tuple[FastAPI, Noted]) -> None:
    app, _ = noted
    signs_in(app)
    assert {signs_in(app, f"a wrong sentence {index}") for index in range(6)} == {403}
    assert signs_in(app) == 403
    assert signs_in(app, address="192.0.2.2") == 200


def test_the_addresses_of_one_customer_share_their_attempts(noted: tuple[FastAPI, Noted]) -> None:
    app, _ = noted
    for index in range(6):
        signs_in(app, "a wrong sentence", address=f"2001:db8:1:2::{index}")
    assert signs_in(app, address="2001:db8:1:2::9") == 403
    assert signs_in(app, address="2001:db8:1:3::9") == 200


def test_a_changed_password_forgets_where_somebody_was_known(noted: tuple[FastAPI, Noted], desk, now) -> None:
    app, admission = noted
    signs_in(app)
    desk.accounts.sessions.end_others("anna")
    signs_in(app)
    desk.accounts.sessions.remember_place("bela", "192.0.2.1", now=now - dt.timedelta(days=181))
    signs_in(app, name="bela")
    assert admission.standings == ["new", "new", "new"]
