"""Full name and function of a person stand in everything they sign, and in reports; old documents stay as they were."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from support.report_story import told_story
from support.review_desk import identity

from datasites import report as reporting
from datasites.portal.app import create_portal
from datasites.review import checks
from datasites.study.messages import Approval, ReviewerSignature
from datasites.study.signing import dump, parse, seal
from datasites.study.thread import WORD, Word, open_word
from privacy.errors import InvalidInput, Refused

PASSWORD = "correct horse battery staple"
HTML = {"accept": "text/html"}
NAMES = {
    "latin": ("Dr. Zoë Müller-Šťastná", "Datenschutzbeauftragte"),
    "japanese": ("山田 太郎", "倫理委員会 委員長"),
    "arabic": ("د. ليلى الحسن", "مسؤولة حماية البيانات"),
    "persian": ("دکتر مهدی‌زاده", "رئیس بخش"),  # with a zero-width non-joiner, which this name is written with
    "hindi": ("डॉ. प्रिया क्षत्रिय", "नैतिकता समिति"),
}


@pytest.fixture(params=NAMES)
def named(request, desk):
    """The desk, with anna under a full name and a function in one script."""
    full_name, function = NAMES[request.param]
    desk.accounts.rename("anna", full_name=full_name, function=function)
    return desk, full_name, function


def test_a_signature_covers_full_name_and_function(named, new_proposal) -> None:
    desk, full_name, function = named
    proposal = new_proposal()
    hashed = desk.submit(proposal)
    desk.approve(hashed)
    signature = desk.store.request(hashed).signatures[0]
    assert (signature.full_name, signature.function) == (full_name, function)
    checks.check_signature(hashed, proposal.study, "alba", signature)
    for forged in (replace(signature, full_name="Bela"), replace(signature, function=""), replace(signature, role="x")):
        with pytest.raises(Refused, match="does not hold"):
            checks.check_signature(hashed, proposal.study, "alba", forged)
    sealed = desk.store.request(hashed).approval
    assert parse(Approval, dict(sealed.payload)).reviewers == (signature,)


@pytest.mark.parametrize("act", ["approve", "conditions", "deny", "ask", "revoke"])
def test_every_word_of_a_person_carries_full_name_and_function(named, new_proposal, now, act) -> None:
    desk, full_name, function = named
    proposal = new_proposal()
    hashed = desk.submit(proposal)
    anna = desk.accounts.account("anna")
    if act in ("deny", "ask"):
        getattr(desk.store, act)(hashed, reviewer=anna, reason="Which tumours?", now=now)
    else:
        conditions = "Send us the paper first." if act == "conditions" else ""
        key = desk.accounts.unlock("anna", PASSWORD)
        desk.store.approve(hashed, reviewer=anna, key=key, now=now, conditions=conditions)
        if act == "revoke":
            desk.store.revoke(hashed, reviewer=anna, reason="A patient withdrew.", now=now)
    for _, signed in desk.store.thread.unsent():
        word = open_word(signed, proposal)
        assert (word.person, word.titled, word.who) == ("anna", f"{full_name}, {function}", f"{full_name}, {function}")
    assert all(d.who == f"{full_name}, {function}" for d in desk.store.request(hashed).decisions)
    told = [e.body["titled"] for e in desk.journal.entries() if e.kind.startswith("proposal-") and "person" in e.body]
    assert told and set(told) == {f"{full_name}, {function}"}


def test_an_approval_of_two_names_both(new_desk, new_proposal) -> None:
    desk = new_desk("[review]\nrequired_reviewers = 2")
    desk.accounts.rename("bela", full_name="Bela Kovács", function="")
    hashed = desk.submit(new_proposal())
    for name in ("anna", "bela"):
        desk.approve(hashed, name)
    assert desk.store.request(hashed).decisions[-1].titled == "anna; Bela Kovács"


def test_documents_of_people_without_a_full_name_are_what_they_were(desk, new_proposal, now) -> None:
    proposal = new_proposal()
    hashed = desk.submit(proposal)
    desk.approve(hashed)
    signature = desk.store.request(hashed).signatures[0]
    assert set(dump(signature)) == {"reviewer", "role", "public_key", "signature"}
    assert set(checks.review_payload("h", "s", "alba", "anna", "steward")) == {
        "proposal_hash",
        "study",
        "site",
        "reviewer",
        "role",
    }
    words = [dict(signed.payload) for _, signed in desk.store.thread.unsent()]
    assert words and all("titled" not in word for word in words)
    assert parse(ReviewerSignature, dump(signature)) == signature


@pytest.mark.parametrize("titled", ["Anna\nBela", "An\u202ena", "An\u200bna", "\x1b[2J"])
def test_a_word_under_a_name_that_does_not_read_as_it_is_is_refused(desk, new_proposal, titled) -> None:
    proposal = new_proposal()
    word = Word(
        study=proposal.study,
        proposal_hash=proposal.proposal_hash,
        author=proposal.orchestrator.name,
        number=1,
        kind="paused",
        person="dr-lang",
        text="A break.",
        at="2026-03-01T12:00:00+00:00",
        titled=titled,
    )
    signed = replace(desk.sealed(proposal), kind=WORD)
    with pytest.raises(InvalidInput):
        open_word(signed, proposal)
    with pytest.raises(InvalidInput, match="reads as it is"):
        open_word(seal(identity("orchestrator"), WORD, word), proposal)


@pytest.mark.parametrize("text", ["An\u202ena", "An\u200bna", "\u0007", "x" * 121])
def test_a_full_name_that_does_not_read_as_it_is_is_refused(desk, text) -> None:
    with pytest.raises(InvalidInput):
        desk.accounts.rename("anna", full_name=text, function="")
    assert desk.accounts.account("anna").full_name == ""


def test_a_name_is_changed_with_the_password_and_journaled(desk, new_context) -> None:
    with TestClient(create_portal(new_context(desk)), headers=HTML) as portal:
        portal.post("/login", data={"name": "anna", "password": PASSWORD})
        page = portal.get("/people").text
        assert "Your full name is missing" in page
        csrf = re.search(r'name="csrf" value="([^"]+)"', page).group(1)
        wish = {"csrf": csrf, "full_name": " 山田  太郎 ", "function": "委員長"}
        assert portal.post("/people/name", data={**wish, "password": "wrong"}).status_code == 403
        assert desk.accounts.account("anna").full_name == ""
        page = portal.post("/people/name", data={**wish, "password": PASSWORD}).text
        assert "You sign as 山田 太郎, 委員長." in page
    entry = next(desk.journal.entries(kind="account-renamed"))
    assert entry.body == {"person": "anna", "before": "", "titled": "山田 太郎, 委員長"}


def test_the_request_page_shows_full_name_and_function(named, new_proposal, new_context) -> None:
    desk, full_name, function = named
    hashed = desk.submit(new_proposal())
    desk.approve(hashed)
    with TestClient(create_portal(new_context(desk)), headers=HTML) as portal:
        portal.post("/login", data={"name": "bela", "password": PASSWORD})
        assert f"{full_name}, {function}" in portal.get(f"/requests/{hashed}").text


def test_every_format_of_a_report_shows_full_name_and_function(new_desk, new_proposal, now, tmp_path) -> None:
    def desk_of_named_people(policy: str):
        desk = new_desk(policy)
        desk.accounts.rename("anna", full_name=NAMES["japanese"][0], function=NAMES["japanese"][1])
        desk.accounts.rename("bela", full_name=NAMES["arabic"][0], function=NAMES["arabic"][1])
        return desk

    report = told_story(desk_of_named_people, new_proposal, now).build()
    html, pdf, data = reporting.write_all(report, tmp_path)
    page, plain = html.read_text(), json.dumps(json.loads(data.read_text()), ensure_ascii=False)
    for full_name, function in (NAMES["japanese"], NAMES["arabic"]):
        assert f"{full_name}, {function}" in page and f"{full_name}, {function}" in plain
    assert pdf.read_bytes().startswith(b"%PDF-")
