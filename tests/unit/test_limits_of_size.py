"""The walls of the house: a folder, a file and a function stay small enough to be read in one go."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("tessera", "orchestrator", "datasites", "privacy", "models")
MODULES_IN_A_FOLDER, LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 16, 400, 60
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


def test_no_folder_holds_more_modules_than_one_takes_in_at_a_glance() -> None:
    folders = Counter(file.parent.relative_to(ROOT).as_posix() for file in FILES if file.name != "__init__.py")
    assert folders
    assert {name: n for name, n in folders.items() if n > MODULES_IN_A_FOLDER} == {}


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    lengths = {file.relative_to(ROOT).as_posix(): len(file.read_text().splitlines()) for file in FILES}
    assert {name: n for name, n in lengths.items() if n > LINES_OF_A_FILE} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_function_is_longer_than_sixty_lines(package: str) -> None:
    long = {}
    for file in (f for f in FILES if f.relative_to(ROOT).parts[0] == package):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LINES_OF_A_FUNCTION:
                    long[f"{file.relative_to(ROOT).as_posix()}:{node.name}"] = lines
    assert long == {}


def test_every_package_says_the_rule_of_its_room() -> None:
    silent = [
        file.relative_to(ROOT).as_posix()
        for file in FILES
        if file.name == "__init__.py" and not ast.get_docstring(ast.parse(file.read_text()))
    ]
    assert silent == []


@pytest.mark.parametrize(
    "file", [f for f in FILES if f.name == "__init__.py"], ids=lambda f: f.parent.relative_to(ROOT).as_posix()
)
def test_every_room_says_where_to_start_reading(file: Path) -> None:
    """By a file in it or a module of it, which is there."""
    said = ast.get_docstring(ast.parse(file.read_text())) or ""
    found = re.search(r"Start\s+(?:reading\s+)?(?:with|at)\s+(?:``([\w./-]+)``|:mod:`~?([\w.]+)`)", said)
    assert found is not None
    inside, module = found.groups()
    place = file.parent / inside if inside else ROOT / f"{module.replace('.', '/')}.py"
    assert place.is_file() and place.is_relative_to(file.parent)


@pytest.mark.parametrize("package", ["datasites", "orchestrator", "privacy"])
def test_a_package_names_all_its_rooms(package: str) -> None:
    said = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text())) or ""
    rooms = {file.parent.name for file in (ROOT / package).glob("*/__init__.py")}
    assert {room for room in rooms if f"``{room}``" not in said} == set()
