"""Two tabs of one person show one request: what is done in one is heeded by the other, whose form is stale then."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from support.forms import Form, forms_of
from support.review_desk import NOW, PASSWORD, make_context, make_desk, make_proposal

from datasites.portal.app import create_portal
from datasites.review import checks
from datasites.review.policy import Policy
from datasites.study.proposal import Proposal

WORDS = {
    "approve": {"conditions": "Only lung tumours, please.", "password": PASSWORD},
    "ask": {"reason": "Which tumours are meant?"},
    "deny": {"reason": "The consent forms do not cover this."},
    "revoke": {"reason": "The ethics vote was withdrawn."},
}
APPROVED = "this request is approved already, so nothing was changed; to stop it, revoke it"
DENIED = "this request is denied already, so nothing was changed; the scientist may propose a new version"
REVOKED = "this request is revoked already, so nothing was changed; the scientist may propose a new version"


class Tabs:
    """One person's browser at a portal with one request; each tab is the forms of the page as it was opened."""

    def __init__(self, folder: Path) -> None:
        self.desk = make_desk(folder, Policy())
        app = create_portal(make_context(self.desk, NOW, folder))
        headers = {"accept": "text/html", "origin": "http://testserver"}
        self.browser = TestClient(app, headers=headers, raise_server_exceptions=False)
        self.sign_in()
        self.proposal: Proposal = make_proposal()
        self.path = f"/requests/{self.desk.submit(self.proposal)}"

    def sign_in(self) -> None:
        assert self.browser.post("/login", data={"name": "anna", "password": PASSWORD}).status_code == 200

    def opened(self) -> dict[str, Form]:
        """Open the request in a new tab; return its forms by act."""
        return {form.action.rpartition("/")[2]: form for form in forms_of(self.browser.get(self.path).text)}

    def sends(self, form: Form, **words: str) -> Response:
        return self.browser.post(form.action, data={**form.hidden, **WORDS[form.action.rpartition("/")[2]], **words})

    @property
    def decisions(self) -> list[str]:
        return [d.kind for d in self.desk.store.request(self.proposal.proposal_hash).decisions]


@pytest.fixture
def tabs(tmp_path: Path) -> Iterator[Tabs]:
    made = Tabs(tmp_path)
    yield made
    made.desk.close()


def said(answer: Response) -> str:
    """Return the text of a page in one line."""
    return " ".join(html.unescape(answer.text).split())


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("approve", "approve", APPROVED),
        ("approve", "ask", APPROVED),
        ("approve", "deny", APPROVED),
        ("deny", "approve", DENIED),
        ("deny", "ask", DENIED),
        ("deny", "deny", DENIED),
    ],
)
def test_what_was_decided_in_one_tab_stands_and_the_other_says_so(
    tabs: Tabs, first: str, second: str, told: str
) -> None:
    one, other = tabs.opened(), tabs.opened()
    assert tabs.sends(one[first]).url.path == tabs.path
    decided = tabs.decisions
    late = tabs.sends(other[second])
    assert (late.status_code, late.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert told in said(late)
    assert tabs.decisions == decided
    now = {form.action.rpartition("/")[2] for form in forms_of(late.text)}
    assert ("revoke" in now) is (first == "approve")  # the page shows how things are
    assert not {"approve", "ask", "deny"} & now


def test_a_question_of_one_tab_is_answered_by_a_decision_of_the_other(tabs: Tabs) -> None:
    one, other = tabs.opened(), tabs.opened()
    tabs.sends(one["ask"])
    tabs.sends(other["ask"])
    tabs.sends(other["ask"], reason="And which years?")
    tabs.sends(one["deny"])
    assert tabs.decisions == ["changes-requested", "changes-requested", "denied"]


def test_a_revocation_of_one_tab_is_for_good_in_the_other(tabs: Tabs) -> None:
    tabs.sends(tabs.opened()["approve"])
    one, other = tabs.opened(), tabs.opened()
    tabs.sends(one["revoke"])
    late = tabs.sends(other["revoke"], reason="Something else.")
    assert REVOKED in said(late)
    assert tabs.decisions == ["signed", "approved", "revoked"]


def test_a_form_from_before_the_person_signed_in_again_is_not_done_and_keeps_its_words(tabs: Tabs) -> None:
    old = tabs.opened()
    tabs.browser.post("/logout", data=old["logout"].hidden)
    tabs.sign_in()
    late = tabs.sends(old["deny"])
    assert (late.status_code, tabs.decisions) == (403, [])
    assert "this form has expired" in said(late) and f'href="{tabs.path}"' in late.text
    assert WORDS["deny"]["reason"] in said(tabs.browser.get(tabs.path))
    tabs.sends(tabs.opened()["deny"])
    assert tabs.decisions == ["denied"]


def test_a_decision_of_another_tab_while_the_key_is_unlocked_keeps_the_request_from_being_approved(
    tabs: Tabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    signs = checks.sign_review
    forms = tabs.opened()

    def sign_late(*arguments: object) -> object:
        tabs.sends(forms["deny"])
        return signs(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checks, "sign_review", sign_late)
    late = tabs.sends(forms["approve"])
    assert DENIED in said(late)
    assert tabs.decisions == ["denied"]
    assert tabs.desk.store.request(tabs.proposal.proposal_hash).state == "denied"
