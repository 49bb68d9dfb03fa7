"""How the cells of one column were read: what the reading report says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

_SHOWN = 60
_MOST_SPELLINGS = 5_000
STRANGE = 5
"""How many strange spellings a reading report shows of one column."""


@dataclass(kw_only=True)
class Reading:
    """How the cells of one column were read: each is counted once as understood, missing or refused.

    ``refused`` maps a reason to the spellings that were refused for it, of many only the first; ``unlisted`` counts the
    other refused cells by reason. ``mapped`` counts cells that were understood by a rule: another spelling, another
    unit, a decimal comma.
    """

    column: str
    variable: str
    understood: int = 0
    missing: int = 0
    refused: dict[str, Counter[str]] = field(default_factory=dict)
    unlisted: Counter[str] = field(default_factory=Counter)
    mapped: Counter[str] = field(default_factory=Counter)

    @property
    def refusals(self) -> int:
        """How many cells were refused."""
        return sum(sum(spellings.values()) for spellings in self.refused.values()) + sum(self.unlisted.values())

    @property
    def cells(self) -> int:
        """How many cells there were."""
        return self.understood + self.missing + self.refusals

    def refuse(self, reason: str, spelling: str, count: int) -> None:
        """Count cells that were not understood."""
        spellings, shown = self.refused.setdefault(reason, Counter()), shortened(spelling)
        if shown in spellings or len(spellings) < _MOST_SPELLINGS:
            spellings[shown] += count
        else:
            self.unlisted[reason] += count

    def refuse_each(self, reason: str, words: Callable[[], Iterable[tuple[str, int]]], count: int) -> None:
        """Count cells that were not understood for one reason; their spellings are asked for only if there is room."""
        if len(self.refused.get(reason, ())) >= _MOST_SPELLINGS:
            self.unlisted[reason] += count
            return
        for word, cells in words():
            self.refuse(reason, word, cells)

    def take(self, other: Reading) -> None:
        """Count what another reading of cells of this column has counted."""
        self.understood += other.understood
        self.missing += other.missing
        self.mapped.update(other.mapped)
        self.unlisted.update(other.unlisted)
        for reason, spellings in other.refused.items():
            for spelling, count in spellings.items():
                self.refuse(reason, spelling, count)

    def strange(self) -> list[tuple[str, str, int]]:
        """Return the most frequent refused spellings: (spelling, reason, cells)."""
        every = [(word, reason, n) for reason, words in self.refused.items() for word, n in words.items()]
        return sorted(every, key=lambda item: (-item[2], item[0]))[:STRANGE]


def shortened(spelling: str) -> str:
    """Return as much of a cell as a reading report shows."""
    return spelling[:_SHOWN]
