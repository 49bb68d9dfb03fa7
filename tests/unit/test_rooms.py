"""What import-linter cannot say about the rooms, and whether the pages name all that there is."""

from __future__ import annotations

import re
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("tessera", "orchestrator", "datasites", "privacy", "models")
AUDITED = ("datasites.study", "datasites.node", "privacy")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)


@pytest.mark.parametrize(
    ("room", "allowed"), [("datasites.keyholder", AUDITED), ("datasites.helper", (*AUDITED, "datasites.keyholder"))]
)
def test_keyholder_and_helper_import_what_their_auditor_reads_and_nothing_else(
    graph: grimp.ImportGraph, room: str, allowed: tuple[str, ...]
) -> None:
    """So that whoever audits them reads little code; a list of what is allowed, since rooms are added."""
    modules = {room, *graph.find_descendants(room)}
    assert len(modules) > 3
    imported = {other for module in modules for other in graph.find_modules_directly_imported_by(module)} - modules
    assert {other for other in imported if not f"{other}.".startswith(tuple(f"{one}." for one in allowed))} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_architecture_names_every_room(package: str) -> None:
    section = ARCHITECTURE.partition(f"**`{package}/`**")[2].partition("\n**`")[0]
    rooms = {place.parent.name for place in (ROOT / package).glob("*/__init__.py")}
    assert {room for room in rooms if not re.search(rf"^\| `{room}` \|", section, re.MULTILINE)} == set()


@pytest.mark.parametrize("package", ["privacy", "models"])
def test_architecture_names_every_file_beside_the_rooms(package: str) -> None:
    files = {f"{package}/{file.name}" for file in (ROOT / package).glob("*.py") if file.name != "__init__.py"}
    assert {file for file in files if f"`{file}`" not in ARCHITECTURE} == set()


def test_contributing_names_every_kind_of_test_and_every_command_of_make() -> None:
    kinds = {f"tests/{folder.name}" for folder in (ROOT / "tests").iterdir() if folder.is_dir()}
    kinds -= {"tests/__pycache__", "tests/fixtures"}
    assert {kind for kind in kinds if f"`{kind}`" not in CONTRIBUTING} == set()
    targets = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
    assert {target for target in targets if f"`make {target}`" not in CONTRIBUTING} == set()


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    pages = {file.name for file in (ROOT / "docs").iterdir()} - {"index.md", "pictures"}
    pages |= {f"tutorial/{file.name}" for file in (ROOT / "docs" / "tutorial").glob("*.ipynb")}
    assert {page for page in pages if f"({page}" not in index} <= {"tutorial", "examples"}
