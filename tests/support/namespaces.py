"""Machines of their own, on one machine: network namespaces with addresses, a switch between them, and names.

Every machine has only what its cables reach. A name is known to the machines that were told it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

NAMES = Path("/etc/netns")


def permitted() -> bool:
    """Whether this process may make network namespaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    probe = f"tess-{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode == 0
    if made:
        _ip("netns", "del", probe)
    return made


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Network:
    """Switches by name (``cables``: machine to its address on each), and what each machine calls the others."""

    def __init__(self, cables: Mapping[str, Mapping[str, str]], hosts: Mapping[str, Mapping[str, str]]) -> None:
        self._run = secrets.token_hex(2)
        self._cables, self._hosts = cables, hosts
        self._made: list[str] = []

    def namespace(self, machine: str) -> str:
        return f"tess-{self._run}-{machine}"

    def inside(self, machine: str) -> list[str]:
        """What to put before a command that runs on this machine."""
        return ["ip", "netns", "exec", self.namespace(machine)]

    def make(self) -> None:
        self._add("switch")
        machines = sorted({machine for cable in self._cables.values() for machine in cable})
        for machine in machines:
            self._add(machine)
            folder = NAMES / self.namespace(machine)
            folder.mkdir(parents=True)
            lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self._hosts[machine].items())]
            (folder / "hosts").write_text("\n".join(lines) + "\n")
        for number, (switch, cable) in enumerate(self._cables.items()):
            bridge = ["-n", self.namespace("switch"), "link"]
            _ip(*bridge, "add", switch, "type", "bridge")
            _ip(*bridge, "set", switch, "up")
            for place, (machine, address) in enumerate(cable.items()):
                self._plug(machine, address, switch, f"p{number}{place}")

    def _add(self, machine: str) -> None:
        name = self.namespace(machine)
        _ip("netns", "add", name)
        self._made.append(name)
        _ip("-n", name, "link", "set", "lo", "up")

    def _plug(self, machine: str, address: str, switch: str, port: str) -> None:
        there, here = self.namespace("switch"), self.namespace(machine)
        _ip("-n", there, "link", "add", port, "type", "veth", "peer", "name", f"e{port}", "netns", here)
        _ip("-n", there, "link", "set", port, "master", switch, "up")
        _ip("-n", here, "addr", "add", f"{address}/24", "dev", f"e{port}")
        _ip("-n", here, "link", "set", f"e{port}", "up")

    def remove(self) -> None:
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
            shutil.rmtree(NAMES / name, ignore_errors=True)


@contextlib.contextmanager
def network(cables: Mapping[str, Mapping[str, str]], hosts: Mapping[str, Mapping[str, str]]) -> Iterator[Network]:
    made = Network(cables, hosts)
    try:
        made.make()
        yield made
    finally:
        made.remove()
