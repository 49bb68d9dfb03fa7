"""Large signed uploads: the header is checked before the body is read, then the body is streamed to disk.

An upload is an envelope (:mod:`datasites.study.signing`): a signed header, then the bytes it describes. Memory holds
the header and one network chunk, however long the upload is. A body longer than its header says is not read to the end.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from starlette.requests import ClientDisconnect, Request

from datasites.study.signing import Signed, parse
from orchestrator.rounds.summing.intake import INCOMING, Upload
from privacy.errors import InvalidInput, Refused, Tampered

HEADER_LIMIT_BYTES = 1 << 20
_DRAIN_BYTES = 16 << 20
_DRAIN_SECONDS = 5.0


class Incoming:
    """One request body, read piece by piece under the hash its token was signed for."""

    def __init__(self, request: Request, token_hash: str) -> None:
        declared = request.headers.get("content-length", "")
        if len(declared) > 18 or not declared.isascii() or not declared.isdigit():
            raise InvalidInput("expected an upload with a content-length")
        self.length = int(declared)
        if self.length < 5:
            raise InvalidInput(f"expected a signed header and a body, got {self.length} bytes")
        self._token_hash = token_hash
        self._digest = hashlib.sha256()
        self._pieces = request.stream()
        self._buffer = bytearray()
        self._read_bytes = 0

    async def header(self) -> Signed:
        """Return the signed header.

        Raises:
            InvalidInput: it is missing, too long, or no signed message.
        """
        size = int.from_bytes(await self._take(4), "big")
        if size > min(HEADER_LIMIT_BYTES, self.length - 4):
            raise InvalidInput(f"expected a header of at most {HEADER_LIMIT_BYTES} bytes in the upload, got {size}")
        self.body_bytes = self.length - 4 - size
        return parse(Signed, bytes(await self._take(size)))

    async def body(self, path: Path) -> str:
        """Write what follows the header to ``path`` and return its hash.

        Raises:
            InvalidInput: the connection ended early.
            Refused: the whole upload is not what its token was signed for.
        """
        digest = hashlib.sha256()
        with path.open("xb", buffering=0) as file:
            piece: bytes | bytearray = self._buffer
            while True:
                digest.update(piece)
                if file.write(piece) != len(piece):  # the last bytes that fitted; the next ones would raise
                    raise OSError(errno.ENOSPC, "no room for the whole upload")
                if self._read_bytes >= self.length:
                    break
                piece = await self._next()
        self._buffer = bytearray()
        if self._digest.hexdigest() != self._token_hash:
            raise Refused("expected a token for this body, got one for another body; sign every request anew")
        return digest.hexdigest()

    async def drain(self) -> None:
        """Read a little on without keeping anything, so that an honest caller hears why it was refused."""
        if self.length <= _DRAIN_BYTES:
            with suppress(TimeoutError, InvalidInput):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    while self._read_bytes < self.length:
                        await self._next()

    async def _take(self, count: int) -> bytearray:
        while len(self._buffer) < count:
            self._buffer += await self._next()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    async def _next(self) -> bytes:
        try:
            async for piece in self._pieces:
                if piece:
                    self._digest.update(piece)
                    self._read_bytes += len(piece)
                    return piece
        except ClientDisconnect:
            self.length = self._read_bytes  # nothing more will come
        raise InvalidInput(f"expected {self.length} bytes, got {self._read_bytes}; send the upload again")


@asynccontextmanager
async def receive(
    request: Request, token_hash: str, folder: Path, announced: Callable[[Signed], int]
) -> AsyncIterator[Upload]:
    """Yield one upload once it lies complete in a file, which is removed afterwards unless it was moved away.

    Args:
        request: not read yet.
        token_hash: the hash that the request's token was signed for.
        folder: where the file is made.
        announced: checks the signed header and returns how many bytes must follow; it raises to refuse.

    Raises:
        InvalidInput, Refused: the header, its length or its hash do not fit.
    """
    incoming = Incoming(request, token_hash)
    path = folder / f"{INCOMING}{secrets.token_hex(8)}"
    try:
        signed = await incoming.header()
        expected = announced(signed)
        if incoming.body_bytes != expected:
            raise InvalidInput(f"expected {expected} bytes after the header, got {incoming.body_bytes}")
        folder.mkdir(parents=True, exist_ok=True)
        yield Upload(signed=signed, path=path, body_hash=await incoming.body(path))
    except (InvalidInput, Refused, Tampered):
        await incoming.drain()
        raise
    finally:
        path.unlink(missing_ok=True)
