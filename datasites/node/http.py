"""The client side of every conversation: signed requests that are repeated until they arrive.

Every request gets a fresh token (:mod:`datasites.node.credentials.tokens`). All requests of Tessera are idempotent, so
a lost connection or a restarting server is answered by asking again, with exponential back-off and jitter. What the
server refuses comes back as the same error of :mod:`privacy.errors` that it raised there.
"""

from __future__ import annotations

import contextlib
import copy
import ipaddress
import json
import ssl
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.request import getproxies_environment

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from datasites.node.credentials.tokens import make_token
from datasites.node.credentials.trust import client_context, machine_context
from datasites.node.plugins import DISTRIBUTION
from datasites.study.protocol import (
    DATA_HEADER,
    PROPOSALS,
    PROPOSALS_HEADER,
    PROTOCOL,
    PROTOCOL_HEADER,
    RELEASE_HEADER,
    check_protocol,
)
from privacy.canonical import plain_json, sha256_hex
from privacy.errors import BudgetExceeded, InvalidInput, OtherProtocol, Refused, Tampered, TesseraError, UnsafeSum
from privacy.identity import Identity

Params = Mapping[str, str | int | float | None]


class Declined(Refused):
    """The server said no: to this request, at this moment. Whoever asked has decided nothing yet."""


PROBLEMS: tuple[tuple[type[TesseraError], int, str], ...] = (
    (BudgetExceeded, 409, "budget-exceeded"),
    (UnsafeSum, 409, "unsafe-sum"),
    (OtherProtocol, 426, "other-protocol"),
    (Refused, 403, "refused"),
    (Tampered, 400, "tampered"),
    (InvalidInput, 400, "invalid-input"),
)
"""Each error with the status and the type (``urn:tessera:...``) it has over HTTP; the first that fits counts."""
_BY_TYPE: dict[str, type[TesseraError]] = {
    f"urn:tessera:{name}": Declined if kind is Refused else kind for kind, _, name in PROBLEMS
}
_BY_STATUS: dict[int, type[TesseraError]] = {
    400: InvalidInput,
    413: InvalidInput,
    422: InvalidInput,
    401: Declined,
    403: Declined,
    409: Declined,
    426: OtherProtocol,
}
PLAIN = {"Accept-Encoding": "identity"}
"""What asks a server not to compress its answer: a few bytes could become gigabytes before anybody counts them."""
_MAX_JSON_BYTES = 16 * 1024**2
_MAX_BODY_BYTES = 256 * 1024**2
_MAX_PROBLEM_BYTES = 64 * 1024


class _TryAgain(Exception):  # never leaves this module
    pass


