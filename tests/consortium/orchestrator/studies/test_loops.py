"""Every loop closes, seen from both sides: people decide in a browser, the scientist types commands and looks at the
dashboard. One consortium serves all tests; each has studies of its own, and leaves nothing reserved.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.live_consortium import LiveConsortium, Person, Scientist
from support.review_desk import PASSWORD
from support.waiting import until

from orchestrator.studies.proposing.settings import StudySettings

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Open = Callable[..., Any]


@pytest.fixture
def scientist(live: LiveConsortium, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Scientist:
    return Scientist(live, capsys, monkeypatch)


@pytest.fixture
def looks(live: LiveConsortium, browser: Any) -> Open:
    """Open a page of a hospital's portal as one of its people, whose session the browser takes over."""

    def look(site: str, path: str, person: Person | None = None) -> Any:
        context, address = browser.new_context(), live.portal(site)
        cookies = (person or live.stewards[site]).portal.cookies.jar
        context.add_cookies([{"name": c.name, "value": c.value, "url": address} for c in cookies])
        page = context.new_page()
        page.goto(f"{address}/{path}")
        return page

    return look


@pytest.fixture
def dashboard(live: LiveConsortium, browser: Any) -> Open:
    """Open a study on the scientists' dashboard."""

    def look(study: str) -> Any:
        page = browser.new_context().new_page()
        page.goto(live.dashboard())
        page.get_by_role("button", name="Open the dashboard").click()
        page.get_by_role("link", name=study, exact=True).click()
        page.get_by_role("heading", name=study, exact=True).wait_for()
        return page

    return look


def writes(page: Any, act: str, field: str, words: str, button: str) -> None:
    """Open one of the forms beside a request, fill it in and send it."""
    if page.locator("details", has=page.locator(field)).get_attribute("open") is None:
        page.locator("summary", has_text=act).click()
    page.locator(field).fill(words)
    page.get_by_role("button", name=button, exact=True).click()


def hears(scientist: Scientist, study: str, *words: str) -> None:
    """Wait until ``tessera status`` shows the scientist these words."""

    def told() -> str:
        shown = scientist.tessera("status", "--once")
        return shown.partition(f"{study}: ")[2]

    until(lambda: all(word in told() for word in words), lambda: f"{words} in: {told()}")


def signs_in(live: LiveConsortium, browser: Any, site: str, person: str) -> Any:
    """Open a browser and sign in by hand; return the inbox."""
    page = browser.new_context().new_page()
    page.goto(f"{live.portal(site)}/login")
    page.get_by_label("Name").fill(person)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Inbox").wait_for()
    return page


