"""A page that follows a study says when it has lost the connection, and goes on by itself once it is back."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
import uvicorn
from support.review_desk import PASSWORD

from datasites.portal.app import create_portal
from datasites.review.budgets import StudyStatus

pytestmark = pytest.mark.browser


@contextmanager
def serving(app, port: int = 0):
    """Serve an application on a port, as its process does; leaving the block cuts every connection."""
    listener = socket.create_server(("127.0.0.1", port))  # may be taken again at once
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(120)
        assert not thread.is_alive()


@pytest.mark.parametrize("language", ["en", "de"])
def test_a_lost_connection_is_said_and_what_changed_meanwhile_is_shown_afterwards(
    browser, desk, new_context, language
) -> None:
    rounds = [2]

    def studies():
        status = StudyStatus(
            study="lung-staging",
            proposal_hash="a" * 64,
            state="running",
            rounds_done=rounds[0],
            rounds=5,
            epsilon_spent=1.0,
            delta=1e-5,
        )
        return (status,)

    context = replace(new_context(desk), studies=studies)
    page = browser.new_context(locale=language).new_page()
    with serving(create_portal(context)) as port:
        page.goto(f"http://127.0.0.1:{port}/login?to=/studies")
        page.locator("input[name=name]").fill("anna")
        page.locator("input[name=password]").fill(PASSWORD)
        page.locator("main button").click()
        live = page.locator("[data-live]")
        live.wait_for()
        note = page.locator("#stale")
        assert not note.is_visible()
        rounds[0] = 3
        page.locator("[data-live] progress[value='3']").wait_for()
        assert not note.is_visible()
    note.wait_for(state="visible")
    assert note.get_attribute("role") == "status"
    words = {"en": "The connection is lost.", "de": "Die Verbindung ist unterbrochen."}[language]
    assert words in note.inner_text()
    assert note.locator("time").get_attribute("datetime")
    rounds[0] = 4
    with serving(create_portal(context), port):
        page.locator("[data-live] progress[value='4']").wait_for()
        note.wait_for(state="hidden")
