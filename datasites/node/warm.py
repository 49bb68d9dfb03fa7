"""Children that start in milliseconds: a warm process imports what they need once, and forks them on request.

Python takes seconds to import what a hospital needs. ``tessera demo``, which starts a dozen roles, starts one warm
process first, which imports for all of them::

    with Warm.start(["datasites.hospital.daemon"]) as warm:
        child = warm.run("orchestrator.cli.main", ["datasite", "run", "--home", str(home)], warm=True)

A warm process holds no key, record or setting: :func:`datasites.node.process.own_module` starts it with the packages of
this process alone, and it has one thread. A child gets the descriptors, environment and folder that it is given. What
must be random comes from the operating system in every child (test_warm.py shows that two draw different keys).

A child started with ``warm=True`` has a warm process of its own, forked before it reads anything: a hospital's worker
server and reports start without imports, and end with it. Everywhere else, :func:`start_module` starts a process.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol

from datasites.node.process import own_module
from privacy.errors import TesseraError

_MESSAGE_BYTES = 1 << 18
_MOST_DESCRIPTORS = 16
_START_SECONDS = 120.0
_BEYOND = 256  # received descriptors are moved here before they take their places


class Child(Protocol):
    """What a started process offers; :class:`subprocess.Popen` is one."""

    pid: int
    stdin: IO[bytes] | None

    @property
    def returncode(self) -> int | None:
        """Its exit code once it has ended and was asked for; minus the signal's number if a signal ended it."""

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended; raises ``subprocess.TimeoutExpired``."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""


@dataclass
class WarmChild:
    """A child that a warm process forked for this one."""

    pid: int
    stdin: IO[bytes] | None
    returncode: int | None = None
    _report: int = field(default=-1, repr=False)

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended.

        Raises:
            subprocess.TimeoutExpired: it still runs after ``timeout`` seconds.
        """
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.poll() is None:  # until its end was reported nobody has collected it, so the number is still its own
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _ended(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._report], [], [], seconds)[0]:
            word = os.read(self._report, 64)
            os.close(self._report)
            self.returncode = int(word) if word else -signal.SIGKILL  # the warm process was ended, and it with it
        return self.returncode


class Warm:
    """A warm process, seen from the one that started it; it ends when this one does."""

    def __init__(self, control: socket.socket, process: subprocess.Popen[bytes] | None = None) -> None:
        self._control, self._process = control, process
        self._lock = threading.Lock()
        self._ready = process is None

    @classmethod
    def start(cls, calls: Sequence[str]) -> Warm:
        """Start a warm process, and do not wait until it has imported everything.

        Args:
            calls: modules to import, or functions to call after their import: ``module`` or ``module:function``.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as on_failure, theirs:
            on_failure.callback(ours.close)
            process = subprocess.Popen(  # noqa: S603  our own module, no shell
                own_module("datasites.node.warm", str(theirs.fileno()), *calls),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=_one_thread(os.environ),
                cwd="/",
                process_group=0,
            )
            on_failure.pop_all()
        return cls(ours, process)

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the warm process; its children are not ended by this."""
        self._control.close()
        if self._process is not None:
            if not self._ready:
                self._process.kill()  # it has no child yet, and imports for nobody
            self._process.wait()

    def run(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        folder: str | None = None,
        output: int | None = None,
        errors: bool = True,
        pass_fds: Sequence[int] = (),
        pipe: bool = True,
        group: bool = False,
        warm: bool = False,
    ) -> WarmChild:
        """Fork a child that runs ``python -m module arguments``.

        Args:
            module: one of ours.
            arguments: its command line.
            env: its environment; that of the warm process if left out.
            output: descriptor of its standard output, with ``errors`` of its errors too; else the warm process's.
            folder: where it starts; where this process is if left out.
            pass_fds: descriptors that it gets under the same numbers.
            pipe: whether its standard input is a pipe whose other end is ``stdin``, else it reads nothing.
            group: whether it leads a process group of its own.
            warm: whether it has a warm process of its own.

        Raises:
            TesseraError: the warm process has ended.
        """
        reading, stdin = os.pipe() if pipe else (os.open(os.devnull, os.O_RDONLY), -1)
        heard, report = os.pipe()
        streams = {} if output is None else {1: output, 2: output} if errors else {1: output}
        places = {0: reading, **streams, **{n: n for n in pass_fds}}
        spec: dict[str, Any] = {
            "module": module,
            "arguments": list(arguments),
            "folder": folder or str(Path.cwd()),
            "places": list(places),
            "env": None if env is None else dict(env),
            "group": group,
            "warm": warm,
        }
        try:
            pid = self._asked(json.dumps(spec).encode(), [report, *places.values()], heard)
        except OSError as error:
            os.close(heard)
            if pipe:
                os.close(stdin)
            raise TesseraError("the process that starts others has ended; start again") from error
        finally:
            os.close(reading)
            os.close(report)
        return WarmChild(pid, os.fdopen(stdin, "wb", buffering=0) if pipe else None, _report=heard)

    def _asked(self, spec: bytes, descriptors: Sequence[int], heard: int) -> int:
        with self._lock:
            if not self._ready:
                self._control.settimeout(_START_SECONDS)
                if self._control.recv(16) != b"ready":
                    raise OSError("not ready")
                self._control.settimeout(None)
                self._ready = True
            socket.send_fds(self._control, [spec], list(descriptors))
            if not select.select([heard], [], [], _START_SECONDS)[0]:
                raise OSError("no answer")
            word = os.read(heard, 16)  # of a fixed length, so that the exit code is not read with it
        if not word:
            raise OSError("no answer")
        return int(word)


own_warm: list[Warm] = []
"""This process's own warm process, if it was started with one."""


