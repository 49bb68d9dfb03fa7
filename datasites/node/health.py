"""Is this role alive? For container health checks: standard library only, so that asking costs next to nothing.

    python -P -m datasites.node.health FOLDER      # exit code 0: ready

A role that serves is asked for ``/healthz`` where it listens; the keyholder, which listens nowhere, must have
announced itself and its process must run.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.request
from pathlib import Path

_ANSWER_SECONDS = 5.0


def alive(folder: Path) -> str:
    """Return an empty string if the role of ``folder`` is ready, else why it is not."""
    try:
        address = json.loads((folder / "address.json").read_bytes())
        os.kill(int(address["pid"]), 0)
    except (OSError, ValueError, KeyError, TypeError):
        return "has not announced itself, or has ended"
    return _answers(str(address["listens"])) if "listens" in address else ""


def _answers(url: str) -> str:
    # It asks itself, on its own loopback address: whose certificate answers there proves nothing to it.
    context = ssl._create_unverified_context() if url.startswith("https") else None  # noqa: S323
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(f"{url}/healthz", timeout=_ANSWER_SECONDS) as answer:
            return "" if answer.status == 200 else f"answers {answer.status}"
    except OSError as error:
        return f"does not answer: {type(error).__name__}"


if __name__ == "__main__":
    _reason = alive(Path(sys.argv[1]))
    if _reason:
        sys.stderr.write(f"{_reason}\n")
        sys.exit(1)
