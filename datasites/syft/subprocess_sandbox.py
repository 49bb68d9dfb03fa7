"""A small sandbox for plain jobs on mock data: a child process with limits, no secrets and few files.

The child is our own interpreter, started on this very file. It closes itself in before the job's first line runs:
resource limits, a new session, an empty network namespace, and Landlock (read the interpreter and the mocks, write the
code folder, nothing else). Where the kernel does not grant these the child stops before the job begins, which is
reported as not isolated, and nothing of it leaves.
"""

from __future__ import annotations

import ctypes
import os
import resource
import runpy
import signal
import subprocess  # a fixed command without a shell
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

_LANDLOCK_NEEDED = 4
_REFUSED = 97
_MEMORY_BYTES = 4 * 1024**3
_FILE_BYTES = 256 * 1024**2
_PROCESSES = 1024
_NEW_USER_AND_NETWORK = 0x10000000 | 0x40000000
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def run_isolated(
    *,
    code: Path,
    entrypoint: str,
    data: Path,
    environment: Mapping[str, str],
    timeout_seconds: float,
    log_bytes: int,
) -> tuple[int, bytes, bytes, bool]:
    """Run ``code/entrypoint`` with ``code`` as working directory.

    Returns:
        Exit status (-1 where it took too long), the first ``log_bytes`` of both streams, and whether it was closed in;
        where it could not be, the job did not run.
    """
    command = [sys.executable, "-I", __file__, str(code), entrypoint, str(data), str(int(timeout_seconds) + 1)]
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(code), "TMPDIR": str(code), **_ONE_THREAD, **environment}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(  # noqa: S603  # no shell; the job's path is an argument of our own script
            command, cwd=code, env=clean, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        try:
            status = child.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            status = -1
        _end(child)
        out.seek(0)
        err.seek(0)
        return status, out.read(log_bytes), err.read(log_bytes), status != _REFUSED


def landlock_version() -> int:
    """Return the kernel's Landlock version; 0 where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(444, None, 0, 1)))


def _end(child: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        child.wait()


def _limit(cpu_seconds: int) -> None:
    for name, bound in (
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, _FILE_BYTES),
        (resource.RLIMIT_NPROC, _PROCESSES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(name)[1]
        limit = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(name, (limit, limit))


class _Rules(ctypes.Structure):
    _fields_ = (
        ("fs", ctypes.c_uint64),
        ("net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


_READ = 0b1101  # execute, read file, read folder
_ALL = (1 << 16) - 1  # every file right up to Landlock's fifth version
_TCP = 0b11  # bind and connect
_SCOPES = 0b11  # abstract unix sockets and signals (from the sixth version)


def _close_in(readable: list[Path], writable: Path) -> None:
    version = landlock_version()
    if version < _LANDLOCK_NEEDED:
        raise OSError("the kernel has no Landlock, or too old a one")
    libc = ctypes.CDLL(None, use_errno=True)
    _must(libc.unshare(_NEW_USER_AND_NETWORK))
    everything = _ALL if version >= 5 else _ALL >> 1
    rules = _Rules(everything, _TCP, _SCOPES if version >= 6 else 0)
    size = ctypes.sizeof(_Rules) if version >= 6 else 16
    ruleset = _must(libc.syscall(444, ctypes.byref(rules), size, 0))
    allowed = [(path, _READ) for path in readable] + [(writable, everything), (Path("/dev/null"), 0b110)]
    for path, rights in allowed:
        descriptor = os.open(path, os.O_PATH)
        files_only = rights if path.is_dir() else rights & 0b111
        rule = _Beneath(files_only, descriptor)
        _must(libc.syscall(445, ruleset, 1, ctypes.byref(rule), 0))
        os.close(descriptor)
    _must(libc.prctl(38, 1, 0, 0, 0))  # no new privileges
    _must(libc.syscall(446, ruleset, 0))
    os.close(ruleset)


def _must(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "the kernel refused to close the job in")
    return result


def _readable(data: Path) -> list[Path]:
    roots = {sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), "/usr", "/lib", "/lib64", "/bin"}
    devices = ("/dev/urandom", "/etc/ld.so.cache", "/etc/localtime", "/proc/self", "/proc/meminfo", "/proc/cpuinfo")
    return [Path(root) for root in (*sorted(roots), *devices) if Path(root).exists()] + [data]


def _child(code: str, entrypoint: str, data: str, cpu_seconds: str) -> None:
    try:
        _limit(int(cpu_seconds))
        _close_in(_readable(Path(data)), Path(code))
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        os._exit(_REFUSED)
    sys.argv = [entrypoint]
    sys.path.insert(0, code)
    runpy.run_path(str(Path(code) / entrypoint), run_name="__main__")


if __name__ == "__main__":
    _child(*sys.argv[1:])
