"""A container limits how many studies train at once: two workers in room for one are killed after the charge."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from datasites.hospital import daemon
from datasites.review.policy import Policy
from datasites.worker import machine
from datasites.worker.machine import Allowance, allowance

GIB = 2**30
PAGE = 4096


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a machine of eight cores and 64 GiB."""
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(machine.os, "sysconf", {"SC_PAGE_SIZE": PAGE, "SC_PHYS_PAGES": 64 * GIB // PAGE}.__getitem__)
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def test_a_machine_without_limits_gives_all_it_has(root: Path) -> None:
    assert allowance(root) == Allowance(cores=8, memory_bytes=64 * GIB)


LIMITED: dict[str, tuple[dict[str, str], Allowance]] = {
    "a container's own group": (
        {"proc/self/cgroup": "0::/", "memory.max": str(2 * GIB), "cpu.max": "100000 100000"},
        Allowance(cores=1, memory_bytes=2 * GIB),
    ),
    "a group named by its place outside the container, which is the root inside": (
        {"proc/self/cgroup": "0::/../../docker/0123abcd", "memory.max": str(3 * GIB), "cpu.max": "350000 100000"},
        Allowance(cores=3, memory_bytes=3 * GIB),
    ),
    "the tightest of a service and what is above it": (
        {
            "proc/self/cgroup": "0::/system.slice/tessera.service",
            "system.slice/memory.max": str(5 * GIB),
            "system.slice/tessera.service/memory.max": "max",
            "system.slice/cpu.max": "max 100000",
            "system.slice/tessera.service/cpu.max": "250000 100000",
        },
        Allowance(cores=2, memory_bytes=5 * GIB),
    ),
    "no limit in the first version": (
        {
            "proc/self/cgroup": "4:memory:/\n1:cpu:/",
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
        },
        Allowance(cores=8, memory_bytes=64 * GIB),
    ),
}
"""What lies in ``proc``, and below ``sys/fs/cgroup``; and what may be used then."""


@pytest.mark.parametrize("limited", LIMITED)
def test_what_control_groups_allow(root: Path, limited: str) -> None:
    files, expected = LIMITED[limited]
    write(root, {name if name.startswith("proc") else f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    assert allowance(root) == expected


@pytest.mark.parametrize("seen", ["docker/0123abcd/", ""], ids=["as outside", "as the container mounts it"])
def test_the_first_version_of_control_groups(root: Path, seen: str) -> None:
    write(
        root,
        {
            "proc/self/cgroup": "4:memory:/docker/0123abcd\n3:cpu,cpuacct:/docker/0123abcd\n0::/",
            f"sys/fs/cgroup/memory/{seen}memory.limit_in_bytes": str(2 * GIB),
            f"sys/fs/cgroup/cpu,cpuacct/{seen}cpu.cfs_quota_us": "50000",
            f"sys/fs/cgroup/cpu,cpuacct/{seen}cpu.cfs_period_us": "100000",
        },
    )
    assert allowance(root) == Allowance(cores=1, memory_bytes=2 * GIB)


@pytest.mark.parametrize("text", ["", "max", "-5 100000", "100000 0", "nonsense", "\x00"])
def test_a_file_that_says_nothing_limits_nothing(root: Path, text: str) -> None:
    files = {"proc/self/cgroup": f"0::/\n{text}", "sys/fs/cgroup/cpu.max": text, "sys/fs/cgroup/memory.max": text}
    write(root, files)
    assert allowance(root) == Allowance(cores=8, memory_bytes=64 * GIB)


@pytest.mark.parametrize(("given", "together"), [(2, 1), (4, 1), (8, 2), (64, 2)])
def test_a_hospital_trains_as_many_studies_as_its_container_has_room_for(
    monkeypatch: pytest.MonkeyPatch, given: int, together: int
) -> None:
    work = object.__new__(daemon.Worker)
    work._datasite = SimpleNamespace(policies=SimpleNamespace(current=Policy))  # type: ignore[assignment]
    monkeypatch.setattr(daemon, "allowance", lambda: Allowance(cores=4, memory_bytes=given * GIB))
    assert work._at_once() == together
    monkeypatch.setattr(daemon, "allowance", lambda: Allowance(cores=1, memory_bytes=given * GIB))
    assert work._at_once() == 1
