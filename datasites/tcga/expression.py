"""Expression on the scale the model expects (about z-scores), without a statistic of anybody's records.

=============  ============================================================================================
``constants``  (log2(x + 1) - 3) / 2 for every gene: two round public numbers
``reference``  (log2(x + 1) - centre) / scale with a centre and scale per gene from a public file
``cohort``     centre and scale of this very table; a statistic of its records, for public data only
=============  ============================================================================================
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from privacy.errors import InvalidInput

Scaling = Literal["constants", "reference", "cohort"]
CENTRE, SCALE = 3.0, 2.0
SCALINGS: tuple[Scaling, ...] = ("constants", "reference", "cohort")


def scaled(abundance: pd.DataFrame, scaling: Scaling, reference: Path | None = None) -> pd.DataFrame:
    """Return log2(x + 1), centred and scaled, float32 [cases, genes].

    Args:
        abundance: TPM or RSEM, not negative; missing stays missing.
        scaling: one of :data:`SCALINGS`.
        reference: for ``reference``: a CSV or TSV with the columns ``gene``, ``centre`` and ``scale``. Genes that
            it lacks are left out.

    Raises:
        InvalidInput: negative values, an unknown scaling, or a reference that is missing or malformed.
    """
    if (abundance.to_numpy() < 0).any():
        raise InvalidInput("expected expression values of at least 0 before scaling, found negative ones")
    logarithm = pd.DataFrame(np.log2(abundance.to_numpy() + 1.0), index=abundance.index, columns=abundance.columns)
    if scaling == "constants":
        return ((logarithm - CENTRE) / SCALE).astype(np.float32)
    if scaling == "reference":
        known = _read_reference(reference)
        genes = [g for g in abundance.columns if g in known.index]
        if not genes:
            raise InvalidInput("the reference has no gene in common with the expression table; check the names")
        return logarithm[genes].sub(known["centre"][genes]).div(known["scale"][genes]).astype(np.float32)
    if scaling == "cohort":
        spread = logarithm.std(ddof=0).replace(0.0, 1.0)
        return logarithm.sub(logarithm.mean()).div(spread).astype(np.float32)
    raise InvalidInput(f"unknown scaling {scaling!r}: expected one of {', '.join(SCALINGS)}")


def _read_reference(path: Path | None) -> pd.DataFrame:
    if path is None:
        raise InvalidInput(
            "scaling by reference needs a file with the columns gene, centre and scale; give --reference"
        )
    try:
        table = pd.read_csv(path, sep=None, engine="python", dtype={"gene": str}).set_index("gene")
        table = table[["centre", "scale"]].astype(float)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"{path.name}: expected a table with the columns gene, centre and scale") from error
    if table.index.duplicated().any() or not (table["scale"] > 0).all() or not np.isfinite(table.to_numpy()).all():
        raise InvalidInput(f"{path.name}: expected every gene once, with a finite centre and a scale above 0")
    return table
