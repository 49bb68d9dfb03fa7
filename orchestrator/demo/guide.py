"""What ``tessera demo --manual`` tells a person who has never seen a portal.

Also here:

* Patients for the demo: real tables or synthetic ones, dealt to hospitals, with a quarter held out for the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from datasites.data.dataset import read_schema
from datasites.data.federations import Federation, Site
from datasites.data.ingest import ingest
from datasites.data.synthetic import generate
from datasites.review.accounts import MINIMUM_PASSWORD


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


def approval_guide(links: Mapping[str, str], *, study: str, others: int) -> list[str]:
    """Return the lines to print: where to go, then what to do there.

    Args:
        links: by hospital, where its first account is made.
        study: its name, as the inbox shows it.
        others: hospitals that approve by themselves.
    """
    width = max(len(name) for name in links)
    rest = f"; the other {others} approve by themselves" if others else ""
    where = "this hospital" if len(links) == 1 else f"each of these {len(links)} hospitals"
    return [
        "",
        f"[bold]Your turn: approve the study at {where}{rest}.[/bold]",
        "",
        *(f"  {name:<{width}}  {link}" for name, link in links.items()),
        "",
        "  1. Open the link (it works once) and make an account: a short name in lower-case letters, and a password",
        f"     of at least {MINIMUM_PASSWORD} characters. A sentence is good; nobody can restore it.",
        f"  2. In the inbox open {study}. Read what it does, what it costs and what was found; a dry run is optional.",
        "  3. Under the decision enter the same password and press Sign and approve.",
        "",
        "  Training starts when every hospital has approved. Follow it under Studies; at its end print the privacy",
        "  report under Reports. Everything stays up until you press Ctrl-C.",
        "",
    ]


def reading_guide(portals: Mapping[str, str]) -> list[str]:
    """Return the lines to print when the study has ended and the portals are still up.

    Args:
        portals: by hospital, where its portal is.
    """
    width = max(len(name) for name in portals)
    return [
        "",
        "[bold]The hospitals' reports, to read and to print (sign in with the account you made):[/bold]",
        "",
        *(f"  {name:<{width}}  {address}/reports" for name, address in portals.items()),
        "",
        "  Press Ctrl-C to end everything; the files named above stay.",
        "",
    ]
