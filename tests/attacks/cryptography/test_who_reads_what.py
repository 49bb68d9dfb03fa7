"""Every coalition's view of a round as linear equations: which of a single update follows from it, by rank alone.

Nothing of the code under test is used here. A round is written as unknowns over a prime field (updates, encryption
noise, key, pads, masks), and everything that a party sees as equations in them; decisions 18 and 20 say who sees what.
What a coalition learns of one update is the part of the space of that update and its noise that lies in the span of its
equations: nothing, or all of it, or something in between. Ring-LWE, the generators and the hashes are taken to be as
good as they should be: noise is as unknown as a key, and pads are uniform.

The first run of this found what rests on ring-LWE alone: orchestrator and both helpers, before publication. Without
noise the sum would give them the key.

Played: all 15 coalitions, before and after publication, with 0, 1 and 2 hospitals; and what each rule is for, by
leaving it out: masks, one signature a list, one list a round.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Collection, Iterable
from pathlib import Path

import pytest

PRIME = 2**61 - 1
SITES, WIDTH, TAGS, PARTS = 5, 3, 1, (1, 2, 3)
KNOWS = {"K": (1, 2), "H": (2, 3), "J": (3, 1)}
PARTIES = ("O", "K", "H", "J")
ROOT = Path(__file__).parents[3]
COALITIONS = [c for size in range(1, 5) for c in itertools.combinations(PARTIES, size)]

Unknown = tuple[object, ...]
Equation = dict[Unknown, int]


def rank(rows: Iterable[Equation]) -> int:
    """Return the rank of equations over the field, by elimination."""
    pivots: dict[Unknown, Equation] = {}
    for given in rows:
        row = {k: v % PRIME for k, v in given.items() if v % PRIME}
        while row:
            lead = min(row, key=repr)
            known = pivots.get(lead)
            if known is None:
                inverse = pow(row[lead], -1, PRIME)
                pivots[lead] = {k: v * inverse % PRIME for k, v in row.items()}
                break
            factor = row[lead]
            for k, v in known.items():
                row[k] = (row.get(k, 0) - factor * v) % PRIME
                if not row[k]:
                    del row[k]
    return len(pivots)


def added(*equations: Equation) -> Equation:
    total: Equation = {}
    for equation in equations:
        for k, v in equation.items():
            total[k] = (total.get(k, 0) + v) % PRIME
    return total


class Round:
    """One round: its public constants, and what each party sees of it."""

    def __init__(self, lists: Collection[tuple[int, ...]] = ((0, 1, 2, 3, 4),)) -> None:
        draw = random.Random(7)  # noqa: S311  public constants
        self.lists = tuple(lists)
        self.second = {(i, j): draw.randrange(PRIME) for i in range(SITES) for j in range(WIDTH)}
        self.challenge = {
            (n, again, t, j): draw.randrange(PRIME)
            for n in range(len(self.lists))
            for again in (0, 1)
            for t in range(TAGS)
            for j in range(WIDTH)
        }

    def sent(self, i: int, j: int) -> Equation:
        """A site's padded first polynomial, in one place of the transform in which products are pointwise."""
        return {("m", i, j): 1, ("e", i, j): 1, ("s", j): self.second[i, j]} | {("p", part, i, j): 1 for part in PARTS}

    def pad_sum(self, part: int, number: int = 0) -> list[Equation]:
        return [{("p", part, i, j): 1 for i in self.lists[number]} for j in range(WIDTH)]

    def tags(self, number: int = 0, again: int = 0, *, masked: bool = True) -> list[Equation]:
        """The tags that everybody is shown: one of each pad of each site of a list."""
        found = []
        for part, i, t in itertools.product(PARTS, self.lists[number], range(TAGS)):
            tag: Equation = {("p", part, i, j): self.challenge[number, again, t, j] for j in range(WIDTH)}
            found.append(tag | ({("mask", part, i, number, t): 1} if masked else {}))
        return found

    def mask_sums(self, number: int = 0) -> list[Equation]:
        """What the tags and a published pad sum give."""
        return [{("mask", part, i, number, t): 1 for i in self.lists[number]} for part in PARTS for t in range(TAGS)]

    def of_orchestrator(self) -> list[Equation]:
        sent = [self.sent(i, j) for i in range(SITES) for j in range(WIDTH)]
        return [*sent, *self.pad_sum(3)]  # the third pad sum passes through its hands

    def of_holder(self, name: str) -> list[Equation]:
        found: list[Equation] = []
        for part, i in itertools.product(KNOWS[name], range(SITES)):
            found += [{("p", part, i, j): 1} for j in range(WIDTH)]
            found += [{("mask", part, i, n, t): 1} for n in range(len(self.lists)) for t in range(TAGS)]
        if name == "K":
            found += [{("s", j): 1} for j in range(WIDTH)] + self.pad_sum(3)
            for number, sites in enumerate(self.lists[:1]):
                del number
                found += [added(*(self.sent(i, j) for i in sites)) for j in range(WIDTH)]
        return found

    def of_hospital(self, i: int) -> list[Equation]:
        own: list[Equation] = [{(what, i, j): 1} for what in ("m", "e") for j in range(WIDTH)]
        own += [{("p", part, i, j): 1} for part in PARTS for j in range(WIDTH)]
        return own + [
            {("mask", part, i, n, t): 1} for part in PARTS for n in range(len(self.lists)) for t in range(TAGS)
        ]

    def sum_of_updates(self, number: int = 0) -> list[Equation]:
        return [{("m", i, j): 1 for i in self.lists[number]} for j in range(WIDTH)]

    def published(self) -> list[Equation]:
        key: list[Equation] = [{("s", j): 1} for j in range(WIDTH)]
        return [*key, *(e for part in PARTS for e in self.pad_sum(part)), *self.mask_sums()]

    def seen(
        self, coalition: Collection[str], hospitals: Collection[int] = (), *, published: bool, masked: bool = True
    ) -> list[Equation]:
        """Everything that a coalition knows: parties, hospitals, and what everybody is shown."""
        found = [*self.tags(masked=masked), *self.sum_of_updates()]
        if published:
            found += self.published()
        for name in coalition:
            found += self.of_orchestrator() if name == "O" else self.of_holder(name)
        for i in hospitals:
            found += self.of_hospital(i)
        return found

    def learned(self, i: int, view: list[Equation]) -> int:
        """Return how many independent numbers about update ``i`` (with or without its noise) follow from a view."""
        own: list[Equation] = [{(what, i, j): 1} for what in ("m", "e") for j in range(WIDTH)]
        return rank(view) + rank(own) - rank([*view, *own])


