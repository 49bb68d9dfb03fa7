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
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datasites.home import Role
from privacy.errors import InvalidInput

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


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

    task: Literal["I-II", "early-late", "ordinal"] = "early-late"
    seed: int = Field(default=0, ge=0)
    orchestrator: Member
    keyholder: Member
    hospitals: tuple[Hospital, ...] = Field(min_length=3)

    @classmethod
    def load(cls, path: Path) -> Consortium:
        """Read the file at ``path``.

        Raises:
            InvalidInput: it cannot be read, is not valid, or lists a name twice.
        """
        try:
            found = cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidInput(f"expected a consortium in TOML at {path}, and could not read it") from error
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InvalidInput(f"{path.name} is no consortium: {where}: {first['msg']}") from error
        if len(set(found.names)) < len(found.names):
            raise InvalidInput(f"{path.name}: a name stands twice; one institution, one name")
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Everybody's names: orchestrator, keyholder, hospitals."""
        return (self.orchestrator.name, self.keyholder.name, *(h.name for h in self.hospitals))

    def member(self, name: str) -> tuple[Role, Member]:
        """Return somebody's role and entry.

        Raises:
            InvalidInput: nobody of this name is expected.
        """
        roles: dict[str, tuple[Role, Member]] = {h.name: ("datasite", h) for h in self.hospitals}
        roles |= {self.orchestrator.name: ("orchestrator", self.orchestrator)}
        roles |= {self.keyholder.name: ("keyholder", self.keyholder)}
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
