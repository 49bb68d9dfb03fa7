"""The command line: parse, call, print.

No logic that a test must start a process to reach. Start with ``main.py``.
"""

import sys
from pathlib import Path

_OWN = str(Path(__file__).resolve().parents[2])
if sys.path[:1] != [_OWN]:  # a folder `models` or `privacy` of the user's, here or on PYTHONPATH, is never ours
    sys.path[: 0 if sys.flags.safe_path else 1] = [_OWN]
