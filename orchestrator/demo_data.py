"""Patients for the demo: real tables or synthetic ones, dealt to hospitals, with a quarter held out for the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datasites.dataset import read_schema
from datasites.ingest import ingest
from datasites.synthetic import generate
from datasites.tcga.federations import Federation, Site


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Where everybody's data lies, and the held-out test patients that no hospital and no orchestrator ever gets."""

    federation: Federation
    test: Path
    public: bool

    @property
    def sites(self) -> tuple[Site, ...]:
        """The institutions."""
        return self.federation.sites


def prepare(
    data: Path | None,
    out: Path,
    *,
    federation: str,
    task: str,
    sites: int,
    seed: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> Prepared:
    """Deal patients to hospitals and put each dataset into its hospital's folder under ``out``.

    Raises:
        InvalidInput: unknown federation or task, or tables that cannot be read; nothing was written.
    """
    source = generate(seed=seed) if data is None else data
    dealt = out / "dealt"
    plan = ingest(source, dealt, federation=federation, task=task, seed=seed, sites=sites, progress=progress)
    for site in plan.sites:
        folder = dealt / "sites" / site.name
        schema = read_schema(folder)
        target = out / site.name / "datasets" / schema.name / f"v{schema.version}"
        target.parent.mkdir(parents=True, mode=0o700)
        folder.replace(target)
    (dealt / "sites").rmdir()
    return Prepared(federation=plan, test=dealt / "test", public=data is not None)
