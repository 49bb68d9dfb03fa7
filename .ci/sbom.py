"""Software bill of materials of what a role runs, in CycloneDX's JSON.

    python .ci/sbom.py build/sbom.cdx.json       # make sbom

`cyclonedx-py` (cyclonedx-bom) lists this environment; what only development needs is left out. Each package states the
SHA-256 over its installed files, Tessera itself the hash over all of them that an approval binds (`files_hash`).
The same environment gives the same bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from datasites.node.installed import survey
from datasites.review.environment import current_environment, dependencies

ROOT = Path(__file__).parents[1]
_SCHEMA = "1.6"
_SECONDS = 300
_ALSO = "psycopg"  # the extra `postgres` of an orchestrator
_ROOM = "tessera:"


def main(arguments: list[str]) -> int:
    """Write the bill of materials; return the exit code."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        found = survey(dependencies() | dependencies(_ALSO), cache=Path(folder) / "files.json")
    document = pruned(_environment(), found.packages)
    document["metadata"]["component"]["properties"] = [
        {"name": f"{_ROOM}files_hash", "value": current_environment().files_hash},
        {"name": f"{_ROOM}code_hash", "value": current_environment().code_hash},
    ]
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
    if not _is_valid(text):
        print(f"no bill of materials written: it would not be valid CycloneDX {_SCHEMA}", file=sys.stderr)
        return 1
    target = Path(arguments[0])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text + "\n", encoding="utf-8")
    print(f"{target}: {len(document['components'])} packages, CycloneDX {_SCHEMA}")
    return 0


def pruned(document: dict[str, Any], hashes: Mapping[str, str]) -> dict[str, Any]:
    """Keep the components that ``hashes`` names (normalised) and the edges between them; add the hash to each."""
    kept = [one for one in document["components"] if canonicalize_name(one["name"]) in hashes]
    for one in kept:
        value = hashes[canonicalize_name(one["name"])]
        one["properties"] = [*one.get("properties", ()), {"name": f"{_ROOM}files_sha256", "value": value}]
    root = document["metadata"]["component"]["bom-ref"]
    refs = {root, *(one["bom-ref"] for one in kept)}
    edges = [
        {"ref": edge["ref"], "dependsOn": [ref for ref in edge.get("dependsOn", ()) if ref in refs]}
        for edge in document["dependencies"]
        if edge["ref"] in refs
    ]
    return {**document, "components": kept, "dependencies": edges}


def _is_valid(text: str) -> bool:
    from cyclonedx.schema import OutputFormat, SchemaVersion
    from cyclonedx.validation import make_schemabased_validator

    return make_schemabased_validator(OutputFormat.JSON, SchemaVersion.from_version(_SCHEMA)).validate_str(text) is None


def _environment() -> dict[str, Any]:
    command = [sys.executable, "-m", "cyclonedx_py", "environment", sys.executable]
    options = ["--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "--output-format", "JSON"]
    done = subprocess.run(
        [*command, *options, "--spec-version", _SCHEMA, "--output-file", "-"],
        check=True,
        capture_output=True,
        timeout=_SECONDS,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
