"""Every form sent twice at one moment, again after "back", and from two tabs: all answered, each act done once."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from support.forms import Form, forms_of
from support.full_portal import FullPortal
from support.review_desk import PASSWORD

from datasites.portal.app import create_portal

_ONCE = {
    "proposal-approved", "proposal-revoked", "proposal-signed", "proposal-denied", "proposal-changes-requested",
    "plain-job-decided", "account-closed", "account-confirmed", "budget-act-asked", "people-act-dropped",
}  # fmt: skip
"""Kinds of entries that one act writes, and a second click must not write again."""


class Site(FullPortal):
    """A portal and one browser of a steward."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        app = create_portal(self.context)
        self.client = TestClient(app, headers={"accept": "text/html"}, raise_server_exceptions=False)
        assert self.client.post("/login", data={"name": "anna", "password": PASSWORD}).status_code == 200

    def forms(self) -> list[tuple[str, Form]]:
        """Return every form of every page that changes something, but for signing out."""
        found = [(path, form) for path in self.pages for form in forms_of(self.client.get(path).text)]
        unique = {(form.action, str(form.hidden)): (path, form) for path, form in found if form.method == "post"}
        return [(path, form) for path, form in unique.values() if form.action != "/logout"]

    def send(self, form: Form) -> Response:
        data = {**form.hidden, **form.filled(), "password": PASSWORD, "new": f"another {PASSWORD}"}
        return self.client.post(form.action, data=data)


def test_the_same_question_name_and_absence_are_noted_once(site: Site) -> None:
    found = [form for _, form in site.forms() if form.action.endswith(("/ask", "/people/name", "/away"))]
    assert len(found) == 3
    before = Counter(site.desk.kinds())
    for form in (*found, *found):
        assert site.send(form).status_code == 200
    done = Counter(site.desk.kinds()) - before
    assert done == {"proposal-changes-requested": 1, "account-renamed": 1, "absence-said": 1}


@pytest.fixture
def site(tmp_path: Path):
    made = Site(tmp_path)
    yield made
    made.close()


def places(site: Site) -> list[tuple[str, str]]:
    return [form.place for _, form in site.forms()]


@pytest.mark.thorough
def test_every_form_sent_twice_at_once_and_again_is_answered_and_done_once(tmp_path: Path) -> None:
    probe = Site(tmp_path / "probe")
    wanted = [place for place in places(probe) if not place[0].startswith("/acts/")]  # keys of their own everywhere
    probe.close()
    assert len(wanted) > 20
    for number, place in enumerate(wanted):
        site = Site(tmp_path / str(number))
        form = next(one for _, one in site.forms() if one.place == place)
        before = Counter(site.desk.kinds())
        with ThreadPoolExecutor(2) as clicks:
            answers = list(clicks.map(site.send, [form, form]))
        answers.append(site.send(form))  # the back button, and the same form once more
        assert len(answers) == 3, place
        assert all(a.status_code < 500 and a.headers["content-type"].startswith("text/html") for a in answers), place
        assert all("Traceback" not in a.text for a in answers), place
        done = Counter(site.desk.kinds()) - before
        assert {kind: count for kind, count in done.items() if kind in _ONCE and count > 1} == {}, (place, done)
        assert site.client.get("/inbox").status_code == 200
        site.desk.journal.verify()
        site.close()
