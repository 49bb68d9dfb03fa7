"""The image that all tests of this folder start."""

from __future__ import annotations

import time

import pytest
from support.composed import compose, engine


@pytest.fixture(scope="session")
def image() -> str:
    if not engine():
        pytest.skip("needs a running Docker engine with compose v2")
    started = time.monotonic()
    compose("build", seconds=800)
    print(f"image built in {time.monotonic() - started:.0f} s")
    return "tessera:test"
