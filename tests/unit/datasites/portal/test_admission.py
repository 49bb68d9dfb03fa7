"""Sign-ins wait in turn: by address, by name, who is known first; too many are told to come back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest
from starlette.exceptions import HTTPException

from datasites.portal.people.admission import Admission, one_of
from datasites.review.people.attempts import Standing

STEWARD, FLOOD = "192.0.2.1", "198.51.100.9"


class Door:
    """An admission with one thread, which is kept busy until :meth:`open`."""

    def __init__(self, *, waiting: int = 100, waiting_of_one: int = 100) -> None:
        self.admission = Admission(threads=1, waiting=waiting, waiting_of_one=waiting_of_one)
        self.served: list[str] = []
        self.turned_away = 0
        self._opened, self._busy = threading.Event(), threading.Event()
        self._futures: list[Future[None]] = [self.admission.submit("", "", self._hold)]
        assert self._busy.wait(10)

    def _hold(self) -> None:
        self._busy.set()
        assert self._opened.wait(10)

    def knock(self, address: str, name: str, what: str = "", *, standing: Standing = "new") -> None:
        work: Callable[[], None] = lambda: self.served.append(what or name)  # noqa: E731
        self._futures.append(self.admission.submit(address, name, work, standing=standing))

    def open(self) -> list[str]:
        """Let everybody in; return in which order."""
        self._opened.set()
        for future in self._futures:
            if isinstance(future.exception(10), HTTPException):
                self.turned_away += 1
            else:
                future.result(10)
        return self.served


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.open()


def test_one_address_with_many_names_gets_every_second_turn_only(door: Door) -> None:
    for index in range(80):
        door.knock(FLOOD, f"nobody-{index}")
    for index in range(3):
        door.knock(STEWARD, "stella", f"stella-{index}")
    order = door.open()
    assert [order.index(f"stella-{index}") for index in range(3)] == [1, 3, 5]


def test_the_names_of_one_address_are_served_in_turn_as_behind_a_proxy(door: Door) -> None:
    for index in range(80):
        door.knock(STEWARD, "somebody", f"guess-{index}")
    door.knock(STEWARD, "stella")
    assert door.open().index("stella") <= 1


def test_who_is_known_here_goes_first(door: Door) -> None:
    for index in range(80):
        door.knock(f"198.51.100.{index}", f"nobody-{index}")
    door.knock(STEWARD, "stella", standing="known")
    assert door.open()[0] == "stella"


def test_who_shares_the_address_of_a_flood_waits_for_a_few_checks_only(door: Door) -> None:
    for index in range(40):
        door.knock(FLOOD, f"nobody-{index}", standing="failed")
    for index in range(40):
        door.knock(FLOOD, f"nobody-new-{index}")
    door.knock(FLOOD, "stella")
    door.knock(FLOOD, "nobody-last", standing="failed")
    assert door.open().index("stella") <= 3


def test_who_mistyped_once_is_not_starved_by_names_that_come_for_the_first_time(door: Door) -> None:
    door.knock(FLOOD, "stella", standing="failed")
    for index in range(40):
        door.knock(FLOOD, f"nobody-{index}")
    assert door.open().index("stella") == 1


def test_who_waits_longest_is_served_however_many_come_after(door: Door) -> None:
    for index in range(40):
        door.knock(FLOOD, f"nobody-{index}")
    assert door.open().index("nobody-0") == 1


def test_where_an_address_is_full_a_name_that_has_not_failed_takes_the_place_of_one_that_has() -> None:
    door = Door(waiting_of_one=4)
    for index in range(2):
        door.knock(FLOOD, f"failed-{index}", standing="failed")
        door.knock(FLOOD, f"new-{index}")
    with pytest.raises(HTTPException):
        door.knock(FLOOD, "failed-2", standing="failed")
    door.knock(FLOOD, "new-2")
    door.knock(FLOOD, "new-3")
    with pytest.raises(HTTPException):
        door.knock(FLOOD, "new-4")
    assert sorted(door.open()) == ["new-0", "new-1", "new-2", "new-3"]
    assert door.turned_away == 2


def test_nobody_makes_room_at_another_address() -> None:
    door = Door(waiting=2, waiting_of_one=2)
    for index in range(4):
        door.knock(f"198.51.100.{index}", "nobody", standing="failed")
    with pytest.raises(HTTPException):
        door.knock(STEWARD, "stella")
    assert (len(door.open()), door.turned_away) == (4, 0)


@pytest.mark.parametrize("address", [STEWARD, FLOOD])
def test_a_full_house_turns_away_nobody_who_is_known(address: str) -> None:
    door = Door(waiting=2, waiting_of_one=2)
    for index in range(4):
        door.knock(f"198.51.100.{index + 9}", "nobody")
    door.knock(address, "stella", standing="known")
    assert door.open()[0] == "stella"
    assert door.turned_away == 0


def test_too_many_of_one_address_are_told_to_come_back_and_others_get_in() -> None:
    door = Door(waiting_of_one=5)
    for _ in range(5):
        door.knock(FLOOD, "nobody")
    with pytest.raises(HTTPException) as told:
        door.knock(FLOOD, "another")
    assert (told.value.status_code, dict(told.value.headers or {})) == (429, {"retry-after": "5"})
    door.knock(STEWARD, "stella")
    assert len(door.open()) == 6


def test_floods_from_some_addresses_that_fill_the_house_turn_away_no_others() -> None:
    door = Door(waiting=6, waiting_of_one=3)
    for address in ("198.51.100.1", "198.51.100.2"):
        for _ in range(3):
            door.knock(address, "nobody")
    with pytest.raises(HTTPException):
        door.knock("198.51.100.1", "nobody")
    door.knock(STEWARD, "stella")
    assert door.open().index("stella") == 2


def test_there_is_an_end_to_it() -> None:
    door = Door(waiting=3, waiting_of_one=3)
    for index in range(6):
        door.knock(f"198.51.100.{index}", "nobody")
    with pytest.raises(HTTPException):
        door.knock(STEWARD, "stella")
    assert len(door.open()) == 6


def test_who_was_served_may_come_again() -> None:
    small = Door(waiting=1, waiting_of_one=1)
    small.knock(STEWARD, "stella")
    with pytest.raises(HTTPException):
        small.knock(STEWARD, "stella")
    small.open()
    small.knock(STEWARD, "stella")
    assert small.open() == ["stella", "stella"]


@pytest.mark.parametrize(
    ("address", "counts_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::7", "2001:db8:1:3::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_one_customer_of_an_ipv6_provider_is_one_address(address: str, counts_as: str) -> None:
    assert one_of(address) == counts_as


def test_what_a_check_raises_reaches_its_caller_and_the_next_is_served(door: Door) -> None:
    def fail() -> None:
        raise ValueError("no")

    failing = door.admission.submit(STEWARD, "stella", fail)
    door.knock(STEWARD, "stella")
    assert door.open() == ["stella"]
    with pytest.raises(ValueError, match="no"):
        failing.result(10)
