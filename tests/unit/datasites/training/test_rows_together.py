"""Records share a pass only where every place in it gives a record the same bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from datasites.training.site import rows_together
from models.config import ModelConfig


@pytest.mark.parametrize(
    ("architecture", "widths", "rows"),
    [
        ("mlp", {}, 64),
        ("mlp", {"embedding": 15}, 1),
        ("mlp-auxiliary", {"embedding": 10}, 1),
        ("mlp", {"hidden": 50}, 1),
        ("linear", {"embedding": 15}, 64),
    ],
    ids=["usual", "embedding-15", "embedding-10", "hidden-50", "linear"],
)
def test_networks_of_odd_widths_compute_every_record_alone(
    new_proposal: Any, architecture: Any, widths: dict[str, Any], rows: int
) -> None:
    model = ModelConfig(architecture=architecture, features={"mrna": 6}, cohorts=("A",), classes=3, **widths)
    assert rows_together(replace(new_proposal(), model=model)) == rows
