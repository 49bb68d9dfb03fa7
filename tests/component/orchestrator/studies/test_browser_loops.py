"""One loop in a real browser, with both sides at work: a hospital denies, the scientist and the others read why."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from support.loops import SITES, Loops
from support.review_desk import PASSWORD, make_context

from datasites.portal.app import create_portal
from datasites.review.accounts import AccountStore
from datasites.review.key_wrapping import Hardness
from orchestrator.dashboard.facts import study_now
from orchestrator.studies import run
from privacy.errors import StudyOver

pytestmark = pytest.mark.browser
WORDS = "The consent forms do not cover this."


class Quiet:
    def step(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def rounds(self, done: int, total: int, text: str) -> None: ...


@pytest.fixture
def loops(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    with Loops(tmp_path / "consortium", sites=SITES) as made:
        made.open()
        monkeypatch.setattr(run, "client_of", lambda *_, **__: made.signed("orchestrator"))
        yield made


def portal_of(loops: Loops, index: int, folder: Any) -> Any:
    hospital = loops.hospitals[index]
    part, now = hospital.participant, dt.datetime.now(dt.UTC)
    accounts = AccountStore(folder / f"accounts-{index}.sqlite", hardness=Hardness(passes=1, memory_kib=64, lanes=1))
    accounts.register(accounts.invite("steward", now=now), "anna", PASSWORD, now=now)
    desk = SimpleNamespace(accounts=accounts, store=hospital.approvals, journal=part.journal)
    context = make_context(desk, now, folder)
    return create_portal(replace(context, site=part.site, institution=part.site, clock=lambda: dt.datetime.now(dt.UTC)))


def sign_in(page: Any, address: str) -> None:
    page.goto(f"{address}/login")
    page.get_by_label("Name").fill("anna")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Inbox").wait_for()


def test_a_denial_in_the_browser_reaches_the_scientist_and_the_other_hospital(
    loops: Loops, browser: Any, serve_app: Any, tmp_path: Any
) -> None:
    proposal = loops.request("pilot")
    place = f"requests/{proposal.proposal_hash}"
    pages = []
    for index in (0, 1):
        address = serve_app(portal_of(loops, index, tmp_path))
        page = browser.new_context().new_page()
        sign_in(page, address)
        page.get_by_text("needs you", exact=True).wait_for()
        page.goto(f"{address}/{place}")
        pages.append(page)
    pages[0].locator("summary", has_text="Deny").click()
    pages[0].locator("#deny-reason").fill(WORDS)
    pages[0].get_by_role("button", name="Deny for good").click()
    pages[0].get_by_role("heading", name="What was said").wait_for()
    loops.carry(0)
    loops.carry()
    with pytest.raises(StudyOver, match=WORDS):
        run.wait(loops.homes["orchestrator"], "pilot", Quiet(), timeout_seconds=120)
    pages[1].reload()
    pages[1].get_by_role("heading", name="What was said").wait_for()
    assert WORDS in pages[1].content()
    assert pages[1].get_by_role("button", name="Sign and approve").count() == 0
    shown = study_now(loops.service.store, "pilot", "orchestrator")  # what the dashboard's page prints
    assert shown.words[0].text == WORDS
    assert WORDS in shown.facts.reason
