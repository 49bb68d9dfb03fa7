"""A new version of a hospital's dataset: who was added, changed and withdrawn, and whether everybody kept her id.

The ledger knows patients by a keyed hash of their id, so a patient's budget follows the id through all versions and
datasets of a home. Under another spelling she would begin anew; that is refused here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from datasites.data.dataset import case_ids, read_schema
from datasites.data.missing import Changes
from datasites.data.part_files import modality_blocks, read_columns
from datasites.data.reading.groups import table_facts
from privacy.sentences import say


def versions_of(datasets: Path, name: str) -> list[Path]:
    """Return the folders of a dataset's versions, the oldest first."""
    found = [path for path in (datasets / name).glob("v*") if _number(path)]
    return sorted(found, key=_number)


def check_spelling(datasets: Path, patients: Sequence[str]) -> list[str]:
    """Return a problem for each dataset of this home that has patients under another spelling of a new one's id."""
    problems: list[str] = []
    for folder in sorted({path.parent for path in datasets.glob("*/v*") if _number(path)}):
        known = {case for path in versions_of(datasets, folder.name) for case in case_ids(path / "private")}
        facts = table_facts("", folder.name, len(patients), 0, list(patients), known)
        turned = table_facts("", folder.name, len(known), 0, sorted(known), set(patients))
        if facts.hint or turned.hint:
            problems.append(
                say(
                    "earlier versions of {dataset} hold {joined} of these {patients} ids (others look like {looks}, "
                    "the earlier ones like {wanted}); {hint}. A patient's privacy budget follows the id: under another "
                    "spelling it would begin anew",
                    dataset=folder.name,
                    joined=facts.joined,
                    patients=facts.patients,
                    looks=facts.looks,
                    wanted=facts.wanted,
                    hint=facts.hint or turned.hint,
                )
            )
    return problems


def changes_between(before: Path, after: Path) -> Changes:
    """Return how many patients of a version are new, changed, withdrawn or the same, compared with an earlier one.

    A patient is changed if her outcome, cohort or an input differs. Modalities whose columns differ between the
    versions are not compared, only whether she has them.
    """
    old, new = _digests(before, after), _digests(after, before)
    both = old.keys() & new.keys()
    changed = sum(old[case] != new[case] for case in both)
    return Changes(
        since=read_schema(before).version,
        added=len(new.keys() - old.keys()),
        changed=changed,
        withdrawn=len(old.keys() - new.keys()),
        same=len(both) - changed,
    )


def _digests(folder: Path, other: Path) -> dict[str, bytes]:
    schema, compared = read_schema(folder), read_schema(other)
    records = read_columns(folder / "private" / "records.parquet", ["case_id", "cohort", "label"])
    rows = zip(records["case_id"], records["cohort"], records["label"].tolist(), strict=True)
    found = {case: _hash(cohort.encode(), repr(float(label)).encode()) for case, cohort, label in rows}
    for modality in sorted(set(schema.modalities) & set(compared.features)):
        names = schema.features[modality]
        alike = names == compared.features[modality]
        for cases, block in modality_blocks(folder / "private" / f"{modality}.parquet", names):
            for case, row in zip(cases, block, strict=True):
                found[case] = _hash(found[case], modality.encode(), row.tobytes() if alike else b"")
    return found


def _hash(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()


def _number(path: Path) -> int:
    return int(path.name[1:]) if path.is_dir() and path.name[1:].isdecimal() else 0
