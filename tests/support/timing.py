"""Whether something was as quick as it should be, which only a machine with time to spare can tell."""

import os


def busy() -> bool:
    """Return whether more than two processes a core want to run."""
    return os.getloadavg()[0] > 2 * (os.cpu_count() or 1)


def within(seconds: float, limit: float) -> bool:
    """Return whether ``seconds`` is below ``limit``; on a busy machine below twenty times the limit."""
    return seconds < (20 * limit if busy() else limit)


def patient(seconds: int) -> int:
    """Return a deadline that honest hospitals meet here: ``seconds``, or four times as long on a busy machine."""
    return 4 * seconds if busy() else seconds
