"""Who is to be invited, as people write it down, and the files that they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field

from datasites.node.consortium import read_toml
from datasites.node.files import write_atomically
from datasites.node.home import Role
from datasites.node.joining.codes import draw
from orchestrator.enrolment.desk import Issued, Member
from privacy.errors import InvalidInput

_INVITED: tuple[Role, ...] = ("datasite", "keyholder", "helper")


class _Party(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # the file of a composed consortium says more of a hospital
    name: str
    institution: str


class _Members(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    keyholder: _Party | None = None
    hospitals: tuple[_Party, ...] = Field(default=(), max_length=1000)
    helpers: tuple[_Party, ...] = ()


def members_of(path: Path) -> list[Member]:
    """Read everybody to be invited: ``[keyholder]``, ``[[hospitals]]`` and ``[[helpers]]`` with name and institution.

    Raises:
        InvalidInput: no such file, or nobody in it.
    """
    found = read_toml(path, _Members)
    keyholder = (found.keyholder,) if found.keyholder else ()
    listed: tuple[tuple[Role, tuple[_Party, ...]], ...] = (
        ("keyholder", keyholder),
        ("helper", found.helpers),
        ("datasite", found.hospitals),
    )
    members = [
        Member(role=role, name=party.name, institution=party.institution)
        for role, parties in listed
        for party in parties
    ]
    if not members:
        raise InvalidInput(f"expected [keyholder] and [[hospitals]] in {path.name}, found nobody to invite")
    return members


def one_member(name: str, institution: str, role: str) -> Member:
    """Return one party as given on the command line.

    Raises:
        InvalidInput: no institution, or no role that is invited.
    """
    if role not in _INVITED:
        raise InvalidInput(f"expected a role out of {', '.join(_INVITED)}, got {role[:40]!r}")
    if not institution:
        raise InvalidInput(f"expected --institution: people compare it with the fingerprint of {name}")
    (known,) = (one for one in get_args(Role) if one == role)
    return Member(role=known, name=name, institution=institution)


def read_schema(path: Path | None) -> Mapping[str, Any] | None:
    """Return a schema's document for the invitation, checked; None without a path.

    Raises:
        InvalidInput: no schema.
    """
    if path is None:
        return None
    from datasites.data.reading.schema_files import (
        read_schema_document,  # pandas, which other invitations can do without
    )
    from datasites.study.signing import dump

    return dump(read_schema_document(path))


def hand_out(issued: Sequence[Issued], out: Path, *, qr: Path | None, folder: bool) -> list[list[Path]]:
    """Write invitations (mode 0600: a number in them is secret) and their codes; return the files of each.

    Raises:
        InvalidInput: a file is there already.
    """
    planned: list[list[Path]] = []
    for one in issued:
        name = one.invitation.name
        both = [out / f"{name}.invitation", out / f"{name}.png"] if folder else [out, *([qr] if qr else [])]
        planned.append(both)
    there = [str(path) for paths in planned for path in paths if path.exists()]
    if there:
        raise InvalidInput(f"expected new files for the invitations, but {there[0]} is there already")
    for one, paths in zip(issued, planned, strict=True):
        write_atomically(paths[0], one.data)
        for picture in paths[1:]:
            write_atomically(picture, draw(one.code))
    return planned
