"""Sign-ins wait in turn: by address, by name, known browsers first; too many are told to come back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest
from starlette.exceptions import HTTPException

from datasites.portal.people.admission import Admission, one_of

STEWARD, FLOOD = "192.0.2.1", "198.51.100.9"


class Door:
    """An admission with one thread, which is kept busy until :meth:`open`."""

    def __init__(self, *, waiting: int = 100, waiting_of_one: int = 100) -> None:
        self.admission = Admission(threads=1, waiting=waiting, waiting_of_one=waiting_of_one)
        self.served: list[str] = []
        self._opened, self._busy = threading.Event(), threading.Event()
        self._futures: list[Future[None]] = [self.admission.submit("", "", self._hold)]
        assert self._busy.wait(10)

    def _hold(self) -> None:
        self._busy.set()
        assert self._opened.wait(10)

    def knock(self, address: str, name: str, what: str = "", *, known: bool = False) -> None:
        work: Callable[[], None] = lambda: self.served.append(what or name)  # noqa: E731
        self._futures.append(self.admission.submit(address, name, work, known=known))

    def open(self) -> list[str]:
        """Let everybody in; return in which order."""
        self._opened.set()
        for future in self._futures:
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
    assert door.open().index("stella") == 1


def test_a_browser_that_has_signed_in_before_goes_first(door: Door) -> None:
    for index in range(80):
        door.knock(f"198.51.100.{index}", f"nobody-{index}")
    door.knock(STEWARD, "stella", known=True)
    assert door.open()[0] == "stella"


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
