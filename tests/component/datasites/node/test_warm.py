"""Children that are forked from a warm process: alone in what they draw and hold, and gone when they should be."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.waiting import until

from datasites.node.warm import Child, Warm, WarmChild, answer_of, start_module
from datasites.worker.sandbox import available_layers
from privacy.errors import TesseraError

_SECONDS = 120.0
_DRAWN = """
import random, secrets, tempfile, uuid
import numpy as np
from privacy.encryption.ckks import generate_round_key
from privacy.encryption.parameters import choose_parameters
from privacy.identity import Identity
from privacy.canonical import sha256_hex
key = generate_round_key(choose_parameters(sites=3, levels=64, length=1))
print(Identity.generate().public_key, sha256_hex(key.public), sha256_hex(key.secret), secrets.token_hex(),
      uuid.uuid4(), random.random(), next(tempfile._get_candidate_names()), sep="\\n")
"""


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with Warm.start(["privacy.encryption.ckks", "privacy.identity", "numpy", "uuid", "tempfile", "random"]) as warm:
        yield warm


def ran(warm: Warm, code: str, out: Path, **how: object) -> list[str]:
    """Run Python code in a child (``timeit`` runs what its command line says) and return what it printed."""
    with out.open("wb") as file:
        child = warm.run("timeit", ["-n1", "-r1", code], output=file.fileno(), pipe=False, **how)  # type: ignore[arg-type]
        assert child.wait(_SECONDS) == 0, out.read_text()
    return out.read_text().splitlines()[:-1]  # the last line is timeit's


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_two_children_draw_nothing_alike(warm: Warm, tmp_path: Path) -> None:
    one, other = (ran(warm, _DRAWN, tmp_path / name) for name in ("one", "other"))
    assert len(one) == len(other) == 7
    assert not set(one) & set(other)


def test_a_child_has_the_environment_the_folder_and_the_descriptors_that_it_was_given(
    warm: Warm, tmp_path: Path
) -> None:
    held, more = os.open(tmp_path, os.O_RDONLY), os.open(os.devnull, os.O_RDONLY)
    code = (
        "import os; held = [n for n in range(999) if os.path.exists(f'/proc/self/fd/{n}')]; "
        "print(sorted(os.environ), os.getcwd(), held, sep='|')"
    )
    try:
        (line,) = ran(warm, code, tmp_path / "out", env={"ONLY": "this"}, folder=str(tmp_path), pass_fds=[held])
    finally:
        os.close(held)
        os.close(more)
    assert line == f"['ONLY']|{tmp_path}|{sorted([0, 1, 2, held])}"


@pytest.mark.parametrize(
    ("module", "arguments", "expected"),
    [
        ("this", [], 0),
        ("json.tool", ["--no-such-option"], 2),
        ("no_such_module", [], 1),
        ("timeit", ["import os; os.kill(os.getpid(), 9)"], -signal.SIGKILL),
    ],
    ids=["well", "code", "exception", "signal"],
)
def test_how_a_child_ended_is_told(
    warm: Warm, tmp_path: Path, module: str, arguments: list[str], expected: int
) -> None:
    with (tmp_path / "out").open("wb") as file:
        child = warm.run(module, arguments, output=file.fileno(), pipe=False)
        assert child.wait(_SECONDS) == expected
    assert (child.poll(), child.returncode) == (expected, expected)
    child.kill()  # does nothing to whoever has its number now


def test_a_child_is_ended_when_asked(warm: Warm) -> None:
    child = warm.run("timeit", ["-n1", "import time; time.sleep(600)"], pipe=False, group=True)
    assert child.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.0)
    child.terminate()
    assert child.wait(_SECONDS) == -signal.SIGTERM


def test_the_warm_process_of_a_child_ends_with_it(warm: Warm, tmp_path: Path) -> None:
    code = (
        "from datasites.node.warm import start_module; import time; "
        "print(start_module('timeit', ['-n1', 'import time; time.sleep(600)'], pipe=True).pid, flush=True); "
        "time.sleep(600)"
    )
    with (tmp_path / "out").open("wb") as file:
        child = warm.run("timeit", ["-n1", "-r1", code], output=file.fileno(), pipe=False, warm=True)
    until(lambda: (tmp_path / "out").read_text().endswith("\n"))
    family = psutil.Process(child.pid).children(recursive=True)
    grandchild = int((tmp_path / "out").read_text())
    assert {process.pid for process in family} >= {grandchild}
    child.kill()
    child.wait(_SECONDS)
    until(lambda: all(ended(p.pid) or p.pid == grandchild for p in family))
    os.kill(grandchild, signal.SIGKILL)  # it watches no pipe


def test_a_warm_process_that_was_ended_is_named(tmp_path: Path) -> None:
    warm = Warm.start([])
    child = warm.run("timeit", ["-n1", "import time; time.sleep(600)"], pipe=False)
    family = psutil.Process(child.pid).parent()
    assert family is not None
    family.kill()
    try:
        assert child.wait(_SECONDS) == -signal.SIGKILL
        with pytest.raises(TesseraError, match="start again"):
            warm.run("this", [])
    finally:
        os.kill(child.pid, signal.SIGKILL)
        warm.close()


def test_without_a_warm_process_a_module_starts_from_nothing() -> None:
    child: Child = start_module("this", [])
    assert not isinstance(child, WarmChild)
    assert child.wait(_SECONDS) == 0


def test_nothing_is_forked_from_a_process_with_threads(capfd: pytest.CaptureFixture[str]) -> None:
    with Warm.start(["tests.support.waiting_thread:start"]) as warm, pytest.raises(TesseraError, match="start again"):
        warm.run("this", [])
    assert "expected one thread" in capfd.readouterr().err


def test_whoever_reports_was_forked_without_threads_and_sets_its_pdf(tmp_path: Path) -> None:
    code = (
        "import typst; from pathlib import Path; Path('a.typ').write_text('#set document(title: \"a\")'); "
        "print(len(typst.compile('a.typ')))"
    )
    with Warm.start(["datasites.report.rehearsal:rehearse"]) as warm:
        for name in ("one", "other"):
            assert int(ran(warm, code, tmp_path / name, folder=str(tmp_path))[0]) > 100


_LAYERS = "import datasites.worker.sandbox as s; print(*(name for name, on in s.available_layers().items() if on))"


def test_a_forked_process_can_put_on_itself_what_one_from_nothing_can(warm: Warm, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        child = warm.run("timeit", ["-n1", "-r1", _LAYERS], output=out.fileno(), pipe=False, warm=True)
        assert child.wait(_SECONDS) == 0, (tmp_path / "out").read_text()
    forked, _ = (tmp_path / "out").read_text().splitlines()
    assert forked.split() == [name for name, on in available_layers().items() if on]


@pytest.mark.parametrize("warmed", [False, True])
def test_an_answer_is_what_was_written_and_the_exit_code(
    warm: Warm, monkeypatch: pytest.MonkeyPatch, warmed: bool
) -> None:
    monkeypatch.setattr("datasites.node.warm.own_warm", [warm] if warmed else [])
    assert answer_of("platform", seconds=_SECONDS)[0] == 0
    words = "import os; os.write(2, b'a warning'); os.write(1, b'said'); os._exit(3)"
    code, said = answer_of("timeit", ["-n1", "-r1", words], seconds=_SECONDS)
    assert (code, said) == (3, "said")
    with pytest.raises(subprocess.TimeoutExpired):
        answer_of("timeit", ["-n1", "-r1", "import time; time.sleep(600)"], seconds=0.01)
