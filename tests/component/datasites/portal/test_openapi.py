"""The machine API keeps to its own OpenAPI description under generated requests."""

import warnings

import pytest
from fastapi.testclient import TestClient

from datasites.portal.app import create_portal

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # schemathesis imports modules that its own dependencies deprecate
    schemathesis = pytest.importorskip("schemathesis", reason="needs the schemathesis package")
    from hypothesis import given, settings

PASSWORD = "correct horse battery staple"


def operations() -> list[tuple[str, str]]:
    """Every documented operation but those that open sessions or use argon2 for each call."""
    return [
        (method, path)
        for method, path in (
            ("GET", "/healthz"),
            ("GET", "/readyz"),
            ("GET", "/metrics"),
            ("GET", "/api/requests"),
            ("GET", "/api/requests/{proposal_hash}"),
            ("GET", "/api/studies"),
            ("GET", "/api/budget"),
            ("GET", "/api/journal"),
            ("GET", "/api/jobs"),
            ("POST", "/api/jobs/{job_id}/decision"),
            ("GET", "/api/fingerprints"),
            ("PUT", "/api/fingerprints/{public_key}"),
            ("GET", "/api/roster"),
            ("PUT", "/api/roster/{digest}"),
            ("POST", "/api/requests/{proposal_hash}/approve"),
            ("POST", "/api/requests/{proposal_hash}/deny"),
            ("POST", "/api/requests/{proposal_hash}/ask"),
            ("POST", "/api/requests/{proposal_hash}/revoke"),
            ("POST", "/api/requests/{proposal_hash}/dry-run"),
            ("POST", "/api/tokens"),
            ("POST", "/api/register"),
            ("POST", "/api/login"),
        )
    ]


@pytest.fixture
def app(desk, new_context, new_proposal):
    desk.submit(new_proposal())
    return create_portal(new_context(desk))


def test_every_operation_of_the_api_is_tried(app):
    documented = {(m.upper(), p) for p, methods in app.openapi()["paths"].items() for m in methods}
    assert documented == set(operations())


@pytest.mark.parametrize("most", [6, pytest.param(15, marks=pytest.mark.thorough)])
@pytest.mark.parametrize(("method", "path"), operations())
def test_the_api_keeps_to_its_description(app, method, path, most):
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    with TestClient(app) as client:
        body = {"name": "anna", "password": PASSWORD, "scopes": ["read", "review"]}
        token = client.post("/api/tokens", json=body).json()["token"]

    @settings(settings.get_profile("requests"), max_examples=most)
    @given(case=schema[path][method].as_strategy())
    def run(case):
        response = case.call(headers={"Authorization": f"Bearer {token}"}, timeout=300)  # a loaded machine is no fault
        case.validate_response(response)

    run()
