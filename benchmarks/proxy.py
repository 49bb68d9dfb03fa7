"""A TCP proxy whose links can be cut, held or slowed while they carry traffic: a network that misbehaves on purpose.

with Network() as network:
    link = network.link(8000)      # dial link.port instead of port 8000 of this machine
    link.hold()                    # connections stay open, nothing passes
    link.heal()
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

_PIECE_BYTES = 65_536
_SLOW_PIECE_BYTES = 4096


class Link:
    """One party's way to a port of this machine; every method may be called from any thread.

    ``port`` is where the party dials.
    """

    def __init__(self, target: int, loop: asyncio.AbstractEventLoop) -> None:
        self._target, self._loop = target, loop
        self._open: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self._bytes_per_second = 0.0
        self._passing = asyncio.Event()
        self._passing.set()
        self.port = 0

    def cut(self) -> None:
        """Reset every connection, in the middle of whatever it carries, and refuse new ones."""
        self._refusing = True
        self._soon(self._reset)

    def hold(self) -> None:
        """Keep connections open and accept new ones, but let no byte pass."""
        self._soon(self._passing.clear)

    def slow(self, bytes_per_second: float) -> None:
        """Let each direction of each connection carry so much, in small pieces."""
        self._bytes_per_second = bytes_per_second

    def heal(self) -> None:
        """Be a good network again."""
        self._refusing, self._bytes_per_second = False, 0.0
        self._soon(self._passing.set)

    async def listen(self) -> asyncio.Server:
        """Begin to accept connections on a free port."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = int(server.sockets[0].getsockname()[1])
        return server

    def _soon(self, call: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(call)

    def _reset(self) -> None:
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()  # as if nobody listened
            return
        self._open |= {writer, back}
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        finally:
            self._open -= {writer, back}
            for end in (writer, back):
                end.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while piece := await source.read(_SLOW_PIECE_BYTES if self._bytes_per_second else _PIECE_BYTES):
                await self._passing.wait()
                if self._bytes_per_second:
                    await asyncio.sleep(len(piece) / self._bytes_per_second)
                target.write(piece)
                await target.drain()
            target.write_eof()
        except (OSError, RuntimeError):
            self._soon(target.transport.abort)


class Network:
    """The thread that carries all links; leaving the ``with`` block ends it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="network")

    def __enter__(self) -> Network:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ask(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def link(self, target: int) -> Link:
        """Return a new way to a port of this machine."""
        link = Link(target, self._loop)
        self._ask(link.listen())
        return link

    def _ask(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _end(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
