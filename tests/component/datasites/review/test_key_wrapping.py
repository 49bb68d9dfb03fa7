"""Reviewers who sign at the same moment."""

from __future__ import annotations

import subprocess
import sys

AT_ONCE = """
import threading
from datasites.review.key_wrapping import Hardness, wrap

cost = Hardness(passes=2, memory_kib=8192, lanes=4)
people = [threading.Thread(target=wrap, args=(bytes(32), f"p{i}", "word", bytes(16), cost)) for i in range(8)]
for person in people:
    person.start()
for person in people:
    person.join()
print("done")
"""


def test_many_people_can_sign_at_the_same_moment() -> None:
    """OpenSSL's Argon2id never returned here: one double click stopped a portal for good."""
    done = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
