"""The request page holds the whole conversation: conditions, questions, answers and endings, each with its words."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from support.review_desk import NOW, PASSWORD, identity

from datasites.portal.app import create_portal
from datasites.study.signing import seal
from datasites.study.thread import WORD, Word


@pytest.fixture
def portal(desk, new_context):
    with TestClient(create_portal(new_context(desk)), headers={"accept": "text/html"}) as client:
        yield client


@pytest.fixture
def csrf(portal):
    answer = portal.post("/login", data={"name": "anna", "password": PASSWORD})
    return re.search(r'name="csrf" value="([^"]+)"', answer.text).group(1)


def said(proposal, kind: str, text: str, number: int = 1, **changes: str) -> Word:
    fields = {
        "study": proposal.study,
        "proposal_hash": proposal.proposal_hash,
        "author": "dr-lang",
        "number": number,
        "kind": kind,
        "person": "Dr. Lang",
        "text": text,
        "at": NOW.isoformat(),
    }
    return Word(**(fields | changes))


def hear(desk, proposal, word: Word, place: int, signer: str = "orchestrator") -> None:
    desk.store.thread.hear(proposal.proposal_hash, seal(identity(signer), WORD, word), place, now=NOW)


def test_a_conditional_approval_is_shown_signed_and_waits_for_the_scientist(portal, csrf, desk, new_proposal):
    proposal = new_proposal()
    hashed = desk.submit(proposal)
    form = {"csrf": csrf, "password": PASSWORD, "conditions": "Name us as a co-author.\r\n<b>No sale.</b>"}
    page = portal.post(f"/requests/{hashed}/approve", data=form).text
    assert "approved with conditions" in page
    assert "anna: Name us as a co-author.<br>&lt;b&gt;No sale.&lt;/b&gt;" in page
    assert "cannot run here before the scientist has accepted" in page
    own = desk.store.request(hashed).words[0]
    word = said(proposal, "accepted", "Agreed.", to="alba", answers=own.word_hash)
    hear(desk, proposal, word, 2)
    page = portal.get(f"/requests/{hashed}").text
    assert "accepts the conditions" in page
    assert "Agreed." in page
    assert "cannot run here before" not in page
    assert portal.get(f"/api/requests/{hashed}").json()["words"][0]["kind"] == "conditions"


def test_an_answer_puts_a_request_back_into_the_inbox(portal, csrf, desk, new_proposal):
    proposal = new_proposal()
    hashed = desk.submit(proposal)
    portal.post(f"/requests/{hashed}/ask", data={"csrf": csrf, "reason": "Which tumours?"})
    assert desk.store.request(hashed).state == "changes-requested"
    hear(desk, proposal, said(proposal, "answered", "Lung only.", to="alba"), 2)
    page = portal.get(f"/requests/{hashed}").text
    assert page.index("Which tumours?") < page.index("Lung only.")
    assert desk.store.request(hashed).state == "pending"


def test_a_request_that_was_ended_elsewhere_says_why_and_cannot_be_decided(portal, csrf, desk, new_proposal):
    proposal = new_proposal()
    hashed = desk.submit(proposal)
    denial = said(proposal, "denied", "Not with our patients.", author="bruna", person="Dr. Moretti")
    hear(desk, proposal, denial, 1, signer="bruna")
    page = portal.get(f"/requests/{hashed}").text
    assert '<span class="tag bad">ended</span>' in page
    assert "Not with our patients." in page
    answer = portal.post(f"/requests/{hashed}/approve", data={"csrf": csrf, "password": PASSWORD})
    assert answer.status_code == 403
    assert "ended already" in answer.text
    assert "/dry-run" not in page
    assert "this request is over" in portal.post(f"/requests/{hashed}/dry-run", data={"csrf": csrf}).text


def test_a_new_version_is_compared_with_the_one_it_replaces(portal, csrf, desk, new_proposal):
    first = new_proposal()
    desk.submit(first)
    second = replace(
        first,
        study="lung-staging-2",
        replaces=first.proposal_hash,
        rounds=4,
        nonce="7" * 32,
        purpose="Stage lung cancer.",
    )
    second = replace(second, mechanism=replace(second.mechanism, rounds=4))
    page = portal.get(f"/requests/{desk.submit(second)}").text
    table = page[page.index('aria-label="Changed parameters"') :]
    names = re.findall(r'<th scope="row"><code>([^<]+)</code>', table[: table.index("</table>")])
    assert sorted(names) == ["mechanism.rounds", "purpose", "rounds"]
