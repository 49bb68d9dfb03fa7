"""Check a role's folder offline: nothing in it was edited, removed, inserted, reordered or cut off.

    >>> result = verify_folder(folder, heads=heads_seen_by(peer_folder, "hospital-a"))
    >>> result.holds, [finding.message for finding in result.findings]

Only copies are opened, so that checking changes nothing and works on a read-only medium. A folder alone cannot show
that *all* of it is an old copy: for that, give the heads that peers have seen.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from privacy.errors import NewerStore, TesseraError
from privacy.ledger.chain import SCHEMA, Chain, Entry, Head
from privacy.ledger.cost_documents import cost_from_json
from privacy.ledger.costs import ZERO
from privacy.ledger.filter import TOLERANCE
from privacy.ledger.head_file import head_file
from privacy.ledger.links import Purpose, problems
from privacy.ledger.state import State
from privacy.storage import structure, version_of

_SECOND_LOOK_SECONDS = 0.5
FILES: dict[Purpose, str] = {"journal": "journal.sqlite", "ledger": "ledger.sqlite"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that does not hold, and in which file."""

    file: str
    message: str


@dataclass(frozen=True, kw_only=True)
class ChainFacts:
    """What was checked of one chain; ``head`` is its newest hash, ``last`` the time of its newest entry."""

    file: str
    public_key: str
    entries: int
    head: str
    last: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result of checking a folder: the chains that were read and everything that does not hold."""

    chains: tuple[ChainFacts, ...]
    findings: tuple[Finding, ...]
    heads_compared: int

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def verify_folder(
    folder: Path, *, public_key: str | None = None, name: str | None = None, heads: Iterable[str | Head] = ()
) -> Verification:
    """Check the journal and the ledger of the role whose folder this is.

    Args:
        folder: holds ``journal.sqlite``, ``ledger.sqlite`` or both.
        public_key: the owner's key, from the consortium's roster; None believes what the folder says.
        name: the role's name in the consortium, by which attested rounds list its heads.
        heads: heads of this role's chains that others have seen (see :func:`heads_seen_by`).

    Returns:
        What was read and what does not hold; a damaged file is a finding, not an exception.
    """
    chains: list[ChainFacts] = []
    findings: list[Finding] = []
    hashes: set[str] = set()
    own: list[str] = []
    for purpose, file in FILES.items():
        if not (folder / file).exists():
            continue
        try:
            facts, entries, found = _check_file(folder / file, purpose, public_key)
        except NewerStore as error:
            findings.append(Finding(file=file, message=f"cannot be checked: {error}"))
            continue
        except (sqlite3.Error, TesseraError, OSError, UnicodeError, ValueError) as error:
            findings.append(Finding(file=file, message=f"damaged: {error}"))
            continue
        chains.append(facts)
        findings += [Finding(file=file, message=message) for message in found]
        hashes |= {facts.head, *(entry.hash for entry in entries)}
        if entries:
            hashes.add(entries[0].previous_hash)
        own += list(_heads_in(entries, name))
    if not chains and not findings:
        findings.append(Finding(file=folder.name, message="expected a journal or a ledger here, found neither"))
    if len({chain.public_key for chain in chains}) > 1:
        findings.append(Finding(file=folder.name, message="journal and ledger belong to different owners"))
    wanted = {head.hash if isinstance(head, Head) else head for head in [*heads, *own]}
    findings += [
        Finding(
            file=folder.name, message=f"the head {head[:12]} that a peer has seen is missing: cut off or rolled back"
        )
        for head in sorted(wanted - hashes)
    ]
    return Verification(chains=tuple(chains), findings=tuple(findings), heads_compared=len(wanted))


def heads_seen_by(peer_folder: Path, name: str | None) -> tuple[str, ...]:
    """Return the heads of a role's chains that the journal in a peer's folder remembers.

    Args:
        peer_folder: the peer's.
        name: the role's name in the consortium, by which attested rounds list heads; None finds nothing.

    Raises:
        InvalidInput: the peer's folder has no readable journal.
    """
    with tempfile.TemporaryDirectory() as scratch:
        chain = Chain(_copy(peer_folder / FILES["journal"], Path(scratch)), None, purpose="journal")
        entries = list(chain.entries())
        chain.close()
    return tuple(dict.fromkeys(_heads_in(entries, name)))


def _check_file(path: Path, purpose: Purpose, public_key: str | None) -> tuple[ChainFacts, list[Entry], list[str]]:
    noted = _noted_head(path)  # before the copy: a running role may add entries meanwhile, and never takes one away
    with tempfile.TemporaryDirectory() as scratch:
        copy = _copy(path, Path(scratch))
        structure = list(_structure_problems(copy))
        chain = Chain(copy, None, purpose=purpose)
        try:
            owner = public_key or chain.public_key
            rows = chain.rows(0)
            keys = chain.public_keys
            found = structure + list(problems(rows, purpose, keys[0] if owner == keys[-1] else owner))
            entries = list(chain.entries()) if not found else []
        finally:
            chain.close()
    if owner != chain.public_key:
        found.insert(0, f"expected the chain of {owner[:12]}, got that of {chain.public_key[:12]}")
    found += _head_file_problems(noted, purpose, keys, rows)
    if purpose == "ledger" and not found:
        found += _balance_problems(entries)
    last = rows[-1] if rows else None
    facts = ChainFacts(
        file=path.name,
        public_key=owner,
        entries=len(rows),
        head=str(last[5]) if last else "",
        last=str(last[3]) if last else "",
    )
    return facts, entries, found


def _structure_problems(path: Path) -> Iterator[str]:
    connection = sqlite3.connect(path)
    try:
        for (message,) in connection.execute("PRAGMA integrity_check"):
            if message != "ok":
                yield f"the database is damaged: {message}"
        present = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
        version = version_of(path)
        SCHEMA.due(version, path.name)
        if present != expected_structure(version):
            yield "the tables, or the triggers that forbid changes, are not those of a chain"
    finally:
        connection.close()


@lru_cache(maxsize=16)
def expected_structure(version: str | None = SCHEMA.current) -> frozenset[str]:
    """Return the statements that make up an untouched chain of this version (None: before versions)."""
    return structure(SCHEMA, version)


def _noted_head(path: Path) -> bytes | None:
    """Return what lies in the head file of the chain at ``path``, or None where there is none."""
    try:
        return head_file(path).read_bytes()
    except FileNotFoundError:
        return None


def _head_file_problems(
    noted: bytes | None, purpose: Purpose, keys: tuple[str, ...], rows: list[tuple[Any, ...]]
) -> list[str]:
    """The head file is behind the chain after a crash, never ahead of it: then entries were lost or cut off."""
    if noted is None:
        return ["its head file is missing"] if rows else []
    try:
        head = Head(**json.loads(noted))
        head.check()
    except (TesseraError, ValueError, TypeError, AttributeError) as error:
        return [f"its head file is damaged: {error}"]
    if head.chain != purpose or head.public_key not in keys:
        return ["its head file belongs to another chain"]
    if head.index > len(rows):
        return [f"its head file knows entry {head.index}, but the chain ends at {len(rows)}: its tail is cut off"]
    if head.index > 0 and rows[head.index - 1][5] != head.hash:
        return [f"its head file knows another entry {head.index}"]
    return []


def _balance_problems(entries: list[Entry]) -> Iterator[str]:
    """Every entry follows from the ones before it, the spend is the sum of the charges and within the cap."""
    state = State()
    total = ZERO
    for entry in entries:
        try:
            state.fold(entry)
        except TesseraError as error:
            yield str(error)
            return
        if entry.kind in ("charge", "release", "import"):
            total = total + cost_from_json(entry.body["cost"])
        if entry.kind in ("charge", "release", "reserve"):
            population = state.population(entry.body["population"])
            spent = population.committed if entry.kind != "charge" else population.spent
            if population.share(spent, adaptive=False) > 1 + TOLERANCE:  # older code kept no part for failures
                yield f"entry {entry.index}: passes the cap of {population.name}"
    spent = sum((population.spent for population in state.populations.values()), ZERO)
    if any(abs(a - b) > TOLERANCE * max(a, b) for a, b in zip(spent.rdp, total.rdp, strict=True) if a != b):
        yield "the spend is not the sum of the charges"


def _heads_in(entries: Iterable[Entry], name: str | None) -> Iterator[str]:
    for entry in entries:
        if entry.kind == "attested" and name is not None:
            yield from (str(head) for head in entry.body.get("heads", {}).get(name, {}).values())


def _copy(path: Path, scratch: Path) -> Path:
    """Copy a database with its write-ahead log; try again while a running role is writing it."""
    log = path.with_name(path.name + "-wal")
    for _ in range(50):
        before = [_version(path), _version(log)]
        shutil.copyfile(path, scratch / path.name)
        if before[1] is not None:
            shutil.copyfile(log, scratch / log.name)
        if before == [_version(path), _version(log)]:
            break
        time.sleep(0.05)
    return scratch / path.name


def _version(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size


def _first_problem(folder: Path, public_key: str) -> str:
    """Say what does not hold, in one line; of a role that writes just now only what is found twice counts."""
    findings = verify_folder(folder, public_key=public_key).findings
    if findings:
        time.sleep(_SECOND_LOOK_SECONDS)
        findings = verify_folder(folder, public_key=public_key).findings
    return f"{findings[0].file}: {findings[0].message}" if findings else ""


if __name__ == "__main__":  # beside a running role: it must not open the files of its own stores itself
    sys.stdout.write(_first_problem(Path(sys.argv[1]), sys.argv[2]))
