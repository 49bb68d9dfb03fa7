"""Who is expected in a consortium, as one public TOML file that every role starts with; keys are not in it.

::

    task = "early-late"
    seed = 0                       # public: of the split, and of the synthetic patients

    [orchestrator]
    name = "orchestrator"
    institution = "Study scientists"

    [keyholder]
    name = "keyholder"
    institution = "Neutral keyholder"

    [[hospitals]]
    name = "hospital-a"
    institution = "Hospital A"
    cohort = "BRCA"                # which cohort of the tables, and which modalities, this hospital gets
    modalities = ["mrna", "image", "clinical"]

Parties learn of one another by party files, exchanged by hand or through a shared folder. Together these files become
the roster.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datasites.node.home import Role
from datasites.node.letters import check_participant
from datasites.node.roster import Roster
from datasites.study.proposal import Party
from datasites.study.text import check_name, folded
from privacy.errors import InvalidInput, Refused, TesseraError
from privacy.identity import check_public_key

_POLL_SECONDS = 0.2
T = TypeVar("T", bound=BaseModel)
AUTHORITY_FILE = "ca.pem"


@dataclass(frozen=True, kw_only=True)
class Enrolled:
    """A party and the role it says it has."""

    role: Role
    party: Party


def read_party(path: Path) -> Enrolled:
    """Read a party file, as ``tessera ... init`` prints it.

    Raises:
        InvalidInput: it is none.
    """
    try:
        value = json.loads(path.read_bytes())
        role, fields = value["role"], {k: value[k] for k in ("name", "institution", "public_key")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"expected what `tessera ROLE init` printed in {path.name}, could not read it") from error
    if role not in get_args(Role) or not all(isinstance(v, str) for v in fields.values()):
        raise InvalidInput(f"expected a role out of {', '.join(get_args(Role))} and three texts in {path.name}")
    check_member(role, fields["name"], fields["institution"])  # they stand beside the fingerprint that people compare
    check_public_key(fields["public_key"])
    return Enrolled(role=role, party=Party(**fields))


_OWN_NAMES: Mapping[str, Role] = {"orchestrator": "orchestrator", "keyholder": "keyholder"}


def check_member(role: Role, name: str, institution: str) -> None:
    """Check what a party wants to be called: it stands in rosters, addresses and proposals of everybody.

    Raises:
        InvalidInput: a name that no roster takes, another role's usual name, or an institution that people cannot read.
    """
    check_participant(name)
    if _OWN_NAMES.get(name.lower(), role) != role:
        raise InvalidInput(f"expected another name than {name!r} for a {role}: it is the {name.lower()}'s own")
    check_name(institution, "an institution")


def check_address(url: str) -> str:
    """Return the address of an orchestrator or a portal, which roles dial.

    Raises:
        InvalidInput: not http or https, no host, or with a user, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        sound = parts.scheme in ("http", "https") and bool(host) and not (parts.username or parts.query)
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        sound = False
    if not sound or parts.fragment or any(letter.isspace() for letter in url):
        shown = re.sub(r"(?<=//)[^/@]*@", "...@", url)  # no name and password of anybody
        raise InvalidInput(f"expected an address such as https://study.example:8443, got {shown[:80]!r}")
    return url


def build_roster(enrolled: Iterable[Enrolled]) -> Roster:
    """Return the roster of these parties; hospitals, helpers and scientists in the order given.

    Raises:
        InvalidInput: not exactly one orchestrator and one keyholder, fewer than three hospitals, a name or a key that
            stands twice, or a keyholder of an institution that orchestrates or takes part.
    """
    by_role: dict[str, list[Party]] = {role: [] for role in get_args(Role)}
    for one in enrolled:
        by_role[one.role].append(one.party)
    counts = {role: len(parties) for role, parties in by_role.items()}
    if (counts["orchestrator"], counts["keyholder"]) != (1, 1) or counts["datasite"] < 3:
        raise InvalidInput(f"expected one orchestrator, one keyholder and at least three hospitals, got {counts}")
    roster = Roster(
        orchestrator=by_role["orchestrator"][0],
        keyholder=by_role["keyholder"][0],
        sites=tuple(by_role["datasite"]),
        helpers=tuple(by_role["helper"]),
        scientists=tuple(by_role["scientist"]),
    )
    roster.check()
    neutral = folded(roster.keyholder.institution)
    if neutral in {folded(party.institution) for party in (roster.orchestrator, *roster.sites)}:
        raise InvalidInput(
            f"expected a keyholder of an institution of its own, got {roster.keyholder.institution!r}, which "
            "orchestrates or is a hospital here: no study could be approved"
        )
    return roster


def publish_party(exchange: Path, role: Role, party: Party) -> None:
    """Leave this role's party file in the shared folder.

    Raises:
        Refused: somebody else has this name there.
    """
    text = json.dumps({"role": role, **asdict(party)}, sort_keys=True).encode()
    publish(exchange, f"{party.name}.json", text)