def test_a_privacy_officer_follows_a_study_through_its_whole_life_in_one_browser(
    live: LiveConsortium, scientist: Scientist, looks: Open, dashboard: Open, browser: Any, shoot: Any, tmp_path: Path
) -> None:
    first, *others = live.sites
    everybody = ("--min-sites", len(live.sites))  # so that nobody goes on without her hospital
    life = scientist.propose("life", "--noise", "shared", *everybody, rounds=200)
    live.officer.has(life)
    page = signs_in(live, browser, first, "bela")
    shoot(page, "life-1-inbox")
    page.get_by_text("needs you", exact=True).first.wait_for()
    page.get_by_role("link", name="life", exact=True).click()
    for heading in ("What it costs in privacy", "Who learns what, alone and together", "Who answers for it"):
        page.get_by_role("heading", name=heading).wait_for()
    shoot(page, "life-2-request")

    writes(page, "Ask for changes", "#ask-reason", "How long is the model kept?", "Ask")
    page.get_by_text("Asked. The scientist will read").wait_for()
    hears(scientist, "life", f"{first} asks", "How long is the model kept?")
    scientist.tessera("study", "answer", "life", "--site", first, "--text", "Ten years; then it is deleted.")
    live.officer.sees(life, "pending")
    page.get_by_role("link", name="Inbox").first.click()
    page.get_by_text("your question was answered").wait_for()
    shoot(page, "life-3-inbox-answered")
    page.get_by_role("link", name="life", exact=True).click()
    page.get_by_role("region", name="What was said").get_by_text("Ten years; then it is deleted.").wait_for()

    page.get_by_label("Your password").fill(PASSWORD)
    page.locator("#approve-conditions").fill("Publish together with us.")
    page.get_by_role("button", name="Sign and approve").click()
    page.get_by_text("1 of 2 needed signatures").wait_for()
    shoot(page, "life-4-signed")
    live.stewards[first].approve(life)  # her colleague
    live.approve(life, *others)
    hears(scientist, "life", "approved with conditions", "Publish together with us.")
    scientist.tessera("study", "answer", "life", "--site", first, "--accept-conditions", "--text", "Gladly.")

    page.get_by_role("link", name="Studies").click()
    card = page.get_by_role("region", name=re.compile("^life"))
    for done in (1, 2):  # told by the server, without a reload
        card.get_by_text(re.compile(f"Round ([{done}-9]|[1-9][0-9]+) of 200")).wait_for()
    shoot(page, "life-5-studies")
    with waiting(live, "life") as wait:
        card.get_by_role("link", name="Revoke the approval").click()
        writes(page, "Revoke", "#revoke-reason", "The ethics vote was withdrawn.", "Revoke")
        page.get_by_text("Revoked. The study stops here").wait_for()
        shoot(page, "life-6-revoked")
        out, _ = wait.communicate(timeout=120)
    told = " ".join(out.split())
    assert wait.returncode == 4, told
    assert f"{first} revoked its approval" in told and "The ethics vote was withdrawn." in told
    board = dashboard("life")
    board.get_by_text("The ethics vote was withdrawn.").first.wait_for()
    shoot(board, "life-7-dashboard")

    until(lambda: not any(live.reserved(site, "life") for site in live.sites), "everything comes back")
    page.get_by_role("link", name="Budget", exact=True).first.click()
    came_back = page.get_by_role("region", name="What came back").get_by_role("row", name=re.compile("life"))
    assert "The ethics vote was withdrawn." in came_back.first.inner_text()
    shoot(page, "life-8-budget")
    page.get_by_role("link", name="Reports", exact=True).first.click()
    page.get_by_role("button", name="Write the reports as of now").click()
    page.get_by_text("The reports are those of").wait_for(timeout=240_000)
    shoot(page, "life-9-reports")
    address = page.get_by_role("link", name="Privacy report (PDF)", exact=True).first.get_attribute("href")
    report = tmp_path / "report.pdf"
    report.write_bytes(page.request.get(f"{live.portal(first)}{address}").body())
    verify = [sys.executable, "-m", "orchestrator.cli.main", "verify", str(report)]
    finished = subprocess.run(verify, capture_output=True, text=True, check=True)
    told = " ".join((finished.stdout + finished.stderr).split())
    assert "The PDF is as it was signed." in told and live.hospitals[first].datasite.home.config().institution in told
    page.get_by_role("link", name="Journal", exact=True).first.click()
    page.get_by_role("rowheader", name=re.compile("report downloaded")).first.wait_for()
    shoot(page, "life-10-journal")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Password").wait_for()


