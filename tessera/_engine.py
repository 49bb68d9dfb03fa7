"""Make sure that the packages under this one are Tessera's own, whatever lies in the folder that Python runs in.

Python looks in a script's folder first. A folder that has a package ``models`` or ``privacy`` of its own would be
imported in the place of ours. :func:`settle` imports ours by their place on disk and warns in one line.
"""

from __future__ import annotations

import sys
import warnings
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
ENGINE = ("privacy", "models", "datasites", "orchestrator")


def settle() -> None:
    """Import the four packages of the engine from beside this one.

    Raises:
        ImportError: another package of such a name has been imported already.
    """
    hidden = [name for name in ENGINE if not _stands(name)]
    for name in hidden:
        sys.modules[name] = _ours(name)
    if hidden:
        names = " and ".join(f"`{name}`" for name in hidden)
        warnings.warn(
            f"a package called {names} comes before Tessera's on sys.path; `import {hidden[0]}` now gives Tessera's: "
            "rename yours to import it beside",
            stacklevel=3,
        )


def _stands(name: str) -> bool:
    """Return whether Python finds ours under ``name``; refuse another one that is imported already."""
    loaded = sys.modules.get(name)
    if loaded is None:
        return _is_ours(name, find_spec(name))
    if not _is_ours(name, loaded.__spec__):
        raise ImportError(
            f"Python has imported another package called {name!r}, which Tessera needs for itself: write "
            f"`import tessera` before `import {name}`, or rename that package"
        )
    return True


def _is_ours(name: str, spec: ModuleSpec | None) -> bool:
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == ROOT / name / "__init__.py"


def _ours(name: str) -> ModuleType:
    folder = ROOT / name
    spec = spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None or not folder.is_dir():
        raise ImportError(f"Tessera's package {name!r} is missing beside `tessera`; install tessera-fl again")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
