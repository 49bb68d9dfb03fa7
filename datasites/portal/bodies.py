"""Bodies of requests to the pages: they are read before anybody is known, so never more than a form can need."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY_BYTES = 64 * 1024


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
            await self._too_long()(scope, receive, send)
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

    def _too_long(self) -> JSONResponse:
        detail = f"expected a body of at most {self._limit_bytes} bytes; send less"
        value = {"type": "urn:tessera:too-long", "title": "too long", "status": 413, "detail": detail}
        return JSONResponse(value, 413, {"connection": "close"}, media_type="application/problem+json")