@contextlib.contextmanager
def waiting(live: LiveConsortium, study: str) -> Iterator[subprocess.Popen[str]]:
    """Let the scientist's ``tessera study wait`` run in a process of its own, from before it can know the end."""
    command = [sys.executable, "-m", "orchestrator.cli.main", "study", "wait", study, "--home", str(live.home.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_question_is_answered_a_new_version_shows_only_what_changed_and_conditions_are_accepted(
    live: LiveConsortium, scientist: Scientist, looks: Open, browser: Any
) -> None:
    first, *others = live.sites
    asked = scientist.propose("asked")
    live.officer.has(asked)
    page = signs_in(live, browser, first, "anna")
    page.get_by_text("needs you", exact=True).wait_for()
    page.get_by_role("link", name="asked", exact=True).click()
    writes(page, "Ask for changes", "#ask-reason", "Which tumours are meant?", "Ask")
    page.get_by_text("Asked. The scientist will read").wait_for()
    hears(scientist, "asked", f"{first} asks", "Which tumours are meant?")

    scientist.tessera("study", "answer", "asked", "--site", first, "--text", "Lung; see version 2.", "--by", "Dr. Lang")
    live.officer.sees(asked, "pending")
    page.reload()
    page.get_by_role("heading", name="What was said").wait_for()
    assert "Lung; see version 2." in page.content()

    changed = scientist.propose("asked-2", "--replaces", "asked", "--purpose", "Stage lung tumours only.")
    live.stewards[first].has(changed)
    live.stewards[first].sees(asked, "ended")
    page.goto(f"{live.portal(first)}/requests/{changed}")
    table = page.get_by_role("region", name="Changed parameters")
    assert table.locator("tbody th").all_inner_texts() == ["purpose"]
    assert "Stage lung tumours only." in table.inner_text()

    page.get_by_label("Your password").fill(PASSWORD)
    page.locator("#approve-conditions").fill("Send us the paper first.")
    page.get_by_role("button", name="Sign and approve").click()
    page.get_by_text("1 of 2 needed signatures").wait_for()
    second = looks(first, "inbox", live.officer)
    second.get_by_role("link", name="asked-2", exact=True).click()
    second.get_by_label("Your password").fill(PASSWORD)
    second.get_by_role("button", name="Sign and approve").click()
    second.get_by_text("2 of 2 needed signatures").wait_for()
    live.approve(changed, *others)
    hears(scientist, "asked-2", "approved with conditions", "Send us the paper first.", "accept the conditions")
    assert live.status("asked-2")["state"] == "waiting"
    scientist.tessera("study", "answer", "asked-2", "--site", first, "--accept-conditions", "--text", "We will.")
    live.becomes("asked-2", "finished")
    second.reload()
    second.get_by_text("accepts the conditions").wait_for()
    assert all(live.reserved(site, "asked-2") == 0 for site in live.sites)


def test_a_denial_ends_the_wait_of_the_scientist_and_frees_what_others_had_reserved(
    live: LiveConsortium, scientist: Scientist, looks: Open, dashboard: Open
) -> None:
    words = "The consent forms do not cover this."
    first, second, *_ = live.sites
    denied = scientist.propose("denied")
    live.approve(denied, second)
    assert live.reserved(second, "denied") == 1
    live.stewards[first].has(denied)
    page = looks(first, f"requests/{denied}")
    writes(page, "Deny", "#deny-reason", words, "Deny for good")
    page.get_by_text("Denied. The scientist").wait_for()
    until(lambda: live.status("denied")["state"] == "denied", "the denial arrives")
    told = scientist.tessera("study", "wait", "denied", code=4)
    assert f"{first} denied" in told and words in told
    live.stewards[second].sees(denied, "ended")
    other = looks(second, f"requests/{denied}")
    other.get_by_text(words).first.wait_for()
    assert other.get_by_role("button", name="Sign and approve").count() == 0
    until(lambda: live.reserved(second, "denied") == 0, "what was reserved comes back")
    budget = looks(second, "budget").get_by_role("region", name="What came back")
    assert words in budget.inner_text()
    dashboard("denied").get_by_text(words).first.wait_for()


def test_a_running_study_is_paused_freed_at_one_hospital_goes_on_and_ends_by_a_revocation(
    live: LiveConsortium, scientist: Scientist, looks: Open, dashboard: Open
) -> None:
    first, second, _, last = live.sites
    rounds = 200  # as many as the policy takes: more than anybody waits for
    long = scientist.propose("long", "--noise", "shared", rounds=rounds)
    live.approve(long)
    until(lambda: live.status("long")["rounds_completed"] >= 1, "a round ends")
    scientist.tessera("study", "pause", "long", "--reason", "A look at the first rounds.")
    assert "A look at the first rounds." in scientist.tessera("study", "wait", "long", code=1)

    page = looks(last, "budget")
    row = page.get_by_role("row", name=re.compile("^long"))
    row.locator("summary", has_text="Release").click()
    row.get_by_label("Reason").fill("The study does not come back.")
    row.get_by_label("password").fill(PASSWORD)
    row.get_by_role("button", name=re.compile("Release .* rounds of long")).click()
    page.get_by_text("Done, with your reason").wait_for()
    assert live.reserved(last, "long") == 0
    hears(scientist, "long", f"{last} gave back the budget", "The study does not come back.")

    scientist.tessera("study", "resume", "long")
    scientist.tessera("study", "drop-site", "long", "--site", last, "--reason", "It freed its budget.")
    before = live.status("long")["rounds_completed"]
    until(lambda: live.status("long")["rounds_completed"] > before + 1, "the rest goes on")
    assert last not in live.status("long")["checkpoints"][-1]["sites"]
    told = scientist.tessera("study", "drop-site", "long", "--site", second, "--reason", "Too slow.", code=3)
    assert "fewer than 3" in told

    page = looks(first, f"requests/{long}")
    writes(page, "Revoke", "#revoke-reason", "The ethics vote was withdrawn.", "Revoke")
    page.get_by_text("Revoked. The study stops here").wait_for()
    live.becomes("long", "revoked")
    told = scientist.tessera("study", "wait", "long", code=4)
    assert f"{first} revoked its approval" in told and "The ethics vote was withdrawn." in told
    assert "bring the missing" not in told
    until(lambda: not any(live.reserved(site, "long") for site in live.sites), "everything comes back")
    page = looks(second, "budget")
    assert "The ethics vote was withdrawn." in page.get_by_role("region", name="What came back").inner_text()
    dashboard("long").get_by_text("The ethics vote was withdrawn.").first.wait_for()
    told = scientist.tessera("study", "resume", "long", code=3)
    assert "cannot go on" in told


def test_a_lower_cap_in_the_file_is_seen_and_stops_what_no_longer_fits(
    live: LiveConsortium, scientist: Scientist, looks: Open, dashboard: Open
) -> None:
    first, second, *others = live.sites
    capped, late = scientist.propose("capped", "--noise", "shared"), scientist.propose("late")
    live.approve(capped, first, second)
    policy = live.hospitals[second].policy
    before = policy.read_text()
    policy.write_text(before.replace("epsilon_cap = 12.0", "epsilon_cap = 0.5"))
    try:
        page = looks(second, "budget")
        page.locator("summary", has_text="What changed in the policy").click()
        change = page.get_by_role("row", name=re.compile("budget.epsilon_cap")).first.inner_text()
        assert "12" in change and "0.5" in change
        live.stewards[second].has(late)
        page = looks(second, f"requests/{late}")
        page.get_by_text("It cannot be approved").wait_for()
        assert page.get_by_role("button", name="Sign and approve").count() == 0
        live.approve(capped, *others)
        live.becomes("capped", "finished")
        assert second not in live.status("capped")["checkpoints"][-1]["sites"]
        refused = live.status("capped")["refusals"]["1"][second]["payload"]["reason"]
        assert "0.5" in refused
        board = dashboard("capped")
        board.get_by_text(refused[:40]).first.wait_for()
    finally:
        policy.write_text(before)
    scientist.tessera("study", "withdraw", "late", "--reason", "Only to try the cap.")
    until(lambda: not any(live.reserved(s, n) for s in live.sites for n in ("capped", "late")), "nothing stays")


def test_a_request_that_expires_ends_for_both_sides(
    live: LiveConsortium, scientist: Scientist, looks: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *_ = live.sites
    soon = StudySettings.__init__.__kwdefaults__ | {"expires_days": 30 / 86400}
    monkeypatch.setattr(StudySettings.__init__, "__kwdefaults__", soon)
    short = scientist.propose("short")
    live.approve(short, second)
    live.stewards[first].has(short)
    live.becomes("short", "expired")
    assert "expired" in scientist.tessera("study", "wait", "short", code=4)
    live.stewards[first].sees(short, "ended")
    page = looks(first, f"requests/{short}")
    page.get_by_text("expired").first.wait_for()
    assert page.get_by_role("button", name="Sign and approve").count() == 0
    until(lambda: live.reserved(second, "short") == 0, "what was reserved comes back")
    assert "expired" in looks(second, "budget").get_by_role("region", name="What came back").inner_text()


def test_a_request_is_sent_again_withdrawn_and_cannot_be_ended_twice(
    live: LiveConsortium, scientist: Scientist, looks: Open
) -> None:
    first, second, *_ = live.sites
    lost = scientist.propose("lost")
    live.stewards[second].has(lost)
    live.approve(lost, first)
    told = scientist.tessera("study", "resend", "lost", "--site", second)
    assert f"sent to {second}" in told
    scientist.tessera("study", "withdraw", "lost", "--reason", "We found a mistake.", "--by", "Dr. Lang")
    assert "We found a mistake." in scientist.tessera("study", "wait", "lost", code=4)
    for site in live.sites:
        live.stewards[site].sees(lost, "ended")
    assert sum(r["study"] == "lost" for r in live.stewards[second].get("requests")) == 1
    page = looks(second, f"requests/{lost}")
    page.get_by_text("withdrew the request").first.wait_for()
    assert "We found a mistake." in page.content()
    told = scientist.tessera("study", "cancel", "lost", "--reason", "Once more.", code=3)
    assert "withdrawn already" in told
    until(lambda: live.reserved(first, "lost") == 0, "what was reserved comes back")
