"""Is this role well? For container health checks: standard library only, so that asking costs next to nothing.

    python -P -m datasites.node.health FOLDER             # exit code 0: well; else the reasons, one a line
    python -P -m datasites.node.health FOLDER --hangs     # says only whether the process hangs
    python -P -m datasites.node.health FOLDER --restart   # also ends a process that hangs, so that it is started again

A role that serves is asked for ``/healthz`` where it listens; keyholder and helpers, which listen nowhere, must have
announced themselves. Every role also writes down what is wrong with it (:mod:`datasites.node.wellbeing`); one that has
not done so for three minutes hangs. A process that hangs three times in a row is killed where that was asked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

FILE = "health.json"
_ANSWER_SECONDS = 5.0
_STALE_SECONDS = 180.0
_PATIENCE = 3
_COUNT = "tessera-hangs"


def alive(folder: Path) -> str:
    """Return an empty string if the role of ``folder`` is well, else what is wrong, one thing a line."""
    address = _announced(folder)
    if address is None:
        invited = (folder / "joining" / "invitation.json").exists() and not (folder / "roster.json").exists()
        return (
            "waits for the consortium's operator to admit it" if invited else "has not announced itself, or has ended"
        )
    return hangs(folder, address) or "\n".join(problems(folder))


def hangs(folder: Path, address: dict[str, Any]) -> str:
    """Return why the role's process does nothing any more, or an empty string."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        silent = time.time() - float(json.loads((folder / FILE).read_bytes())["at"])
        if silent > _STALE_SECONDS:
            return f"hangs: has not looked after itself for {silent:.0f} s"
    return _answers(str(address["listens"])) if "listens" in address else ""


def problems(folder: Path) -> list[str]:
    """Return what the role itself has found wrong."""
    try:
        found = json.loads((folder / FILE).read_bytes())["problems"]
        return [str(line) for line in found]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        return [f"{FILE} cannot be read"]


def restart(folder: Path, place: Path | None = None) -> str:
    """As :func:`alive`; a process that hangs for the third time is killed, and whoever started it starts it again.

    Args:
        folder: the role's.
        place: where the count is kept between two checks.
    """
    count = (place or Path(tempfile.gettempdir())) / _COUNT
    address = _announced(folder)
    stuck = hangs(folder, address) if address is not None else ""
    if address is None or not stuck:
        count.unlink(missing_ok=True)
        return alive(folder)
    times = 1
    with contextlib.suppress(OSError, ValueError):
        times += int(count.read_text())
    if times < _PATIENCE:
        count.write_text(str(times))
        return stuck
    count.unlink(missing_ok=True)
    os.kill(int(address["pid"]), signal.SIGKILL)
    return f"{stuck}; it was ended to be started again"


def _announced(folder: Path) -> dict[str, Any] | None:
    try:
        address: dict[str, Any] = json.loads((folder / "address.json").read_bytes())
        os.kill(int(address["pid"]), 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return address


def _answers(url: str) -> str:
    # It asks itself, on its own loopback address: whose certificate answers there proves nothing to it.
    context = ssl._create_unverified_context() if url.startswith("https") else None  # noqa: S323
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(f"{url}/healthz", timeout=_ANSWER_SECONDS) as answer:
            return "" if answer.status == 200 else f"answers {answer.status}"
    except OSError as error:
        return f"does not answer: {type(error).__name__}"


def hanging(folder: Path) -> str:
    """Return why an announced process does nothing any more; nothing for one that is ill, starting or ended."""
    address = _announced(folder)
    return hangs(folder, address) if address is not None else ""


if __name__ == "__main__":
    _look = restart if "--restart" in sys.argv[2:] else hanging if "--hangs" in sys.argv[2:] else alive
    _reason = _look(Path(sys.argv[1]))
    if _reason:
        sys.stderr.write(f"{_reason}\n")
        sys.exit(1)
