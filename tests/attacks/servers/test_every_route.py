"""The small doors, at every address of every server: encodings, ranges, crooked paths, doubled heads, wrong methods.

Played byte by byte at the real servers of orchestrator (with its dashboard) and portal, at each address that the
application itself knows, so that a new address is tried without a new test. Nobody is signed in, or somebody who is in
no roster, or a hospital that takes no part in the study. Keyholder and helpers listen nowhere; the last test says so.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.routing import Mount
from support.played import Played
from support.review_desk import make_context, make_desk
from support.web_server import serving

from datasites.node.credentials.tokens import make_token
from datasites.node.home import Config
from datasites.portal.app import create_portal
from datasites.study.signing import seal
from orchestrator.api import metrics
from orchestrator.api.server import create_app
from orchestrator.dashboard.app import MOUNT, create_dashboard
from orchestrator.rounds.service import Service
from orchestrator.rounds.store import Store
from privacy.canonical import sha256_hex
from privacy.identity import Identity
from privacy.ledger.journal import Journal

NAMES = {
    **{"study": "trio", "number": "1", "what": "opening", "digest": "0" * 64, "proposal_hash": "0" * 64},
    **{"public_key": "0" * 64, "job_id": "0" * 32, "decision": "deny", "kind": "cap", "name": "x", "path": "x"},
}
OPEN = {
    "orchestrator": {"/healthz", "/readyz", "/metrics", "/openapi.json", "/dashboard/enter", "/dashboard/leave"},
    "portal": {"/", "/healthz", "/readyz", "/login", "/welcome", "/register", "/language", "/api/login"}
    | {"/login/hospital", "/login/hospital/callback", "/api/register", "/api/tokens", "/api/openapi.json"},
}
"""Health, the description of the requests, and what nobody is signed in for: it asks for a secret, or signs out."""
Address = tuple[str, str]


@dataclass(frozen=True)
class Server:
    """One running server, and every method and address that its application has."""

    name: str
    place: tuple[str, int]
    routes: tuple[Address, ...]
    audience: str = ""
    people: Callable[[str], Identity] = lambda _: Identity.from_seed(b"m" * 32)

    def ask(self, method: str, target: str, *headers: str) -> tuple[int, bytes, bytes]:
        """Send one request as it stands, and return status, head and body of the answer."""
        body = b"" if method in ("GET", "HEAD", "OPTIONS", "TRACE") else b"{}"
        lines = [f"{method} {target} HTTP/1.1", "host: here", "connection: close", f"content-length: {len(body)}"]
        with socket.create_connection(self.place, timeout=120) as connection:
            connection.sendall("\r\n".join([*lines, *headers]).encode() + b"\r\n\r\n" + body)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), head.lower(), content

    def signed(self, who: str, method: str, target: str) -> int:
        """Ask as somebody who signs the request as our own client does."""
        body = b"" if method == "GET" else b"{}"
        token = make_token(
            self.people(who), audience=self.audience, method=method, target=target, body_hash=sha256_hex(body)
        )
        return self.ask(method, target, f"authorization: {token}")[0]


def routes_of(routes: object, before: str = "") -> Iterator[Address]:
    """Yield method and address of all that an application answers, with its parts filled in."""
    for route in routes:  # type: ignore[attr-defined]
        if isinstance(route, Mount):
            yield from routes_of(route.routes, before + route.path)
        elif getattr(route, "methods", None):
            filled = re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: NAMES.get(found[1], "x"), before + route.path)
            yield from ((method, filled) for method in sorted(route.methods - {"HEAD", "OPTIONS"}))
        elif hasattr(route, "original_router"):  # FastAPI keeps what it includes
            yield from routes_of(route.original_router.routes, before)


def served(name: str, app: FastAPI) -> tuple[FastAPI, Config, tuple[Address, ...]]:
    config = Config(name="a", institution="A", role="datasite", orchestrator_url="http://127.0.0.1:9")
    return app, config, tuple(dict.fromkeys(routes_of(app.router.routes)))


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Played(tmp_path_factory.mktemp("routes"), sites=4) as played:
        played.open()
        proposal = played.propose(
            "trio", length=40, participants=played.proposal("trio", length=40).participants[:3], approve=False
        )
        for hospital in played.hospitals[:3]:
            hospital.approve(seal(played.identity, "proposal", proposal))
        assert played.play("trio")["state"] == "finished"
        played.close_orchestrator()
        folder = played.homes["orchestrator"].folder
        service = Service(
            identity=played.identity,
            roster=played.roster,
            store=Store(folder / "store"),
            journal=Journal(folder / "journal.sqlite", played.identity),
        )
        app = create_app(service, mailbox_folder=folder / "mailbox")
        metrics.install(app, service, folder)
        dashboard, _ = create_dashboard(service, folder, https=False)
        app.mount(MOUNT, dashboard)
        made, config, routes = served("orchestrator", app)

        def people(who: str) -> Identity:
            return Identity.from_seed(b"m" * 32) if who == "mallory" else played.homes[who].identity()

        with serving(made, config) as place:
            yield Server("orchestrator", place, routes, service.identity.public_key, people)
        service.journal.close()


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    import datetime as dt

    folder = tmp_path_factory.mktemp("portal")
    desk = make_desk(folder)
    app, config, routes = served("portal", create_portal(make_context(desk, dt.datetime.now(dt.UTC), folder)))
    with serving(app, config) as place:
        yield Server("portal", place, routes)
    desk.close()


@pytest.fixture(params=["orchestrator", "portal"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    assert len(found.routes) > 40
    return found


def is_open(server: Server, address: str) -> bool:
    return address in OPEN[server.name]


def test_nobody_gets_anything_at_an_address_that_is_not_open(server: Server) -> None:
    wrong = []
    for method, target in server.routes:
        status, head, _ = server.ask(method, target)
        led = status == 303 and re.search(rb"location: /(?:dashboard/)?(?:login|sign-in)?[?\r\n]", head) is not None
        if not is_open(server, target) and not led and status not in (401, 403):
            wrong.append((method, target, status))
    assert wrong == []


TRICKS = {
    "encodings": ("accept-encoding: gzip, deflate, br, zstd",),
    "a range": ("range: bytes=0-0", "if-range: x"),
    "many ranges": ("range: bytes=" + ",".join(f"{n}-" for n in range(300)),),
    "another host": ("x-forwarded-host: evil.example", "x-host: evil.example", "forwarded: host=evil.example"),
    "another address": ("x-original-url: /healthz", "x-rewrite-url: /healthz", "x-forwarded-prefix: /evil"),
    "another method": ("x-http-method-override: GET", "x-http-method: DELETE", "x-method-override: PUT"),
    "an upgrade": ("upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__"),
    "loopback": ("x-forwarded-for: 127.0.0.1", "x-real-ip: 127.0.0.1", "client-ip: 127.0.0.1"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_no_header_changes_what_an_address_answers(server: Server, trick: str) -> None:
    wrong = []
    for method, target in server.routes:
        if is_open(server, target) and method != "GET":
            continue  # these count wrong passwords
        plain, _, _ = server.ask(method, target)
        status, head, _ = server.ask(method, target, *TRICKS[trick])
        bad = re.search(rb"content-encoding:|content-range:|evil|switching protocols", head)
        if status != plain or bad or status in (101, 206) or status >= 500:
            wrong.append((method, target, plain, status))
    assert wrong == []


CROOKED: dict[str, Callable[[str], str]] = {
    "a slash twice": lambda t: "/" + t,
    "up and down": lambda t: t.rstrip("/") + "/../x",
    "a dot": lambda t: "/." + t,
    "a slash as its code": lambda t: t.rstrip("/") + "%2fx",
    "a dot as its code": lambda t: "/%2e" + t,
    "a backslash": lambda t: t.rstrip("/") + "\\x",
    "NUL": lambda t: t + "%00",
    "a line end": lambda t: t + "%0d%0aset-cookie:x",
}


@pytest.mark.parametrize("how", CROOKED)
def test_an_address_has_one_spelling_everywhere(server: Server, how: str) -> None:
    wrong = [
        (method, target, status)
        for method, target in server.routes
        if (status := server.ask(method, CROOKED[how](target))[0]) != 400
    ]
    assert wrong == []


@pytest.mark.parametrize("target", ["http://evil.example/", "//evil.example/", "evil.example:80", "*", "?x", "/\x7f"])
def test_a_target_that_is_no_path_is_answered_by_no_address(server: Server, target: str) -> None:
    for method in ("GET", "POST", "CONNECT", "OPTIONS"):
        try:
            status, head, _ = server.ask(method, target)
        except (ValueError, IndexError, ConnectionError):
            continue  # the connection was closed without an answer
        assert status >= 300, (method, target)
        assert b"evil" not in head


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (("content-encoding: gzip",), 415),
        (("authorization: Bearer a", "authorization: Bearer b"), 400),
        (("cookie: a=b", "cookie: c=d"), 400),
        (("transfer-encoding: chunked",), 400),
        (tuple(f"x-{n}: y" for n in range(100)), 400),
    ],
    ids=["an encoded body", "two tokens", "two cookies", "two lengths", "countless headers"],
)
def test_a_crooked_head_is_refused_everywhere(server: Server, headers: tuple[str, ...], expected: int) -> None:
    wrong = [
        (method, target, status)
        for method, target in server.routes
        if (status := server.ask(method, target, *headers)[0]) != expected
    ]
    assert wrong == []


@pytest.mark.parametrize("method", ["TRACE", "PATCH", "DELETE", "PROPFIND", "get"])
def test_a_method_that_an_address_does_not_have_does_nothing(server: Server, method: str) -> None:
    known = set(server.routes)
    for target in dict.fromkeys(target for _, target in server.routes):
        if (method, target) in known:
            continue
        status = server.ask(method, target)[0]
        assert 400 <= status < 500, (method, target, status)


def test_somebody_in_no_roster_is_nobody_whatever_they_sign(orchestrator: Server) -> None:
    asked = [(m, t) for m, t in orchestrator.routes if not is_open(orchestrator, t) and not t.startswith(MOUNT)]
    assert len(asked) > 30
    answers = {(m, t): orchestrator.signed("mallory", m, t) for m, t in asked}
    assert {address: status for address, status in answers.items() if status not in (401, 403)} == {}


@pytest.mark.parametrize("who", ["site-3", "keyholder"])
def test_a_study_gives_nothing_to_who_takes_no_part_in_it(orchestrator: Server, who: str) -> None:
    """A hospital of the roster that is not in the study; and the keyholder, for what is the hospitals' alone."""
    own = {"/studies/trio", "/studies/trio/words", "/studies/trio/report"} if who == "keyholder" else set()
    asked = [(m, t) for m, t in orchestrator.routes if t.startswith(("/studies/", "/blobs/")) and t not in own]
    assert len(asked) > 15
    for method, target in asked:
        assert 400 <= orchestrator.signed(who, method, target) < 500, (method, target)
    assert orchestrator.signed("site-0", "GET", "/studies/trio") == 200  # the same, honestly


def test_keyholder_and_helpers_have_no_server(tmp_path: Path) -> None:
    """They dial out only: their processes never load what could listen."""
    code = (
        "import sys, datasites.keyholder.daemon, datasites.helper.daemon\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'uvicorn', 'fastapi', 'starlette', 'socketserver'}"
        " | {m for m in sys.modules if m.startswith(('datasites.node.web', 'datasites.portal', 'orchestrator'))}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
