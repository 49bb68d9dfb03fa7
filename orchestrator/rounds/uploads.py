"""Uploads that lie complete on disk, and what a crash left of those that were still arriving."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasites.study.signing import Signed

INCOMING = ".incoming-"
"""How the names of files begin that are still being written."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A body that lies complete at ``path``, with the hash it really has."""

    signed: Signed
    path: Path
    body_hash: str


def remove_interrupted(folder: Path) -> None:
    """Remove what a crash left of uploads that were under way."""
    for path in folder.glob(f"{INCOMING}*"):
        path.unlink(missing_ok=True)
