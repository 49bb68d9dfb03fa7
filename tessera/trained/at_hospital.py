"""A model and a hospital's own records: calibrate it there, on patients who were kept out of its training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasites.data.dataset import Schema, case_ids, load, membership, read_schema
from datasites.node.home import Home
from datasites.review.records import ReviewRecords
from datasites.study.proposal import Proposal
from datasites.study.recomputed.released_numbers import VALIDATION
from datasites.study.streams import membership_secret, noise_secret
from privacy.errors import InvalidInput
from tessera.trained.model import Model

HELD_OUT = "kept out of every round of the study"
ALL = "all of the dataset; the study kept nobody out, so some of them may have trained it"
NEVER = "all of the dataset; it was in no study of this model"


def recalibrated(model: Model, home: Home, dataset: str = "") -> tuple[Model, str]:
    """Return a model calibrated on a hospital's private records, and which of them were used.

    A study with an evaluation keeps a fifth of the patients out of every round; those are taken. Records are read here
    by our own code alone, in this process; what is fitted carries no noise, so the model must not leave.

    Args:
        model: of the same outcome and inputs as the dataset.
        home: the hospital's.
        dataset: its name, where there are several.

    Raises:
        InvalidInput: not a hospital's folder, no such dataset, or one of another outcome or other inputs.
    """
    config = home.config()
    if config.role != "datasite":
        raise InvalidInput(f"expected a hospital's folder, got one of a {config.role}")
    folder = _dataset(home, dataset)
    schema = read_schema(folder)
    _check_fits(model, schema, folder.parent.name)
    part = folder / "private"
    arrays = {name: np.array(array) for name, array in load(part, schema).items()}
    proposal = _proposal(home, model)
    kept, said = np.ones(len(arrays["label"]), dtype=bool), NEVER
    if proposal is not None:
        said = ALL
        if proposal.mechanism.evaluation is not None or proposal.mechanism.losses is not None:
            here = proposal.participant(config.name)  # who was held out follows from the key of that time
            secret = noise_secret(
                proposal, config.name, lambda: home.identity().derive_secret_of(here.public_key, "noise")
            )
            own = bytes.fromhex(membership_secret(secret, here.dataset.name))
            kept, said = ~membership(case_ids(part), own, validation=VALIDATION), HELD_OUT
    chosen = {name: array[kept] for name, array in arrays.items()}
    return model.calibrated_on(chosen, chosen["label"], where=config.institution), said


def _dataset(home: Home, name: str) -> Path:
    found = {folder.parent.name: folder for folder in home.datasets()}
    if name and name in found:
        return found[name]
    if not name and len(found) == 1:
        return next(iter(found.values()))
    raise InvalidInput(f"expected --dataset out of {', '.join(found) or 'none: the hospital has no dataset'}")


def _check_fits(model: Model, schema: Schema, name: str) -> None:
    facts = model.facts
    if (schema.task, schema.classes, schema.predicts) != (facts.task, facts.config.classes, facts.config.predicts):
        raise InvalidInput(f"the dataset {name} is of another outcome ({schema.task}) than the model ({facts.task})")
    if schema.cohorts != facts.config.cohorts:
        raise InvalidInput(f"the dataset {name} numbers other cohorts than the model")
    for modality, inputs in facts.features.items():
        if tuple(schema.features.get(modality, inputs)) != tuple(inputs):
            raise InvalidInput(f"the dataset {name} has other {modality} inputs than the model")
    if not set(schema.features) & set(facts.features):
        raise InvalidInput(f"the dataset {name} has none of the model's modalities")


def _proposal(home: Home, model: Model) -> Proposal | None:
    """Return the study of this model, where this hospital received its proposal."""
    path = home.folder / "approvals.sqlite"
    if not path.exists():
        return None
    records = ReviewRecords(path, read_only=True)
    try:
        found = [r.proposal for r in records.requests() if r.proposal_hash == model.facts.origin.proposal_hash]
    finally:
        records.close()
    return found[0] if found else None
