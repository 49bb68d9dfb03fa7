"""Signing in with the hospital's own accounts: OpenID Connect, code flow with PKCE (optional, off by default).

The owner's ``oidc.toml`` names one provider. It can open a session of the portal and nothing else: a signature under
a proposal still needs the person's own password, which alone opens their signing key.

    >>> provider = OidcProvider(OidcSettings.parse(text))
    >>> begun = provider.begin()                                 # send the browser to begun.address
    >>> provider.finish(begun, code="...", now=now).subject      # what came back, checked
    'e8a1...'

Checked: state and browser (by the portal, :mod:`datasites.portal.hospital_login`), PKCE (S256), nonce, issuer (also of
the response, RFC 9207), audience, authorised party, times, signature by one of the provider's keys, and an
asymmetric algorithm of the owner's list. Protocol and tokens are Authlib's and joserfc's.
"""

from __future__ import annotations

import datetime as dt
import hmac
import secrets
import threading
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

import httpx
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datasites.language.shapes import expected
from datasites.node.credentials.trust import client_context, machine_context
from datasites.node.files import text_of
from datasites.node.http import PLAIN, bound_answer, proxy_of_environment
from datasites.review.accounts import Role
from privacy.errors import InvalidInput, Refused
from privacy.sentences import say

CALLBACK = "/login/hospital/callback"
_Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"
]
_LEEWAY_SECONDS = 60
_TIMEOUT_SECONDS = 10.0
_METADATA_SECONDS = 3600.0
_KEYS_PAUSE_SECONDS = 10.0
_LONGEST_ANSWER_BYTES = 2**20


class OidcSettings(BaseModel):
    """The owner's ``oidc.toml``.

    ``roles`` maps values of the claim ``role_claim`` to roles here. Where it is not empty, nobody signs in whose claim
    does not (or no longer) grant the role of their account. ``create_accounts`` lets people whose claim grants a role
    make their own account at their first sign-in; otherwise an account is made with a one-time link and linked by hand.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Annotated[str, Field(min_length=8, max_length=512)]
    client_id: Annotated[str, Field(min_length=1, max_length=256)]
    portal_url: Annotated[str, Field(min_length=8, max_length=512)]
    client_secret_file: str = ""
    name: Annotated[str, Field(min_length=1, max_length=80)] = "hospital account"
    scopes: tuple[str, ...] = ("openid", "profile")
    algorithms: Annotated[tuple[_Algorithm, ...], Field(min_length=1)] = ("RS256", "ES256")
    role_claim: str = "groups"
    roles: dict[str, Role] = {}
    create_accounts: bool = False
    ca: str = ""

    @classmethod
    def parse(cls, text: str) -> OidcSettings:
        """Read settings from TOML text.

        Raises:
            InvalidInput: not TOML, an unknown key, a value out of range, or an address that is not HTTPS.
        """
        try:
            settings = cls.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise InvalidInput(say("oidc.toml is not valid TOML: {error}", error=error)) from error
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part)[:40] for part in first["loc"]) or say("the whole file")
            raise InvalidInput(say("oidc.toml: {why}", why=expected(first, where))) from error
        for address in (settings.issuer, settings.portal_url):
            _check_address(address)
        if settings.create_accounts and not settings.roles:
            raise InvalidInput(
                say("oidc.toml: create_accounts needs [roles], or everybody at the provider gets an account")
            )
        if "openid" not in settings.scopes:
            raise InvalidInput(say("oidc.toml: scopes must contain openid"))
        return settings

    @classmethod
    def load(cls, path: Path) -> OidcSettings | None:
        """Read the file at ``path``; None where there is none, so that this way of signing in is off.

        Raises:
            InvalidInput: as for :meth:`parse`.
        """
        return cls.parse(text_of(path)) if path.exists() else None

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends the browser back: to be registered there, exactly."""
        return self.portal_url.rstrip("/") + CALLBACK


