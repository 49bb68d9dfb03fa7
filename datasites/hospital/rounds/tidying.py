"""What a hospital deletes of a round that is over: everything but what was signed.

An update must be sent again, byte for byte, while its round lasts. Once this hospital has checked the plan of a later
round, the model of that round follows from the sum that the keyholder signed: nobody can ask for the update any more.
Then its ciphertexts go, and a round later whatever else is no signed document. Plans, headers and attestations stay,
and so does the newest file of the parameters that a hospital keeps to itself.

What goes is journaled before it is deleted. If the process ends in between, the next round deletes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasites.node.home import Home
from datasites.review.records import ReviewRecords
from datasites.training.local_parameters import KEPT
from privacy.errors import Refused
from privacy.ledger.journal import Journal

UPDATE = "update.bin"
DELETED = "round-files-deleted"


@dataclass(frozen=True, kw_only=True)
class Tidied:
    """What goes, or would go: files by their paths below the study's folder, and their bytes together."""

    files: tuple[str, ...]
    bytes: int


def tidy(home: Home, journal: Journal, study: str, *, now_in: int, dry_run: bool = False) -> Tidied:
    """Delete what the rounds of a study no longer need.

    Args:
        home: the hospital's.
        journal: gets an entry before anything is deleted.
        study: its name.
        now_in: the round whose plan was checked here; one more than the last when the study is over.
        dry_run: only say what would go.
    """
    folder = home.round_folder(study, 0).parent
    found = sorted(_superfluous(folder, now_in))
    tidied = Tidied(
        files=tuple(path.relative_to(folder).as_posix() for path in found), bytes=sum(p.stat().st_size for p in found)
    )
    if found and not dry_run:
        rounds = sorted({int(path.parent.name) for path in found})
        body = {"study": study, "rounds": rounds, "files": len(found), "bytes": tidied.bytes}
        journal.append(DELETED, body)
        for path in found:
            path.unlink(missing_ok=True)
    return tidied


def tidy_home(home: Home, *, dry_run: bool = False) -> list[dict[str, Any]]:
    """Delete what the rounds of all studies of a hospital no longer need; return files and bytes by study."""
    records = ReviewRecords(home.folder / "approvals.sqlite", read_only=True)
    try:
        studies = sorted({request.proposal.study for request in records.requests()})
    finally:
        records.close()
    journal = Journal(home.folder / "journal.sqlite", None if dry_run else home.identity())
    try:
        found = []
        for study in studies:
            plans = [int(path.parent.name) for path in home.round_folder(study, 0).parent.glob("*/plan.json")]
            tidied = tidy(home, journal, study, now_in=max(plans, default=0), dry_run=dry_run)
            if tidied.files:
                found.append({"study": study, "files": len(tidied.files), "bytes": tidied.bytes})
        return found
    finally:
        journal.close()


def require_kept(folder: Path) -> None:
    """Check that the update of a round is still here.

    Raises:
        Refused: it was deleted with its round; it is never made a second time.
    """
    if (folder / "header.json").exists() and not (folder / UPDATE).exists():
        raise Refused(f"round {folder.name} is over here and its update was deleted; it is never made a second time")


def _superfluous(folder: Path, now_in: int) -> Iterator[Path]:
    """Yield the files of rounds before ``now_in`` that nobody needs any more."""
    rounds = {int(path.name): path for path in folder.glob("*") if path.name.isdigit() and path.is_dir()}
    newest_own = max((n for n, path in rounds.items() if n < now_in and (path / KEPT).exists()), default=0)
    for number, path in rounds.items():
        if number >= now_in:
            continue
        yield from path.glob(UPDATE)
        if number < now_in - 1:
            for file in path.iterdir():
                stays = file.suffix == ".json" or (file.name == KEPT and number == newest_own)
                if file.is_file() and file.name != UPDATE and not stays:
                    yield file
