"""The folder of one role: its identity, its settings and everything it must not forget.

::

    config.json     name, role, orchestrator's address, portal's host and port
    identity.pem    Ed25519 private key, mode 0600
    roster.json     who is in the consortium
    handovers.json  by which keys of its parties became other ones
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
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from datasites.node.files import write_atomically
from datasites.node.keys.handover import former_keys, line
from datasites.node.places import hashed_place, is_of_study
from datasites.node.roster import Roster
from datasites.study.parts import Party
from datasites.study.signing import Signed, dump, parse
from privacy.errors import InvalidInput
from privacy.identity import Identity

Role = Literal["orchestrator", "keyholder", "datasite", "helper", "scientist"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one role. ``port`` is where it listens (0: a free one); a keyholder does not listen.

    ``public_url`` is where others reach it, if that is not where it listens (a published port, a proxy). ``ca`` is the
    certificate file an HTTPS orchestrator must be vouched for by (empty: whom this machine
    trusts); ``tls_certificate`` and
    ``tls_key`` make this role's own server speak HTTPS (one file may hold both; empty: plain HTTP).
    ``proxy`` is the forward proxy by which the orchestrator is dialled (``http://user:password@host:port``).
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
    proxy: str = ""


@dataclass(frozen=True, kw_only=True)
class Home:
    """One role's folder, as an absolute path: workers and writers of reports run in other folders than this process."""

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.resolve())

    @classmethod
    def create(cls, folder: Path, config: Config) -> Home:
        """Make the folder with a new identity; an existing home keeps its identity and gets the new settings.

        Raises:
            InvalidInput: the folder is another role's, or another party's: its key stands in rosters under that name.
        """
        home = cls(folder=folder)
        if (folder / "config.json").exists():
            there = home.config()
            for what, now, new in (
                ("the role", there.role, config.role),
                ("the name", there.name, config.name),
                ("the institution", there.institution, config.institution),
            ):
                if now != new:
                    raise InvalidInput(
                        f"expected a folder of {what} {new!r}, but {home.folder} is the home of {what} {now!r}, whose "
                        "key others know; nothing was changed; take another folder"
                    )
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
        config = parse(Config, path.read_bytes())
        return replace(
            config,
            ca=self._absolute(config.ca),
            tls_certificate=self._absolute(config.tls_certificate),
            tls_key=self._absolute(config.tls_key),
        )

    def _absolute(self, path: str) -> str:
        """Return where a file of the settings is; a relative path is looked for in this folder first."""
        if not path:
            return ""
        return str(self.folder / path if (self.folder / path).exists() else Path(path).resolve())

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

    def orchestrator_keys(self) -> frozenset[str]:
        """Return the orchestrator's key and those it had before: for documents that may have been signed long ago."""
        return self._keys_of(self.roster().orchestrator)

    def keys_of(self, name: str) -> frozenset[str]:
        """Return somebody's key and those they had before.

        Raises:
            InvalidInput: nobody in the roster has this name.
        """
        return self._keys_of(self.roster().by_name(name))

    def _keys_of(self, party: Party) -> frozenset[str]:
        return former_keys(line(self.handovers()), party.name, party.public_key)

    def handovers(self) -> tuple[Signed, ...]:
        """Return every hand-over of a key that is in force here.

        Raises:
            InvalidInput: the file is damaged.
        """
        path = self.folder / "handovers.json"
        if not path.exists():
            return ()
        try:
            found = json.loads(path.read_bytes())
            return _each_once(parse(Signed, one) for one in found)
        except (ValueError, TypeError) as error:
            raise InvalidInput("expected signed hand-overs in handovers.json; restore it from the backup") from error

    def keep_handovers(self, handovers: Iterable[Signed]) -> None:
        """Put hand-overs in force, in the place of those that were; one that comes twice is kept once."""
        kept = [dump(one) for one in _each_once(handovers)]
        write_atomically(self.folder / "handovers.json", json.dumps(kept).encode())

    def round_folder(self, study: str, round_: int) -> Path:
        """Return where a round's files lie."""

        def is_of(old: Path) -> bool:
            plans = sorted(old.glob("*/plan.json"))
            return bool(plans) and all(is_of_study(path, study, "study") for path in plans)

        return hashed_place(self.folder / "rounds", study, is_of=is_of) / str(round_)

    def datasets(self) -> list[Path]:
        """Return the newest version's folder of every dataset, by name."""
        return [max(found, key=_version) for found in self._versions().values() if found]

    def odd_datasets(self) -> list[Path]:
        """Return what lies among the datasets and is none: files, and folders that are not called v1, v2 and so on."""
        among = [path for dataset in self._dataset_folders() for path in sorted(dataset.iterdir())]
        files = [path for path in sorted((self.folder / "datasets").glob("*")) if not path.is_dir()]
        return [*files, *(path for path in among if not _is_version(path) and not path.name.startswith("."))]

    def _versions(self) -> dict[str, list[Path]]:
        return {
            dataset.name: [path for path in dataset.iterdir() if _is_version(path)]
            for dataset in self._dataset_folders()
        }

    def _dataset_folders(self) -> list[Path]:
        return [path for path in sorted((self.folder / "datasets").glob("*")) if path.is_dir() and path.name[0] != "."]


_VERSION = re.compile(r"v([1-9][0-9]{0,8})")


def _each_once(handovers: Iterable[Signed]) -> tuple[Signed, ...]:
    return tuple({signed.signature: signed for signed in handovers}.values())


def _is_version(path: Path) -> bool:
    return _VERSION.fullmatch(path.name) is not None and path.is_dir()


def _version(path: Path) -> int:
    return int(path.name[1:])


def address(home: Path) -> str:
    """Return the URL that a ready role announced."""
    return str(json.loads((home / "address.json").read_bytes())["url"])
