"""The machine API: people, decisions, CSRF, scopes, problems; and the same rules behind every door."""

from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from support.approvals import is_approved

from datasites.portal.app import create_portal

PASSWORD = "correct horse battery staple"


@pytest.fixture
def portal(desk, new_context):
    with TestClient(create_portal(new_context(desk))) as client:
        yield client


def token(client, name: str = "anna", scopes: tuple[str, ...] = ("read", "review")) -> dict[str, str]:
    body = {"name": name, "password": PASSWORD, "scopes": list(scopes)}
    answer = client.post("/api/tokens", json=body)
    assert answer.status_code == 201, answer.text
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def problem(answer) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json()) == {"type", "title", "status", "detail"}
    assert answer.json()["status"] == answer.status_code
    return answer.json()["detail"]


def test_health_needs_nobody(portal):
    assert portal.get("/healthz").json() == {"status": "ok", "site": "alba"}


@pytest.mark.parametrize("path", ["requests", "studies", "budget", "journal", "fingerprints", "requests/" + "a" * 64])
def test_nothing_is_read_without_signing_in(portal, path):
    answer = portal.get(f"/api/{path}")
    assert answer.status_code == 401
    assert "sign in" in problem(answer)


def test_a_reviewer_approves_with_token_and_password(portal, desk, new_proposal):
    proposal_hash = desk.submit(new_proposal())
    headers = token(portal)
    listed = portal.get("/api/requests", headers=headers).json()
    assert [r["state"] for r in listed] == ["pending"]
    detail = portal.get(f"/api/requests/{proposal_hash}", headers=headers).json()
    assert detail["cost"]["after"] == 4.0
    assert detail["violations"] == []
    answer = portal.post(f"/api/requests/{proposal_hash}/approve", json={"password": PASSWORD}, headers=headers)
    assert answer.json()["state"] == "approved"
    assert is_approved(desk.store, proposal_hash)


def test_a_stolen_token_without_the_password_signs_nothing(portal, desk, new_proposal):
    proposal_hash = desk.submit(new_proposal())
    body = {"password": "another pass phrase"}
    answer = portal.post(f"/api/requests/{proposal_hash}/approve", json=body, headers=token(portal))
    assert answer.status_code == 403
    assert not is_approved(desk.store, proposal_hash)


def test_a_read_token_and_an_auditor_decide_nothing(portal, desk, new_proposal):
    proposal_hash = desk.submit(new_proposal())
    for headers in (token(portal, scopes=("read",)), token(portal, "otto", ("read",))):
        answer = portal.post(f"/api/requests/{proposal_hash}/deny", json={"reason": "no reason"}, headers=headers)
        assert answer.status_code == 403
    body = {"name": "otto", "password": PASSWORD, "scopes": ["review"]}
    assert "auditor" in problem(portal.post("/api/tokens", json=body))


def test_a_session_changes_nothing_without_its_csrf_token(portal, desk, new_proposal):
    proposal_hash = desk.submit(new_proposal())
    session = portal.post("/api/login", json={"name": "anna", "password": PASSWORD}).json()
    url, body = f"/api/requests/{proposal_hash}/approve", {"password": PASSWORD}
    assert portal.post(url, json=body).status_code == 403
    assert portal.post(url, json=body, headers={"X-CSRF-Token": "x" * 32}).status_code == 403
    answer = portal.post(url, json=body, headers={"X-CSRF-Token": session["csrf"]})
    assert answer.json()["state"] == "approved"