class SignedClient:
    """An HTTP client that signs as one identity and talks to one server; safe to share between threads.

    Args:
        identity: who asks.
        base_url: the server's address, such as ``http://127.0.0.1:8000``.
        server_public_key: the key tokens are made out to, 64 hexadecimal digits.
        transport: in place of the network, such as ``httpx.MockTransport``.
        timeout_seconds: for connecting and for each read; a long poll adds its own waiting time.
        retry_seconds: for how long a server that cannot be reached is tried again; 0 tries once.
        ca: file of the certificate that must vouch for an HTTPS server; empty: whom this machine trusts.
        proxy: address of a forward proxy, such as ``http://user:password@proxy.example:3128``; empty: none.
        trust: TLS settings in the place of ``ca``.
        data_software: hash of the part of this party's software that touches data; empty where none does.

    Raises:
        InvalidInput: no certificate can be read, or the proxy's address is none.
    """

    def __init__(
        self,
        identity: Identity,
        base_url: str,
        server_public_key: str,
        *,
        transport: httpx.BaseTransport | None = None,
        timeout_seconds: float = 30.0,
        retry_seconds: float = 60.0,
        ca: str = "",
        proxy: str = "",
        trust: ssl.SSLContext | None = None,
        data_software: str = "",
    ) -> None:
        self.identity = identity
        self._spoken = {
            PROTOCOL_HEADER: PROTOCOL,
            PROPOSALS_HEADER: str(PROPOSALS),
            RELEASE_HEADER: version(DISTRIBUTION),
            DATA_HEADER: data_software,
        }
        self.base_url = base_url
        self._audience = server_public_key
        self._timeout_seconds = timeout_seconds
        self._retry_seconds = retry_seconds
        # trust_env is off: no proxy or netrc of the environment may see or change signed requests
        verify: ssl.SSLContext | bool = False
        if base_url.startswith("https:"):
            verify = trust or (client_context(Path(ca)) if ca else machine_context())
        self._client = httpx.Client(
            base_url=base_url,
            transport=transport,
            trust_env=False,
            verify=verify,
            proxy=checked_proxy(proxy) if proxy else None,
        )

    def __enter__(self) -> SignedClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    @contextlib.contextmanager
    def towards(self, server_public_key: str) -> Iterator[SignedClient]:
        """Yield a client of the same server under another key; it shares the connections of this one."""
        other = copy.copy(self)
        other._audience = server_public_key
        yield other

    def get_json(
        self,
        path: str,
        *,
        params: Params | None = None,
        wait_seconds: float = 0.0,
        max_bytes: int = _MAX_JSON_BYTES,
    ) -> Any:
        """Return the JSON at ``path``.

        Args:
            path: below ``base_url``, beginning with ``/``.
            params: the query; fields that are None are left out.
            wait_seconds: how long the server may hold the request (long poll); put it into ``params`` as well.
            max_bytes: the longest answer that is read.

        Raises:
            InvalidInput, Refused, Tampered, TesseraError: what the server said, or that it cannot be reached.
        """
        return _read_json(self._ask("GET", path, params=params, wait_seconds=wait_seconds, max_bytes=max_bytes)[0])

    def get_changed(self, path: str, tag: str = "", *, params: Params | None = None) -> tuple[Any, str]:
        """Return the JSON at ``path`` and its ETag; None where it still has the ETag ``tag``; see :meth:`get_json`."""
        body, headers = self._ask("GET", path, params=params, max_bytes=_MAX_JSON_BYTES, known=tag)
        return _read_json(body), headers.get("etag", "")

    def get_beside(
        self, path: str, header: str, *, params: Params | None = None, wait_seconds: float = 0.0
    ) -> tuple[bytes, str]:
        """Return the JSON at ``path`` unread, and a header of the answer, empty if there is none; see `get_json`."""
        body, headers = self._ask("GET", path, params=params, wait_seconds=wait_seconds, max_bytes=_MAX_JSON_BYTES)
        return body, headers.get(header, "")

    def post_json(
        self, path: str, value: Any, *, params: Params | None = None, max_bytes: int = _MAX_JSON_BYTES
    ) -> Any:
        """Send ``value`` as JSON and return the JSON of the answer (None where it is empty)."""
        body = plain_json(value)
        return _read_json(
            self._ask("POST", path, params=params, body=body, kind="application/json", max_bytes=max_bytes)[0]
        )

    def get_bytes(
        self,
        path: str,
        *,
        params: Params | None = None,
        wait_seconds: float = 0.0,
        max_bytes: int = _MAX_BODY_BYTES,
    ) -> bytes:
        """Return the bytes at ``path``; see :meth:`get_json`."""
        return self._ask("GET", path, params=params, wait_seconds=wait_seconds, max_bytes=max_bytes)[0]

    def put_bytes(
        self, path: str, body: bytes, *, params: Params | None = None, max_bytes: int = _MAX_JSON_BYTES
    ) -> Any:
        """Store ``body`` at ``path`` and return the JSON of the answer (None where it is empty)."""
        kind = "application/octet-stream"
        return _read_json(self._ask("PUT", path, params=params, body=body, kind=kind, max_bytes=max_bytes)[0])

    def _ask(
        self,
        method: str,
        path: str,
        *,
        max_bytes: int,
        params: Params | None = None,
        body: bytes = b"",
        kind: str | None = None,
        wait_seconds: float = 0.0,
        known: str = "",
    ) -> tuple[bytes, httpx.Headers]:
        query = {name: value for name, value in (params or {}).items() if value is not None}
        timeout = httpx.Timeout(self._timeout_seconds, read=self._timeout_seconds + wait_seconds)
        headers = PLAIN | self._spoken | ({"Content-Type": kind} if kind else {})
        headers |= {"If-None-Match": known} if known else {}
        body_hash = sha256_hex(body)
        retrying = Retrying(
            retry=retry_if_exception_type((_TryAgain, httpx.TransportError)),
            wait=wait_exponential_jitter(multiplier=0.1, max=5.0, jitter=0.2),
            stop=stop_after_delay(self._retry_seconds),
            reraise=True,
        )

        def once() -> tuple[bytes, httpx.Headers]:
            request = self._client.build_request(
                method, path, params=query or None, content=body or None, headers=headers, timeout=timeout
            )
            request.headers["Authorization"] = make_token(
                self.identity,
                audience=self._audience,
                method=method,
                target=request.url.raw_path.decode(),
                body_hash=body_hash,
            )
            return self._send(request, max_bytes)

        try:
            return retrying(once)
        except (_TryAgain, httpx.TransportError) as error:
            why = str(error) or type(error).__name__
            raise TesseraError(
                f"{self.base_url} did not answer {method} {path} for {self._retry_seconds:g} s ({why}); "
                "check that the server runs and that its address is right"
            ) from error

    def _send(self, request: httpx.Request, max_bytes: int) -> tuple[bytes, httpx.Headers]:
        response = self._client.send(request, stream=True)
        try:
            if response.status_code in (502, 503, 504, 507):
                raise _TryAgain(f"status {response.status_code}")
            unchanged = response.status_code == 304 and "If-None-Match" in request.headers
            if response.is_success or unchanged:
                check_protocol(response.headers.get(PROTOCOL_HEADER), "the server")
                return read_plain(response, max_bytes), response.headers
            raise _problem(response.status_code, read_plain(response, _MAX_PROBLEM_BYTES))
        finally:
            response.close()