def reads_all(coalition: Collection[str], *, published: bool) -> bool:
    """What the decision's table says."""
    held = set(coalition)
    return ({"O", "K"} <= held and bool({"H", "J"} & held)) or (published and {"O", "H", "J"} <= held)


@pytest.mark.parametrize("published", [False, True], ids=["before publication", "after"])
@pytest.mark.parametrize("coalition", COALITIONS, ids="+".join)
def test_a_coalition_learns_nothing_or_everything_of_a_single_update(
    coalition: tuple[str, ...], published: bool
) -> None:
    played = Round()
    view = played.seen(coalition, published=published)
    expected = WIDTH if reads_all(coalition, published=published) else 0
    assert {played.learned(i, view) for i in range(SITES)} == {expected}


PAIRS = [c for c in COALITIONS if len(c) <= 2]


@pytest.mark.parametrize("hospitals", [(0,), (0, 1), (0, 1, 2)], ids=["one", "two", "three"])
@pytest.mark.parametrize("coalition", PAIRS, ids="+".join)
def test_hospitals_beside_a_pair_learn_the_sum_of_the_others(
    coalition: tuple[str, ...], hospitals: tuple[int, ...]
) -> None:
    played = Round()
    view = played.seen(coalition, hospitals, published=True)
    others = [i for i in range(SITES) if i not in hospitals]
    assert {played.learned(i, view) for i in others} == {0}
    rest: list[Equation] = [{("m", i, j): 1 for i in others} for j in range(WIDTH)]
    assert rank([*view, *rest]) == rank(view)
    assert len(others) >= 2


def test_all_hospitals_but_one_read_that_ones_update() -> None:
    played = Round()
    view = played.seen(("O",), (0, 1, 2, 3), published=False)
    assert played.learned(4, view) == WIDTH


def test_the_table_of_the_decision_says_what_the_ranks_say() -> None:
    text = (ROOT / "docs/decisions/0018-pads-among-helpers.md").read_text()
    rows = re.findall(r"^\| ([OKHJ+;, ]+) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    said: dict[frozenset[str], tuple[bool, bool]] = {}
    for names, before, after in rows:
        for name in re.split("[;,]", names):
            said[frozenset(name.strip().split("+"))] = "every" in before, "every" in after
    assert len(said) == 14  # all but the four together
    for coalition, (before, after) in said.items():
        assert reads_all(coalition, published=False) == before, coalition
        assert reads_all(coalition, published=True) == after, coalition


# what each rule is for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [("O", "K"), ("O", "H"), ("O", "J")], ids="+".join)
def test_without_masks_a_tag_shows_a_pair_part_of_a_single_update(pair: tuple[str, str]) -> None:
    played = Round()
    view = played.seen(pair, published=True, masked=False)
    assert {played.learned(i, view) for i in range(SITES)} == {TAGS}


@pytest.mark.parametrize("pair", [("O", "K"), ("O", "H"), ("O", "J")], ids="+".join)
def test_one_list_signed_under_two_sets_of_commitments_shows_a_pair_part_of_an_update(pair: tuple[str, str]) -> None:
    played = Round()
    view = [*played.seen(pair, published=True), *played.tags(again=1)]
    assert {played.learned(i, view) for i in range(SITES)} == {TAGS}


@pytest.mark.parametrize("pair", [("O", "K"), ("O", "H"), ("O", "J")], ids="+".join)
def test_a_void_lists_tags_beside_those_of_the_answered_list_show_nothing(pair: tuple[str, str]) -> None:
    played = Round(lists=((1, 2, 3, 4), (0, 1, 2, 3, 4)))
    view = [*played.seen(pair, published=True), *played.tags(1)]
    assert {played.learned(i, view) for i in range(SITES)} == {0}


def test_two_lists_that_are_both_answered_show_the_one_in_which_they_differ() -> None:
    played = Round(lists=((0, 1, 2, 3, 4), (1, 2, 3, 4)))
    view = [*played.seen(("O", "K"), published=True), *played.pad_sum(3, 1)]
    assert [played.learned(i, view) for i in range(SITES)] == [WIDTH, 0, 0, 0, 0]


def test_orchestrator_and_keyholder_read_everything_where_there_is_one_pad() -> None:
    """Without helpers: the keyholder knows the only pad of every hospital."""
    played = Round()
    view = [*played.seen(("O", "K"), published=False)]
    view += [{("p", 3, i, j): 1} for i in range(SITES) for j in range(WIDTH)]
    assert {played.learned(i, view) for i in range(SITES)} == {WIDTH}
