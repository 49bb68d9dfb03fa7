"""The language of a page: what the reader chose by a link, or else what the browser asks for.

The link (``/language?to=de&back=/inbox``) sets a cookie that stays for a year and says nothing but the language. Only
what is read is spoken in another language: whatever a request changes is journaled and signed in English.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from datasites.language import LANGUAGES, current, negotiate, speaking

COOKIE = "tessera-language"
_YEAR_SECONDS = 365 * 24 * 3600
_LONGEST = 2000
_LOCAL = re.compile(r"/(?![/\\])[\x21-\x7e]*")
_asked: ContextVar[tuple[str, str]] = ContextVar("asked", default=("en", "/"))


class Languages:
    """Answers the link, and speaks the reader's language while a page is read.

    Args:
        app: the application.
        mount: where it is served, ``/dashboard`` or nothing.
        https: whether the cookie is for HTTPS alone.
    """

    def __init__(self, app: ASGIApp, mount: str = "", *, https: bool = False) -> None:
        self._app = app
        self._mount = mount
        self._https = https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on in the language of its reader."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        query = scope["query_string"].decode("latin-1")
        reads = scope["method"] in ("GET", "HEAD")
        if reads and scope["path"] == f"{self._mount}/language":
            await self._choose(query)(scope, receive, send)
            return
        language = language_of(Headers(scope=scope))
        back = f"{scope['path']}?{query}" if query and reads else scope["path"]
        _asked.set((language, back if reads else f"{self._mount}/"))
        if reads:
            with speaking(language):
                await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _choose(self, query: str) -> RedirectResponse:
        fields = parse_qs(query[:_LONGEST])
        to, back = fields.get("to", [""])[0], fields.get("back", ["/"])[0]
        answer = RedirectResponse(back if _LOCAL.fullmatch(back) else f"{self._mount}/", 303)
        if to in LANGUAGES:
            path = self._mount or "/"
            answer.set_cookie(
                COOKIE, to, max_age=_YEAR_SECONDS, path=path, httponly=True, samesite="lax", secure=self._https
            )
        return answer


def language_of(headers: Mapping[str, str]) -> str:
    """Return the language of a request: the chosen one, or the best that the browser accepts."""
    chosen = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
    return chosen if chosen in LANGUAGES else negotiate(headers.get("accept-language", ""))


def asked_language() -> str:
    """Return the language of the request under way; what answers a form is rendered in it."""
    return _asked.get()[0]


def language_links(mount: str = "") -> list[dict[str, Any]]:
    """Return one link a language for the foot of a page."""
    back = _asked.get()[1]
    return [
        {
            "code": code,
            "name": name,
            "address": f"{mount}/language?{urlencode({'to': code, 'back': back})}",
            "current": code == current(),
        }
        for code, name in LANGUAGES.items()
    ]
