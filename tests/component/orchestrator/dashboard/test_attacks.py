"""The dashboard under generated and hostile requests: no stack trace, no way in, no way out, nothing changed."""

from __future__ import annotations

import datetime as dt
import itertools
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from support.own_words import BAD, check

from datasites.node.web.middleware import MOST_BODY_BYTES
from orchestrator.api.server import Service
from orchestrator.dashboard.access import FILE, Visitors
from orchestrator.dashboard.app import MOUNT, create_dashboard

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # schemathesis imports modules that its own dependencies deprecate
    schemathesis = pytest.importorskip("schemathesis", reason="needs the schemathesis package")
    from hypothesis import given, settings

PAGES = [
    ("GET", "/enter"),
    ("POST", "/enter"),
    ("POST", "/leave"),
    ("GET", "/"),
    ("GET", "/events"),
    ("GET", "/studies/{study}"),
    ("GET", "/studies/{study}/events"),
    ("GET", "/studies/{study}/report"),
]


@pytest.fixture
def service(new_service: Callable[..., Service]) -> Service:
    return new_service("dr-lang", "notary", "alba", "bruna", "corva")


@pytest.fixture
def pages(service: Service, tmp_path: Path) -> FastAPI:
    made, end_streams = create_dashboard(service, tmp_path, https=False)
    end_streams()  # an event stream says once how things are, and ends
    return made


@pytest.fixture
def cookie(tmp_path: Path, service: Service) -> str:
    visitors = Visitors(tmp_path / FILE)
    now = dt.datetime.now(dt.UTC)
    secret = visitors.enter(visitors.new_link(now=now), now=now)
    visitors.close()
    return f"tessera-dashboard-{service.identity.public_key[:12]}={secret}"


@pytest.fixture
def client(pages: FastAPI, cookie: str) -> TestClient:
    app = FastAPI()
    app.mount(MOUNT, pages)
    headers = {"accept": "text/html", "cookie": cookie}
    return TestClient(app, headers=headers, raise_server_exceptions=False, follow_redirects=False)


def test_every_page_is_tried(pages: FastAPI) -> None:
    assert {(m.upper(), p) for p, ms in pages.openapi()["paths"].items() for m in ms} == set(PAGES)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("method", "path"), PAGES)
def test_no_page_fails_on_generated_requests(
    pages: FastAPI, cookie: str, method: str, path: str, known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    schema = schemathesis.openapi.from_dict(pages.openapi())
    client = TestClient(pages, raise_server_exceptions=False, follow_redirects=False)

    @settings(settings.get_profile("requests"), max_examples=6)
    @given(case=schema[path][method].as_strategy())
    def run(case) -> None:
        headers = {"accept": "text/html", **({"cookie": cookie} if known else {})}
        form = case.body if isinstance(case.body, dict) else None
        answer = client.request(method, case.formatted_path, params=case.query, data=form, headers=headers)
        assert answer.status_code < 500
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        if not known and path not in ("/enter", "/leave"):
            assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/enter")

    run()
    assert not caplog.records


@pytest.mark.parametrize(
    "path",
    [
        "/shared/..%2f..%2f..%2faccess.py",
        "/static/%2e%2e/app.py",
        "/static/../templates/enter.html",
        "/studies/..%2f..%2fstore",
        "/studies/%00",
        "/studies/%ff",
        "/studies/" + "x" * 3000,
        "/studies/%0d%0aset-cookie:%20a=b",
        "/studies/{{7*7}}",
    ],
)
def test_no_address_leads_to_another_file(client: TestClient, path: str) -> None:
    answer = client.get(f"/dashboard{path}")
    assert answer.status_code in (400, 404)
    assert "import" not in answer.text and "set-cookie" not in answer.headers


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_no_form_needs_is_not_read(client: TestClient, chunked: bool) -> None:
    body = b"token=" + b"x" * MOST_BODY_BYTES
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = client.post("/dashboard/enter", content=iter([body]) if chunked else body, headers=kind)
    assert answer.status_code == 413
    assert "send less" in answer.text


def test_what_another_site_sends_does_nothing(client: TestClient) -> None:
    for path in ("/enter", "/leave"):
        answer = client.post(f"/dashboard{path}", data={"token": "x"}, headers={"sec-fetch-site": "cross-site"})
        assert answer.status_code == 403
    assert client.get("/dashboard/").status_code == 200  # still signed in


def test_no_answer_sends_people_to_another_host(client: TestClient) -> None:
    for host in ("evil.example", "evil.example:80", "[::1", "a b", "127.0.0.1@evil.example"):
        for method, path in (("GET", "/"), ("POST", "/leave"), ("GET", "//evil.example/")):
            answer = client.request(method, f"/dashboard{path}", headers={"host": host, "cookie": ""})
            links = re.findall(r'(?:href|src|action)="([^"]*)"', answer.text)
            assert not [link for link in links if not re.match(r"/(?!/)|#", link) or "evil" in link.partition("?")[0]]
            assert answer.headers.get("location", "/dashboard/").startswith("/dashboard/")


def test_a_guessed_cookie_or_link_opens_nothing(client: TestClient, service: Service) -> None:
    name = f"tessera-dashboard-{service.identity.public_key[:12]}"
    for value in ("", "x", "0" * 43, "' OR 1=1 --", "\x00", "a" * 5000):
        answer = client.get("/dashboard/", headers={"cookie": f"{name}={value}"})
        assert answer.status_code == 303
        assert client.post("/dashboard/enter", data={"token": value[:128]}).status_code in (403, 422)


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_nonsense_is_answered_in_our_own_words(pages: FastAPI, client: TestClient, accept: str) -> None:
    found: list[str] = []
    headers = {"accept": accept}
    for (method, path), bad in itertools.product(PAGES, BAD):
        address = MOUNT + re.sub(r"\{[^}]*\}", lambda _, bad=bad: bad, path)
        answer = client.request(method, f"{address}?to={bad}&since={bad}", headers=headers)
        check(answer, (method, address[:60]), found)
        check(client.put(address, headers=headers), ("PUT", address[:60]), found)
    check(client.get(f"{MOUNT}/nothing/here", headers=headers), "nothing", found)
    assert found == []
