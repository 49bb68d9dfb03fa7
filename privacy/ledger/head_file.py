"""The file beside a chain that holds its newest head, for whoever looks at the folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from privacy.canonical import plain_json


def head_file(path: Path) -> Path:
    """Return where the newest head of the chain at ``path`` is noted."""
    return path.with_name(path.name + ".head")


def write_head(path: Path, head: Mapping[str, Any]) -> None:
    """Write a head at ``path``, whole or not at all; a failing disk leaves the one before."""
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.{threading.get_ident()}")
    try:
        with temporary.open("wb") as file:
            file.write(plain_json(head))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:  # the entry stands; a head file that lags behind says nothing wrong
        temporary.unlink(missing_ok=True)
