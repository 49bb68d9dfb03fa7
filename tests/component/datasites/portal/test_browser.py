"""The whole path in a real browser, and an axe run over every page.

Screenshots are made where TESSERA_ARTEFACTS names a folder for them.
"""

from contextlib import closing
from dataclasses import replace

import pytest
from support.approvals import is_approved
from support.full_portal import LONG, FullPortal

from datasites.language import LANGUAGES
from datasites.portal.app import create_portal
from datasites.review.budgets import StudyStatus

PASSWORD = "correct horse battery staple"
pytestmark = pytest.mark.browser


@pytest.fixture
def serve(serve_app):
    """Serves a portal on a free port until the test ends."""
    return lambda context: serve_app(create_portal(context))


def sign_in(page, address: str, name: str) -> None:
    page.goto(f"{address}/login")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Inbox").wait_for()


def sign_in_at(page, address: str) -> None:
    """Sign in whatever the language of the page is."""
    page.locator("#name").fill("anna")
    page.locator("#password").fill(PASSWORD)
    page.locator("main form button").first.click()
    page.wait_for_url(f"{address}/*")


TOO_WIDE = """width => document.documentElement.scrollWidth <= width ? [] : [
    `${document.documentElement.scrollWidth} px`,
    ...[...document.querySelectorAll('main *, header *, footer *')]
        .filter(part => Math.max(part.getBoundingClientRect().right, part.scrollWidth) > width + 1
            && !part.closest('.scroll, .code, svg'))
        .slice(0, 3).map(part => part.outerHTML.slice(0, 120))]"""
"""What of a page reaches beyond the screen, but for what scrolls within a frame of its own."""


def two_versions(desk, new_proposal) -> tuple[str, str]:
    """An approved first version and a second one that waits."""
    first, second = {"plan.toml": b"rate = 1\n"}, {"plan.toml": b"rate = 2\n"}
    approved = desk.submit(new_proposal(code=first), first)
    for name in ("anna", "bela"):
        desk.approve(approved, name)
    return approved, desk.submit(new_proposal(code=second, rounds=8), second)


def test_two_people_review_dry_run_approve_watch_revoke_and_download(
    browser, serve, shoot, new_desk, new_context, new_proposal
):
    desk = new_desk("[review]\nrequired_reviewers = 2")
    _, second = two_versions(desk, new_proposal)
    rounds = [1]

    def studies():
        status = StudyStatus(
            study="lung-staging",
            proposal_hash=second,
            state="running",
            rounds_done=rounds[0],
            rounds=8,
            epsilon_spent=0.4 * rounds[0],
            delta=1e-5,
        )
        return (status,)

    address = serve(replace(new_context(desk), studies=studies))
    for name in ("anna", "bela"):
        page = browser.new_context().new_page()
        sign_in(page, address, name)
        page.get_by_role("link", name="lung-staging").first.click()
        page.get_by_role("heading", name="In plain words").wait_for()
        page.locator(".diff .new", has_text="rate = 2").wait_for()
        if name == "anna":
            page.get_by_role("button", name="Run it").click()
            page.get_by_text("What would leave in a round").wait_for()
            shoot(page, "portal-request")
        page.get_by_label("Your password").fill(PASSWORD)
        page.get_by_role("button", name="Sign and approve").click()
        page.get_by_text("Signed with your key.").wait_for()
    assert is_approved(desk.store, second)

    page.goto(f"{address}/studies")
    page.get_by_text("Round 1 of 8").wait_for()
    rounds[0] = 2
    page.get_by_text("Round 2 of 8").wait_for()  # told by the server, without a reload
    shoot(page, "portal-studies")

    page.goto(f"{address}/requests/{second}")
    page.get_by_label("Why?").fill("A patient withdrew consent.")
    page.get_by_role("button", name="Revoke").click()
    page.get_by_text("Revoked. The study stops here before its next round.").wait_for()
    assert not is_approved(desk.store, second)

    page.goto(f"{address}/reports")
    target = page.get_by_role("link", name="Privacy report").get_attribute("href")
    answer = page.request.get(f"{address}{target}")
    assert answer.body().startswith(b"%PDF")


def test_a_double_click_sends_a_form_once_and_the_way_back_shows_how_things_are(
    browser, serve, desk, new_context, new_proposal
):
    proposal_hash = desk.submit(new_proposal())
    address = serve(new_context(desk))
    page = browser.new_context().new_page()
    sign_in(page, address, "anna")
    page.goto(f"{address}/requests/{proposal_hash}")
    page.get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("button", name="Sign and approve").dblclick()
    page.get_by_text("Signed with your key.").wait_for()
    assert desk.kinds().count("proposal-signed") == 1
    page.go_back()  # no page is kept by the browser: what stands there is how things are now
    page.get_by_role("button", name="Revoke").wait_for()
    assert page.get_by_role("button", name="Sign and approve").count() == 0


def test_everything_works_without_javascript(browser, serve, desk, new_context, new_proposal):
    proposal_hash = desk.submit(new_proposal())
    address = serve(new_context(desk))
    page = browser.new_context(java_script_enabled=False).new_page()
    sign_in(page, address, "anna")
    page.goto(f"{address}/requests/{proposal_hash}")
    page.get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("button", name="Sign and approve").click()
    page.get_by_text("Signed with your key.").wait_for()
    assert is_approved(desk.store, proposal_hash)


