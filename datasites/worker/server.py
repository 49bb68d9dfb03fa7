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
import signal
import socket
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
_PRELOADED = (
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
    for name in _PRELOADED:
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
        data, descriptors, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 3)
        if not data:
            return
        if os.fork() == 0:
            _supervise(Launch.decode(data), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _supervise(launch: Launch, job: int, log: int, report: int) -> NoReturn:
    """Run one worker to its end and say how it ended; never returns to the server's loop."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        syscalls.die_with_parent()
        close_descriptors((job, log, report))
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            _become_worker(launch, job, log, report)
        timed_out = not _ended_within(child, launch.limits.time_seconds)
        if timed_out:
            os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
        _say(
            report,
            {
                "timed_out": timed_out,
                "exit": os.waitstatus_to_exitcode(status),
                "seconds": time.monotonic() - started,
                "peak_memory_bytes": usage.ru_maxrss * 1024,
            },
        )
        os._exit(0)
    finally:
        os._exit(1)


def _ended_within(process: int, seconds: float) -> bool:
    descriptor = os.pidfd_open(process)
    ready, _, _ = select.select([descriptor], [], [], seconds)
    os.close(descriptor)
    return bool(ready)


def _become_worker(launch: Launch, job: int, log: int, report: int) -> NoReturn:
    """Turn this process into the sandboxed worker: descriptors, layers, then the job; never returns."""
    code = EXIT_FAILED
    try:
        syscalls.die_with_parent()
        os.setsid()
        os.nice(_NICENESS)
        os.environ.clear()
        os.chdir("/")
        for source, target in ((job, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        close_descriptors((report,))
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # people watch a dry run's log grow
        limits = launch.limits
        layers = confine(
            Confinement(
                readable=tuple(map(Path, launch.readable)), writable=tuple(map(Path, launch.writable)), limits=limits
            )
        )
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
