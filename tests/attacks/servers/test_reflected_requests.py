"""Others have a hospital's or the orchestrator's own server ask an address of their choice (SSRF).

Played: a provider of the hospital's sign-in whose description of itself names addresses on the hospital's own machine.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from datasites.review.oidc import Begun, OidcProvider, OidcSettings
from privacy.errors import Refused

ISSUER = "https://login.hospital.example"
BEGUN = Begun(address="", state="s" * 64, nonce="n" * 64, verifier="v" * 64)
NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
ACTS: dict[str, Callable[[OidcProvider], Any]] = {
    "authorization_endpoint": lambda provider: provider.begin(),
    "token_endpoint": lambda provider: provider.finish(BEGUN, code="code", now=NOW),
    "jwks_uri": lambda provider: provider._key_set(),
}


@pytest.mark.parametrize("named", ACTS)
@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:8000/studies/x/resume",
        "http://localhost/",
        "http://LOCALHOST:5432/",
        "http://[::1]:9/",
        "https://127.0.0.1/",
        "https://localhost:8443/",
        "http://elsewhere.example/",
        "file:///etc/passwd",
        "https://user@elsewhere.example/",
        "gopher://127.0.0.1:25/",
    ],
)
def test_a_provider_elsewhere_has_nothing_on_this_machine_asked(
    monkeypatch: pytest.MonkeyPatch, named: str, address: str
) -> None:
    provider = OidcProvider(
        OidcSettings.parse(f'issuer = "{ISSUER}"\nclient_id = "c"\nportal_url = "https://portal.example"')
    )
    described = {"issuer": ISSUER, **dict.fromkeys(ACTS, f"{ISSUER}/x"), named: address}

    def get(asked: str) -> dict[str, Any]:
        assert asked == f"{ISSUER}/.well-known/openid-configuration"
        return described

    monkeypatch.setattr(provider, "_get", get)
    with pytest.raises(Refused, match=f"names an unsafe {named}|names a {named} on this machine"):
        ACTS[named](provider)