PHONE, DESK = (360, "light", LONG), (1280, "dark", 0)


@pytest.mark.parametrize(
    ("width", "scheme", "letters", "language"),
    [
        pytest.param(*screen, language, id=f"{name}-{language}", marks=() if kept else pytest.mark.thorough)
        for language in LANGUAGES  # English on a desk, the longer words of the others on a phone
        for name, screen, kept in (("phone", PHONE, language != "en"), ("desk", DESK, language == "en"))
    ],
)
def test_no_page_in_any_language_has_a_violation_or_is_wider_than_the_screen(
    browser, serve, shoot, axe, tmp_path, width, scheme, letters, language
):
    site = FullPortal(tmp_path / "site", letters)
    address = serve(site.context)
    size = {"width": width, "height": 900}
    page = browser.new_context(viewport=size, color_scheme=scheme, bypass_csp=True).new_page()
    page.goto(f"{address}/language?to={language}&back=/login")
    assert page.locator("html").get_attribute("lang") == language
    found, wide = {"/login": axe(page)}, {"/login": page.evaluate(TOO_WIDE, width)}
    with closing(site):
        sign_in_at(page, address)
        for path in site.pages:
            page.goto(f"{address}{path}")
            page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
            found[path], wide[path] = axe(page), page.evaluate(TOO_WIDE, width)
            shoot(page, f"portal-{path.replace('/', '-')[1:20]}-{language}-{width}")
    assert {path: problems for path, problems in found.items() if problems} == {}
    assert {path: parts for path, parts in wide.items() if parts} == {}


@pytest.mark.parametrize(
    "language", [pytest.param(x, marks=() if x == "de" else pytest.mark.thorough) for x in LANGUAGES]
)
def test_no_page_that_an_act_leads_to_has_a_violation_or_is_wider_than_a_phone(
    browser, serve, shoot, axe, desk, now, new_context, new_proposal, language
):
    request = f"/requests/{desk.submit(new_proposal())}"
    address, width = serve(new_context(desk)), 360
    found, wide = {}, {}
    page = browser.new_context(viewport={"width": width, "height": 900}, bypass_csp=True).new_page()

    def look(name: str) -> None:
        found[name], wide[name] = axe(page), page.evaluate(TOO_WIDE, width)
        shoot(page, f"portal-after-{name}-{language}")

    page.goto(f"{address}/language?to={language}&back=/login")
    page.locator("#name").fill("anna")
    page.locator("#password").fill("a wrong sentence to try")
    page.locator("main form button").first.click()
    page.get_by_role("alert").wait_for()
    assert page.locator("#name").input_value() == "anna"
    look("wrong-password")
    page.goto(f"{address}/register?token={desk.accounts.invite('steward', now=now)}")
    look("welcome")
    page.goto(f"{address}/register?token=made-up")
    look("used-link")
    page.goto(f"{address}/login")
    sign_in_at(page, address)
    page.goto(f"{address}{request}")
    page.locator("#approve-password").fill("a wrong sentence to try")
    page.locator("#approve-conditions").fill("Only lung tumours.")
    page.locator(f"form[action='{request}/approve'] button").click()
    page.get_by_role("alert").wait_for()
    assert page.locator("#approve-conditions").input_value() == "Only lung tumours."
    look("refused")
    page.goto(f"{address}{request}")
    page.locator(f"form[action='{request}/dry-run'] button").click()
    page.locator("#log").wait_for()
    look("dry-run")
    page.goto(f"{address}/people")
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    form = page.locator("form[action='/people']")
    form.locator("input[type=password]").fill(PASSWORD)
    form.locator("button").click()
    page.get_by_text("/welcome?token=").first.wait_for()
    look("one-time-link")
    page.goto(f"{address}{request}")
    page.locator("#approve-password").fill(PASSWORD)
    page.locator(f"form[action='{request}/approve'] button").click()
    page.locator("#revoke-reason").wait_for()
    look("signed")
    page.goto(f"{address}/nothing-here")
    look("not-found")
    assert {name: problems for name, problems in found.items() if problems} == {}
    assert {name: parts for name, parts in wide.items() if parts} == {}


def test_the_keyboard_reaches_the_content_first(browser, serve, desk, new_context):
    address = serve(new_context(desk))
    page = browser.new_context().new_page()
    page.goto(f"{address}/login")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"


def test_printing_shows_every_line_of_code_and_every_closed_part(browser, serve, desk, new_context, new_proposal):
    code = {"plan.py": "".join(f"line_{n} = {n}\n" for n in range(137)).encode(), "more.py": b"last = 1\n"}
    proposal_hash = desk.submit(new_proposal(code=code), code)
    address = serve(new_context(desk))
    page = browser.new_context().new_page()
    sign_in(page, address, "anna")
    page.goto(f"{address}/requests/{proposal_hash}")
    page.emulate_media(media="print")
    visible = """() => [...document.querySelectorAll('.code:not(.diff) tr')].filter(row => {
        const box = row.closest('.code').getBoundingClientRect(), own = row.getBoundingClientRect();
        return row.checkVisibility({contentVisibilityAuto: true}) && own.height > 0 && own.bottom <= box.bottom + 1;
    }).length"""
    assert page.evaluate(visible) == 138
    assert page.locator("form").first.is_hidden()
