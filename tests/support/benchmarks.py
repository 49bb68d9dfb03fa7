"""Makes two packages of benchmarks/ importable for tests by name; benchmarks/ itself is not on ``sys.path``."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PACKAGES = ("harness", "research")


def make_importable(name: str) -> None:
    """Put one package into ``sys.modules``; its modules are then found in its own folder."""
    folder = BENCHMARKS / name
    spec = spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} is no package")
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)


for package in PACKAGES:
    make_importable(package)
