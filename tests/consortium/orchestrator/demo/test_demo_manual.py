"""What `tessera demo --manual` prints, and a newcomer who follows it in a browser."""

from __future__ import annotations

import queue
import re
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from support.browser import make_account, open_request, sign
from support.timing import within

from orchestrator.demo.view import approval_guide, reading_guide

PASSWORD = "the river is cold in march"


def test_the_guide_names_hospital_link_password_rule_and_what_happens_then():
    text = "\n".join(approval_guide({"hospital-a": "http://127.0.0.1:1/register?token=t"}, study="pilot", others=8))
    assert "hospital-a  http://127.0.0.1:1/register?token=t" in text
    assert "the other 8 approve by themselves" in text
    assert "at least 12 characters" in text and "Sign and approve" in text
    every = "\n".join(approval_guide({"a": "l", "hospital-b": "m"}, study="pilot", others=0))
    assert "each of these 2 hospitals" in every and "by themselves" not in every
    assert "  a           l" in every


def test_the_end_says_where_the_reports_are_and_how_to_leave():
    text = "\n".join(reading_guide({"a": "http://127.0.0.1:1", "hospital-b": "http://127.0.0.1:2"}))
    assert "  a           http://127.0.0.1:1/reports" in text and "Ctrl-C" in text


@pytest.fixture
def manual_demo(tmp_path):
    """A demo of three hospitals that waits for a person; call it with a pattern to wait for what it prints."""
    arguments = ["demo", "--manual", "--sites", "3", "--rounds", "2", "--out", str(tmp_path / "demo")]
    child = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.main", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell has it ignored
    )
    said: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=lambda: [said.put(line.decode()) for line in child.stderr], daemon=True)
    reader.start()

    def until(pattern: str, seconds: float = 400.0) -> str:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = re.search(pattern, said.get(timeout=max(0.1, deadline - time.monotonic())))
            if found:
                return found.group(0)
        raise AssertionError(f"the demo never printed {pattern}")

    yield until
    family = psutil.Process(child.pid).children(recursive=True)
    child.send_signal(signal.SIGINT)
    try:
        child.wait(120)
    finally:
        child.kill()
        child.wait()
        reader.join(120)
        child.stderr.close()
    _, left = psutil.wait_procs(family, timeout=120)
    assert len(family) >= 5 and [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert not any("Traceback" in line for line in said.queue)


@pytest.mark.browser
@pytest.mark.slow
def test_a_newcomer_approves_in_under_two_minutes_and_prints_the_report(browser, shoot, manual_demo):
    dashboard = manual_demo(r"http://\S+/dashboard/enter\?token=\S+")
    link = manual_demo(r"http://\S+/register\?token=\S+")
    began = time.monotonic()
    page = browser.new_context().new_page()
    make_account(page, link, "anna", PASSWORD)
    open_request(page, "cancer-staging")
    shoot(page, "demo-request")
    portal = page
    sign(page, PASSWORD)
    assert within(time.monotonic() - began, 120)
    page = browser.new_context().new_page()
    page.goto(dashboard)
    page.get_by_role("button", name="Open the dashboard").click()
    page.get_by_role("link", name="cancer-staging").click()
    page.get_by_text("Round 2 of 2").wait_for(timeout=300_000)
    page.get_by_role("img").first.wait_for()
    shoot(page, "demo-dashboard")
    portal.goto(manual_demo(r"http://\S+/reports$"))  # the portal is still there when the study has ended
    report = portal.get_by_role("link", name="Privacy report (PDF)", exact=True).get_attribute("href")
    answer = portal.request.get(f"{link.split('/register')[0]}{report}")
    assert answer.body().startswith(b"%PDF")
