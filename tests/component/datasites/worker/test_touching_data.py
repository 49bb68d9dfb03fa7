"""Whatever a worker runs counts as touching data, so that no release changes it under an approval."""

import importlib.metadata
import json
import subprocess
import sys

from packaging.utils import canonicalize_name

from datasites.review.environment import REST_OF_CODE, REST_OF_PACKAGES
from datasites.worker.server import PRELOADED

NAMES_NO_RECORD = {
    "datasites.language",  # sentences
    "datasites.node",  # packages, processes and files
    "datasites.review",
}
"""What a worker imports of the rest of our code, and why no record goes through it."""


def loaded_in_a_worker() -> tuple[set[str], set[str]]:
    """Return our modules, and the distributions, that a worker has imported before it reads a record."""
    code = (
        "import importlib, json, sys; from datasites.worker.server import preload, PRELOADED; preload(); "
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    modules = set(json.loads(done.stdout))
    ours = {name for name in modules if name.split(".")[0] in {"datasites", "models", "privacy", "orchestrator"}}
    names = importlib.metadata.packages_distributions()
    return ours, {canonicalize_name(d) for m in modules for d in names.get(m, ())}


def test_all_code_that_a_worker_runs_counts_as_touching_data():
    modules, distributions = loaded_in_a_worker()
    assert {"datasites.worker.child", "privacy.dp.sgd"} <= modules and set(PRELOADED) - {"torch._dynamo"} <= modules
    for name in modules:
        rest = any(name == r or name.startswith(f"{r}.") for r in (place.replace("/", ".") for place in REST_OF_CODE))
        assert not rest or ".".join(name.split(".")[:2]) in NAMES_NO_RECORD, name
    used = distributions & REST_OF_PACKAGES
    assert used <= {"jinja2", "pygments", "psutil", "rich", "tomlkit", "typer", "structlog", "certifi", "idna"}, used