def publish(exchange: Path, name: str, data: bytes) -> None:
    """Leave a public file in the shared folder, which everybody may read and nobody replaces.

    Raises:
        Refused: another file has this name.
    """
    path = exchange / name
    temporary = exchange / f".{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)
        os.link(temporary, path)  # fails where there is one already, and is whole where there is none
    except FileExistsError:
        if path.read_bytes() != data:
            raise Refused(
                f"another {name} lies in the exchange folder: an old consortium's, or somebody took the name; "
                "empty the folder once everybody is stopped"
            ) from None
    finally:
        temporary.unlink()


def gather(
    exchange: Path, consortium: Consortium, *, seconds: float, waiting: Callable[[str], None] = lambda _: None
) -> Roster:
    """Wait for everybody's party file and return the roster; it is the same at every role.

    Args:
        exchange: the shared folder.
        consortium: who is expected; a file that says another role or institution is refused.
        seconds: how long to wait.
        waiting: told the names that are missing, whenever they change.

    Raises:
        TesseraError: somebody did not come in time.
        InvalidInput: a file differs from what is expected.
    """
    wait_for({name: exchange / f"{name}.json" for name in consortium.names}, seconds=seconds, waiting=waiting)
    enrolled = [read_party(exchange / f"{name}.json") for name in consortium.names]
    for name, one in zip(consortium.names, enrolled, strict=True):
        role, member = consortium.member(name)
        expected, found = (role, name, member.institution), (one.role, one.party.name, one.party.institution)
        if expected != found:
            raise InvalidInput(f"expected {expected} in the exchange folder, got {found}; empty it and start again")
    return build_roster(enrolled)


def wait_for(files: Mapping[str, Path], *, seconds: float, waiting: Callable[[str], None] = lambda _: None) -> None:
    """Wait until every file exists.

    Raises:
        TesseraError: one does not in time.
    """
    deadline = time.monotonic() + seconds
    told = ""
    while missing := ", ".join(name for name, path in files.items() if not path.exists()):
        if missing != told:
            waiting(missing)
            told = missing
        if time.monotonic() > deadline:
            raise TesseraError(f"{missing} did not come to the exchange folder in {seconds:g} s; are they started?")
        time.sleep(_POLL_SECONDS)


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


def read_toml(path: Path, kind: type[T]) -> T:
    """Read a file that says who is in a consortium, as a value of ``kind``.

    Raises:
        InvalidInput: it cannot be read, or is not valid; the message says where.
    """
    try:
        return kind.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"expected a consortium in TOML at {path}, and could not read it") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{path.name} is no consortium: {where}: {first['msg']}") from error


class Member(BaseModel):
    """One party: the name it goes by everywhere, and its institution."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    institution: Annotated[str, Field(min_length=1, max_length=120)]


class Hospital(Member):
    """A hospital and which part of the cohort tables it gets."""

    cohort: str
    modalities: tuple[Literal["mrna", "image", "clinical"], ...] = Field(min_length=1)


class Consortium(BaseModel):
    """Everybody who is expected; the order of the hospitals is the order of the roster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["I-II", "early-late", "ordinal", "I-IV"] = "early-late"
    seed: int = Field(default=0, ge=0)
    orchestrator: Member
    keyholder: Member
    hospitals: tuple[Hospital, ...] = Field(min_length=3)
    helpers: tuple[Member, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Consortium:
        """Read the file at ``path``.

        Raises:
            InvalidInput: it cannot be read, is not valid, or lists a name twice.
        """
        found = read_toml(path, cls)
        if len(set(found.names)) < len(found.names):
            raise InvalidInput(f"{path.name}: a name stands twice; one institution, one name")
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Everybody's names: orchestrator, keyholder, helpers, hospitals."""
        return (self.orchestrator.name, self.keyholder.name, *(m.name for m in (*self.helpers, *self.hospitals)))

    def member(self, name: str) -> tuple[Role, Member]:
        """Return somebody's role and entry.

        Raises:
            InvalidInput: nobody of this name is expected.
        """
        roles: dict[str, tuple[Role, Member]] = {h.name: ("datasite", h) for h in self.hospitals}
        roles |= {self.orchestrator.name: ("orchestrator", self.orchestrator)}
        roles |= {self.keyholder.name: ("keyholder", self.keyholder)}
        roles |= {helper.name: ("helper", helper) for helper in self.helpers}
        if name not in roles:
            raise InvalidInput(f"{name!r} is not in this consortium ({', '.join(self.names)}); use another file")
        return roles[name]

    def hospital(self, name: str) -> Hospital:
        """Return a hospital's entry.

        Raises:
            InvalidInput: no hospital has this name.
        """
        for hospital in self.hospitals:
            if hospital.name == name:
                return hospital
        raise InvalidInput(f"no hospital is called {name!r} in this consortium")