def test_what_another_site_sends_changes_nothing(portal):
    body = {"name": "anna", "password": PASSWORD}
    assert portal.post("/api/login", json=body, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_deny_ask_and_revoke(portal, desk, new_proposal):
    headers = token(portal)
    denied, asked = desk.submit(new_proposal()), desk.submit(new_proposal(nonce="1" * 32))
    reason = {"reason": "the legal basis is missing"}
    assert portal.post(f"/api/requests/{denied}/deny", json=reason, headers=headers).json()["state"] == "denied"
    answer = portal.post(f"/api/requests/{asked}/ask", json=reason, headers=headers).json()
    assert answer["state"] == "changes-requested"
    assert "nothing to revoke" in problem(portal.post(f"/api/requests/{asked}/revoke", json=reason, headers=headers))
    portal.post(f"/api/requests/{asked}/approve", json={"password": PASSWORD}, headers=headers)
    assert portal.post(f"/api/requests/{asked}/revoke", json=reason, headers=headers).json()["state"] == "revoked"


def test_over_the_cap_nothing_is_approved(desk, new_context, new_proposal):
    proposal_hash = desk.submit(new_proposal())
    with TestClient(create_portal(new_context(desk, after=12.0))) as client:
        headers = token(client)
        url = f"/api/requests/{proposal_hash}/approve"
        answer = client.post(url, json={"password": PASSWORD}, headers=headers)
    assert "the cap is 10" in problem(answer)
    assert not is_approved(desk.store, proposal_hash)


def test_nothing_is_approved_that_this_software_would_refuse_in_every_round(portal, desk, new_proposal):
    other = replace(new_proposal().environment, code_hash="9" * 64)
    proposal_hash = desk.submit(new_proposal(environment=other))
    url = f"/api/requests/{proposal_hash}/approve"
    assert "software" in problem(portal.post(url, json={"password": PASSWORD}, headers=token(portal)))
    assert not is_approved(desk.store, proposal_hash)


def test_free_python_needs_a_dry_run_that_passed(new_desk, new_context, new_proposal):
    desk = new_desk("[study]\nallow_free_python = true")
    proposal_hash = desk.submit(new_proposal(kind="python"))
    for held in (False, True):
        with TestClient(create_portal(new_context(desk, held=held))) as client:
            for name in ("anna", "bela"):
                headers, url = token(client, name), f"/api/requests/{proposal_hash}"
                answer = client.post(f"{url}/approve", json={"password": PASSWORD}, headers=headers)
                if name == "anna":
                    assert "dry run" in problem(answer)
                    trial = client.post(f"{url}/dry-run", headers=headers).json()
                    assert trial["passed"] is held
                    answer = client.post(f"{url}/approve", json={"password": PASSWORD}, headers=headers)
                assert answer.status_code == (200 if held else 403)
        assert is_approved(desk.store, proposal_hash) is held


def test_fingerprints_are_confirmed_through_the_api(portal, desk, new_proposal):
    stranger = replace(new_proposal().keyholder, public_key="7" * 64)
    session = portal.post("/api/login", json={"name": "anna", "password": PASSWORD}).json()
    headers = {"X-CSRF-Token": session["csrf"]}
    body = {"name": stranger.name, "institution": stranger.institution, "password": PASSWORD}
    answer = portal.put(f"/api/fingerprints/{stranger.public_key}", json=body, headers=headers)
    assert answer.json()["person"] == "anna"
    assert stranger.public_key in desk.store.confirmed()


def test_an_unknown_request_is_404_and_a_malformed_one_422(portal):
    headers = token(portal)
    assert portal.get(f"/api/requests/{'0' * 64}", headers=headers).status_code == 404
    assert portal.get("/api/requests/xyz", headers=headers).status_code == 422
    answer = portal.post("/api/tokens", json={"name": "anna", "password": PASSWORD, "scopes": [], "extra": 1})
    assert answer.status_code == 422
    problem(answer)


def test_a_one_time_link_makes_an_account_that_the_journal_names(portal, desk, now):
    link = desk.accounts.invite("privacy-officer", now=now)
    body = {"token": link, "name": "carla", "password": PASSWORD}
    assert portal.post("/api/register", json=body).json()["role"] == "privacy-officer"
    assert portal.post("/api/register", json=body).status_code == 403
    assert next(desk.journal.entries(kind="account-created")).body["name"] == "carla"


def test_the_journal_comes_in_parts(portal, desk):
    headers = token(portal)
    part = portal.get("/api/journal?limit=2", headers=headers).json()
    assert [e["index"] for e in part["entries"]] == [1, 2]
    rest = portal.get("/api/journal?since=2", headers=headers).json()
    assert rest["entries"][-1]["hash"] == rest["head_hash"] == desk.journal.head.hash


def test_every_answer_forbids_foreign_resources_and_framing(portal):
    for path in ("/login", "/healthz", "/api/requests"):
        headers = portal.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
