"""`import tessera` in a folder that has packages of our names, and simulations in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tessera

ROOT = Path(tessera.__file__).parents[1]
SEEDS = """
import tessera
study = tessera.Study("pfs", epsilon=4, rounds=1)
print(study.simulate(sites=3, seeds=2, patients=120, jobs=2, progress=False).metrics["auroc"])
"""


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """A folder whose packages would tell that they were run."""
    for name in ("models", "privacy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("print('the user was here')\nNet = 1\n")
    return tmp_path


def run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_it_works_beside_packages_of_the_same_names_also_in_its_processes(users_folder):
    found = run(users_folder, SEEDS)
    assert found.returncode == 0, found.stderr
    assert "the user was here" not in found.stdout and "rename yours" in found.stderr
    here = tessera.Study("pfs", epsilon=4, rounds=1).simulate(sites=3, seeds=2, patients=120, jobs=1, progress=False)
    assert float(found.stdout) == here.metrics["auroc"]


def test_a_package_that_was_imported_first_is_named_in_one_line(users_folder):
    found = run(users_folder, "import models\nimport tessera\n")
    assert found.returncode == 1 and "write `import tessera` before `import models`" in found.stderr.splitlines()[-1]


def test_importing_it_loads_nothing_heavy(tmp_path):
    found = run(tmp_path, "import tessera, sys\nprint(sorted({'torch', 'pandas', 'syft'} & set(sys.modules)))\n")
    assert found.stdout == "[]\n" and not found.stderr


def test_what_a_process_refuses_is_raised_here(tmp_path):
    with pytest.raises(tessera.InvalidInput, match="cohort tables"):
        tessera.Study("pfs", rounds=1).simulate(tmp_path / "none", seeds=2, jobs=2, progress=False)


@pytest.mark.parametrize("role", ["orchestrator", "keyholder", "datasite", "helper", "scientist"])
def test_no_role_runs_what_lies_in_the_folder_it_starts_in(users_folder, role):
    command = ["init", "--help"] if role == "scientist" else ["run", "--home", "nowhere"]
    environment = {**os.environ, "PYTHONPATH": str(users_folder)}
    found = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", role, *command],
        cwd=users_folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "the user was here" not in found.stdout + found.stderr
    assert ("Usage" in found.stdout) if role == "scientist" else ("expected a Tessera home" in found.stderr)
