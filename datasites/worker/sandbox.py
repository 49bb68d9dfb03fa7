"""The sandbox of a worker: layers that a process puts on itself before it reads a record or runs foreign code.

=================  ==========================================================================================
layer              what it stops
=================  ==========================================================================================
rlimits            using more time, memory, file space or descriptors than the policy allows; core dumps
no-new-privileges  set-user-id programs
not-dumpable       other processes of the same user reading this one's memory
capabilities       everything that only root may do
namespaces         seeing a network interface, shared memory or another user (unshare)
disk               writing more than the policy allows in all, not only in each file (a file system in memory);
                   measuring what may not be read: sizes, times and names in the role's home (an empty one over it)
landlock           opening any file but the installed software, the job and the dataset; writing elsewhere
seccomp            sockets, new processes, programs, signals, tracing, mounts, keys, changing modes; limits and
                   priorities of other processes; files without a name, and without the layer disk removing and
                   renaming files: the supervisor counts what has a name
=================  ==========================================================================================

What a kernel or container does not offer stays off and is reported; the policy names the layers that must be on.
One process cannot be kept from patching our own code within itself: that is what review is for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from datasites.node.warm import answer_of
from datasites.review.policy import Layer, SandboxPolicy
from datasites.worker import syscalls
from privacy.errors import Refused

_log = logging.getLogger(__name__)
LAYERS: tuple[Layer, ...] = (
    "rlimits",
    "namespaces",
    "disk",
    "not-dumpable",
    "no-new-privileges",
    "landlock",
    "capabilities",
    "seccomp",
)
_TRY_SECONDS = 120.0
_THREADS = 4096  # pyarrow needs threads, and the kernel counts all of the user's (none of root's)
_SOFTWARE = (
    *("datasites", "models", "privacy", "orchestrator", "tessera"),  # a rule of a study's own writes `import tessera`
    *("numpy", "torch", "pandas", "pyarrow", "safetensors", "opacus"),
)


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """What one worker may use: files, and the policy's limits.

    ``hidden`` is readable nowhere, even where it lies in a folder of the installed software. ``hand_over`` is given a
    descriptor of the folder that is written to, where that is a file system of its own.
    """

    readable: tuple[Path, ...]
    writable: tuple[Path, ...]
    limits: SandboxPolicy
    hidden: tuple[Path, ...] = ()
    hand_over: Callable[[int], object] = os.close


def confine(confinement: Confinement) -> tuple[Layer, ...]:
    """Put every layer on this process that the kernel offers; return those that are active.

    There is no way back, so call it in a process of its own.

    Raises:
        Refused: a layer that the policy demands cannot be had here.
    """
    steps: dict[Layer, Callable[[], None]] = {
        "rlimits": lambda: _limit(confinement.limits),
        "namespaces": syscalls.leave_namespaces,
        "disk": lambda: _bound_folders(confinement),
        "not-dumpable": syscalls.forbid_dumps,
        "no-new-privileges": syscalls.forbid_new_privileges,
        "landlock": lambda: syscalls.confine_files(
            (*software_folders(confinement.hidden), *confinement.readable), confinement.writable
        ),
        "capabilities": syscalls.drop_capabilities,
        "seccomp": lambda: syscalls.filter_system_calls(removing="disk" in active),
    }
    active: list[Layer] = []
    for layer in LAYERS:
        with contextlib.suppress(OSError, ValueError):
            steps[layer]()
            active.append(layer)
    check_layers(active, confinement.limits.minimum_layers)
    return tuple(active)


def check_layers(active: Iterable[Layer], minimum: Sequence[Layer]) -> None:
    """Check that every demanded layer is active.

    Raises:
        Refused: with the layers that are missing.
    """
    missing = sorted(set(minimum) - set(active))
    if missing:
        raise Refused(
            f"the sandbox lacks {', '.join(missing)}, which the policy demands; run on a kernel and container "
            "that offer it, or change minimum_layers"
        )


@lru_cache(maxsize=1)
def available_layers() -> dict[Layer, bool]:
    """Try all layers in a process of their own and return which of them this machine offers.

    It has one thread: no process with more can leave a namespace.
    """
    found = set(answer_of("datasites.worker.sandbox", seconds=_TRY_SECONDS)[1].split())
    return {layer: layer in found for layer in LAYERS}


def say_layers(minimum: Sequence[Layer]) -> None:
    """Log which layers this machine offers, and as an error which of those that the policy demands it does not."""
    offered = available_layers()
    active, missing = ([name for name, on in offered.items() if on is wanted] for wanted in (True, False))
    _log.info("sandbox layers: %s; not offered here: %s", ", ".join(active), ", ".join(missing) or "none")
    try:
        check_layers(active, minimum)
    except Refused as error:
        _log.error("no worker will run: %s", error)


def _bound_folders(confinement: Confinement) -> None:
    syscalls.own_mounts()
    kept = (*software_folders(confinement.hidden), *confinement.readable, *confinement.writable)
    for hidden in confinement.hidden:
        if hidden.is_dir():
            syscalls.cover_folder(hidden.resolve(), [path.resolve() for path in kept])
    folders = confinement.writable or (Path(tempfile.gettempdir()),)  # where nothing is written, it is only tried
    for folder in folders:
        confinement.hand_over(syscalls.bound_folder(folder, confinement.limits.output_bytes))


def software_folders(hidden: Iterable[Path] = ()) -> tuple[Path, ...]:
    """Return the folders of the installed software, which a worker may read and never write, without ``hidden``."""
    paths = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {Path(sys.base_prefix) / "lib", Path("/usr/lib"), Path("/lib"), Path("/lib64")}
    for package in _SOFTWARE:
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            paths.add(Path(spec.origin).parent)
    paths |= {Path(path) for path in sys.path if any(Path(path).glob("*.dist-info"))}  # also pip's --user and --target
    paths |= {Path(p) for p in ("/dev/null", "/dev/urandom", "/proc/cpuinfo", "/sys/devices/system/cpu")}
    secret = frozenset(path.resolve() for path in hidden)
    return tuple(sorted({part for p in paths if p.exists() for part in _without(p.resolve(), secret)}))


def _without(folder: Path, hidden: frozenset[Path]) -> Iterator[Path]:
    """Yield ``folder``, or what is beside ``hidden`` in it: Landlock can allow, and forbid nothing below."""
    if folder in hidden:
        return
    if not any(folder in path.parents for path in hidden):
        yield folder
        return
    for child in sorted(folder.iterdir()):
        if not child.is_symlink():
            yield from _without(child, hidden)


def close_descriptors(keep: Iterable[int]) -> None:
    """Close every descriptor but standard input, output, error and those in ``keep``."""
    kept = sorted({0, 1, 2, *keep})
    highest = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    for low, high in zip(kept, [*kept[1:], min(highest, 65536)], strict=True):
        os.closerange(low + 1, high)


def _limit(limits: SandboxPolicy) -> None:
    """Set hard limits; memory counts on top of what the preloaded libraries map already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    mapped = pages * resource.getpagesize()
    seconds = int(limits.time_seconds) + 5
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    wanted = {
        resource.RLIMIT_AS: mapped + limits.memory_bytes,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: limits.output_bytes,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_NPROC: _THREADS,
        resource.RLIMIT_CORE: 0,
    }
    for which, value in wanted.items():
        hard = resource.getrlimit(which)[1]
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (limit, limit))


def _try_layers() -> None:
    limits = SandboxPolicy(minimum_layers=())
    active = confine(Confinement(readable=(), writable=(), limits=limits))
    sys.stdout.write(" ".join(active))


if __name__ == "__main__":
    _try_layers()
