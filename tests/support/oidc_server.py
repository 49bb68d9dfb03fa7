"""A small OpenID provider on this machine, for tests: real HTTP, real signed tokens, and it misbehaves on demand.

It checks what an honest provider checks: the registered address, the client's secret, PKCE, and that a code is used
once. ``claims`` and ``header`` change the next ID tokens, ``sign`` replaces how they are signed, ``metadata`` what the
provider says of itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "tessera-portal", "a secret of the portal"


class OidcServer:
    """The provider, while the ``with`` block lasts; ``host`` may be ``localhost`` to be another site than 127.0.0.1."""

    def __init__(self, *, now: int, host: str = "127.0.0.1") -> None:
        self.now, self.redirect_uri = now, "http://testserver/login/hospital/callback"
        self.person: dict[str, Any] = {"sub": "staff-17", "groups": ["tessera-stewards"]}
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.answer: dict[str, str] = {}
        self.sign = self._signed
        self.keys = [RSAKey.generate_key(2048, {"kid": "first", "alg": "RS256", "use": "sig"})]
        self.codes: dict[str, dict[str, str]] = {}
        self.used: list[str] = []
        handler = type("Handler", (_Handler,), {"provider": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.issuer = f"http://{host}:{self._server.server_address[1]}"

    def __enter__(self) -> OidcServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def described(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "authorization_response_iss_parameter_supported": True,
            **self.metadata,
        }

    def authorize(self, query: dict[str, str]) -> str:
        """Return where the browser goes once the person has signed in here."""
        assert query["response_type"] == "code" and query["client_id"] == CLIENT
        assert query["redirect_uri"] == self.redirect_uri
        assert query["code_challenge_method"] == "S256" and len(query["code_challenge"]) == 43
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        answer = {"code": code, "state": query["state"], "iss": self.issuer, **self.answer}
        return f"{self.redirect_uri}?{urlencode(answer)}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        query = self.codes.pop(form.get("code", ""), None)
        wanted = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if authorization != wanted:
            return 401, {"error": "invalid_client"}
        if query is None or _challenge(form.get("code_verifier", "")) != query["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        self.used.append(form["code"])
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "iat": self.now,
            "exp": self.now + 300,
            "nonce": query["nonce"],
            **self.person,
            **self.claims,
        }
        id_token = self.sign({k: v for k, v in claims.items() if v is not None})
        return 200, {"access_token": "x", "token_type": "Bearer", "expires_in": 300, "id_token": id_token}

    def _signed(self, claims: dict[str, Any]) -> str:
        return jwt.encode({"alg": "RS256", "kid": self.keys[0].kid, **self.header}, claims, self.keys[0])


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


class _Handler(BaseHTTPRequestHandler):
    provider: OidcServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/.well-known/openid-configuration":
            self._json(200, self.provider.described())
        elif parts.path == "/keys":
            self._json(200, {"keys": [k.as_dict(private=False) for k in self.provider.keys]})
        elif parts.path == "/authorize":
            self.send_response(302)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            self.send_header("location", self.provider.authorize(query))
            self.end_headers()
        else:
            self._json(404, {})

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["content-length"])).decode()
        form = {name: values[0] for name, values in parse_qs(text).items()}
        self._json(*self.provider.token(form, self.headers.get("authorization", "")))

    def _json(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
