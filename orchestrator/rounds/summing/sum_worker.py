"""The process that adds ciphertexts (``python -m orchestrator.rounds.summing.sum_worker``): JSON lines in, JSON lines
out.

::

    {"op": "start", "parameters": {...}, "blocks": {"shared": 7}}    begin an empty sum
    {"op": "add", "path": "...", "shapes": [{"name", "values", "ciphertexts"}]}
    {"op": "finish", "path": "..."}                                  write the sum there, answer its hash

It holds no key, has an empty environment and reads each update once, straight from its file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasites.node.files import write_atomically
from datasites.study.signing import parse
from privacy.canonical import sha256_hex
from privacy.encryption.ciphertexts import RunningSum, pack, unpack
from privacy.encryption.parameters import EncryptionParameters, check_security
from privacy.errors import InvalidInput, TesseraError


class Sums:
    """One running sum per block."""

    def __init__(self) -> None:
        self._parameters: EncryptionParameters | None = None
        self._sums: dict[str, RunningSum] = {}
        self._values: dict[str, int] = {}

    def handle(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Do one command and return the answer to it."""
        operation = command.get("op")
        if operation == "start":
            self._start(parse(EncryptionParameters, command["parameters"]), command["blocks"])
        elif operation == "add":
            self._add(Path(command["path"]), command["shapes"])
        elif operation == "finish":
            body = pack({name: total.to_ciphertexts() for name, total in self._sums.items()})
            write_atomically(Path(command["path"]), body)
            return {"ok": True, "hash": sha256_hex(body)}
        else:
            raise InvalidInput(f"expected start, add or finish, got {operation!r}")
        return {"ok": True}

    def _start(self, parameters: EncryptionParameters, blocks: Mapping[str, int]) -> None:
        check_security(parameters)
        self._parameters = parameters
        self._values = dict(blocks)
        self._sums = {
            name: RunningSum(parameters, ciphertexts=parameters.ciphertexts_for(values))
            for name, values in blocks.items()
        }

    def _add(self, path: Path, shapes: list[Mapping[str, Any]]) -> None:
        if self._parameters is None:
            raise InvalidInput("expected `start` before `add`")
        counts: dict[str, int] = {}
        for shape in shapes:
            name = str(shape["name"])
            if self._values.get(name) != shape["values"]:
                raise InvalidInput(f"expected {self._values.get(name)} values in block {name!r}")
            counts[name] = self._parameters.ciphertexts_for(int(shape["values"]))
            if counts[name] != shape["ciphertexts"]:
                raise InvalidInput(f"expected {counts[name]} ciphertexts in block {name!r}")
        blocks = unpack(path.read_bytes(), counts, self._parameters)  # everything is checked before anything is added
        for name, ciphertexts in blocks.items():
            self._sums[name].add(ciphertexts)


def main() -> None:
    """Answer commands until the input ends."""
    sums = Sums()
    for line in sys.stdin.buffer:
        try:
            answer = sums.handle(json.loads(line))
        except TesseraError as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
