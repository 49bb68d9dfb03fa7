"""A new version of a hospital's dataset: who was added, changed and withdrawn, and whether everybody kept her id.

The ledger knows patients by a keyed hash of their id, so a patient's budget follows the id through all versions and
datasets of a home. Under another spelling she would begin anew; that is refused here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasites.data.dataset import case_ids, load, read_schema
from datasites.data.missing import Changes
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
    batch = load(folder / "private", schema)
    rows = []
    for name in sorted(batch):
        if name in schema.features and schema.features[name] != compared.features.get(name):
            continue
        if name == "presence" and set(schema.features) != set(compared.features):
            continue
        rows.append(np.asarray(batch[name], dtype=np.float64).reshape(len(batch["label"]), -1))
    together = np.concatenate(rows, axis=1)
    cases = case_ids(folder / "private")
    return {case: hashlib.sha256(row.tobytes()).digest() for case, row in zip(cases, together, strict=True)}


def _number(path: Path) -> int:
    return int(path.name[1:]) if path.is_dir() and path.name[1:].isdecimal() else 0
