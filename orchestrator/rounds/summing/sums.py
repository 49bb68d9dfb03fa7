"""The running encrypted sum, in a process of its own.

TenSEAL holds Python's global lock and parses what strangers sent, so it runs beside the server: the event loop stays
responsive, and hostile bytes can at worst end this process (:class:`WorkerDied`), never the service. The sum can be
rebuilt from the stored ciphertexts at any time. Memory: one running sum and one ciphertext, whatever the number of
sites.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from datasites.node.process import own_module
from datasites.study.messages import BlockShape
from datasites.study.signing import dump
from privacy.encryption.parameters import EncryptionParameters
from privacy.errors import InvalidInput, TesseraError

_ANSWER_SECONDS = 300.0


class WorkerDied(TesseraError):
    """The process that reads ciphertexts ended; its sum has to be rebuilt without the last one."""


class RunningSumProcess:
    """One sum of encrypted updates, grown site by site; ``died`` counts the processes that ended unasked."""

    died: ClassVar[int] = 0

    def __init__(self, parameters: EncryptionParameters) -> None:
        self._parameters = parameters
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self.sites: set[str] = set()

    async def restart(self, blocks: Mapping[str, int]) -> None:
        """Begin an empty sum.

        Args:
            blocks: block name to number of values.
        """
        self.sites = set()
        await self._ask({"op": "start", "parameters": dump(self._parameters), "blocks": dict(blocks)})

    async def add(self, site: str, path: Path, shapes: Sequence[BlockShape]) -> None:
        """Check the structure of the update at ``path`` and add it.

        Raises:
            InvalidInput: the bytes are not the announced ciphertexts; the sum is as before.
            WorkerDied: reading them ended the process; rebuild the sum.
        """
        await self._ask({"op": "add", "path": str(path), "shapes": [dump(s) for s in shapes]})
        self.sites.add(site)

    async def finish(self, path: Path) -> str:
        """Write the sum's ciphertexts to ``path`` as one container and return its hash; the sum may still grow."""
        answer = await self._ask({"op": "finish", "path": str(path)})
        return str(answer["hash"])

    async def close(self) -> None:
        """End the process; its sum is lost."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._process = None
        self.sites = set()

    async def _ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        async with self._lock:
            if command["op"] == "start":
                await self._ensure_running()
            process = self._process
            if process is None or process.returncode is not None:
                raise WorkerDied("the summing process has ended")
            if process.stdin is None or process.stdout is None:
                raise WorkerDied("the summing process has no pipes")
            try:
                process.stdin.write(json.dumps(command).encode() + b"\n")
                await process.stdin.drain()
                async with asyncio.timeout(_ANSWER_SECONDS):
                    line = await process.stdout.readline()
            except (TimeoutError, ConnectionError, OSError) as error:
                await self._died()
                raise WorkerDied("the summing process does not answer") from error
            if not line:
                await self._died()
                raise WorkerDied("the summing process ended while reading a ciphertext")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise InvalidInput(str(answer["error"]))
        return answer

    async def _died(self) -> None:
        RunningSumProcess.died += 1
        await self.close()

    async def _ensure_running(self) -> None:
        if self._process is not None and self._process.returncode is not None:
            await self._died()
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *own_module("orchestrator.rounds.summing.sum_worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={"PATH": os.environ.get("PATH", "")},
                limit=1 << 20,
            )
