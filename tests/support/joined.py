"""A consortium that is founded by invitations, through the commands that people type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.ports import kept_port

from datasites.node.home import Home

HOSPITALS = ("hospital-a", "hospital-b", "hospital-c")
CONSORTIUM = """
[keyholder]
name = "keyholder"
institution = "Neutral keyholder"
""" + "".join(f'[[hospitals]]\nname = "{name}"\ninstitution = "{name.title()}"\n' for name in HOSPITALS)


class Consortium:
    """An orchestrator's folder with TLS, and its founding server."""

    def __init__(self, folder: Path, tessera: Callable[..., str], host: str = "localhost") -> None:
        self.folder, self.tessera, self.home = folder, tessera, folder / "orchestrator"
        self.port = kept_port()
        self.url = f"https://{host}:{self.port}"
        tessera("orchestrator", "init", "--home", self.home, "--port", self.port, "--public-url", self.url)
        (folder / "consortium.toml").write_text(CONSORTIUM)

    @property
    def orchestrator(self) -> Home:
        return Home(folder=self.home)

    def invite(self, *arguments: object, code: int = 0) -> str:
        return self.tessera("invite", "--home", self.home, *arguments, code=code)

    def invite_all(self) -> Path:
        self.invite("--consortium", self.folder / "consortium.toml", "--out", self.folder / "invitations")
        return self.folder / "invitations"

    def join(self, invitation: object, name: str, *more: object, code: int = 0) -> str:
        return self.tessera("join", invitation, "--home", self.folder / name, *more, code=code)

    def admit_all(self) -> None:
        self.tessera("admit", "--all", "--home", self.home)
