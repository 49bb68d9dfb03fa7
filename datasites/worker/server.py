"""The fork server: imports torch once, then forks one sandboxed worker per round in milliseconds.

It holds no data, no key and no job: for every round the daemon sends it three descriptors (the job to read, the log
to write, the pipe to report on), and only the forked worker reads the job. A supervisor between server and worker
waits, ends a worker that overruns its time, and reports. When the daemon ends, so do they all.

    python -m datasites.worker.server 3     # 3 is the daemon's socket
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from datasites.review.environment import code_hash
from datasites.worker import syscalls
from datasites.worker.job import EXIT_FAILED, EXIT_MEMORY, EXIT_REFUSED, Launch
from datasites.worker.sandbox import Confinement, close_descriptors, confine
from privacy.errors import Refused

_NICENESS = 5  # people at the portal, and the daemon's own work, come before training
_MESSAGE_BYTES = 1 << 20
_LOOK_SECONDS = 0.1
PRELOADED = (
    "datasites.worker.child",
    "datasites.data.dataset",
    "models.build",
    "privacy.dp.opacus_engine",
    "torch._dynamo",
)


def preload() -> None:
    """Import what every worker needs, with one thread, and freeze it so that forks share its memory."""
    import torch

    torch.set_num_threads(1)
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


@contextmanager
def ending_with(control: socket.socket) -> Iterator[None]:
    """End this process as soon as the daemon does: imports take seconds, in which nobody would read the socket."""
    done = threading.Event()

    def watch() -> None:
        hang_up = select.poll()
        hang_up.register(control, 0)
        while not done.is_set():
            if hang_up.poll(100):
                os._exit(0)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()  # before anything is forked


def serve(control: socket.socket) -> None:
    """Fork a supervisor for every launch until the daemon closes its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with suppress(BrokenPipeError):  # the daemon has ended: so do we
        control.send(f"ready {code_hash()}".encode())
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 4)
        if not data:
            return
        if os.fork() == 0:
            _supervise(Launch.decode(data), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _supervise(launch: Launch, job: int, report: int, *logs: int) -> NoReturn:
    """Run one worker to its end and say how it ended; never returns to the server's loop."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        syscalls.die_with_parent()
        close_descriptors((job, report, *logs))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            ours.close()
            _become_worker(launch, job, report, logs, theirs)
        theirs.close()
        problem = _watched(child, launch)
        _, status, usage = os.wait4(child, 0)
        if not problem and not _collected(ours, launch):
            problem = "too_much"
        _say(
            report,
            {
                "timed_out": problem == "timed_out",
                "too_much": problem == "too_much",
                "exit": os.waitstatus_to_exitcode(status),
                "seconds": time.monotonic() - started,
                "peak_memory_bytes": usage.ru_maxrss * 1024,
            },
        )
        os._exit(0)
    finally:
        os._exit(1)


def _watched(process: int, launch: Launch) -> str:
    """Wait for a worker's end; end it, and say why, when it takes too long or writes too much."""
    descriptor, deadline = os.pidfd_open(process), time.monotonic() + launch.limits.time_seconds
    try:
        while True:
            left = deadline - time.monotonic()
            if select.select([descriptor], [], [], max(0.0, min(left, _LOOK_SECONDS)))[0]:
                return ""
            problem = "timed_out" if left <= 0 else "too_much" if written_bytes(launch) is None else ""
            if problem:
                os.kill(process, signal.SIGKILL)
                return problem
    finally:
        os.close(descriptor)


def written_bytes(launch: Launch) -> int | None:
    """Return how much a worker's folder holds, or None where that is more than it may, or cannot be seen.

    Every file has a name: a worker without a file system of its own makes and removes none that has not
    (:func:`datasites.worker.syscalls.filter_system_calls`).
    """
    total = entries = 0
    errors = list[OSError]()
    for folder, folders, names in os.walk(launch.writable, onerror=errors.append):
        entries += len(folders) + len(names)
        if entries > syscalls.MOST_FILES:
            return None
        for name in names:
            with suppress(OSError):  # it was just removed
                found = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - a walk of plain texts is quicker
                total += max(found.st_blocks * 512, found.st_size)
        if total > launch.limits.output_bytes:
            return None
    return None if any(isinstance(error, PermissionError) for error in errors) else total


def _collected(handed_over: socket.socket, launch: Launch) -> bool:
    """Copy what a worker wrote to a file system of its own into its folder; False where that is too much."""
    handed_over.setblocking(False)
    try:
        _, descriptors, _, _ = socket.recv_fds(handed_over, 16, 1)
    except BlockingIOError:
        descriptors = []
    if not descriptors:
        return written_bytes(launch) is not None  # it wrote there itself
    left = launch.limits.output_bytes
    for place, folders, names, inside in os.fwalk(".", dir_fd=descriptors[0], follow_symlinks=False):
        target = Path(launch.writable, place)
        for name in folders:
            (target / name).mkdir(exist_ok=True)
        for name in names:
            left = _copied(name, inside, target / name, left)
            if left < 0:
                return False
    return True


def _copied(name: str, folder: int, target: Path, left: int) -> int:
    """Copy one plain file of at most ``left`` bytes, and return how many are left (below 0: it is longer)."""
    try:
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return left  # a link, or what nobody may read
    with os.fdopen(source, "rb") as file:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode):
            return left
        if status.st_size > left:
            return -1
        with target.open("xb") as copy:
            shutil.copyfileobj(file, copy)
        return left - status.st_size


