"""Exact versions with the hashes of their files: written from constraints.txt, and read for `pip --require-hashes`.

    python .ci/locked.py write                       # constraints-hashed.txt; asks the package index (make lock)
    python .ci/locked.py requirements [EXTRA ...]    # what pyproject.toml asks for, to build and to run
    python .ci/locked.py pinned NAME ...             # the lines of these packages, with their hashes
    python .ci/locked.py torch                       # torch's, with the hashes of the wheels in pip's folder, if any

`constraints.txt` is written by people, one `name==version` a line. `constraints-hashed.txt` is made from it and holds
the hash of every file that the index has of each version, so one file serves every platform. Wheels of torch in pip's
`find-links` folder (those without CUDA are not on the index) add theirs; hashes of such wheels that were written
before stay as long as the version does. pip prefers files of the index, whose hashes it knows beforehand: hence
`torch`, which leaves only the wheels of the folder to choose from.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINS = ROOT / "constraints.txt"
HASHED = ROOT / "constraints-hashed.txt"
_HEADER = "# Made from constraints.txt by `make lock`; do not edit.\n"
_TORCH = "torch"
_SECONDS = 300


def main(arguments: list[str]) -> int:
    """Do what the first argument says; return the exit code."""
    match arguments:
        case ["write"]:
            return write()
        case ["requirements", *extras]:
            print("\n".join(requirements(extras)))
        case ["pinned", *names] if names:
            return pinned(names)
        case ["torch"]:
            return torch()
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


def requirements(extras: list[str]) -> list[str]:
    """Return the requirement lines of pyproject.toml: to build, to run, and of the named extras."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    optional = document["project"]["optional-dependencies"]
    chosen = [line for extra in extras for line in optional[extra]]
    return [*document["build-system"]["requires"], *document["project"]["dependencies"], *chosen]


def pinned(names: list[str]) -> int:
    """Print the lines of these packages."""
    blocks = read(HASHED)
    missing = [name for name in names if _normal(name) not in blocks]
    if missing:
        print(f"expected pins of {', '.join(missing)} in {HASHED.name}; run make lock", file=sys.stderr)
        return 1
    print("\n".join(blocks[_normal(name)] for name in names))
    return 0


def torch() -> int:
    """Print torch's lines, with the hashes of the wheels in pip's folder where there are some."""
    block = read(HASHED)[_TORCH]
    pin = block.split()[0]
    wheels = {wheel: _hash(wheel) for wheel in _wheels(pin)}
    unknown = [wheel.name for wheel, one in wheels.items() if one not in block]
    if unknown:
        print(
            f"expected the hash of {', '.join(unknown)} in {HASHED.name}, found another or none; if you trust this "
            "wheel, run make lock, otherwise take it out of pip's find-links folder",
            file=sys.stderr,
        )
        return 1
    print(_block(pin, set(wheels.values())) if wheels else block)
    return 0


def read(path: Path) -> dict[str, str]:
    """Return the block of lines of each package, by its normalised name."""
    blocks: dict[str, str] = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", path.read_text(encoding="utf-8")):
        found = re.match(r"([A-Za-z0-9_.-]+)==", block)
        if found:
            blocks[_normal(found[1])] = block.rstrip()
    return blocks


def write() -> int:
    """Ask the index for every file of every pinned version, and write their hashes."""
    before = read(HASHED) if HASHED.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / HASHED.name
        command = [sys.executable, "-m", "uv", "pip", "compile", str(PINS), "--no-deps", "--generate-hashes", "--quiet"]
        # what pip was told about certificates holds for uv as well
        certificates = {"SSL_CERT_FILE": os.environ["PIP_CERT"]} if os.environ.get("PIP_CERT") else {}
        done = subprocess.run(
            [*command, "--no-header", "--no-annotate", "--python-version", "3.11", "--output-file", str(made)],
            check=False,
            env={**os.environ, **certificates},
            timeout=_SECONDS,
        )
        if done.returncode:
            print("no hashes written: uv could not ask the index (see above)", file=sys.stderr)
            return 1
        blocks = read(made)
    blocks[_TORCH] = _with_own_wheels(blocks[_TORCH], before.get(_TORCH, ""))
    temporary = HASHED.with_suffix(".new")
    temporary.write_text(_HEADER + "".join(f"{blocks[name]}\n" for name in sorted(blocks)), encoding="utf-8")
    temporary.replace(HASHED)
    print(f"{HASHED.name}: {len(blocks)} packages")
    return 0


def _with_own_wheels(block: str, before: str) -> str:
    """Add the hashes of wheels that lie in pip's folder, and those written before for the same version."""
    pin = block.split()[0]
    hashes = set(re.findall(r"sha256:[0-9a-f]{64}", block + (before if before.split()[:1] == [pin] else "")))
    return _block(pin, hashes | {_hash(wheel) for wheel in _wheels(pin)})


def _block(pin: str, hashes: set[str]) -> str:
    return " \\\n    ".join([pin, *(f"--hash={one}" for one in sorted(hashes))])


def _wheels(pin: str) -> list[Path]:
    name = pin.replace("==", "-")
    return sorted({wheel for folder in _folders() for wheel in folder.glob(f"{name}[+-]*.whl")})


def _folders() -> list[Path]:
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.find-links"], check=False, capture_output=True, text=True
    )
    named = [*asked.stdout.split(), *os.environ.get("PIP_FIND_LINKS", "").split()]
    return [Path(name) for name in named if Path(name).is_dir()]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
