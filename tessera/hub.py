"""A consortium as a scientist sees it: hospitals, what they published, and the studies that were proposed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from datasites.data.dataset import Schema, read_schema
from datasites.data.glance import STUDY_SCHEMA
from datasites.data.publishing import CARD, Card
from datasites.node.consortium import check_address
from datasites.node.home import Config, Home, Role
from datasites.node.roster import Roster
from datasites.study.proposal import Party
from datasites.study.schema.document import StudySchema
from datasites.study.signing import parse
from orchestrator.studies.status import client_of, line_of, summaries_of
from orchestrator.studies.submit import scientist
from privacy.errors import InvalidInput, Refused, TesseraError
from tessera.shown import html_table

if TYPE_CHECKING:
    from tessera.live import Run
    from tessera.statistics.asking import Analytics
    from tessera.statistics.live import StatisticsRun

_ANSWER_SECONDS, _POLL_SECONDS = 30.0, 2.0
_OTHERS = (CARD, "schema.json", STUDY_SCHEMA)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a hospital published of its dataset: card, schema and made-up rows of the same shape.

    ``study_schema`` is the agreed document behind it, where the hospital read its own tables by one.
    """

    site: str
    institution: str
    card: Card
    schema: Schema
    study_schema: StudySchema | None
    folder: Path

    @property
    def name(self) -> str:
        """The dataset's name at its hospital."""
        return self.card.dataset.name

    def mock(self, modality: str | None = None) -> pd.DataFrame:
        """Return the made-up rows, indexed by case: cohort, label and all inputs, or the inputs of one modality.

        No row is a patient's: public constants and a seed made them, or (``schema.mock`` says so) tables that a study
        released under the ledger.

        Raises:
            InvalidInput: this hospital has no such modality.
        """
        if modality is not None:
            if modality not in self.schema.modalities:
                raise InvalidInput(f"{self.site} holds {', '.join(self.schema.modalities)}, not {modality[:40]!r}")
            return self._read(modality)
        tables = [self._read("records"), *(self._read(name) for name in self.schema.modalities)]
        return pd.concat(tables, axis=1)

    def _read(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.folder / f"{name}.parquet").set_index("case_id")

    def __repr__(self) -> str:
        held = " + ".join(self.card.modalities)
        return f"Dataset({self.site}: {self.card.task}, {held}, about {self.card.dataset.patients} patients)"

    def _repr_html_(self) -> str:
        counts = self.schema.feature_counts()
        rows = [
            ("institution", self.institution),
            ("predicts", self.card.task),
            ("patients, noised", self.card.dataset.patients),
            ("cohort", self.card.cohort),
            *((modality, f"{counts[modality]} inputs") for modality in self.card.modalities),
            ("made-up rows", self.schema.mock or "by the public schema alone"),
            ("data use", ", ".join(self.card.data_use) or "no code given"),
        ]
        return html_table(f"{self.name} of {self.site}", rows)


