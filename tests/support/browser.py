"""A headless browser, an accessibility check and a place for screenshots, for every test of web pages.

Screenshots are made where TESSERA_ARTEFACTS names a folder for them: a picture of a whole page takes a second.
"""

import asyncio
import fcntl
import importlib.util
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import uvicorn
from hypothesis import HealthCheck, Phase, settings

# generated requests: the same ones in every run, no database of failures, as long as they take
settings.register_profile(
    "requests",
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    database=None,
)

CHROMIUM = Path("/usr/bin/chromium")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def missing() -> str:
    """What this machine lacks for tests in a browser; nothing where they run."""
    if importlib.util.find_spec("playwright") is None:
        return "needs the playwright package"
    return "" if CHROMIUM.exists() else "needs Debian's chromium (apt-get install chromium)"


@pytest.fixture(scope="module")
def chromium():
    if missing():
        pytest.skip(missing())
    from playwright.sync_api import sync_playwright

    with sync_playwright() as engine:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = engine.chromium.launch(executable_path=str(CHROMIUM), args=flags, timeout=120_000)
        yield browser
        browser.close()


class Browser:
    """Opens windows that wait two minutes for what a test expects, and closes them."""

    def __init__(self, chromium) -> None:
        self._chromium, self._open = chromium, []

    def new_context(self, **options):
        made = self._chromium.new_context(**options)
        made.set_default_timeout(120_000)
        self._open.append(made)
        return made

    def close(self) -> None:
        for context in self._open:
            context.close()


@pytest.fixture
def browser(chromium):
    browser = Browser(chromium)
    yield browser
    browser.close()


def make_account(page, link: str, name: str, password: str) -> None:
    """Follow a one-time link to a portal and make an account there; it leads to the inbox."""
    page.goto(link)
    page.locator("#name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Make the account").click()
    page.get_by_role("heading", name="Inbox").wait_for()


def open_request(page, study: str, seconds: float = 400.0) -> None:
    """Look into the inbox until a study waits there, open it, and try it on the mock data."""
    deadline = time.monotonic() + seconds
    while not page.get_by_role("link", name=study).count():
        assert time.monotonic() < deadline, f"{study} never came"
        page.reload()
    page.get_by_role("link", name=study).first.click()
    page.get_by_role("button", name="Run it").click()
    page.get_by_text("What would leave in a round").wait_for()


def sign(page, password: str) -> None:
    """Approve the request that is open."""
    page.get_by_label("Your password").fill(password)
    page.get_by_role("button", name="Sign and approve").click()
    page.get_by_text("Signed with your key.").wait_for()


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    """Call it with a page to get axe-core's violations; the script is TESSERA_AXE, or installed by npm."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # all workers of this run share it
    with (folder / "axe.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        source = _axe_source(folder / "axe")

    def violations(page) -> list[str]:
        page.wait_for_load_state()  # after a click only the page's beginning may be there
        page.evaluate(source)
        result = page.evaluate("rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})", RULES)
        return [f"{v['id']}: {v['nodes'][0]['target']}" for v in result["violations"]]

    return violations


def _axe_source(folder: Path) -> str:
    given = os.environ.get("TESSERA_AXE")
    if given:
        return Path(given).read_text()
    if shutil.which("npm") is None:
        pytest.skip("needs axe-core: set TESSERA_AXE to axe.min.js, or install npm")
    source = folder / "node_modules" / "axe-core" / "axe.min.js"
    if source.exists():
        return source.read_text()
    folder.mkdir(exist_ok=True)
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), "axe-core@4"]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    if done.returncode or not source.exists():
        pytest.skip("needs axe-core, which npm could not install here")
    return source.read_text()


@pytest.fixture
def shoot():
    folder = os.environ.get("TESSERA_ARTEFACTS")

    def take(page, name: str) -> None:
        if folder is not None:
            page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    return take


class InTwoParts:
    """Sends every page in two parts, a moment apart: a test that looks too early fails, and not only now and then."""

    def __init__(self, app) -> None:
        self._app = app

    async def __call__(self, scope, receive, send) -> None:
        page = False

        async def pausing(message) -> None:
            nonlocal page
            if message["type"] == "http.response.start":
                page = dict(message["headers"]).get(b"content-type", b"").startswith(b"text/html")
            elif page and message.get("body"):
                head, main, rest = message["body"].partition(b"<main")
                await send({**message, "body": head, "more_body": True})
                await asyncio.sleep(0.1)
                message = {**message, "body": main + rest}
            await send(message)

        await self._app(scope, receive, pausing if scope["type"] == "http" else send)


@pytest.fixture
def serve_app(request):
    """Serves applications on free ports until the test ends; call it with one to get its address.

    A server ends before anything that the test was given is closed, whichever fixture came first.
    """

    def start(app) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(InTwoParts(app), log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()

        def end() -> None:
            server.should_exit = True
            thread.join(120)
            assert not thread.is_alive()

        request.node.addfinalizer(end)
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        assert server.started
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    return start
