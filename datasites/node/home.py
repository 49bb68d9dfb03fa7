"""The folder of one role: its identity, its settings and everything it must not forget.

::

    config.json     name, role, orchestrator's address, portal's host and port
    identity.pem    Ed25519 private key, mode 0600
    roster.json     who is in the consortium
    policy.toml     the owner's rules (datasites)
    oidc.toml       the hospital's own sign-in, where there is one (datasites)
    datasets/NAME/vN/{schema.json, private/, mock/}
    journal.sqlite  ledger.sqlite  approvals.sqlite
    rounds/STUDY/N/ what was sent in a round, so that a restart sends the same again
    reports/        privacy reports
    syft/           PySyft's own folder
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from datasites.node.files import write_atomically
from datasites.node.roster import Roster
from datasites.study.proposal import Party
from datasites.study.signing import parse
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput
from privacy.identity import Identity

Role = Literal["orchestrator", "keyholder", "datasite", "helper"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one role. ``port`` is where it listens (0: a free one); a keyholder does not listen.

    ``public_url`` is where others reach it, if that is not where it listens (a published port, a proxy). ``ca`` is the
    certificate file an HTTPS orchestrator must be vouched for by (empty: the system's); ``tls_certificate`` and
    ``tls_key`` make this role's own server speak HTTPS (one file may hold both; empty: plain HTTP).
    """

    name: str
    institution: str
    role: Role
    orchestrator_url: str
    host: str = "127.0.0.1"
    port: int = 0
    dataset: str = ""
    public_url: str = ""
    ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""


@dataclass(frozen=True, kw_only=True)
class Home:
    """One role's folder, as an absolute path: workers and writers of reports run in other folders than this process."""

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.resolve())

    @classmethod
    def create(cls, folder: Path, config: Config) -> Home:
        """Make the folder with a new identity; an existing home keeps its identity and gets the new settings."""
        home = cls(folder=folder)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        write_atomically(folder / "config.json", json.dumps(asdict(config), indent=2).encode())
        home.identity()
        return home

    def config(self) -> Config:
        """Read the settings.

        Raises:
            InvalidInput: the folder is not a home, or its settings are malformed.
        """
        path = self.folder / "config.json"
        if not path.exists():
            raise InvalidInput(f"expected a Tessera home at {self.folder}, got no config.json; make one with `init`")
        return parse(Config, path.read_bytes())

    def identity(self) -> Identity:
        """Read the identity, or make it at first use."""
        return Identity.load_or_create(self.folder / "identity.pem")

    def party(self) -> Party:
        """Return how this role stands in a roster."""
        config = self.config()
        return Party(name=config.name, institution=config.institution, public_key=self.identity().public_key)

    def roster(self) -> Roster:
        """Read the consortium's roster."""
        return Roster.load(self.folder / "roster.json")

    def round_folder(self, study: str, round_: int) -> Path:
        """Return where a round's files lie."""
        return self.folder / "rounds" / sha256_hex(study.encode())[:16] / str(round_)

    def datasets(self) -> list[Path]:
        """Return the newest version's folder of every dataset, by name."""
        found = []
        for dataset in sorted((self.folder / "datasets").glob("*")):
            versions = sorted(dataset.glob("v*"), key=lambda p: int(p.name[1:]))
            if versions:
                found.append(versions[-1])
        return found


def address(home: Path) -> str:
    """Return the URL that a ready role announced."""
    return str(json.loads((home / "address.json").read_bytes())["url"])
