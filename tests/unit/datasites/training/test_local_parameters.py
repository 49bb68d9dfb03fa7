"""What a site trains and keeps: named, kept by round, put back into the next round; never under shared noise."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load, save

from datasites.study.proposal import Block
from datasites.training.local_parameters import keep, newest, own_names, shapes, with_own

MODEL = {
    "encoder": np.ones((2, 3), np.float32),
    "heads.mrna": np.zeros(4, np.float32),
    "heads.mrna+image": np.zeros(2, np.float32),
}
BLOCKS = (
    Block(name="mrna", modality="mrna", length=6, parameters=("encoder",)),
    Block(name="image", modality="image", length=2, parameters=("heads.mrna+image",)),  # nobody holds it
)


@pytest.fixture
def study(new_proposal):
    return new_proposal(blocks=BLOCKS)


def test_what_no_exchanged_block_holds_is_a_sites_own(study):
    assert own_names(study, MODEL) == ["heads.mrna", "heads.mrna+image"]
    assert shapes(study, save(MODEL)) == {"own/heads.mrna": (4,), "own/heads.mrna+image": (2,)}


def test_under_shared_noise_nothing_is(new_proposal):
    assert own_names(new_proposal(blocks=BLOCKS, noise="shared"), MODEL) == []


def test_own_parameters_come_back_and_global_ones_are_never_replaced(study):
    own = {"heads.mrna": np.full(4, 2, np.float32), "encoder": np.full((2, 3), 9, np.float32)}
    given = load(with_own(study, save(MODEL), own))
    assert given["heads.mrna"].tolist() == [2, 2, 2, 2]
    assert (given["encoder"] == 1).all()
    assert with_own(study, save(MODEL), {}) == save(MODEL)


def test_parameters_of_another_shape_are_left_out(study):
    given = load(with_own(study, save(MODEL), {"heads.mrna": np.ones(3, np.float32)}))
    assert given["heads.mrna"].tolist() == [0, 0, 0, 0]


def test_the_newest_round_that_kept_some_counts(tmp_path):
    folders = [tmp_path / str(n) for n in (3, 2, 1)]
    for folder in folders:
        folder.mkdir()
    keep(folders[0], {})
    keep(folders[1], {"heads.mrna": np.float32([1, np.nan, np.inf, 4])})
    keep(folders[2], {"heads.mrna": np.zeros(4, np.float32)})
    assert newest(folders)["heads.mrna"].tolist() == [1, 0, 0, 4]
    assert newest([tmp_path / "9"]) == {}
