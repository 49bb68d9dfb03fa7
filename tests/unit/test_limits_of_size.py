"""The walls of the house: a folder, a file and a function stay small enough to be read in one go."""

from __future__ import annotations

import ast
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