def checked_proxy(address: str) -> str:
    """Return the address of a forward proxy (HTTP CONNECT).

    Raises:
        InvalidInput: not ``http://`` or ``https://`` with a host; the message leaves user and password out.
    """
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or " " in address:
        shown = f"{url.scheme or 'an address'}://..." if url.scheme else "something else"
        raise InvalidInput(f"expected a proxy as http://HOST:PORT, got {shown}; SOCKS proxies are not supported")
    return address


def proxy_of_environment(url: str) -> str | None:
    """Return the proxy that the environment names for ``url``, or None where it says to go without.

    Read are ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` with host names, suffixes, addresses and
    networks (CIDR), in small letters as well. Roles do not use it: theirs is in their settings.

    Raises:
        InvalidInput: the proxy is none that can be used.
    """
    named = getproxies_environment()
    asked = httpx.URL(url)
    proxy = named.get(asked.scheme) or named.get("all")
    if not proxy or any(_matches(entry.strip(), asked) for entry in named.get("no", "").split(",")):
        return None
    return checked_proxy(proxy if "://" in proxy else f"http://{proxy}")


def _matches(entry: str, url: httpx.URL) -> bool:
    """Return whether an entry of NO_PROXY covers the host of ``url``."""
    host, port = url.host.lower(), url.port or {"https": 443, "http": 80}.get(url.scheme)
    if entry in ("", "*"):
        return entry == "*"
    with contextlib.suppress(ValueError):  # the entry or the host is a name
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    name, _, only = entry.lower().partition(":")
    name = name.lstrip("*").lstrip(".")
    return (not only or only == str(port)) and (host == name or host.endswith(f".{name}"))


def read_plain(response: httpx.Response, max_bytes: int) -> bytes:
    """Return the body of a streamed answer: counted as it arrives, and never decompressed.

    Raises:
        InvalidInput: it is compressed, or longer than ``max_bytes``.
    """
    try:
        _refuse_encoding(response)
        parts, left = list[bytes](), max_bytes
        for part in [response.content] if response.is_stream_consumed else response.iter_raw():
            left -= len(part)
            if left < 0:
                raise httpx.DecodingError(f"expected an answer of at most {max_bytes} bytes from the server, got more")
            parts.append(part)
        return b"".join(parts)
    except httpx.DecodingError as error:
        raise InvalidInput(str(error)) from error


def bound_answer(response: httpx.Response, max_bytes: int) -> None:
    """Let no more than ``max_bytes`` of an answer that is still unread be read, and nothing that is compressed.

    Raises:
        httpx.DecodingError: at once, or while it is read.
    """
    _refuse_encoding(response)
    raw = response.iter_raw

    def counted(chunk_size: int | None = None) -> Iterator[bytes]:
        left = max_bytes
        for part in raw(chunk_size):
            left -= len(part)
            if left < 0:
                raise httpx.DecodingError(f"expected an answer of at most {max_bytes} bytes from the server, got more")
            yield part

    response.iter_raw = counted  # type: ignore[method-assign]  # whatever reads the answer reads it through this


def _refuse_encoding(response: httpx.Response) -> None:
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise httpx.DecodingError("expected an answer without content encoding from the server; nothing was read")


def _read_json(body: bytes) -> Any:
    if not body:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("expected JSON from the server; is this the right address?") from error


def _problem(status: int, body: bytes) -> TesseraError:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    fields = data if isinstance(data, dict) else {}
    detail = str(fields.get("detail") or f"the server answered with status {status}")[:2000]
    kind = _BY_TYPE.get(str(fields.get("type"))) or _BY_STATUS.get(status, TesseraError)
    return kind(detail)
