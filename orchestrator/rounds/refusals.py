"""Who has refused its part of a round, why, and whom or what it names; in memory, since everybody is asked again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Refused:
    """One party's refusal: ``without`` are sites whose updates it cannot use, ``wants`` helpers it needs first."""

    reason: str
    without: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()


@dataclass
class Refusals:
    """The newest refusals of one study, by round and party."""

    _found: dict[tuple[int, str], Refused] = field(default_factory=dict)

    def note(
        self, party: str, number: int, reason: str, without: Collection[str] = (), wants: Collection[str] = ()
    ) -> None:
        """Remember a refusal in the place of an earlier one."""
        self._found[(number, party)] = Refused(reason=reason, without=tuple(without), wants=tuple(wants))

    def forget(self, number: int, *parties: str) -> None:
        """Forget what parties refused in a round, because they are asked anew."""
        for party in parties:
            self._found.pop((number, party), None)

    def parties(self, number: int) -> set[str]:
        """Return who refuses a round."""
        return {party for round_, party in self._found if round_ == number}

    def for_good(self, number: int) -> set[str]:
        """Return which hospitals send no update in a round, however often they are asked: they name themselves."""
        return {party for (round_, party), found in self._found.items() if round_ == number and party in found.without}

    def of(self, number: int, party: str) -> Refused | None:
        """Return a party's refusal of a round, if there is one."""
        return self._found.get((number, party))
