"""What is installed is named by version and hash, and what is built has the same bytes every time."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UNPINNED = {"ray"}  # an extra that nobody's role runs


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


locked = script("locked")


def test_every_pin_has_the_hashes_of_its_files():
    wanted = {line for line in (ROOT / "constraints.txt").read_text().split() if line}
    blocks = locked.read(ROOT / "constraints-hashed.txt")
    assert {locked._normal(line.split("==")[0]): line.split("==")[1] for line in wanted} == {
        name: block.split()[0].split("==")[1] for name, block in blocks.items()
    }, "run `make lock` after a change of constraints.txt"
    assert [n for n, block in blocks.items() if not re.search(r"--hash=sha256:[0-9a-f]{64}", block)] == []
    assert "://" not in "".join(blocks.values())  # pip asks whatever index it is set up with


def test_everything_that_we_ask_for_has_a_pin():
    pins = locked.read(ROOT / "constraints.txt")
    asked = locked.requirements([name for name in PROJECT["optional-dependencies"] if name not in UNPINNED])
    names = {locked._normal(re.match(r"[\w.-]+", line)[0]) for line in asked}
    assert names - set(pins) == set()


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile"])
def test_nothing_is_installed_without_a_hash(file):
    text = (ROOT / file).read_text().replace("\\\n", " ")
    commands = re.findall(r"(?:pip install|\$\((?:PIP|HASHED)\)) [^&\n]*", re.sub(r"(?m)^PIP := .*", "", text))
    ours = ("--require-hashes", "$(HASHED)", "--no-deps --no-build-isolation")
    assert len(commands) >= 4
    assert [command for command in commands if not any(flag in command for flag in ours)] == []


def test_torch_comes_from_the_folder_only_if_its_hash_is_known(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locked, "_folders", lambda: [tmp_path])
    block = locked.read(ROOT / "constraints-hashed.txt")["torch"]
    pin = block.split()[0]
    assert locked.torch() == 0 and capsys.readouterr().out.strip() == block  # an empty folder: any file of the index
    wheel = tmp_path / f"{pin.replace('==', '-')}+cpu-cp311-cp311-linux_x86_64.whl"
    wheel.write_bytes(b"made by somebody")
    assert locked.torch() == 1
    refusal = capsys.readouterr()
    assert refusal.out == "" and f"expected the hash of {wheel.name}" in refusal.err and "make lock" in refusal.err
    known = re.findall(r"sha256:[0-9a-f]{64}", block)[0]
    monkeypatch.setattr(locked, "_hash", lambda _: known)
    assert locked.torch() == 0
    assert capsys.readouterr().out.split() == [pin, "\\", f"--hash={known}"]


def test_hashes_of_wheels_on_a_disk_stay_until_the_version_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(locked, "_folders", lambda: [tmp_path])
    ours, theirs = f"--hash=sha256:{'1' * 64}", f"--hash=sha256:{'2' * 64}"
    assert locked._with_own_wheels(f"torch==2.0 \\\n    {theirs}", f"torch==2.0 \\\n    {ours}").split() == [
        *("torch==2.0", "\\", ours, "\\", theirs),
    ]
    assert ours not in locked._with_own_wheels(f"torch==2.1 \\\n    {theirs}", f"torch==2.0 \\\n    {ours}")


def test_the_bill_of_materials_lists_what_runs_and_nothing_of_development():
    document = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [{"name": "Jinja_2", "bom-ref": "j"}, {"name": "pytest", "bom-ref": "p"}],
        "dependencies": [{"ref": "root", "dependsOn": ["j", "p"]}, {"ref": "j"}, {"ref": "p", "dependsOn": ["j"]}],
    }
    pruned = script("sbom").pruned(document, {"jinja-2": "ab" * 32})
    assert [one["name"] for one in pruned["components"]] == ["Jinja_2"]
    assert pruned["components"][0]["properties"] == [{"name": "tessera:files_sha256", "value": "ab" * 32}]
    assert pruned["dependencies"] == [{"ref": "root", "dependsOn": ["j"]}, {"ref": "j", "dependsOn": []}]


def test_two_builds_of_the_wheel_have_the_same_bytes(tmp_path):
    built = []
    for place, mode, time in (("here", 0o644, 1_000_000_000), ("a longer place/elsewhere", 0o600, 1_700_000_000)):
        tree = tmp_path / place
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            tree.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree)
        for package in ("datasites", "orchestrator", "privacy", "models", "tessera"):
            shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
        for path in tree.rglob("*"):
            path.chmod(0o755 if path.is_dir() else mode)
            os.utime(path, (time, time))
        subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=tree, check=True)
        (wheel,) = (tree / "dist").glob("*.whl")
        built.append(wheel.read_bytes())
    assert built[0] == built[1]


def test_the_image_says_what_it_is_and_both_stages_take_the_named_base():
    text = (ROOT / "Dockerfile").read_text()
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
    bases = [base for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE) if base not in stages]
    assert bases == ["${BASE_IMAGE}${BASE_DIGEST:+@${BASE_DIGEST}}"] * 2 + ["scratch"]
    assert set(re.findall(r"--from=(\S+)", text)) <= {*stages, "wheels"}
    assert f"VERSION={PROJECT['version']} " in text
    labels = set(re.findall(r"org\.opencontainers\.image\.([\w.]+)=", text))
    assert labels >= {"title", "version", "revision", "created", "licenses", "base.name", "base.digest"}


def test_the_image_gets_every_package_of_the_wheel():
    """hatchling leaves out in silence what is not there, and then no command starts."""
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    copied = re.findall(r"^COPY (\w+) \1$", (ROOT / "Dockerfile").read_text(), re.M)
    assert sorted(copied) == sorted(packages)
    assert {f"!{package}" for package in packages} <= set((ROOT / ".dockerignore").read_text().splitlines())
