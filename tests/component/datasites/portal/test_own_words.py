"""Whatever is wrong with a request, the answer is in our own words: no page or problem shows the framework's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from support.full_portal import FullPortal
from support.own_words import BAD, check
from support.review_desk import PASSWORD

from datasites.portal.app import create_portal

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.fixture(scope="module")
def portal(tmp_path_factory) -> TestClient:
    site = FullPortal(Path(tmp_path_factory.mktemp("portal")) / "site")
    client = TestClient(create_portal(site.context), raise_server_exceptions=False, follow_redirects=False)
    page = client.post("/login", data={"name": "anna", "password": PASSWORD}, headers={"accept": "text/html"})
    page = client.get("/people", headers={"accept": "text/html"}).text
    client.csrf = re.search(r'name="csrf" value="([^"]+)"', page).group(1)  # type: ignore[attr-defined]
    yield client
    site.close()


def addresses(portal: TestClient) -> list[tuple[str, str]]:
    """Return method and path of everything the portal answers, with a bad value in each gap of the path."""
    from datasites.portal import away, forms, hospital_login, jobs, owner_pages, pages, people_forms, request_page

    rooms = (forms, away, owner_pages, people_forms, hospital_login, pages, request_page)
    routes = [route for room in rooms for route in room.router.routes] + list(jobs.pages.routes)
    found = [(method, route.path) for route in routes for method in route.methods]
    api = portal.get("/api/openapi.json").json()["paths"]
    return found + [(method.upper(), path) for path, methods in api.items() for method in methods]


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_every_address_with_bad_values(portal: TestClient, accept: str) -> None:
    found: list[str] = []
    headers = {"accept": accept, "x-csrf-token": portal.csrf}  # type: ignore[attr-defined]
    csrf = {"csrf": portal.csrf}  # type: ignore[attr-defined]
    for method, path in addresses(portal):
        if path.endswith("/events") or path in ("/logout", "/reports") or path.endswith("dry-run"):
            continue
        for bad in BAD[:2] if "{" not in path else BAD:
            address = re.sub(r"\{[^}]*\}", lambda _, bad=bad: bad, path)
            if method in ("GET", "HEAD"):
                query = (
                    f"?x={bad}&q={bad * 99}&page={bad}&limit={bad}&since={bad}&after={bad}&token={bad * 99}&to={bad}"
                )
                check(portal.request(method, address + query, headers=headers), (method, address[:60]), found)
                continue
            fields = dict.fromkeys(
                ("reason", "name", "role", "kind", "decision", "epsilon", "conditions", "to"), bad * 99
            )
            bodies = ({"data": {**csrf, **fields}}, {"data": csrf}, {"json": {**fields, "n": 1}}, {"json": []})
            raw = ({"content": b"{", "headers": {**headers, "content-type": "application/json"}},
                   {"content": b"\xff\x00", "headers": {**headers, "content-type": "multipart/form-data"}})  # fmt: skip
            for body in (*bodies, *raw):
                answer = portal.request(method, address, **{"headers": headers, **body})
                check(answer, (method, address[:60], str(body)[:60]), found)
    for address in ("/inbox", "/requests/zz", "/nothing", "/api/requests", "/static/none.css", "/api/none"):
        for method in METHODS:
            check(portal.request(method, address, headers=headers), (method, address), found)
    assert found == []
