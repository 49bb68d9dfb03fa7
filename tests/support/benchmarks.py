"""The research simulator of ``benchmarks/``, for tests: its package is registered without a change of ``sys.path``."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_FOLDER = Path(__file__).parents[2] / "benchmarks" / "research"


def _register() -> None:
    if "research" in sys.modules:
        return
    spec = spec_from_file_location("research", _FOLDER / "__init__.py", submodule_search_locations=[str(_FOLDER)])
    assert spec is not None and spec.loader is not None
    package = module_from_spec(spec)
    sys.modules["research"] = package
    spec.loader.exec_module(package)


_register()
linear_steps = import_module("research.linear_steps")
methods = import_module("research.methods")
simulation_settings = import_module("research.simulation_settings")
simulator = import_module("research.simulate")
