"""One small demo, run to its end as people start it, whose first hospital writes down everything it sends."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_SCRIPT = Path(__file__).parents[3] / "support" / "watched_demo.py"


@dataclass(frozen=True)
class Watched:
    """``result`` is what the demo printed for machines; ``out`` holds every role's folder."""

    result: dict[str, Any]
    stderr: str
    out: Path


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Three hospitals, two rounds."""
    out = tmp_path_factory.mktemp("demo") / "out"
    settings = ("--federation", "upper-bound", "--sites", "3", "--rounds", "2", "--out", str(out), "--json")
    command = [sys.executable, str(_SCRIPT), "demo", *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return Watched(json.loads(done.stdout.splitlines()[-1]), done.stderr, out)
