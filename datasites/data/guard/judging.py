"""What a hospital's steward should look at before publishing: inputs that tell the outcome, inputs that hardly vary."""

from __future__ import annotations

import numpy as np

from datasites.data.guard.association import MOST_ROWS, flat_share, said, telling
from datasites.data.reading.encoding import Encoded
from datasites.data.reading.measured import HospitalData, Measured
from datasites.language.formats import percent
from datasites.study.schema.document import Modality, StudySchema
from datasites.study.schema.outcomes import Classes, Outcome, Survival
from privacy.sentences import say

_MOST_FLAT = 0.5
_SHOWN = 20


def warnings_of(schema: StudySchema, outcome: Outcome, data: HospitalData) -> list[str]:
    """Return a line for every variable that nearly tells the outcome and every modality that hardly varies.

    The numbers in it are exact and private, as the reading report is.
    """
    place = {patient: row for row, patient in enumerate(data.patients)}
    target = data.outcome[:, 1] if isinstance(outcome, Survival) else data.outcome[:, 0]
    classes = isinstance(outcome, Classes | Survival)
    lines: list[str] = []
    for modality in schema.modalities:
        if modality.name not in data.modalities:
            continue
        measured = data.modalities[modality.name]
        own = np.array([target[place[patient]] for patient in measured.patients[:MOST_ROWS]])
        values = measured.values[:MOST_ROWS]
        columns = {name: values[:, at] for at, name in enumerate(modality.names)}
        found = said(telling(columns, own, classes=classes), modality.name, outcome.label)
        lines += found[:_SHOWN]
        if len(found) > _SHOWN:
            lines.append(
                say(
                    "{modality}: {more} more columns nearly tell {outcome}",
                    modality=modality.name,
                    more=len(found) - _SHOWN,
                    outcome=outcome.label,
                )
            )
        lines += _flat(modality, measured)
    return lines


def _flat(modality: Modality, measured: Measured) -> list[str]:
    inputs = Encoded(modality=modality, measured=measured)[:MOST_ROWS]
    if modality.measure is not None:
        share = flat_share(inputs)
        if share <= _MOST_FLAT:
            return []
        return [
            say(
                "{modality}: {share} of the inputs hardly differ between patients: check unit, centre and scale",
                modality=modality.name,
                share=lambda: percent(share),
            )
        ]
    numbers = [place for place, name in enumerate(modality.inputs) if name.endswith(":value")]
    flat = [modality.inputs[p].removesuffix(":value") for p in numbers if flat_share(inputs[:, [p]]) > _MOST_FLAT]
    if not flat:
        return []
    return [
        say(
            "{modality}: {columns} hardly differ between patients: check unit, centre and scale",
            modality=modality.name,
            columns=", ".join(flat[:_SHOWN]),
        )
    ]
