"""What every kind of test may ask for; it imports nothing of the product."""

import gc
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

gc.disable()  # importing everything makes no garbage: looking for some takes an eighth of the time until the first test

pytest_plugins = (
    "support.benchmarks", "support.browser", "support.commands", "support.postgres", "support.warm_here",
)  # fmt: skip

# Stores sync at every commit: where memory has room, temporary folders lie there. Folders of failed tests are kept.
MEMORY, ROOM_BYTES = Path("/dev/shm"), 4 << 30
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_finish() -> None:
    """Leave what stays for the whole run out of every later search for garbage."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _logs_go_where_they_went_before() -> Iterator[None]:
    """Take away what a command in this process set up for its logs: it writes into that test's closed output."""
    root = logging.getLogger()
    level = root.level
    yield
    for handler in [each for each in root.handlers if type(each) is logging.StreamHandler]:
        root.removeHandler(handler)
    root.setLevel(level)
