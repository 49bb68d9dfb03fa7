"""Makes two packages of benchmarks/ importable for tests by name, and runs its scripts in this process.

benchmarks/ itself is not on ``sys.path``. A script in a process of its own spends most of its time on imports.
"""

from __future__ import annotations

import contextlib
import io
import runpy
import subprocess
import sys
import warnings
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


def run_script(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``python benchmarks/NAME words`` in this process, and return what it printed and how it ended."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    before, sys.argv = sys.argv, [str(BENCHMARKS / name), *words]
    sys.path.insert(0, str(BENCHMARKS))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("default")
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
        sys.path.remove(str(BENCHMARKS))
    return subprocess.CompletedProcess([name, *words], code, out.getvalue(), err.getvalue())


for package in PACKAGES:
    make_importable(package)
