"""Foreign code, a plain PySyft job as well as a training plan, tries to reach or fill more than it was given.

Played in the one sandbox that both run in: sockets of every kind, processes that outlive the job, files of the hospital
that lie beside the installed software, their sizes and times, many files, sparse and removed files, files in memory,
limits, priorities and signals of other processes, logs without end, exits.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.mailbox_server import mock_run

from datasites.review.policy import Policy, SandboxPolicy
from datasites.syft.runner import MockOutcome, Sandbox, in_workers, nothing_runs
from datasites.worker import pool as pool_of_workers
from datasites.worker.job import Outcome, ScriptJob
from datasites.worker.pool import FOR_SCRIPTS, WorkerPool
from datasites.worker.sandbox import available_layers, check_layers, software_folders
from privacy.errors import Refused

MOST_BYTES = 4 << 20
SECRET = "PLANTED-PATIENT-77b1"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A hospital's home inside the folder that its software is installed in."""
    folder = Path(tempfile.mkdtemp(prefix="home-", dir=Path(sys.prefix) / "lib"))
    (folder / "records.csv").write_text(SECRET)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def sandbox(warm_here: None, home: Path) -> Iterator[Sandbox]:
    if not all(available_layers()[layer] for layer in FOR_SCRIPTS):
        pytest.skip("this kernel does not offer the layers that plain jobs need")
    limits = SandboxPolicy(output_bytes=MOST_BYTES, jobs_may_measure=not available_layers()["disk"])
    with WorkerPool(limits, hidden=[home]) as pool:
        yield in_workers(pool)


def attempt(sandbox: Sandbox, folder: Path, code: str, seconds: float = 30.0) -> MockOutcome:
    lines = "\n    ".join(code.splitlines())
    return sandbox(
        mock_run(
            folder, f"try:\n    {lines}\nexcept OSError as error:\n    print(type(error).__name__)", seconds=seconds
        )
    )


def test_an_honest_job_runs(sandbox: Sandbox, tmp_path: Path) -> None:
    outcome = attempt(
        sandbox, tmp_path, "import os\nos.makedirs('outputs')\nopen('outputs/a', 'w').write('a')\nprint('done')"
    )
    assert (outcome.exit_status, outcome.stdout, outcome.isolated) == (0, b"done\n", True)
    assert (tmp_path / "work" / "outputs" / "a").read_text() == "a"


SOCKETS = (
    "import socket\nsocket.socket(socket.AF_UNIX)",
    "import socket\nsocket.socketpair()",
    "import socket\nsocket.socket(socket.AF_INET)",
    "import socket\nsocket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
    "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "import os\nos.fork()",
    "import os\nos.posix_spawn('/bin/true', ['true'], {})",
    "import os\nos.execv('/bin/true', ['true'])",
    "import subprocess\nsubprocess.Popen(['/bin/sleep', '60'])",
    "import os\nos.kill(os.getppid(), 9)",
    "import os\nos.memfd_create('hidden')",
    "import os\nos.mkfifo('pipe')",
    "import os\nos.chmod('main.py', 0o777)",
    "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (3, 3))",
    "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU)",
    "import os\nos.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "import os\nos.sched_setaffinity(os.getppid(), {0})",
    "import os\nos.sched_setscheduler(os.getppid(), os.SCHED_IDLE, os.sched_param(0))",
    "import fcntl, os\nfcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid())",
    "import fcntl, os\nfcntl.fcntl(os.pipe()[0], 10, 9)  # F_SETSIG",
    "import fcntl, os, struct\nfcntl.fcntl(os.pipe()[0], 15, struct.pack('ii', 1, os.getppid()))  # F_SETOWN_EX",
    "import fcntl, os, struct\nfcntl.ioctl(os.pipe()[0], 0x8901, struct.pack('i', os.getppid()))  # FIOSETOWN",
)


@pytest.mark.parametrize("code", SOCKETS, ids=lambda code: code.splitlines()[-1][:40])
def test_no_socket_process_signal_or_file_in_memory_is_made(sandbox: Sandbox, tmp_path: Path, code: str) -> None:
    outcome = attempt(sandbox, tmp_path, code)
    assert outcome.isolated and outcome.stdout == b"PermissionError\n"


