"""Who is away names a delegate in the portal; the inbox says for each person what needs them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from support.review_desk import PASSWORD

from datasites.node.notices.absences import Absences
from datasites.node.notices.settings import FILE
from datasites.portal.app import create_portal

PEOPLE = """
[smtp]
host = "127.0.0.1"
sender = "tessera@alba.example"
[[people]]
name = "anna"
email = "anna@alba.example"
[[people]]
name = "bela"
email = "bela@alba.example"
"""


@pytest.fixture
def absences(tmp_path):
    (tmp_path / FILE).write_text(PEOPLE)
    made = Absences(tmp_path)
    yield made
    made.close()


@pytest.fixture
def portal(desk, new_context, absences):
    context = replace(new_context(desk), absences=absences)
    with TestClient(create_portal(context), headers={"accept": "text/html"}) as client:
        yield client


def sign_in(portal, name: str = "anna") -> str:
    page = portal.post("/login", data={"name": name, "password": PASSWORD}).text
    return re.search(r'name="csrf" value="([^"]+)"', page).group(1)


def test_a_delegate_is_named_shown_journaled_and_taken_back(portal, desk, absences):
    csrf = sign_in(portal)
    assert "/away" in portal.get("/inbox").text
    page = portal.post("/away", data={"csrf": csrf, "until": "2026-03-20", "delegate": "bela"}).text
    assert "Noted. Your delegate gets your notices" in page
    assert "You are away until 2026-03-20; bela gets your notices." in page
    assert "anna until 2026-03-20; bela stands in." in page
    (said,) = desk.journal.entries(kind="absence-said")
    assert said.body == {"name": "anna", "until": "2026-03-20", "delegate": "bela"}
    portal.post("/away/end", data={"csrf": csrf})
    assert absences.all() == ()
    assert "Nobody." in portal.get("/away").text
    assert len(list(desk.journal.entries(kind="absence-ended"))) == 1


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"until": "2026-02-01", "delegate": "bela"}, "from 2026-03-01 on"),
        ({"until": "2026-03-20", "delegate": "otto"}, "a delegate out of bela"),
        ({"until": "tomorrow", "delegate": "bela"}, "a day such as"),
    ],
    ids=["past", "no-mail", "no-day"],
)
def test_a_mistake_is_said_and_nothing_is_noted(portal, desk, absences, form, message):
    answer = portal.post("/away", data={"csrf": sign_in(portal), **form})
    assert answer.status_code in (400, 422)
    assert message in answer.text
    assert absences.all() == ()


def test_nobody_is_away_for_somebody_else_or_without_the_sessions_token(portal, absences):
    csrf = sign_in(portal)
    assert portal.post("/away", data={"csrf": "x", "until": "2026-03-20", "delegate": "bela"}).status_code == 403
    portal.post("/logout", data={"csrf": csrf})
    other = sign_in(portal, "bela")
    portal.post("/away", data={"csrf": other, "name": "anna", "until": "2026-03-20", "delegate": "anna"})
    assert [absence.name for absence in absences.all()] == ["bela"]
    portal.post("/logout", data={"csrf": other})
    sign_in(portal, "otto")
    assert "You get no notices by mail" in portal.get("/away").text


def test_the_inbox_says_what_needs_this_person(new_desk, new_context, new_proposal):
    desk = new_desk("[review]\nrequired_reviewers = 2\n")
    hashed = desk.submit(new_proposal())
    with TestClient(create_portal(new_context(desk)), headers={"accept": "text/html"}) as portal:
        for name, before, after in (("anna", True, False), ("bela", True, True), ("otto", False, False)):
            csrf = sign_in(portal, name)
            assert ("1 request needs you." in portal.get("/inbox").text) is before
            if name == "anna":
                desk.approve(hashed, "anna")
            assert ("1 request needs you." in portal.get("/inbox").text) is after
            portal.post("/logout", data={"csrf": csrf})
