"""Make the pictures of README.md from a real study: a request in a hospital's portal, and a privacy report.

    .venv/bin/python docs/pictures/make.py

Runs ``tessera demo --manual`` with three hospitals and does in a headless browser what the demo asks a person to do.
Needs chromium and pdftoppm (Debian: ``apt-get install chromium poppler-utils``) and the dev extras.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PASSWORD = "a sentence that nobody guesses"  # noqa: S105 - of an account that lives for two minutes
COLOURS = 64
WAIT_SECONDS = 300.0
SIZE_LIMIT_BYTES = 150_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder) / "demo", Path(folder) / "log"
        command = [
            str(Path(sys.executable).with_name("tessera")),
            "demo",
            "--manual",
            "--sites",
            "3",
            "--out",
            str(out),
        ]
        with log.open("w") as target:
            demo = subprocess.Popen(command, stderr=target, stdout=target)
        try:
            approve(found(log, r"http://\S+/register\?token=\S+", demo), Path(folder) / "portal.png")
            found(log, "Press Ctrl-C to end everything; the files", demo)
            report = sorted(out.rglob("privacy-report.pdf"))[0]
            draw_first_page(report, Path(folder) / "report.png")
        finally:
            print(log.read_text(), *(f"{path.name}: {path.read_text()[-2000:]}" for path in out.glob("logs/*.log")))
            demo.send_signal(signal.SIGINT)
            demo.wait(60)
        for name in ("portal", "report"):
            shrink(Path(folder) / f"{name}.png", HERE / f"{name}.png")


def found(log: Path, pattern: str, demo: subprocess.Popen[bytes]) -> str:
    """Wait until the demo has printed ``pattern``; return what it printed."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline and demo.poll() is None:
        if match := re.search(pattern, log.read_text()):
            return match.group()
        time.sleep(0.3)
    raise SystemExit(f"the demo did not print {pattern}:\n{log.read_text()}")


def approve(link: str, picture: Path) -> None:
    """Make an account, open the request, take its picture, sign."""
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_context(viewport={"width": 1180, "height": 900}).new_page()
        page.set_default_timeout(60_000)
        page.goto(link)
        page.get_by_label("Name").fill("anna")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Make the account").click()
        open_request(page)
        page.screenshot(path=picture)
        page.get_by_label("Your password").fill(PASSWORD)
        page.get_by_role("button", name="Sign and approve").click()
        page.get_by_text("Signed with your key.").wait_for()
        browser.close()


def open_request(page: Page) -> None:
    """Open the study's request in the inbox as soon as it has come."""
    deadline = time.monotonic() + WAIT_SECONDS
    request = page.get_by_role("link", name="cancer-staging").first
    while not request.is_visible() and time.monotonic() < deadline:
        page.reload()
        time.sleep(1)
    request.click()
    page.get_by_role("heading", name="In plain words").wait_for()


def draw_first_page(report: Path, picture: Path) -> None:
    command = ["pdftoppm", "-png", "-r", "80", "-f", "1", "-l", "1", "-singlefile", str(report)]
    subprocess.run([*command, str(picture.with_suffix(""))], check=True)


def shrink(source: Path, target: Path) -> None:
    """Write ``source`` with few colours; README's pictures stay small."""
    with Image.open(source) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    if target.stat().st_size > SIZE_LIMIT_BYTES:
        raise SystemExit(f"expected {target} below {SIZE_LIMIT_BYTES} bytes, got {target.stat().st_size}")


if __name__ == "__main__":
    main()
