"""What people typed is there again when their session had ended or the portal said no, and no password of theirs."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from support.forms import Form, forms_of
from support.full_portal import FullPortal
from support.review_desk import NOW, PASSWORD

from datasites.portal import away, forms, hospital_login, jobs, owner_pages, people_forms
from datasites.portal.app import create_portal
from datasites.portal.people.drafts import TYPED, Draft, Drafts, page_of

OURS = {"sec-fetch-site": "same-origin"}


class Site(FullPortal):
    """A portal and one browser."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.client = TestClient(create_portal(self.context), headers={"accept": "text/html"})

    def sign_in(self, name: str = "anna") -> None:
        self.client.cookies.clear()
        assert self.client.post("/login", data={"name": name, "password": PASSWORD}).status_code == 200

    def forms(self) -> list[tuple[str, Form]]:
        """Return the forms of every page that somebody types into."""
        found = [(path, form) for path in self.pages for form in forms_of(self.client.get(path).text)]
        return [(path, form) for path, form in found if form.method == "post" and form.filled()]

    def send(self, form: Form, *, headers: dict[str, str] = OURS, **changes: str) -> Response:
        data = {**form.hidden, **form.filled(), "password": PASSWORD, "new": "another " + PASSWORD, **changes}
        return self.client.post(form.action, data=data, headers=headers)

    def again(self, page: Response, *, password: str = PASSWORD, headers: dict[str, str] = OURS) -> Response:
        """Sign in on the page that asks for it, with what it took along."""
        login = next(form for form in forms_of(page.text) if form.action == "/login")
        data = {**login.hidden, "name": "anna", "password": password}
        return self.client.post("/login", data=data, headers=headers)


@pytest.fixture
def site(tmp_path: Path):
    made = Site(tmp_path)
    made.sign_in()
    yield made
    made.close()


def same(page: str, form: Form) -> Form:
    return next(one for one in forms_of(page) if one.place == form.place)


def test_every_form_is_as_it_was_typed_after_the_session_had_ended(site: Site) -> None:
    found = site.forms()
    assert {form.action.split("/")[-1] for _, form in found} >= {
        "approve", "ask", "deny", "revoke", "confirm", "decline", "cap", "release", "close", "policy", "continue",
        "people", "keys", "name", "away",
    }  # fmt: skip
    assert {name for _, form in found for name in form.filled()} == TYPED
    for path, form in found:
        site.client.cookies.clear()
        kinds = site.desk.kinds()
        asked = site.send(form)
        assert asked.status_code == 401 and "Your session had ended" in asked.text, form
        assert PASSWORD not in asked.text and form.hidden["csrf"] not in asked.text
        wrong = site.again(asked, password="wrong")
        assert wrong.status_code == 403
        page = site.again(wrong)
        assert (page.status_code, page.url.path) == (200, path), form
        assert same(page.text, form).typed == {**form.typed, **form.filled()}, form
        assert "It was not sent." in page.text and PASSWORD not in page.text
        assert set(site.desk.kinds()[len(kinds) :]) <= {"sign-in-failed", "signed-in"}


def test_the_words_wait_on_their_page_until_a_form_is_sent(site: Site) -> None:
    deny = next(form for _, form in site.forms() if form.action.endswith("/deny"))
    site.client.cookies.clear()
    page = site.again(site.send(deny))
    assert "It was not sent." in site.client.get(page.url.path).text
    assert "It was not sent." not in site.client.get("/budget").text
    now = same(page.text, deny)
    assert "Denied. The scientist" in site.client.post(now.action, data={**now.hidden, **now.typed}).text
    assert "It was not sent." not in site.client.get(page.url.path).text


@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}, {}],
    ids=["site", "origin", "silent"],
)
def test_another_site_puts_no_words_into_our_forms(site: Site, headers: dict[str, str]) -> None:
    deny = next(form for _, form in site.forms() if form.action.endswith("/deny"))
    site.client.cookies.clear()
    page = site.send(deny, headers=headers)
    assert (page.status_code == 403 or page.url.path == "/login") and "«" not in page.text
    kept = site.send(deny)
    assert "«" not in site.again(kept, headers=headers).text


def test_what_the_portal_refuses_stays_in_the_form(site: Site) -> None:
    for form in (one for _, one in site.forms() if one.action.split("/")[1] in ("requests", "jobs", "away", "acts")):
        if form.action.endswith("approve"):
            page = site.send(form, password="wrong")
            assert same(page.text, form).typed == {**form.typed, **form.filled()}
        stale = site.send(form, csrf="of an earlier session")
        assert stale.status_code == 403 and "Back to the form" in stale.text
        back = re.search(r'href="([^"]+)">Back to the form', stale.text).group(1)
        assert same(site.client.get(back).text, form).typed == {**form.typed, **form.filled()}, form


def test_the_words_of_one_person_are_shown_to_nobody_else(site: Site) -> None:
    deny = next(form for _, form in site.forms() if form.action.endswith("/deny"))
    site.send(deny, csrf="of an earlier session")
    site.sign_in("bela")
    assert "«" not in site.client.get(f"/requests/{site.proposal}").text


def test_every_form_leads_to_a_page(site: Site) -> None:
    rooms = (forms.router, away.router, owner_pages.router, people_forms.router, hospital_login.router, jobs.pages)
    paths = [route.path for room in rooms for route in room.routes if "POST" in route.methods]
    values = {"proposal_hash": site.proposal, "key": "0" * 16, "job_id": "0" * 16, "decision": "deny", "kind": "cap"}
    values["answer"] = "confirm"
    assert len(paths) > 20
    for path in (path.format_map(values) for path in paths):
        assert site.client.get(page_of(path)).status_code in (200, 422), path


def test_drafts_end_and_are_few() -> None:
    drafts, draft = Drafts(), Draft(action="/away", fields={"until": "2026-03-20"})
    drafts.keep("first", draft, now=NOW)
    assert drafts.on("first", "/away", now=NOW) == draft
    assert not drafts.on("first", "/away", now=NOW + dt.timedelta(minutes=15)).typed
    for number in range(500):
        drafts.keep(str(number), draft, now=NOW)
    assert not drafts.on("first", "/away", now=NOW).typed and drafts.on("499", "/away", now=NOW).typed
    drafts.keep("499", Draft(action="/away", fields={"until": " "}), now=NOW)
    assert drafts.on("499", "/away", now=NOW) == draft
