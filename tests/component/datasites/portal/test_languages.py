"""The portal speaks the reader's language: the browser's, or the one a link chose."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient
from support.review_desk import PASSWORD

from datasites.node.web.languages import COOKIE
from datasites.portal.app import create_portal

HTML = {"accept": "text/html"}


@pytest.fixture
def portal(new_desk, new_context) -> TestClient:
    return TestClient(create_portal(new_context(new_desk())), headers=HTML, base_url="https://portal")


def sign_in(portal: TestClient) -> None:
    portal.post("/login", data={"name": "anna", "password": PASSWORD})


@pytest.mark.parametrize(
    ("accepted", "language", "said"),
    [
        ("de-CH, fr;q=0.8", "de", "Anmelden"),
        ("fr", "fr", "Se connecter"),
        ("ja, en;q=0.5", "en", "Sign in"),
        ("", "en", "Sign in"),
        (";;q=x, de", "de", "Anmelden"),
    ],
)
def test_a_page_is_in_the_language_that_the_browser_asks_for(portal, accepted, language, said) -> None:
    page = portal.get("/login", headers={"accept-language": accepted}).text
    assert f'<html lang="{language}">' in page and said in page


def test_the_link_stays_and_leads_back(portal) -> None:
    sign_in(portal)
    page = portal.get("/journal?q=a%20b")
    assert 'href="/language?to=de&amp;back=%2Fjournal%3Fq%3Da%2520b"' in page.text
    answer = portal.get("/language?to=de&back=%2Fjournal%3Fq%3Da", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/journal?q=a")
    assert "Max-Age=31536000" in answer.headers["set-cookie"] and "SameSite=lax" in answer.headers["set-cookie"]
    for path, said in (("/inbox", "Eingang"), ("/reports", "Berichte"), ("/people", "Personen")):
        assert f"<h1>{said}</h1>" in portal.get(path, headers={"accept-language": "fr"}).text
    del portal.cookies[COOKIE]
    portal.cookies.set(COOKIE, "xx")
    assert '<html lang="fr">' in portal.get("/login", headers={"accept-language": "fr"}).text


@pytest.mark.parametrize(
    "back", ["//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "/a\r\nb", ""]
)
def test_the_link_leads_nowhere_else(portal, back) -> None:
    answer = portal.get("/language", params={"to": "fr", "back": back}, follow_redirects=False)
    assert answer.headers["location"] == "/"


def test_an_unknown_language_changes_nothing(portal) -> None:
    answer = portal.get("/language?to=tlh&back=/login", follow_redirects=False)
    assert answer.headers["location"] == "/login" and "set-cookie" not in answer.headers


def test_a_refused_form_answers_in_the_readers_language(portal) -> None:
    page = portal.post("/login", data={"name": "anna", "password": "wrong"}, headers={"accept-language": "de"}).text
    assert '<html lang="de">' in page and "Nicht ausgeführt:" in page