def test_nothing_of_a_home_is_read_that_lies_beside_the_software(sandbox: Sandbox, home: Path, tmp_path: Path) -> None:
    for code in (f"print(open({str(home / 'records.csv')!r}).read())", f"import os\nprint(os.listdir({str(home)!r}))"):
        folder = tmp_path / str(len(code))
        assert attempt(sandbox, folder, code).stdout == b"PermissionError\n"
    beside = tmp_path / "beside"
    assert attempt(sandbox, beside, "import numpy, pandas\nprint('software')").stdout == b"software\n"


MEASURED = {
    "size": "os.stat(path).st_size",
    "time": "os.lstat(path).st_mtime_ns",
    "existence": "os.path.exists(path) or os.stat(path)",
    "access": "os.access(path, os.F_OK) or os.stat(path)",
    "from inside": "os.chdir(os.path.dirname(path)) or os.stat('records.csv').st_size",
    "a path's own descriptor": "os.fstat(os.open(path, os.O_PATH)).st_size",
    "free space": "os.statvfs(path).f_bfree",
}


@pytest.mark.parametrize("way", MEASURED)
def test_nothing_of_a_home_is_measured_either(sandbox: Sandbox, home: Path, tmp_path: Path, way: str) -> None:
    """Played: a plain job asks how large the private part is, which says exactly how many patients there are."""
    if not available_layers()["disk"]:
        pytest.skip("this kernel lets no worker have mounts of its own")
    code = f"import os\npath = {str(home / 'records.csv')!r}\nprint({MEASURED[way]})"
    assert attempt(sandbox, tmp_path, code).stdout in (b"FileNotFoundError\n", b"PermissionError\n")