class Hub:
    """A door to one consortium; :func:`connect` opens it.

    Args:
        home: the folder with the identity that signs, the roster and the settings.
        person: who proposes, with name and title: the investigator of studies that name no other.
    """

    def __init__(self, home: Home, person: str = "") -> None:
        self.home, self.person = home, person
        self._published: dict[str, Dataset] = {}

    @property
    def roster(self) -> Roster:
        """Who is in the consortium."""
        return self.home.roster()

    def datasets(self, sites: Sequence[str] = (), *, wait_seconds: float = 120.0) -> dict[str, Dataset]:
        """Return what hospitals published, by hospital; waits for those that have not answered yet.

        Args:
            sites: which hospitals; all of the roster when empty.
            wait_seconds: how long to wait for all of them.

        Raises:
            InvalidInput: nobody of that name is in the roster.
            TesseraError: a hospital published nothing in time, or the orchestrator does not answer.
        """
        wanted = tuple(sites) or tuple(party.name for party in self.roster.sites)
        for name in wanted:
            self.roster.by_name(name)
        if set(wanted) - set(self._published):
            self._fetch(wanted, wait_seconds)
        return {name: self._published[name] for name in wanted}

    def sites(self, *, wait_seconds: float = 120.0) -> pd.DataFrame:
        """Return a line for each hospital: institution, cohort, modalities, noised patients, dataset, outcome."""
        rows = {
            name: {
                "institution": found.institution,
                "cohort": found.card.cohort,
                "modalities": " + ".join(found.card.modalities),
                "patients": found.card.dataset.patients,
                "dataset": found.name,
                "predicts": found.card.task,
            }
            for name, found in self.datasets(wait_seconds=wait_seconds).items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("hospital")

    def dataset(self, name: str) -> Dataset:
        """Return what one hospital published, by the hospital's name or the dataset's.

        Raises:
            InvalidInput: there is none of that name.
        """
        if any(party.name == name for party in self.roster.sites):
            return self.datasets([name])[name]
        for found in self.datasets().values():
            if found.name == name:
                return found
        known = ", ".join(party.name for party in self.roster.sites)
        raise InvalidInput(f"expected a hospital out of {known}, or a dataset's name, got {name[:40]!r}")

    def studies(self) -> pd.DataFrame:
        """Return a line for each study of the consortium: state, rounds done and planned, hospitals, reason."""
        with client_of(self.home, answer_seconds=_ANSWER_SECONDS) as client:
            known = [line_of(summary) for summary in summaries_of(client)]
        rows = [
            {
                "study": line.study,
                "state": line.state,
                "rounds": f"{line.rounds_completed} of {line.rounds}",
                "hospitals": len(line.sites),
                "reason": line.reason,
            }
            for line in known
        ]
        return pd.DataFrame(rows, columns=["study", "state", "rounds", "hospitals", "reason"]).set_index("study")

    def run(self, study: str) -> Run:
        """Return a study that was proposed before, here or from elsewhere.

        Raises:
            InvalidInput: no such study.
        """
        from tessera.live import Run
        from tessera.statistics.live import StatisticsRun

        found = Run(self, study)
        return StatisticsRun(self, study) if found.proposal.model.counting is not None else found

    def analytics(
        self,
        epsilon: float,
        *,
        delta: float = 1e-4,
        noise: str = "shared",
        sites: Sequence[str] = (),
        name: str = "",
        purpose: str = "",
        investigator: str = "",
        filing: str | os.PathLike[str] | None = None,
        min_sites: int | None = None,
        colluders: int = 1,
        options: Mapping[str, Any] | None = None,
        progress: bool = True,
        **answers: Any,
    ) -> Analytics[StatisticsRun]:
        """Return what asks hospitals for statistics of their patients: counts, means, survival curves and others.

        ``hub.analytics(epsilon=.3).kaplan_meier("os_months", "os_event", bins=24).wait().plot()``: every question is a
        study of its own, with the approval, the charge, the encryption and the report of any study.

        Args:
            epsilon: of each question, worst case per patient, above 0.
            delta: of that epsilon.
            noise: ``shared`` (hospitals share one noise) or ``local`` (each adds its own).
            sites: names of hospitals; all of the roster when empty.
            name: of the study; by default the statistic's with random letters.
            purpose: what it is for; by default the statistic.
            investigator: who answers for it; by default the hub's person.
            filing: TOML file with everything else that hospitals read before they decide (docs/deploy.md).
            min_sites: fewest hospitals in the sum, at least 3; None takes what suits the noise.
            colluders: hospitals that may work with the orchestrator; shared noise is charged for that.
            options: further fields of :class:`orchestrator.studies.proposing.settings.StudySettings`.
            progress: whether to show steps.
            answers: what the filing lacks, as for :meth:`tessera.study.Study.propose`.

        Raises:
            InvalidInput: an epsilon that is none, or datasets of different schemas.
        """
        from tessera.statistics.live import analytics

        if not 0 < epsilon < math.inf:
            raise InvalidInput(f"expected a finite epsilon above 0, got {epsilon:g}")
        person = investigator or (self.person if filing is None else "")
        return analytics(
            self,
            epsilon=epsilon,
            delta=delta,
            noise=noise,
            sites=sites,
            name=name,
            min_sites=min_sites,
            colluders=colluders,
            filing=None if filing is None else Path(filing),
            answers={"purpose": purpose, "principal_investigator": person, **answers},
            options=options or {},
            progress=progress,
        )

    def _fetch(self, sites: Sequence[str], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with client_of(self.home, answer_seconds=_ANSWER_SECONDS) as client:
            node = scientist(self.home, client)
            for site in sites:
                node.add_peer(site)
            while True:
                node.sync()
                for found in node.datasets():
                    made = self._dataset(found.owner, found.mock_files)
                    if made is not None:
                        self._published[found.owner] = made
                missing = [site for site in sites if site not in self._published]
                if not missing:
                    return
                if time.monotonic() > deadline:
                    raise TesseraError(
                        f"{missing[0]} published nothing or did not accept us in {seconds:g} s; is it running?"
                    )
                node.wait_for_news(_POLL_SECONDS)

    def _dataset(self, site: str, files: Sequence[Path]) -> Dataset | None:
        by_name = {path.name: path for path in files}
        if CARD not in by_name or "schema.json" not in by_name:
            return None
        document = by_name.get(STUDY_SCHEMA)
        return Dataset(
            site=site,
            institution=self.roster.by_name(site).institution,
            card=parse(Card, by_name[CARD].read_bytes()),
            schema=read_schema(by_name["schema.json"]),
            study_schema=None if document is None else parse(StudySchema, document.read_bytes()),
            folder=by_name[CARD].parent,
        )

    def __repr__(self) -> str:
        roster = self.roster
        who = f" as {self.person}" if self.person else ""
        return f"Hub({roster.orchestrator.institution}{who}: {len(roster.sites)} hospitals)"

    def _repr_html_(self) -> str:
        rows = [(party.name, party.institution) for party in self.roster.sites]
        return html_table(repr(self), rows, ("hospital", "institution"))


def connect(
    home: str | os.PathLike[str] | None = None,
    *,
    url: str = "",
    identity: str | os.PathLike[str] | None = None,
    ca: str | os.PathLike[str] | None = None,
    person: str = "",
) -> Hub:
    """Open a consortium for a scientist.

    Args:
        home: the orchestrator's folder, where it lies on this machine; or a scientist's, once it was connected by url.
        url: of the orchestrator, where it runs on another machine.
        identity: with ``url``: a scientist's folder with ``identity.pem`` (``tessera scientist init`` makes it) and
            the consortium's ``roster.json``, which names the scientist.
        ca: with ``url``: the certificate file that vouches for the orchestrator, where this machine does not trust it.
        person: who proposes, with name and title: the investigator of studies that name no other; a scientist's own
            name by default.

    Raises:
        InvalidInput: neither a folder nor an address and an identity, or no such folder.
        Refused: the identity is nobody in the roster who asks for studies.
    """
    if (home is None) == (not url or identity is None):
        raise InvalidInput('expected connect("HOME"), or connect(url=..., identity=...) with a folder')
    place = Home(folder=Path(home if home is not None else str(identity)))
    if home is None:
        _remote(place, url, "" if ca is None else str(Path(ca).resolve()))
    if place.config().role not in ("orchestrator", "scientist"):
        raise InvalidInput(f"expected the folder of an orchestrator or a scientist, got one of a {place.config().role}")
    return Hub(place, person or _asker(place)[1])


def _remote(place: Home, url: str, ca: str) -> None:
    """Make a folder with an identity ready to speak to an orchestrator elsewhere."""
    for name in ("identity.pem", "roster.json"):
        if not (place.folder / name).is_file():
            raise InvalidInput(f"expected {name} in the folder of the identity, found none")
    party, _ = _asker(place)
    if (place.folder / "address.json").exists():
        raise InvalidInput("this folder belongs to an orchestrator of this machine: connect by the folder, without url")
    role: Role = "orchestrator" if party == place.roster().orchestrator else "scientist"
    kept = place.config() if (place.folder / "config.json").exists() else None
    config = Config(
        name=party.name,
        institution=party.institution,
        role=role,
        orchestrator_url=check_address(url),
        public_url=url if role == "orchestrator" else "",
        ca=ca or (kept.ca if kept else ""),
        proxy=kept.proxy if kept else "",
    )
    Home.create(place.folder, config)


def _asker(place: Home) -> tuple[Party, str]:
    """Return whose key a folder holds, and the name of the person, if it is a person's."""
    roster, key = place.roster(), place.identity().public_key
    if key == roster.orchestrator.public_key:
        return roster.orchestrator, ""
    for one in roster.scientists:
        if key == one.public_key:
            return one, one.name
    raise Refused(
        "this folder's key is neither the orchestrator's nor that of a scientist in the roster: make one with `tessera "
        "scientist init`, have it put into the roster, and copy the new roster here"
    )
