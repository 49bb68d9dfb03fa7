"""A flood of sign-ins at the portal: who is too many is told so, and who is signed in reads and signs meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from datasites.portal.app import create_portal
from datasites.portal.people.admission import Admission

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
        assert over.wait(30)

    people.signing_in = Admission(threads=1, waiting=100, waiting_of_one=WAITING)
    waiting = [people.signing_in.submit("testclient", "nobody", hold)]
    assert busy.wait(10)
    waiting += [people.signing_in.submit("testclient", f"nobody-{index}", hold) for index in range(WAITING)]
    yield browser
    over.set()
    for future in waiting:
        future.result(10)


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
