"""The portal's `/readyz` and `/metrics`: what they say, and to whom."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from datasites.portal.app import create_portal

PASSWORD = "correct horse battery staple"


@pytest.fixture
def portal(desk, new_context, new_proposal):
    desk.submit(new_proposal())
    with TestClient(create_portal(new_context(desk)), client=("127.0.0.1", 5000)) as client:
        yield client


def bearer(portal, scopes):
    body = {"name": "anna", "password": PASSWORD, "scopes": scopes}
    return {"Authorization": f"Bearer {portal.post('/api/tokens', json=body).json()['token']}"}


def test_readiness_says_one_word(portal):
    answer = portal.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


def test_a_portal_whose_journal_cannot_be_read_is_not_ready(desk, new_context, monkeypatch):
    context = new_context(desk)
    with TestClient(create_portal(context)) as client:
        monkeypatch.setattr(type(context.approvals), "requests", lambda _: 1 / 0)
        answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "not ready"})


def test_metrics_are_for_people_who_are_signed_in_even_on_this_machine(portal):
    answer = portal.get("/metrics")
    assert answer.status_code == 401
    assert "epsilon" not in answer.text


def test_metrics_show_the_budget_with_what_an_epsilon_needs_beside_it(portal):
    answer = portal.get("/metrics", headers=bearer(portal, ["read"]))
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    lines = [line for line in answer.text.splitlines() if line.startswith("tessera_epsilon_spent{")]
    assert lines
    assert all(f'{name}="' in lines[0] for name in ("population", "delta", "adjacency", "accountant"))
    assert 'tessera_proposals{state="' in answer.text
    assert 'tessera_http_requests_total{method="POST",route="/api/tokens",status="201"} 1.0' in answer.text


def test_no_label_holds_what_a_caller_chose(portal):
    portal.get("/no/such/TCGA-BH-A001?token=abc")
    portal.get("/api/requests/" + "a" * 64)
    text = portal.get("/metrics", headers=bearer(portal, ["read"])).text
    assert "TCGA-BH-A001" not in text
    assert "a" * 64 not in text
    assert 'route="unmatched"' in text
