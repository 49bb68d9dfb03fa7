"""Making a dataset known: its budget line, its released count, its keyed fingerprint, its mock over PySyft.

What a scientist sees is the *card*: schema, modalities, a noised count of patients and a keyed fingerprint. The count
is charged in the ledger before it is drawn, once per dataset version, and repeats after a restart.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from datasites.data.dataset import Schema, case_ids, check_part, fingerprint, read_schema
from datasites.data.glance import STUDY_SCHEMA, read_terms
from datasites.data.patient_rows import plain_id
from datasites.data.versions import check_spelling
from datasites.language import mark
from datasites.node.files import write_atomically
from datasites.node.home import Home
from datasites.review.policy import Policy
from datasites.study.proposal import DatasetReference
from datasites.study.signing import dump, parse
from models.config import Target
from privacy.canonical import sha256_hex
from privacy.dp.randomness import Randomness
from privacy.errors import InvalidInput, TesseraError
from privacy.identity import Identity
from privacy.ledger.costs import gaussian_cost
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger, case_hash
from privacy.sentences import say

COUNT_NOISE_MULTIPLIER = 10.0
"""Standard deviation, in patients, of the released count of a dataset version."""
CARD = "card.json"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What anybody in the consortium may know of a dataset; the schema lies beside it. ``data_use`` are DUO codes.

    ``own_evaluation`` says that studies may show how good their model is on this hospital's records alone.
    """

    dataset: DatasetReference
    cohort: str
    cohorts: tuple[str, ...]
    task: str
    modalities: tuple[str, ...]
    features: dict[str, int]
    data_use: tuple[str, ...] = ()
    classes: int = 2
    predicts: Target | None = None
    gains: dict[str, float] = field(default_factory=dict)
    self_scaled: tuple[str, ...] = ()
    own_evaluation: bool = False


