"""Who is in the consortium: institutions and their keys, kept in one file that every role holds.

Participants are institutions, not keys: a roster is written down when people have compared fingerprints out of
band, and a proposal that lists anybody else, or somebody under another key, is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from datasites.node.files import state_of, write_atomically
from datasites.study.parts import Party
from datasites.study.signing import dump, parse
from privacy.errors import InvalidInput
from privacy.identity import check_public_key


@dataclass(frozen=True, kw_only=True)
class Roster:
    """The orchestrator, the keyholder, the hospitals and the helpers, with names unique among them.

    ``scientists`` are people who may ask for studies with a key of their own; they do none of a round's work.
    """

    orchestrator: Party
    keyholder: Party
    sites: tuple[Party, ...]
    helpers: tuple[Party, ...] = ()
    scientists: tuple[Party, ...] = ()

    @property
    def everybody(self) -> tuple[Party, ...]:
        """All parties that work in rounds, the orchestrator first."""
        return (self.orchestrator, self.keyholder, *self.helpers, *self.sites)

    @property
    def known(self) -> tuple[Party, ...]:
        """All parties and scientists."""
        return (*self.everybody, *self.scientists)

    def by_key(self, public_key: str) -> Party | None:
        """Return the party with this key, or None; scientists are no parties."""
        return self._keys.get(public_key)

    @cached_property
    def _keys(self) -> dict[str, Party]:
        return {party.public_key: party for party in reversed(self.everybody)}

    def known_by_key(self, public_key: str) -> Party | None:
        """Return the party or the scientist with this key, or None."""
        return next((p for p in self.known if p.public_key == public_key), None)

    @cached_property
    def _roles(self) -> dict[str, str]:
        members = {"datasite": self.sites, "helper": self.helpers, "scientist": self.scientists}
        by_name = {party.name: role for role, parties in members.items() for party in parties}
        return by_name | {self.orchestrator.name: "orchestrator", self.keyholder.name: "keyholder"}

    def role_of(self, name: str) -> str:
        """Return the part that somebody of this roster has: a role of :mod:`datasites.node.home`.

        Raises:
            InvalidInput: nobody has this name.
        """
        return self._roles[self.by_name(name).name]

    def by_name(self, name: str) -> Party:
        """Return the party or the scientist of this name.

        Raises:
            InvalidInput: nobody has it.
        """
        for party in self.known:
            if party.name == name:
                return party
        raise InvalidInput(f"nobody called {name!r} is in the roster; enrol them first")

    def check(self) -> None:
        """Check that every party has a key, and a name and key of its own.

        Raises:
            InvalidInput: not so.
        """
        names, keys = [p.name for p in self.known], [p.public_key for p in self.known]
        for key in keys:
            check_public_key(key)
        if len(set(names)) < len(names) or len(set(keys)) < len(keys):
            raise InvalidInput("a name or a key stands twice in the roster; one institution, one name, one key")

    def save(self, path: Path) -> None:
        """Write the roster as JSON, whole or not at all."""
        write_atomically(path, json.dumps(dump(self), indent=2).encode())

    @classmethod
    def load(cls, path: Path) -> Roster:
        """Read the roster at ``path``.

        Raises:
            InvalidInput: no such file, not a roster, a name or key that stands in it twice, or no key at all.
        """
        try:
            return _loaded(path, state_of(path))
        except FileNotFoundError as error:
            raise InvalidInput(f"expected the consortium's roster at {path.name}; copy it there") from error


@lru_cache(maxsize=32)
def _loaded(path: Path, _: tuple[int, ...]) -> Roster:
    """Read a roster once for each state of its file: a role asks for it many times in a round."""
    roster = parse(Roster, path.read_bytes())
    roster.check()
    return roster
