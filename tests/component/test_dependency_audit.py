"""The audit of dependencies finds what an advisory names, and says so when there are no advisories."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "audit.py"
ADVISORY = """\
id: PYSEC-0000-1
aliases: [CVE-0000-1]
affected:
- package: {{name: packaging, ecosystem: PyPI}}
  ranges:
  - type: ECOSYSTEM
    events:
    - introduced: "0"
    - {end}
{withdrawn}
"""


def audit(folder: Path, advisory: str) -> subprocess.CompletedProcess[str]:
    place = folder / "vulns" / "packaging"
    place.mkdir(parents=True)
    (place / "PYSEC-0000-1.yaml").write_text(advisory)
    environment = {**os.environ, "TESSERA_ADVISORIES": str(folder)}
    return subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("end", "withdrawn", "found"),
    [
        ("fixed: 9999.0", "", True),
        ("fixed: " + version("packaging"), "", False),
        ("last_affected: " + version("packaging"), "", True),
        ("last_affected: '1.0'", "", False),
        ("fixed: 9999.0", "withdrawn: 2026-01-01", False),
    ],
)
def test_an_advisory_counts_while_the_installed_version_is_in_its_range(tmp_path, end, withdrawn, found) -> None:
    done = audit(tmp_path, ADVISORY.format(end=end, withdrawn=withdrawn))
    assert done.returncode == int(found), done.stderr
    assert ("PYSEC-0000-1 CVE-0000-1" in done.stdout) is found
    assert f"audit: {int(found)} known" in done.stdout
