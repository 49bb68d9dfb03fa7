"""What every kind of test may ask for; it imports nothing of the product."""

import os
import shutil
from pathlib import Path

pytest_plugins = ("support.benchmarks", "support.browser", "support.postgres")

# Stores sync at every commit: where memory has room, temporary folders lie there. Folders of failed tests are kept.
MEMORY, ROOM_BYTES = Path("/dev/shm"), 4 << 30
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
