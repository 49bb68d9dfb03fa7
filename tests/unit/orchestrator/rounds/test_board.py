"""The board holds a question until there is something the party has not dealt with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from datasites.study.messages import WorkItem
from datasites.study.signing import Signed
from orchestrator.rounds.board import Board, Waiting
from privacy.canonical import sha256_hex


def item(kind: str = "train", study: str = "pilot", number: int = 1) -> WorkItem:
    return WorkItem(kind=kind, study=study, round=number, closing=0, documents={})  # type: ignore[arg-type]


def read(answer: bytes) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(answer)
    return items


def play(scene: Callable[[Board], Awaitable[None]]) -> None:
    asyncio.run(scene(Board()))


def test_new_work_ends_the_wait_at_once() -> None:
    async def scene(board: Board) -> None:
        asking = asyncio.create_task(board.wait("alba", 20))
        await asyncio.sleep(0.01)
        board.publish("bruna", item())
        await asyncio.sleep(0.01)
        assert not asking.done()
        board.publish("alba", item())
        assert [i["kind"] for i in read(await asyncio.wait_for(asking, 30))] == ["train"]

    play(scene)


def test_work_that_was_dealt_with_is_not_told_again_until_there_is_more() -> None:
    async def scene(board: Board) -> None:
        board.publish("alba", item())
        first = await board.wait("alba", 20)
        asking = asyncio.create_task(board.wait("alba", 20, sha256_hex(first)))
        await asyncio.sleep(0.02)
        assert not asking.done()
        board.publish("alba", item("train", "another"))
        assert [i["study"] for i in read(await asyncio.wait_for(asking, 30))] == ["pilot", "another"]

    play(scene)


@pytest.mark.parametrize("kind", ["finished", "forget"])
def test_what_is_done_once_is_told_until_it_was_dealt_with_and_never_again(kind: str) -> None:
    async def scene(board: Board) -> None:
        board.publish("alba", item(kind, "over"))
        board.publish("alba", item())
        first = await board.wait("alba", 20)
        assert await board.wait("alba", 20) == first  # it was told, but failed or was lost
        rest = await board.wait("alba", 0.01, sha256_hex(first))
        assert [i["kind"] for i in read(rest)] == ["train"]
        asking = asyncio.create_task(board.wait("alba", 20, sha256_hex(rest)))
        await asyncio.sleep(0.02)
        assert not asking.done()
        board.publish("alba", item(kind, "over, too"))
        assert [i["study"] for i in read(await asyncio.wait_for(asking, 30))] == ["pilot", "over, too"]

    play(scene)


def test_after_the_wait_everything_open_is_told_again_so_that_nothing_is_forgotten() -> None:
    async def scene(board: Board) -> None:
        board.publish("alba", item())
        first = await board.wait("alba", 20)
        assert await board.wait("alba", 0.01, sha256_hex(first)) == first
        board.withdraw("pilot", party="alba")
        assert await board.wait("alba", 0.01, sha256_hex(first)) == b"[]"

    play(scene)


@pytest.mark.parametrize("asks", ["before", "after"])
def test_work_that_its_party_refused_is_told_at_once_when_it_is_asked_for_again(asks: str) -> None:
    async def scene(board: Board) -> None:
        board.publish("alba", item())
        known = sha256_hex(await board.wait("alba", 20))
        board.withdraw("pilot", party="alba")
        asking = asyncio.create_task(board.wait("alba", 20, known))
        if asks == "before":
            await asyncio.sleep(0.01)
        board.publish("alba", item())
        assert [i["kind"] for i in read(await asyncio.wait_for(asking, 1))] == ["train"]
        asking = asyncio.create_task(board.wait("alba", 20, known))  # once is enough
        await asyncio.sleep(0.02)
        assert not asking.done()
        asking.cancel()

    play(scene)


@pytest.mark.parametrize("known", ["", sha256_hex(b"[]"), "rubbish"])
def test_a_board_that_closes_answers_everybody(known: str) -> None:
    async def scene(board: Board) -> None:
        asking = asyncio.create_task(board.wait("alba", 20, known))
        await asyncio.sleep(0.01)
        board.close()
        assert await asyncio.wait_for(asking, 30) == b"[]"

    play(scene)


def test_of_two_waits_at_a_time_the_one_that_goes_on_is_still_told() -> None:
    async def scenario() -> list[str]:
        waiting, there, told = Waiting(), list[str](), list[str]()
        key = asyncio.create_task(waiting.until(lambda: bool(there), None, lambda: "the round's key"))
        await asyncio.sleep(0)
        helpers = asyncio.create_task(waiting.until(lambda: len(there) > 1, None, lambda: "the helpers' keys"))
        await asyncio.sleep(0)
        for _ in range(2):
            told.append(waiting.text)
            there.append("one more")
            waiting.wake()
            await asyncio.sleep(0.01)
        await asyncio.gather(key, helpers)
        return [*told, waiting.text]

    first, second, end = asyncio.run(scenario())
    assert first.endswith("the helpers' keys") and second.endswith("the helpers' keys") and not end


class Counted(dict[str, Signed]):
    """Documents that count how often they are written."""

    written = 0

    def __iter__(self) -> Iterator[str]:
        self.written += 1
        return super().__iter__()


def test_what_many_parties_are_asked_is_written_once() -> None:
    async def scene(board: Board) -> None:
        sites = [f"site-{number}" for number in range(200)]
        documents = Counted(plan=Signed(kind="round-plan", payload={}, public_key="", signature=""))
        board.publish(sites, WorkItem(kind="attest", study="pilot", round=1, closing=1, documents=documents))
        answers, once = {await board.wait("site-0", 1)}, documents.written
        answers |= {await board.wait(site, 1) for site in sites}
        assert len(answers) == 1 and documents.written == once
        board.withdraw("pilot", party="site-7")
        assert await board.wait("site-7", 0) == b"[]" and await board.wait("site-8", 0) in answers

    play(scene)


@pytest.mark.parametrize("turns", range(6))
def test_a_wait_that_is_cancelled_as_it_is_woken_ends(turns: int) -> None:
    async def scene() -> None:
        waiting = Waiting()
        task = asyncio.create_task(waiting.until(lambda: False, 60.0, lambda: "nothing"))
        await asyncio.sleep(0)
        waiting.wake()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=1.0)
        assert task.cancelled()

    asyncio.run(scene())
