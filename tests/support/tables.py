"""Synthetic tables on disk, as a folder that the readers of TCGA tables take."""

from __future__ import annotations

from pathlib import Path

from datasites.data.tcga.tables import Tables


def write_tables(tables: Tables, folder: Path) -> None:
    """Write tables as a folder that :func:`datasites.data.tcga.tables.read_tables` reads."""
    for cohort in tables.cohorts.values():
        path = folder / cohort.name
        path.mkdir(parents=True)
        cohort.clinical.reset_index().to_csv(path / "clinical.csv", index=False)
        for modality, stem in (("mrna", "mrna"), ("image", "image_features")):
            if modality in cohort.modalities:
                cohort.modalities[modality].reset_index().to_parquet(path / f"{stem}.parquet", index=False)
