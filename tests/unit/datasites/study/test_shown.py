"""The documents and files of a round travel as one answer, and come apart as they were."""

from __future__ import annotations

import pytest

from datasites.study.messages import LostRound
from datasites.study.recomputed.chain import RoundEvidence
from datasites.study.recomputed.shown import read_shown, shown_header
from datasites.study.signing import dump, seal
from privacy.canonical import plain_json
from privacy.errors import InvalidInput
from privacy.identity import Identity

LOST = LostRound(study="pilot", proposal_hash="0" * 64, round=1, reason="a test")
EVIDENCE = RoundEvidence(lost=seal(Identity.from_seed(b"." * 32), "round-lost", LOST))
DOCUMENTS = plain_json(dump(EVIDENCE))
FILES = {"sum": b"s" * 9, "opening": b"", "pads": b"{}"}


def answer(sizes: dict[str, int], files: bytes) -> bytes:
    return shown_header(DOCUMENTS, sizes) + files


def test_documents_and_files_come_apart_as_they_were() -> None:
    sizes = {name: len(data) for name, data in FILES.items()}
    whole = answer(sizes, b"".join(data for _, data in sorted(FILES.items())))
    assert read_shown(whole) == (EVIDENCE, FILES)


def test_documents_alone_are_those_of_an_earlier_release() -> None:
    assert read_shown(DOCUMENTS) == (EVIDENCE, {})
    assert read_shown(answer({}, b"")) == (EVIDENCE, {})


@pytest.mark.parametrize(
    "crooked",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\x05{}",
        b"\xff\xff\xff\xff" + b"x" * 9,
        b"\0\0\0\x02[]",
        answer({"sum": 9}, b"too few"),
        answer({"sum": 1}, b"too many"),
        answer({"sum": -1, "opening": 2}, b"x"),
        answer({"sum": 10**30}, b"x"),
    ],
    ids=["nothing", "short", "cut", "long", "list", "few", "many", "below-zero", "huge"],
)
def test_what_is_cut_or_says_other_lengths_is_refused(crooked: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_shown(crooked)