@dataclass(frozen=True, kw_only=True)
class Datasets:
    """The datasets of one home, registered in its ledger."""

    home: Home
    ledger: Ledger
    journal: Journal
    policy: Policy | Callable[[], Policy]

    def publish(self, folder: Path) -> Path:
        """Register one dataset version and write what may be seen of it; return that folder (mock, schema, card).

        Raises:
            InvalidInput: the folder is no dataset, holds a patient twice or spells one otherwise than another dataset
                of the home, or has changed since it was published.
            BudgetExceeded: the count does not fit under the cap.
        """
        schema = read_schema(folder)
        self._check_unchanged(schema, folder)
        population = self._register(schema, folder)
        card = self._card(schema, folder, population)
        published = self.home.folder / "published" / f"{schema.name}-v{schema.version}"
        staging = published.with_name(f".{published.name}.new")
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(folder / "mock", staging)
        for public in ("schema.json", STUDY_SCHEMA):
            if (folder / public).exists():
                shutil.copy2(folder / public, staging / public)
        write_atomically(staging / CARD, json.dumps(dump(card), indent=2).encode(), mode=0o644)
        if published.exists() and _content(staging) == _content(published):
            shutil.rmtree(staging)  # a restart takes nothing away that a round may be looking at
            return published
        shutil.rmtree(published, ignore_errors=True)
        staging.replace(published)
        return published

    def here(self, name: str) -> tuple[DatasetReference, Path]:
        """Return the reference of the newest version of a dataset, fingerprinted again now, and its folder.

        Raises:
            InvalidInput: there is no dataset of this name.
            TesseraError: it is being published at this moment.
        """
        for folder in self.home.datasets():
            schema = read_schema(folder)
            if schema.name == name:
                path = self.home.folder / "published" / f"{name}-v{schema.version}" / CARD
                if not path.exists():
                    raise TesseraError(f"dataset {name!r} version {schema.version} is not published yet: wait for it")
                approved = parse(Card, path.read_bytes()).dataset
                return self._reference(schema, folder, approved.patients), folder
        raise InvalidInput(f"there is no dataset {name!r} here")

    def newest(self, name: str) -> int | None:
        """Return the newest version of a dataset here, None where there is none."""
        schemas = (read_schema(folder) for folder in self.home.datasets())
        return max((schema.version for schema in schemas if schema.name == name), default=None)

    def population_of(self, reference: DatasetReference) -> str:
        """Return the budget line that a dataset version shares."""
        return self.ledger.population_of(reference.name, reference.version)

    def _check_unchanged(self, schema: Schema, folder: Path) -> None:
        """Refuse other content under a published version.

        Everybody sees the fingerprint. It may change only with the version, which its owner raises in public; a new
        one under the same version would tell that the patients' data changed, and nobody would have been charged.
        """
        check_part(folder / "private", schema)  # a patient twice is refused here, before anything is charged
        card = self.home.folder / "published" / f"{schema.name}-v{schema.version}" / CARD
        if card.exists() and parse(Card, card.read_bytes()).dataset.fingerprint != self._fingerprint(folder):
            raise InvalidInput(
                f"{schema.name!r} version {schema.version} was published with other content: a version never changes; "
                "put its files back, or publish the new ones under the next version"
            )

    def _fingerprint(self, folder: Path) -> str:
        return fingerprint(folder, _secret(self.home.identity(), "fingerprint"))

    def _register(self, schema: Schema, folder: Path) -> str:
        secret = _secret(self.home.identity(), "cases")
        patients = case_ids(folder / "private")
        if not self._registered(schema):  # a folder may have been placed by hand, past the ingest
            problems = check_spelling(self.home.folder / "datasets", patients)
            if problems:
                raise InvalidInput(problems[0])
        cases = [case_hash(secret, case) for case in patients]
        alike = {case_hash(secret, plain_id(case), spelled=False) for case in patients}
        population = self.ledger.register_dataset(schema.name, schema.version, cases, alike)
        if self.ledger.account(population).cap is None:
            budget = self._policy().budget
            self.ledger.set_cap(
                population,
                epsilon=budget.epsilon_cap,
                delta=budget.delta,
                by="policy file",
                reason=mark("the cap of policy.toml when the dataset was first published"),
            )
        return population

    def _registered(self, schema: Schema) -> bool:
        try:
            self.ledger.population_of(schema.name, schema.version)
        except InvalidInput:
            return False
        return True

    def _card(self, schema: Schema, folder: Path, population: str) -> Card:
        return Card(
            dataset=self._reference(schema, folder, self._released_count(schema, folder, population)),
            cohort=schema.cohort,
            cohorts=schema.cohorts,
            task=schema.task,
            modalities=schema.modalities,
            features=schema.feature_counts(),
            data_use=read_terms(folder).data_use,
            classes=schema.classes,
            predicts=schema.predicts,
            gains=dict(schema.gains),
            self_scaled=schema.self_scaled,
            own_evaluation=self._policy().study.allow_own_evaluation,
        )

    def _policy(self) -> Policy:
        return self.policy() if callable(self.policy) else self.policy

    def _reference(self, schema: Schema, folder: Path, patients: int) -> DatasetReference:
        return DatasetReference(
            name=schema.name,
            version=schema.version,
            fingerprint=self._fingerprint(folder),
            schema_hash=schema.schema_hash,
            patients=patients,
        )

    def _released_count(self, schema: Schema, folder: Path, population: str) -> int:
        name = str(say("count of {dataset} version {version}", dataset=schema.name, version=schema.version))
        self.ledger.release(
            population,
            name=name,
            cost=gaussian_cost(COUNT_NOISE_MULTIPLIER),
            by=mark("publishing"),
            reason=mark("the number of patients that scientists see; used wherever a study needs n"),
        )
        secret, cases = _secret(self.home.identity(), "cases"), case_ids(folder / "private")
        noise = Randomness(
            _secret(self.home.identity(), "noise"),
            study="publishing",
            round=0,
            plan_hash=sha256_hex(name.encode()),
            # the same patients keep their one noise, whatever else of the dataset changes: it is charged once
            dataset_fingerprint=sha256_hex("".join(sorted(case_hash(secret, c) for c in cases)).encode()),
        ).gaussian((1,), COUNT_NOISE_MULTIPLIER)
        count = max(1, round(len(cases) + float(noise[0])))
        self.journal.append("count-released", {"dataset": schema.name, "version": schema.version, "patients": count})
        return count


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _secret(identity: Identity, purpose: str) -> bytes:
    return identity.derive_lasting_secret(purpose)
