"""A security key in a real browser: Chromium's virtual authenticator, the page's own script, and the page's CSP."""

from __future__ import annotations

import pytest
from support.approvals import is_approved

from datasites.portal.app import create_portal

PASSWORD = "correct horse battery staple"
pytestmark = pytest.mark.browser


@pytest.fixture
def address(serve_app, desk, new_context) -> str:
    return serve_app(create_portal(new_context(desk))).replace("127.0.0.1", "localhost")


def sign_in(page, address: str) -> None:
    page.goto(f"{address}/login")
    page.get_by_label("Name").fill("anna")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Inbox").wait_for()


def with_authenticator(page, *, verified: bool = True):
    """Give the page a virtual authenticator, and return how to switch the person's presence on and off."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    options = {"protocol": "ctap2", "transport": "internal", "hasUserVerification": True, "isUserVerified": verified}
    made = session.send("WebAuthn.addVirtualAuthenticator", {"options": {**options, "hasResidentKey": True}})
    identified = {"authenticatorId": made["authenticatorId"]}

    def identify(yes: bool) -> None:
        session.send("WebAuthn.setUserVerified", {**identified, "isUserVerified": yes})

    return identify


def register(page, address: str) -> None:
    page.goto(f"{address}/people")
    page.get_by_label("Name of the key").fill("the blue one")
    page.locator("#key-password").fill(PASSWORD)
    page.get_by_role("button", name="Register a security key").click()
    page.get_by_text("Registered: from now on your security key is asked for").wait_for()


def test_a_key_is_registered_signs_denies_and_is_removed(browser, shoot, address, desk, new_proposal) -> None:
    first, second = desk.submit(new_proposal()), desk.submit(new_proposal(study="another"))
    page = browser.new_context().new_page()
    broken: list[str] = []
    page.on("console", lambda message: broken.append(message.text) if message.type == "error" else None)
    identify = with_authenticator(page)
    sign_in(page, address)
    register(page, address)
    shoot(page, "portal-security-keys")

    page.goto(f"{address}/requests/{first}")
    page.get_by_label("Your password").fill(PASSWORD)
    identify(False)  # somebody else sits at the browser
    page.get_by_role("button", name="Sign and approve").click()
    page.get_by_text("The security key gave no answer.").wait_for()
    shoot(page, "portal-security-key-refused")
    assert not is_approved(desk.store, first)
    identify(True)
    page.get_by_role("button", name="Sign and approve").click()
    page.get_by_text("Signed with your key.").wait_for()
    assert is_approved(desk.store, first)

    page.goto(f"{address}/requests/{second}")
    page.get_by_text("Deny", exact=True).click()
    page.get_by_label("Why?").fill("No legal basis.\nAnd a second line.")
    page.get_by_role("button", name="Deny for good").click()
    page.get_by_text("Denied. The scientist and the other hospitals will read your reason.").wait_for()

    page.goto(f"{address}/people")
    page.locator("#remove-password-1").evaluate("field => field.closest('details').open = true")
    page.locator("#remove-password-1").fill(PASSWORD)
    page.get_by_role("button", name="Remove it: the blue one").click()
    page.get_by_text("Removed: this security key counts no more.").wait_for()
    assert desk.accounts.security_keys.of("anna") == ()
    assert [line for line in broken if "Content Security Policy" in line] == []


def test_a_stolen_password_signs_nothing_in_a_browser_without_the_key(browser, address, desk, new_proposal) -> None:
    proposal_hash = desk.submit(new_proposal())
    page = browser.new_context().new_page()
    with_authenticator(page)
    sign_in(page, address)
    register(page, address)
    thief = browser.new_context().new_page()
    with_authenticator(thief)  # a key of their own
    sign_in(thief, address)
    thief.goto(f"{address}/requests/{proposal_hash}")
    thief.get_by_label("Your password").fill(PASSWORD)
    thief.get_by_role("button", name="Sign and approve").click()
    thief.get_by_text("The security key gave no answer.").wait_for()
    assert not is_approved(desk.store, proposal_hash)


def test_without_javascript_the_page_says_what_it_cannot_do(browser, address, desk, new_proposal) -> None:
    proposal_hash = desk.submit(new_proposal())
    page = browser.new_context().new_page()
    with_authenticator(page)
    sign_in(page, address)
    register(page, address)
    plain = browser.new_context(java_script_enabled=False).new_page()
    sign_in(plain, address)
    plain.goto(f"{address}/requests/{proposal_hash}")
    plain.get_by_text("Without it you can read everything here, but sign nothing.").wait_for()
    plain.get_by_label("Your password").fill(PASSWORD)
    plain.get_by_role("button", name="Sign and approve").click()
    plain.get_by_text("this needs its answer, which needs JavaScript").wait_for()
    assert not is_approved(desk.store, proposal_hash)
