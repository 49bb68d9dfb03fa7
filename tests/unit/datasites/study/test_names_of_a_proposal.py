"""Names that an orchestrator chooses stand on pages, in files and in models: none may be anything but a name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.pilot_study import proposal

from privacy.errors import InvalidInput

BAD = ("../mrna", "MRNA", "", "presence", "m\u202erna", "x" * 41)


@pytest.mark.parametrize("name", BAD)
def test_a_modality_of_a_participant_or_a_block_is_a_plain_name(name: str) -> None:
    whole = proposal()
    first, *others = whole.participants
    with pytest.raises(InvalidInput, match="a modality's name"):
        replace(whole, participants=(replace(first, modalities=(name,)), *others))
    block, *rest = (b for b in whole.blocks if b.modality is not None)
    with pytest.raises(InvalidInput, match="a modality's name"):
        replace(whole, blocks=(replace(block, modality=name), *rest))


@pytest.mark.parametrize("name", ["", " early-late", "early\u202elate", "x" * 201])
def test_a_task_reads_as_it_is(name: str) -> None:
    with pytest.raises(InvalidInput, match="a name"):
        replace(proposal(), task=name)
