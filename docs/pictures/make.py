"""Make the pictures of README.md from a real study: a request in a hospital's portal, and a privacy report.

    PYTHONPATH=. .venv/bin/python docs/pictures/make.py

Opens the folder of a hospital that took part in a study of three (``tests/fixtures/stores-4c19b18``) with today's code,
serves its portal on this machine, signs in with a headless browser and takes a picture of a request. Then it writes the
hospital's privacy report and draws its first page. Needs chromium and pdftoppm (Debian: chromium, poppler-utils).
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from PIL import Image
from playwright.sync_api import sync_playwright

from datasites.hospital.datasite import Datasite
from datasites.hospital.facts import context
from datasites.hospital.reports import write_reports
from datasites.node.home import Home
from datasites.portal.app import create_portal

HERE = Path(__file__).parent
FIXTURE = HERE.parents[1] / "tests" / "fixtures" / "stores-4c19b18"
sys.path.append(str(FIXTURE))
from unpacked_stores import unpack  # noqa: E402

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
STUDY = "finished"
COLOURS = 64
SIZE_LIMIT_BYTES = 150_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = unpack(FIXTURE / "stores-4c19b18.tar.xz", Path(folder) / "stores")
        home = Home(folder=root / "consortium" / "hospital-a")
        datasite = Datasite.open(home)
        shoot_request(create_portal(context(datasite)), Path(folder) / "portal.png")
        datasite.close()
        write_reports(home)
        draw_first_page(home.folder / "reports" / "privacy-report.pdf", Path(folder) / "report.png")
        for name in ("portal", "report"):
            shrink(Path(folder) / f"{name}.png", HERE / f"{name}.png")


def shoot_request(portal: FastAPI, picture: Path) -> None:
    person = json.loads((FIXTURE / "MANIFEST.json").read_bytes())["people"][0]
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(portal, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_context(viewport={"width": 1180, "height": 900}).new_page()
        page.set_default_timeout(120_000)
        page.goto(f"{address}/login")
        page.get_by_label("Name").fill(person["name"])
        page.get_by_label("Password").fill(person["password"])
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("heading", name="Inbox").wait_for()
        page.get_by_role("link", name=STUDY).first.click()
        page.get_by_role("heading", name="In plain words").wait_for()
        page.screenshot(path=picture)
        browser.close()
    server.should_exit = True
    thread.join(10)


def draw_first_page(report: Path, picture: Path) -> None:
    command = ["pdftoppm", "-png", "-r", "80", "-f", "1", "-l", "1", "-singlefile", str(report)]
    subprocess.run([*command, str(picture.with_suffix(""))], check=True)


def shrink(source: Path, target: Path) -> None:
    """Write ``source`` with few colours, so that the pictures in README stay small."""
    with Image.open(source) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    if target.stat().st_size > SIZE_LIMIT_BYTES:
        raise SystemExit(f"expected {target} below {SIZE_LIMIT_BYTES} bytes, got {target.stat().st_size}")


if __name__ == "__main__":
    main()