def start_module(
    module: str,
    arguments: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    folder: str | None = None,
    output: int | None = None,
    errors: bool = True,
    pass_fds: Sequence[int] = (),
    pipe: bool = False,
) -> Child:
    """Start one of our modules in a process of its own: forked where this process has a warm one, else from nothing.

    Args: as of :meth:`Warm.run`.
    """
    if own_warm:
        return own_warm[0].run(
            module, arguments, env=env, folder=folder, output=output, errors=errors, pass_fds=pass_fds, pipe=pipe
        )
    return subprocess.Popen(  # noqa: S603  our own module, no shell
        own_module(module, *arguments),
        env=None if env is None else dict(env),
        pass_fds=pass_fds,
        stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
        stdout=output,
        stderr=output if errors else None,
        cwd=folder,
    )


def answer_of(module: str, arguments: Sequence[str] = (), *, seconds: float) -> tuple[int, str]:
    """Run one of our modules in a process of its own, with one thread; return its exit code and its output alone.

    Raises:
        subprocess.TimeoutExpired: it was ended after ``seconds``.
    """
    with tempfile.TemporaryFile() as said:
        env = _one_thread(os.environ)
        child = start_module(module, arguments, env=env, folder="/", output=said.fileno(), errors=False)
        try:
            code = child.wait(seconds)
        finally:
            child.kill()  # nothing where it has ended
            child.wait()
        return code, os.pread(said.fileno(), _MESSAGE_BYTES, 0).decode(errors="replace")


def _one_thread(environment: Mapping[str, str]) -> dict[str, str]:
    """Keep libraries from starting threads, which no fork would have."""
    return {**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


# the warm process itself -------------------------------------------------------------------------------------------


def serve(control: socket.socket) -> None:
    """Fork a child for every request, and report how each ended, until the other end closes."""
    asked, reports = control.fileno(), dict[int, tuple[int, int]]()  # by a child's pidfd: number, where to tell
    while True:
        for ready in select.select([asked, *reports], [], [])[0]:
            if ready == asked:
                spec, descriptors, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, _MOST_DESCRIPTORS)
                if not spec:
                    return
                report, pid = descriptors[0], _forked(json.loads(spec), control, descriptors)
                os.write(report, b"%-16d" % pid)
                reports[os.pidfd_open(pid)] = (pid, report)
            else:
                pid, report = reports.pop(ready)  # ended
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(BrokenPipeError):
                    os.write(report, str(code).encode())
                os.close(ready)
                os.close(report)


def _forked(spec: Mapping[str, Any], control: socket.socket, descriptors: Sequence[int]) -> int:
    pid = os.fork()
    if pid == 0:
        control.close()
        _become(spec, descriptors[1:])
    for descriptor in descriptors[1:]:
        os.close(descriptor)
    return pid


def _become(spec: Mapping[str, Any], descriptors: Sequence[int]) -> NoReturn:
    """Turn this fork into the process that was asked for; never returns."""
    code = 1
    try:
        if spec["group"]:
            os.setpgid(0, 0)
        os.chdir(spec["folder"])
        if spec["env"] is not None:
            os.environ.clear()
            os.environ.update(spec["env"])
        _place(spec["places"], descriptors)
        if spec["warm"]:
            own_warm.append(_seed())
        sys.argv = [spec["module"], *spec["arguments"]]
        sys.modules.pop(spec["module"], None)  # it may have been imported in advance, and runs as a program now
        runpy.run_module(spec["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _place(places: Sequence[int], descriptors: Sequence[int]) -> None:
    """Give the received descriptors their numbers, and close all others but standard output and errors."""
    moved = [fcntl.fcntl(d, fcntl.F_DUPFD_CLOEXEC, _BEYOND) for d in descriptors]
    kept = sorted({0, 1, 2, *moved})
    for low, high in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(low + 1, high)
    for place, descriptor in zip(places, moved, strict=True):
        os.dup2(descriptor, place, inheritable=True)
        os.close(descriptor)


def _seed() -> Warm:
    """Fork a warm process for this one, before it has read anything."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        with contextlib.suppress(KeyboardInterrupt):
            serve(theirs)
        os._exit(0)
    theirs.close()
    return Warm(ours)


def _refuse_threads() -> None:
    """Refuse to fork children that would wait for a thread which only this process has."""
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    more = len(threads) - 1 - threads.count("jemalloc_bg_thd")  # which gives memory back, and every child gets its own
    if more > 0:
        raise TesseraError(f"expected one thread in a process that others are forked from, found {more} more")


def main() -> None:
    """Import in advance, then serve the socket whose descriptor is the first argument."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for call in sys.argv[2:]:
        module, _, function = call.partition(":")
        found = importlib.import_module(module)
        if function:
            getattr(found, function)()
    _refuse_threads()
    gc.collect()
    gc.freeze()
    with contextlib.suppress(BrokenPipeError):
        control.send(b"ready")
    serve(control)


if __name__ == "__main__":
    import datasites.node.warm as itself  # children look for their own warm process in the module, not in the program

    itself.main()
