"""10,000 mutated bodies crash nothing and change no sum unseen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_ten_thousand_mutated_bodies_crash_nothing_and_are_refused_or_seen() -> None:
    """A process of its own takes the mutated uploads, so that a crash would be seen as its exit status."""
    script = Path(__file__).parents[3] / "support" / "mutated_uploads.py"
    run = subprocess.run([sys.executable, script, "10000"], capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    outcome = json.loads(run.stdout)
    assert outcome["tried"] == 10_000
    assert outcome["refused"] > 3000 and outcome["tag_differs"] > 1000  # both kinds were exercised
    assert outcome["refused"] + outcome["tag_differs"] == 10_000
    assert outcome["sums_refused"] == outcome["sums_tried"] > 20
