"""Our processes run our packages, wherever they are started and whatever lies there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from datasites.node.process import own_module, package_folders

OURS = ("datasites", "models", "orchestrator", "privacy")
ROOT = str(Path(__file__).resolve().parents[4])


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A folder with packages that are called like ours."""
    for name in OURS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('a stranger: {name}')")
    (tmp_path / "json.py").write_text("raise SystemExit('a stranger: json')")
    return tmp_path


def ran(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert "stranger" not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_module_of_ours_is_ours_in_a_folder_of_strangers_and_with_them_on_the_path(strange: Path) -> None:
    layers = ran(own_module("datasites.worker.sandbox"), strange, PYTHONPATH=str(strange))
    assert "rlimits" in layers


def test_packages_are_found_where_this_process_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_the_user.py").write_text("import sys; print(__name__, sys.argv[1:])")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path), "", "relative"])
    assert package_folders()[0] == ROOT and not {"", "relative"} & set(package_folders())
    assert ran(own_module("of_the_user", "a b"), tmp_path.parent).strip() == "__main__ ['a b']"


@pytest.mark.parametrize("there", ["models", "privacy"])
def test_the_command_line_is_ours_with_strangers_here_or_on_the_path(strange: Path, there: str) -> None:
    for name in {*OURS, "json"} - {there}:
        (strange / (f"{name}.py" if name == "json" else name)).rename(strange / f"not-{name}")
    command = Path(sys.executable).with_name("tessera")
    assert "orchestrator" in ran([str(command), "--help"], strange, PYTHONPATH=str(strange))
    assert "orchestrator" in ran([sys.executable, "-m", "orchestrator.cli.main", "--help"], strange)