@dataclass(frozen=True, kw_only=True)
class Begun:
    """One sign-in under way: where the browser goes, and the secrets that its return is checked with."""

    address: str
    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True, kw_only=True)
class Identified:
    """Who the provider says it is: issuer and subject identify the person, ``roles`` are those their claim grants,
    in the owner's order."""

    issuer: str
    subject: str
    roles: tuple[Role, ...]


class OidcProvider:
    """One OpenID provider; safe to use from several threads."""

    def __init__(self, settings: OidcSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._metadata: tuple[dict[str, Any], float] | None = None
        self._keys: tuple[KeySet, float] | None = None

    def begin(self) -> Begun:
        """Return where to send a browser, with fresh state, nonce and PKCE verifier.

        Raises:
            Refused: the provider cannot be reached or describes itself as another.
        """
        state, nonce, verifier = (secrets.token_urlsafe(48) for _ in range(3))
        with self._client() as client:
            address, _ = client.create_authorization_url(
                self._endpoint("authorization_endpoint"), state=state, nonce=nonce, code_verifier=verifier
            )
        return Begun(address=str(address), state=state, nonce=nonce, verifier=verifier)

    def check_sender(self, issuer: str) -> None:
        """Check the ``iss`` of a response, by which one provider's answer is told from another's (RFC 9207).

        Raises:
            Refused: another issuer, or none from a provider that promises to name itself.
        """
        promised = self._described().get("authorization_response_iss_parameter_supported") is True
        if (issuer or promised) and not hmac.compare_digest(issuer.encode(), self.settings.issuer.encode()):
            raise Refused(say("the answer does not come from this hospital's sign-in; nothing was done"))

    def finish(self, begun: Begun, *, code: str, now: dt.datetime) -> Identified:
        """Exchange the code for an ID token and return whom it names.

        Raises:
            Refused: the provider refuses the code, or the token is not a good one; the message says what is wrong.
        """
        try:
            with self._client() as client:
                token = client.fetch_token(
                    self._endpoint("token_endpoint"),
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=begun.verifier,
                )
        except (AuthlibBaseError, httpx.HTTPError, ValueError) as error:
            raise Refused(say("the hospital's sign-in did not accept the answer; sign in again")) from error
        claims = self._claims(token, begun, now)
        return Identified(issuer=self.settings.issuer, subject=str(claims["sub"]), roles=self._roles(claims))

    def _claims(self, token: Mapping[str, Any], begun: Begun, now: dt.datetime) -> Mapping[str, Any]:
        try:
            decoded = self._decode(str(token.get("id_token", "")))
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                options={
                    "iss": {"essential": True, "value": self.settings.issuer},
                    "aud": {"essential": True, "value": self.settings.client_id},
                },
                params={
                    "nonce": begun.nonce,
                    "client_id": self.settings.client_id,
                    "access_token": token.get("access_token"),
                },
            )
            claims.validate(now=int(now.timestamp()), leeway=_LEEWAY_SECONDS)
        except (JoseError, AuthlibBaseError, ValueError, TypeError) as error:
            reason = str(error) if isinstance(error, (JoseError, AuthlibBaseError)) else "malformed"
            raise Refused(
                say("the identity that the hospital's sign-in sent does not hold: {reason}", reason=reason[:120])
            ) from error
        if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
            raise Refused(say("the identity that the hospital's sign-in sent has no subject"))
        return cast("Mapping[str, Any]", claims)

    def _decode(self, id_token: str) -> jwt.Token:
        """Check the signature; an unknown key is looked for once more, since providers change their keys."""
        algorithms = list(self.settings.algorithms)
        try:
            return jwt.decode(id_token, self._key_set(), algorithms=algorithms)
        except (JoseError, ValueError):
            if not self._forget_keys():
                raise
        return jwt.decode(id_token, self._key_set(), algorithms=algorithms)

    def _roles(self, claims: Mapping[str, Any]) -> tuple[Role, ...]:
        value = claims.get(self.settings.role_claim, ())
        names = [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else ()
        return tuple(dict.fromkeys(role for name, role in self.settings.roles.items() if name in names))

    # what the provider says of itself

    def _described(self) -> dict[str, Any]:
        with self._lock:
            if self._metadata is None or time.monotonic() > self._metadata[1]:
                found = self._get(self.settings.issuer.rstrip("/") + "/.well-known/openid-configuration")
                if found.get("issuer") != self.settings.issuer:
                    raise Refused(say("the hospital's sign-in describes itself as another issuer; see oidc.toml"))
                self._metadata = (found, time.monotonic() + _METADATA_SECONDS)
            return self._metadata[0]

    def _endpoint(self, name: str) -> str:
        address = self._described().get(name)
        if not isinstance(address, str):
            raise Refused(say("the hospital's sign-in names no {name}; see oidc.toml", name=name))
        try:
            _check_address(address)
        except InvalidInput as error:
            raise Refused(say("the hospital's sign-in names an unsafe {name}", name=name)) from error
        if _is_local(address) and not _is_local(self.settings.issuer):  # else it has us speak to what listens here
            raise Refused(say("the hospital's sign-in names a {name} on this machine", name=name))
        return address

    def _key_set(self) -> KeySet:
        address = self._endpoint("jwks_uri")
        with self._lock:
            if self._keys is None or time.monotonic() > self._keys[1] + _METADATA_SECONDS:
                try:
                    keys = KeySet.import_key_set(cast("Any", self._get(address)))
                except (JoseError, ValueError, KeyError, TypeError) as error:
                    raise Refused(say("the keys of the hospital's sign-in cannot be read")) from error
                self._keys = (keys, time.monotonic())
            return self._keys[0]

    def _forget_keys(self) -> bool:
        """Let the keys be fetched again, unless they were a moment ago."""
        with self._lock:
            if self._keys is None or time.monotonic() - self._keys[1] < _KEYS_PAUSE_SECONDS:
                return False
            self._keys = None
            return True

    def _get(self, address: str) -> dict[str, Any]:
        try:
            with httpx.Client(timeout=_TIMEOUT_SECONDS, **self._transport()) as client:
                answer = client.get(address, headers={"accept": "application/json"})
            answer.raise_for_status()
            return dict(answer.json())
        except (httpx.HTTPError, ValueError, TypeError) as error:
            raise Refused(say("the hospital's sign-in cannot be reached now; sign in with your password")) from error

    def _client(self) -> OAuth2Client:
        settings = self.settings
        secret = (
            Path(settings.client_secret_file).read_text(encoding="utf-8").strip()
            if settings.client_secret_file
            else None
        )
        return OAuth2Client(
            client_id=settings.client_id,
            client_secret=secret,
            scope=" ".join(settings.scopes),
            redirect_uri=settings.redirect_uri,
            code_challenge_method="S256",
            timeout=_TIMEOUT_SECONDS,
            **self._transport(),
        )

    def _transport(self) -> dict[str, Any]:
        local = _is_local(self.settings.issuer)
        verify = client_context(Path(self.settings.ca)) if self.settings.ca else machine_context()
        proxy = None if local else proxy_of_environment(self.settings.issuer)
        hooks = {"response": [lambda answer: bound_answer(answer, _LONGEST_ANSWER_BYTES)]}
        bounds = {"headers": PLAIN, "event_hooks": hooks, "follow_redirects": False}
        return {"verify": verify, "trust_env": False, "proxy": proxy, **bounds}


def _is_local(address: str) -> bool:
    return urlsplit(address).hostname in ("127.0.0.1", "::1", "localhost")


def _check_address(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_local(address)):
        raise InvalidInput(say("oidc.toml: expected https:// addresses (http:// only on this machine)"))
    if not parts.hostname or parts.username or parts.fragment:
        raise InvalidInput(say("oidc.toml: expected addresses without user name and fragment"))