def _become_worker(launch: Launch, job: int, report: int, logs: tuple[int, ...], supervisor: socket.socket) -> NoReturn:
    """Turn this process into the sandboxed worker: descriptors, layers, then the job; never returns."""
    code = EXIT_FAILED
    try:
        syscalls.die_with_parent()
        os.setsid()
        os.nice(_NICENESS)
        os.environ.clear()
        os.chdir("/")
        for source, target in ((job, 0), (logs[0], 1), (logs[-1], 2)):
            os.dup2(source, target)
        close_descriptors((report, supervisor.fileno()))
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # people watch a dry run's log grow
        layers = confine(
            Confinement(
                readable=tuple(map(Path, launch.readable)),
                writable=(Path(launch.writable),),
                limits=launch.limits,
                hidden=tuple(map(Path, launch.hidden)),
                hand_over=lambda folder: _hand_over(supervisor, folder),
            )
        )
        supervisor.close()
        _say(report, {"layers": layers})
        os.close(report)
        code = _guarded(_work)
    except Refused as error:
        _say(report, {"refused": str(error)})
        code = EXIT_REFUSED
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _hand_over(supervisor: socket.socket, folder: int) -> None:
    socket.send_fds(supervisor, [b"folder"], [folder])
    os.close(folder)


def _work() -> None:
    from datasites.worker import child

    with os.fdopen(0, "rb") as job:
        child.main(job)


def _guarded(work: Callable[[], None]) -> int:
    """Return the exit code of ``work``; what it raises goes to the log, which stays at the site."""
    import traceback

    try:
        work()
        return 0
    except MemoryError:
        sys.stderr.write("out of memory\n")
        return EXIT_MEMORY
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else EXIT_FAILED if error.code else 0
    except BaseException as error:  # foreign code may raise anything
        if isinstance(error, RuntimeError) and "allocate memory" in str(error):
            sys.stderr.write("out of memory\n")
            return EXIT_MEMORY
        traceback.print_exc()
        return EXIT_FAILED


def _say(report: int, value: dict[str, object]) -> None:
    os.write(report, json.dumps(value).encode() + b"\n")


def main() -> None:
    """Serve the daemon on the socket whose descriptor is the first argument."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    control = socket.socket(fileno=int(sys.argv[1]))
    with ending_with(control):
        preload()
    serve(control)


if __name__ == "__main__":
    main()