def without_disk(limits: SandboxPolicy, home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> MockOutcome:
    """Run a job that measures a file, in workers that get no mounts of their own, as in a plain container."""
    real = WorkerPool._ran

    def as_in_a_container(pool: WorkerPool, job: bytes, *rest: Any) -> Outcome:
        readable, output, given, logs = rest
        if "disk" in given.minimum_layers:
            reason = "the sandbox lacks disk, which the policy demands"
            for log in logs:
                log.touch()
            return Outcome(
                status="refused", reason=reason, seconds=0.0, peak_memory_bytes=0, layers=(), log=logs[0], result=None
            )
        outcome = real(pool, job, readable, output, given, logs)
        return replace(outcome, layers=tuple(layer for layer in outcome.layers if layer != "disk"))

    monkeypatch.setattr(WorkerPool, "_ran", as_in_a_container)
    code = f"import os\nprint(os.path.exists({str(home / 'records.csv')!r}))"
    with WorkerPool(limits, hidden=[home]) as pool:
        return attempt(in_workers(pool), folder, code)


def test_a_plain_job_does_not_run_where_it_could_measure_files(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = SandboxPolicy(output_bytes=MOST_BYTES)
    outcome = without_disk(limits, home, tmp_path, monkeypatch)
    assert (outcome.isolated, outcome.stdout) == (False, b"")
    assert b"the sandbox lacks disk" in outcome.stderr


def test_an_owner_may_accept_that_jobs_measure_files(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = SandboxPolicy(output_bytes=MOST_BYTES, jobs_may_measure=True)
    assert without_disk(limits, home, tmp_path, monkeypatch).isolated
    said, silent = Policy.parse("[sandbox]\njobs_may_measure = true"), Policy.parse("")
    assert said.policy_hash != silent.policy_hash


def test_what_happens_in_a_home_is_not_watched(sandbox: Sandbox, home: Path, tmp_path: Path) -> None:
    code = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    code += f"print(libc.inotify_add_watch(libc.inotify_init1(0), {os.fsencode(home)!r}, 0xFFF), ctypes.get_errno())"
    assert attempt(sandbox, tmp_path, code).stdout == b"-1 1\n"


def test_a_worker_still_reads_what_it_was_given_of_a_home(home: Path, tmp_path: Path) -> None:
    given, output = home / "given", home / "deep" / "output"
    for folder in (given, output):
        folder.mkdir(parents=True)
    (given / "code.py").write_text(f"print(open({str(given / 'rows')!r}).read())\nopen('made', 'w').write('x')")
    (given / "rows").write_text("mock rows")
    job = ScriptJob(code=given, entrypoint="code.py", data=given, environment={}, output=output, seconds=30)
    with WorkerPool(SandboxPolicy(output_bytes=MOST_BYTES), hidden=[home]) as pool:
        outcome = pool.run_script(job, stdout=tmp_path / "out", stderr=tmp_path / "err")
    assert (outcome.status, (tmp_path / "out").read_text()) == ("ok", "mock rows\n")
    assert (output / "made").read_text() == "x"


def test_folders_of_software_leave_out_what_is_hidden_at_any_depth() -> None:
    inside = Path(os.__file__).parent
    found = software_folders([inside / "json" / "deep" / "home", inside / "email"])
    assert inside.resolve() not in found and (inside / "email").resolve() not in found
    assert (inside / "email" / "mime").resolve() not in found
    assert (inside / "asyncio").resolve() in found
    assert (inside / "json").resolve() not in found and (inside / "json" / "decoder.py").resolve() in found


FILLING = {
    "many files": "for n in range(100):\n    open(f'f{n}', 'wb').write(bytes(1 << 20))",
    "one file": "open('f', 'wb').write(bytes(1 << 26))",
    "removed files": (
        "import os\nkept = []\nfor n in range(50):\n    kept.append(open(f'f{n}', 'wb'))\n"
        "    kept[-1].write(bytes(1 << 20))\n    kept[-1].flush()\n    os.unlink(f'f{n}')\nprint('all')"
    ),
    "files without a name": (
        "import os\nkept = []\nfor n in range(50):\n    kept.append(os.open('.', os.O_TMPFILE | os.O_RDWR))\n"
        "    os.write(kept[-1], bytes(1 << 20))\nprint('all')"
    ),
    "a million names": "for n in range(10 ** 6):\n    open(f'f{n}', 'w').close()\nprint('all')",
}


@pytest.mark.parametrize("way", FILLING)
def test_a_job_fills_no_more_than_the_policy_allows_in_all(sandbox: Sandbox, tmp_path: Path, way: str) -> None:
    if not available_layers()["disk"]:
        pytest.skip("this kernel lets no worker have a file system of its own")
    outcome = attempt(sandbox, tmp_path, FILLING[way])
    assert b"all" not in outcome.stdout
    assert sum(p.stat().st_size for p in (tmp_path / "work").rglob("*") if p.is_file()) <= MOST_BYTES


_NO_MOUNTS = """
import sys
from datasites.worker import server, syscalls

def refused():
    raise PermissionError("no mounts here")

syscalls.own_mounts = refused
sys.argv[1:] = [{socket!r}]
server.main()
"""


@pytest.fixture(scope="module")
def container() -> Iterator[Sandbox]:
    """Yield workers that get no mounts of their own, as in a container without further rights."""

    def started(_: str, arguments: list[str], **options: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _NO_MOUNTS.format(socket=arguments[0])]
        return subprocess.Popen(command, env=options["env"], pass_fds=options["pass_fds"], cwd=options["folder"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_of_workers, "start_module", started)
        with WorkerPool(SandboxPolicy(output_bytes=MOST_BYTES, jobs_may_measure=True)) as pool:
            pool.start()
            patch.undo()
            yield in_workers(pool)


KEPT_OPEN = """import os, time
kept = []
for n in range(40):
    kept.append({opened})
    os.write(kept[-1], bytes(1 << 20))
    {gone}
time.sleep(3)
print('all')"""
HIDING = {
    "removed": KEPT_OPEN.format(opened="os.open(f'f{n}', os.O_CREAT | os.O_RDWR)", gone="os.unlink(f'f{n}')"),
    "without a name": KEPT_OPEN.format(opened="os.open('.', os.O_TMPFILE | os.O_RDWR)", gone="pass"),
    "renamed over": KEPT_OPEN.format(
        opened="os.open(f'f{n}', os.O_CREAT | os.O_RDWR)", gone="os.replace(f'f{n}', 'one')"
    ),
    "mapped and closed": (
        "import mmap, os, time\nkept = []\nfor n in range(40):\n    with open(f'f{n}', 'w+b') as file:\n"
        "        file.write(bytes(1 << 20))\n        file.flush()\n"
        "        kept.append(mmap.mmap(file.fileno(), 4096))\n    os.unlink(f'f{n}')\ntime.sleep(3)\nprint('all')"
    ),
    "many names": "for n in range(10 ** 5):\n    open(f'f{n}', 'w').close()\nimport time\ntime.sleep(3)\nprint('all')",
}


@pytest.mark.parametrize("way", HIDING)
def test_no_byte_is_hidden_where_nothing_bounds_a_workers_folder(container: Sandbox, tmp_path: Path, way: str) -> None:
    """Played: code writes files that no folder names, which whoever adds up the folder does not see."""
    outcome = attempt(container, tmp_path, HIDING[way])
    assert outcome.isolated and b"all" not in outcome.stdout


def test_honest_code_writes_and_keeps_files_there(container: Sandbox, tmp_path: Path) -> None:
    code = "import os, tempfile\nos.makedirs('outputs')\nopen('outputs/a', 'w').write('a')\n"
    code += "open(tempfile.mkstemp()[1], 'w').write('b')\nprint('done')"
    outcome = attempt(container, tmp_path, code)
    assert (outcome.exit_status, outcome.stdout) == (0, b"done\n")
    assert (tmp_path / "work" / "outputs" / "a").read_text() == "a"


def test_a_sparse_file_is_not_spread_out(sandbox: Sandbox, tmp_path: Path) -> None:
    code = "import os\nfor n in range(9):\n    open(f'f{n}', 'wb').truncate(1 << 22)\n"
    code += "os.makedirs('outputs')\nopen('outputs/x', 'w').write('x')"
    outcome = attempt(sandbox, tmp_path, code)
    assert outcome.exit_status in (0, -1, -9)
    assert not (tmp_path / "work" / "outputs").exists()
    assert sum(p.stat().st_blocks * 512 for p in (tmp_path / "work").rglob("*") if p.is_file()) <= MOST_BYTES


def test_a_log_without_end_is_cut(sandbox: Sandbox, tmp_path: Path) -> None:
    outcome = attempt(sandbox, tmp_path, "while True:\n    print('x' * 10000)", seconds=20)
    assert outcome.exit_status != 0 and len(outcome.stdout) <= MOST_BYTES


def test_links_are_not_followed_out_of_the_folder(sandbox: Sandbox, home: Path, tmp_path: Path) -> None:
    code = f"import os\nos.symlink({str(home)!r}, 'outputs')\nos.symlink({str(home / 'records.csv')!r}, 'f')"
    attempt(sandbox, tmp_path, code)
    found = [p.read_text(errors="replace") for p in (tmp_path / "work").rglob("*") if p.is_file()]
    assert not any(SECRET in text for text in found)
    assert not (tmp_path / "work" / "outputs").is_symlink()


@pytest.mark.parametrize(
    "code", ["import os\nos._exit(0)", "import sys\nsys.exit(3)", "import os\nos.abort()", "raise SystemExit('no')"]
)
def test_a_job_ends_as_it_likes_and_the_next_one_runs(sandbox: Sandbox, tmp_path: Path, code: str) -> None:
    assert attempt(sandbox, tmp_path / "one", code).isolated
    assert attempt(sandbox, tmp_path / "two", "print('next')").stdout == b"next\n"


def test_the_default_policy_asks_for_landlock_and_for_a_persons_look() -> None:
    policy = Policy.parse("")
    assert "landlock" in policy.sandbox.minimum_layers
    assert not policy.review.auto_approve_plain_jobs
    with pytest.raises(Refused, match="landlock"):
        check_layers(
            [layer for layer in policy.sandbox.minimum_layers if layer != "landlock"], policy.sandbox.minimum_layers
        )


def test_without_workers_no_job_is_run(tmp_path: Path) -> None:
    outcome = nothing_runs(mock_run(tmp_path, "open('ran', 'w')"))
    assert not outcome.isolated and not list((tmp_path / "work").iterdir())
