"""Two people in a browser: one proposes an invitation, the other finds it in the inbox and confirms it."""

from __future__ import annotations

import pytest

from datasites.portal.app import create_portal

PASSWORD = "correct horse battery staple"
pytestmark = pytest.mark.browser


def test_an_invitation_waits_in_the_inbox_and_is_confirmed_there(
    browser, serve_app, shoot, axe, new_desk, new_context
) -> None:
    desk = new_desk("[people]\nrequired_people = 2")
    desk.accounts.rename("anna", full_name="Dr. Anna Müller-Šťastná", function="Head of data")
    desk.accounts.vouch("bela", desk.accounts.account("anna"))
    address = serve_app(create_portal(new_context(desk)))
    pages = {}
    for name in ("anna", "bela"):
        pages[name] = page = browser.new_context(viewport={"width": 390, "height": 900}, bypass_csp=True).new_page()
        page.goto(f"{address}/login")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("heading", name="Inbox").wait_for()
    anna, bela = pages["anna"], pages["bela"]
    anna.goto(f"{address}/people")
    anna.locator("#invite-password").fill(PASSWORD)
    anna.get_by_role("button", name="Make a one-time link").click()
    anna.get_by_text("Proposed. The policy wants more people").wait_for()
    bela.goto(f"{address}/inbox")
    bela.get_by_text("1 other matter needs you.").wait_for()
    bela.get_by_text("Confirm it", exact=True).first.click()
    shoot(bela, "portal-waits-for-two")
    assert axe(bela) == []
    assert bela.evaluate("document.documentElement.scrollWidth") <= 390
    form = bela.locator("form[action$='/confirm']")
    form.get_by_label("Reason").fill("we agreed on it")
    form.get_by_label("Your password").fill(PASSWORD)
    form.get_by_role("button").click()
    bela.get_by_text("Send this one-time link to the new").wait_for()
    assert axe(bela) == []
