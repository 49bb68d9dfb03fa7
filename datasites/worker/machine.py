"""What this process may use of its machine: cores and memory, as container, service or machine limit it.

    >>> allowance()
    Allowance(cores=2, memory_bytes=4294967296)

Linux keeps the limits in control groups (version 2, or version 1 of older machines). Every group above ours limits us
as well. A file that is not there limits nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_GROUPS = "sys/fs/cgroup"


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """How many whole cores and how many bytes of memory; at least one core."""

    cores: int
    memory_bytes: int


def allowance(root: Path = Path("/")) -> Allowance:
    """Return what this process may use; ``root`` is where ``proc`` and ``sys`` lie."""
    cores = [float(len(os.sched_getaffinity(0))), *_quotas(root)]
    memory = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_memories(root)]
    return Allowance(cores=max(1, int(min(cores))), memory_bytes=min(memory))


def _memories(root: Path) -> Iterator[int]:
    for folder in _folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            words = _words(folder / name)
            if len(words) == 1 and words[0].isdecimal():  # else "max": no limit
                yield int(words[0])


def _quotas(root: Path) -> Iterator[float]:
    """Yield how many cores' time each group gives: a quota of microseconds in a period; -1 or "max" is no limit."""
    for folder in _folders(root, "cpu"):
        both = (_words(folder / "cpu.max"), _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"))
        for words in both:
            if len(words) == 2 and all(word.isdecimal() and int(word) for word in words):
                yield int(words[0]) / int(words[1])


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's groups and of all above them.

    A container sees its own group as the root, also where ``/proc/self/cgroup`` names it by its place outside.
    """
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, place = line.split(":", 2)
        if not controllers:
            tops = [root / _GROUPS, root / _GROUPS / "unified"]
        elif controller in controllers.split(","):
            tops = [root / _GROUPS / controllers, root / _GROUPS / controller]
        else:
            continue
        inside = PurePosixPath("." if ".." in place.split("/") else place.lstrip("/"))
        yield from (top / above for top in tops for above in (inside, *inside.parents))


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.count(":") >= 2]
    except (OSError, ValueError):
        return []


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return []
