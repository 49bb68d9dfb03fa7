"""compose.yaml on an engine: commands, and the settings that tests give it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = "tessera-test"
ROUNDS = 6
RESULTS = tempfile.mkdtemp(prefix="tessera-results-")


def docker(*arguments: str, check: bool = True, seconds: float = 300.0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["docker", *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=seconds
    )
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done


def compose(*arguments: str, check: bool = True, seconds: float = 300.0) -> subprocess.CompletedProcess[str]:
    return docker("compose", "-p", PROJECT, *arguments, check=check, seconds=seconds)


def environment() -> dict[str, str]:
    wheels = os.environ.get("WHEELS_DIR") or find_links() or str(ROOT / "docker" / "wheels")
    own = re.compile("TESSERA_|COMPOSE_|DATABASE_URL")
    kept = {name: value for name, value in os.environ.items() if not own.match(name)}
    ours = {"TESSERA_PORTS": "83", "TESSERA_VERSION": "test", "TESSERA_ROUNDS": str(ROUNDS), "TESSERA_RESULTS": RESULTS}
    return {**kept, **ours, "WHEELS_DIR": wheels}


def find_links() -> str:
    """The folder pip is set up to look into first, which may hold torch's CPU wheel."""
    found = subprocess.run(["pip", "config", "get", "global.find-links"], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 and Path(found.stdout.strip()).is_dir() else ""


def engine() -> bool:
    return shutil.which("docker") is not None and docker("info", check=False, seconds=30).returncode == 0
