"""Studies at a hospital do not wait for each other; only training is counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from datasites.hospital.rounds import lanes as module
from datasites.hospital.rounds.lanes import Lanes
from datasites.review.policy import Policy, WorkersPolicy
from datasites.study.messages import WorkItem
from privacy.errors import TesseraError

LONG = 30.0


def item(study: str, kind: str = "train", number: int = 1) -> WorkItem:
    return WorkItem(kind=kind, study=study, round=number, closing=0, documents={})  # type: ignore[arg-type]


class Hospital:
    """Notes what is begun and done; an item goes on once its study may."""

    def __init__(self) -> None:
        self.begun, self.done = list[str](), list[str]()
        self.failing: set[str] = set()
        self._changed = threading.Condition()
        self._may: set[str] = set()

    def handle(self, work: WorkItem) -> None:
        name = f"{work.study} {work.kind} {work.round}"
        with self._changed:
            self.begun.append(name)
            self._changed.notify_all()
            if name in self.failing:
                self.failing.discard(name)
                raise TesseraError("the network is gone")
            assert self._changed.wait_for(lambda: work.study in self._may, LONG)
            self.done.append(name)
            self._changed.notify_all()

    def let(self, *studies: str) -> None:
        with self._changed:
            self._may |= set(studies)
            self._changed.notify_all()

    def wait(self, holds: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(holds, LONG), (self.begun, self.done)


@pytest.fixture
def hospital() -> Hospital:
    return Hospital()


@pytest.fixture
def opened(hospital: Hospital) -> Iterator[Callable[[int], Lanes]]:
    made: list[Lanes] = []

    def new(places: int) -> Lanes:
        made.append(Lanes(hospital.handle, lambda: places))
        return made[-1]

    yield new
    hospital.let("a", "b", "c")
    for lanes in made:
        lanes.close(LONG)


def test_one_study_signs_while_another_trains(hospital: Hospital, opened: Callable[[int], Lanes]) -> None:
    lanes = opened(1)
    hospital.let("b")
    lanes.show([item("a")])
    hospital.wait(lambda: hospital.begun == ["a train 1"])
    lanes.show([item("a"), item("b", "attest")])
    hospital.wait(lambda: hospital.done == ["b attest 1"])
    lanes.show([item("a"), item("b", "train", 2)])  # no place is free
    hospital.let("a")
    hospital.wait(lambda: hospital.done == ["b attest 1", "a train 1", "b train 2"])
    assert hospital.begun == ["a train 1", "b attest 1", "b train 2"]


def test_as_many_studies_train_as_the_owner_says(hospital: Hospital, opened: Callable[[int], Lanes]) -> None:
    lanes, closed = opened(2), list[int]()
    lanes.show([item("a"), item("b"), item("c")])
    hospital.wait(lambda: len(hospital.begun) == 2)
    lanes.places.when_idle(lambda: closed.append(1))
    assert not closed
    hospital.let("a", "b", "c")
    hospital.wait(lambda: len(hospital.done) == 3)
    lanes.close(LONG)
    lanes.places.when_idle(lambda: closed.append(1))
    assert closed


def test_what_is_done_is_done_again_only_when_the_very_same_is_asked_again(
    hospital: Hospital, opened: Callable[[int], Lanes]
) -> None:
    lanes = opened(1)
    hospital.let("a", "b")
    lanes.show([item("a")])
    hospital.wait(lambda: len(hospital.done) == 1)
    lanes.show([item("a"), item("b")])
    hospital.wait(lambda: len(hospital.done) == 2)
    lanes.show([item("a"), item("b")])  # it was withdrawn and asked for again, or the wait was over
    hospital.wait(lambda: len(hospital.done) == 4)
    assert sorted(hospital.done) == ["a train 1", "a train 1", "b train 1", "b train 1"]


def test_what_fails_is_tried_again_and_holds_up_no_other_study(
    hospital: Hospital, opened: Callable[[int], Lanes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_PAUSE_SECONDS", 0.001)
    lanes = opened(1)
    hospital.failing = {"a train 1"}
    hospital.let("a", "b")
    lanes.show([item("a"), item("b")])
    hospital.wait(lambda: sorted(hospital.done) == ["a train 1", "b train 1"])
    assert hospital.begun.count("a train 1") == 2


def test_the_policy_bounds_studies_by_cores_and_memory() -> None:
    gib = 2**30
    here = {"cores": 2, "memory_bytes": 6 * gib}
    assert WorkersPolicy(studies=8, cores=4, memory_bytes=64 * gib).at_once(4 * gib, **here) == 4
    assert WorkersPolicy(studies=8, cores=16, memory_bytes=12 * gib).at_once(4 * gib, **here) == 3
    assert WorkersPolicy(studies=2, cores=16, memory_bytes=64 * gib).at_once(4 * gib, **here) == 2
    assert WorkersPolicy(studies=8, cores=1, memory_bytes=1).at_once(4 * gib, **here) == 1
    assert WorkersPolicy(studies=64).at_once(2**62, **here) == 1
    assert WorkersPolicy(studies=8).at_once(gib, **here) == 2
    assert WorkersPolicy(studies=8).at_once(gib, cores=16, memory_bytes=6 * gib) == 6


def test_a_policy_without_a_word_about_workers_has_the_hash_it_had() -> None:
    assert Policy.parse("").policy_hash == Policy.parse("[workers]\nstudies = 2\n").policy_hash
    assert Policy.parse("").policy_hash != Policy.parse("[workers]\nstudies = 3\n").policy_hash
