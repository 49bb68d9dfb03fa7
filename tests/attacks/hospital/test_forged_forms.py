"""Another site makes a signed-in person's browser send a form, and strangers ask for every address there is.

Played: each form and each request of the portal's API that changes something, found by asking the application for all
its addresses, with the person's session and no, an empty, or another session's CSRF token; each address that is read,
streams of events included, with no session. What is not named here as open is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from support.review_desk import ReviewDesk

from datasites.portal.app import create_portal
from datasites.portal.context import PortalContext
from datasites.study.proposal import Proposal

PASSWORD = "correct horse battery staple"
OPEN_FORMS = {"/login", "/welcome", "/api/login", "/api/register", "/api/tokens"}
"""What nobody is signed in for: each asks for a password or a one-time link."""
OPEN_PAGES = {
    *("/", "/healthz", "/readyz", "/login", "/login/hospital", "/login/hospital/callback", "/welcome", "/register"),
    "/language",
}
FILLED = {
    **{"proposal_hash": "0" * 64, "public_key": "0" * 64, "job_id": "0" * 32, "decision": "deny", "kind": "cap"},
    **{"name": "report.html", "study": "pilot", "path": "a", "number": "1", "file": "plan.py"},
}
FORM = {
    **{"password": PASSWORD, "new": PASSWORD, "name": "anna", "role": "auditor", "reason": "because", "key": "k"},
    **{"public_key": "0" * 64, "decision": "approve", "full_name": "A", "function": "F", "population": "p"},
    **{"epsilon": "1", "value": "1", "study": "s", "proposal_hash": "0" * 64},
}


@pytest.fixture
def app(
    desk: ReviewDesk, new_context: Callable[[ReviewDesk], PortalContext], new_proposal: Callable[[], Proposal]
) -> FastAPI:
    desk.submit(new_proposal())
    return create_portal(new_context(desk))


def addresses(app: FastAPI, *methods: str) -> Iterator[tuple[str, str]]:
    """Yield method and address of everything that the application answers, filled in."""
    for route in _routes(app.router.routes):
        for method in sorted((route.methods or set()) & set(methods)):
            yield method, re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: FILLED.get(found[1], "x"), route.path)


def _routes(routes: object) -> Iterator[APIRoute]:
    for route in routes:  # type: ignore[attr-defined]
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router"):  # FastAPI keeps what it includes
            yield from _routes(route.original_router.routes)


def signed_in(app: FastAPI) -> tuple[TestClient, str]:
    client = TestClient(app, base_url="http://127.0.0.1")
    page = client.post("/login", data={"name": "anna", "password": PASSWORD}).text
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found is not None
    return client, found[1]


def test_no_form_and_no_request_changes_anything_without_the_sessions_own_token(app: FastAPI, desk: ReviewDesk) -> None:
    client, _ = signed_in(app)
    _, others = signed_in(app)
    before = desk.kinds()
    tried = 0
    for method, address in addresses(app, "POST", "PUT", "DELETE", "PATCH"):
        if address in OPEN_FORMS:
            continue
        for token in (None, "", others):
            form = FORM if token is None else {**FORM, "csrf": token}
            headers = {} if token is None else {"x-csrf-token": token}
            for body in ({"data": form}, {"json": FORM}):
                answer = client.request(method, address, headers=headers, follow_redirects=False, **body)  # type: ignore[arg-type]
                assert answer.status_code in (400, 403, 422), (method, address, token, answer.status_code)
                tried += 1
    assert tried > 60
    assert desk.kinds() == before


def test_nobody_reads_anything_without_a_session(app: FastAPI) -> None:
    client = TestClient(app, base_url="http://127.0.0.1")
    tried, wrong = 0, set[tuple[str, int]]()
    for method, address in addresses(app, "GET"):
        if address in OPEN_PAGES:
            continue
        for headers in ({}, {"accept": "text/html"}, {"authorization": "Bearer x"}, {"cookie": "tessera-session=x"}):
            answer = client.request(method, address, headers=headers, follow_redirects=False)
            led = answer.status_code == 303 and answer.headers["location"].startswith("/login?")
            if not (led or answer.status_code in (401, 403)):
                wrong.add((address, answer.status_code))
            tried += 1
    assert not wrong
    assert tried > 60


def test_a_machine_token_that_may_only_read_changes_nothing(app: FastAPI, desk: ReviewDesk) -> None:
    client = TestClient(app, base_url="http://127.0.0.1")
    body = {"name": "anna", "password": PASSWORD, "scopes": ["read"]}
    token = client.post("/api/tokens", json=body).json()["token"]
    before = [kind for kind in desk.kinds() if kind != "token-used"]
    for method, address in addresses(app, "POST", "PUT", "DELETE", "PATCH"):
        if address in OPEN_FORMS - {"/welcome"}:
            continue
        for sent in ({"data": {**FORM, "csrf": "x"}}, {"json": FORM}):
            answer = client.request(
                method,
                address,
                headers={"authorization": f"Bearer {token}"},
                follow_redirects=False,
                **sent,  # type: ignore[arg-type]
            )
            assert answer.status_code in (400, 401, 403, 422), (method, address, answer.status_code)
    assert [kind for kind in desk.kinds() if kind != "token-used"] == before
