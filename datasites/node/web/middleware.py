"""What every web application of Tessera is wrapped in: short request bodies, security headers, static files, templates.

The pages of portal and dashboard share one frame (``templates/page.html``), one style sheet and one script.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import escape
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from datasites.language import current, speaking, spoken, tr, tr_plural
from datasites.language.formats import decimal, significant
from datasites.language.remembered import told
from datasites.node.web.languages import language_links, language_of
from datasites.node.web.problems import Problem, answer, new_problem
from datasites.study.text import delta_text
from privacy.canonical import sha256_hex
from privacy.sentences import Sentence, say

MOST_BODY_BYTES = 64 * 1024
_MOST_HEADERS = 64


class ShortBodies:
    """ASGI middleware: takes in a body of at most ``limit_bytes``, declared or not, and answers 413 to any other."""

    def __init__(self, app: ASGIApp, limit_bytes: int = MOST_BODY_BYTES) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, then pass the request on with it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await self._read(scope, receive)
        if body is None:
            await refusal(scope, self._too_long(), {"connection": "close"})(scope, receive, send)
            return
        messages = [body]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> Message | None:
        """Return one message with the whole body, or None where there is too much of it."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if len(declared) > 9 or not declared.isdigit() or int(declared) > self._limit_bytes:
            return None
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return message
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._limit_bytes:
                return None
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    def _too_long(self) -> Problem:
        detail = say("expected a body of at most {most} bytes; send less", most=self._limit_bytes)
        return new_problem(413, "too-long", detail)


_CROOKED = re.compile(rb"//|\\|/\.{1,2}(?:/|$)|%(?:2[ef]|5c|00|0[ad9])|[^\x21-\x7e]", re.IGNORECASE)
_ONCE = frozenset({b"authorization", b"content-encoding", b"content-length", b"content-type", b"cookie", b"host"})
_UNUSED = frozenset({b"accept-encoding", b"if-range", b"range"})


class PlainRequests:
    """ASGI middleware of every server: one spelling of each address, no encodings, no ranges.

    Nothing here is ever compressed or sent in parts, so ``Accept-Encoding`` and ``Range`` are not even shown to what
    could react to them. An address that a proxy or a browser could read otherwise is refused.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a crooked request, and pass any other on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        problem = _crooked(scope)
        if problem is not None:
            await refusal(scope, problem, {"connection": "close"})(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name not in _UNUSED]
        await self._app({**scope, "headers": headers}, receive, send)


def _crooked(scope: Scope) -> Problem | None:
    names = [name for name, _ in scope["headers"]]
    if _CROOKED.search(scope.get("raw_path") or scope["path"].encode()):
        return new_problem(400, "crooked-address", say("expected an address in its plain spelling"))
    if len(names) > _MOST_HEADERS or any(names.count(name) > 1 for name in _ONCE):
        said = say("expected at most {most} headers, and each once", most=_MOST_HEADERS)
        return new_problem(400, "crooked-head", said)
    if {b"transfer-encoding", b"content-length"} <= set(names):
        return new_problem(400, "crooked-head", say("expected one length of the body, got two"))
    encoding = dict(scope["headers"]).get(b"content-encoding", b"identity")
    if encoding.strip().lower() != b"identity":
        return new_problem(415, "encoded", say("expected a body without content encoding"))
    return None


def refusal(scope: Scope, problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """Return a refusal that comes before any application: a small page for people, or a problem document."""
    asked = Headers(scope=scope)
    if "text/html" not in asked.get("accept", "") or "/api/" in scope["path"]:
        return answer(problem, headers)
    language = language_of(asked)
    with speaking(language):
        text, title = escape(spoken(problem.said)), escape(tr("Not done"))
    head = f'<!doctype html><html lang="{language}"><head><meta charset="utf-8"><title>{title}</title></head>'
    body = f"{head}<body><main><h1>{title}</h1><p>{text}</p></main></body></html>"
    return HTMLResponse(body, problem.status, headers)


FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""For a report's page, which carries its own style, pictures and letters, and no script."""
_YEAR_SECONDS = 365 * 24 * 3600
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}


class Assets(StaticFiles):
    """Static files; asked for by their hash (:func:`asset`) they are kept by the browser for a year."""

    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file, or 304 where the browser has it."""
        response = await super().get_response(path, scope)
        pinned = b"v=" in scope["query_string"]
        response.headers["cache-control"] = f"max-age={_YEAR_SECONDS}, immutable" if pinned else "no-cache"
        return response


@lru_cache(maxsize=32)
def asset(mount: str, path: Path) -> str:
    """Return the address of a static file under ``mount``, different whenever its content is."""
    return f"{mount}/{path.name}?v={sha256_hex(path.read_bytes())[:12]}"


def new_environment(*folders: Path, mount: str) -> Environment:
    """Return an environment for templates in ``folders`` and the shared frame ``page.html``.

    Args:
        folders: searched first to last, the shared frame after them.
        mount: where this application serves :data:`STATIC`.
    """
    environment = Environment(
        loader=FileSystemLoader([*folders, FOLDER / "templates"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        finalize=lambda value: spoken(value) if isinstance(value, Sentence) else value,
    )
    environment.globals |= {"tr": tr, "tr_plural": tr_plural, "language": current, "small": delta_text}
    environment.filters |= {"told": told, "spoken": spoken}
    environment.globals |= {"decimal": decimal, "significant": significant}
    home = mount.rpartition("/")[0]
    environment.globals["language_links"] = lambda: language_links(home)
    environment.globals["shared"] = lambda name: asset(mount, STATIC / name)
    return environment


class SecurityHeaders:
    """Adds to every answer: no foreign resource, no framing, no sniffing, no storing of what is personal.

    What another site makes a browser send (``Sec-Fetch-Site``) changes nothing here.
    """

    def __init__(self, app: ASGIApp, headers: Mapping[str, str] = _HEADERS) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and add the headers to its answer."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        if scope["type"] == "http" and _foreign(scope):
            problem = new_problem(403, "foreign", say("another site sent this form; nothing was done"))
            await refusal(scope, problem)(scope, receive, with_headers)
            return
        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


def _foreign(scope: Scope) -> bool:
    return scope["method"] not in {"GET", "HEAD"} and (b"sec-fetch-site", b"cross-site") in scope["headers"]
