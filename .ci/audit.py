"""Known vulnerabilities in what is installed: asked of the package index, or read from a folder of advisories.

    python .ci/audit.py                      # pip-audit, where the index gives advisories
    TESSERA_ADVISORIES=FOLDER python .ci/audit.py   # a checkout of PyPA's advisory database, without a network

Exit codes: 0 nothing found, or not to be had here (a line says why); 1 something found.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

_SECONDS = 900
_PROBE = "pip"


def main() -> int:
    """Audit this interpreter's packages and print what was found."""
    folder = os.environ.get("TESSERA_ADVISORIES")
    if folder:
        return _report(_from_folder(Path(folder)), f"the advisories in {Path(folder).name}")
    reason = _unreachable()
    if reason:
        print(f"audit skipped: {reason}; TESSERA_ADVISORIES=FOLDER reads advisories from a folder instead")
        return 0
    return subprocess.run([*_command(), "--skip-editable"], check=False, timeout=_SECONDS).returncode


def _command() -> list[str]:
    return [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--timeout", "30"]


def _unreachable() -> str:
    """Ask about one package; return why nothing can be known, or nothing where it can."""
    probe = Path(sys.prefix) / "audit-probe.txt"
    probe.write_text(f"{_PROBE}==24.0\n", encoding="utf-8")
    command = [*_command(), "-r", str(probe), "--no-deps", "--disable-pip", "-f", "json"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, subprocess.TimeoutExpired):
        return "pip-audit is not installed, or the index did not answer it"
    finally:
        probe.unlink()
    # pip-audit calls a package that it could not ask about skipped, and ends well all the same
    return "the index here gives no advisories" if any("skip_reason" in one for one in found) else ""


def _from_folder(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield (package, version, advisory, versions that mend it) for what is installed."""
    installed = {canonicalize_name(d.name): d.version for d in distributions()}
    for name, version in sorted(installed.items()):
        for path in sorted((folder / "vulns" / name).glob("*.yaml")):
            advisory = yaml.safe_load(path.read_text(encoding="utf-8"))
            if "withdrawn" in advisory:
                continue
            for affected in advisory.get("affected", ()):
                if _affects(affected, version):
                    yield name, version, " ".join([advisory["id"], *advisory.get("aliases", ())]), _mended(affected)


def _affects(affected: dict[str, Any], installed: str) -> bool:
    if installed in affected.get("versions", ()):
        return True
    version = Version(installed)
    inside = False
    for event in _events(affected):
        try:
            if "introduced" in event and version >= Version(event["introduced"]):
                inside = True
            if "fixed" in event and version >= Version(event["fixed"]):
                inside = False
            if "last_affected" in event and version > Version(event["last_affected"]):
                inside = False
        except InvalidVersion:
            continue
    return inside


def _mended(affected: dict[str, Any]) -> str:
    return ", ".join(event["fixed"] for event in _events(affected) if "fixed" in event)


def _events(affected: dict[str, Any]) -> Iterator[dict[str, str]]:
    for spell in affected.get("ranges", ()):
        if spell["type"] == "ECOSYSTEM":
            yield from ({key: str(value) for key, value in event.items()} for event in spell["events"])


def _report(found: Iterator[tuple[str, str, str, str]], source: str) -> int:
    lines = [f"{n} {v}: {what}, mended in {mended or 'no version yet'}" for n, v, what, mended in found]
    print("\n".join([*lines, f"audit: {len(lines)} known vulnerabilities, by {source}"]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
