"""A model that one can use: predict from data frames, explain, save with its card, load again."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from datasites.node.files import write_atomically
from datasites.study.signing import dump, parse
from models.batch import restricted, to_tensors
from models.build import build_model
from models.config import InvalidModel
from models.outcomes import predicted
from models.parameters import from_bytes
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput, Refused, Tampered
from tessera.facts import Calibration, ModelFacts
from tessera.shown import html_table
from tessera.trained.calibration import calibrated
from tessera.trained.card import card_of
from tessera.trained.frames import Cohort, Frames, columns_of, read_frames

if TYPE_CHECKING:
    from tessera.trained.explaining import Explanation

PARAMETERS, FACTS, CARD, SCHEMA, ONNX, CODE = (
    "model.safetensors",
    "model_card.json",
    "model_card.md",
    "schema.json",
    "model.onnx",
    "code",
)
_MOST_FACTS_BYTES = 32 << 20
_ONE_GIB = 1 << 30


class Model:
    """A trained model with everything that is needed to use and to judge it.

    Args:
        facts: configuration, inputs, privacy, origin and licence.
        parameters: safetensors bytes; their hash is the one in ``facts``.
        code: the files of an own network by name; none for Tessera's models.

    Raises:
        Tampered: parameters or code are not those that ``facts`` names.
    """

    def __init__(self, facts: ModelFacts, parameters: bytes, code: Mapping[str, bytes] | None = None) -> None:
        self.facts, self.parameters, self.code = facts, parameters, dict(code or {})
        if sha256_hex(parameters) != facts.origin.model_hash:
            raise Tampered("the parameters are not those of the model card; get the model again")
        if {name: sha256_hex(data) for name, data in self.code.items()} != dict(facts.code):
            raise Tampered("the code of the network is not that of the model card; get the model again")
        _check_agreement(facts)

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """The raw columns that the model reads, by modality."""
        return columns_of(self.facts)

    @property
    def classes(self) -> tuple[str, ...]:
        """What the classes are called, the mildest first; or what the columns of another prediction are called."""
        return self.facts.classes

    @cached_property
    def network(self) -> nn.Module:
        """The torch module, in evaluation mode.

        Raises:
            InvalidInput: the parameters are not those of the configuration's model, or not finite.
        """
        network = _own_network(self) if self.facts.code else build_model(self.facts.config, seed=0)
        try:
            from_bytes(network, self.parameters)
        except InvalidModel as error:
            raise InvalidInput(f"the parameters do not fit the model's configuration: {error}") from error
        if not all(bool(torch.isfinite(values).all()) for values in network.state_dict().values()):
            raise InvalidInput("the model has parameters that are no finite numbers, so it predicts nothing")
        return network.eval()

    def predict_proba(self, frames: Frames, *, cohort: Cohort = None) -> pd.DataFrame:
        """Return the probability of every class, or of no event until each time, a row for each patient.

        Raises:
            InvalidInput: as :meth:`predict`; or the model predicts a number, which :meth:`predict` gives.
        """
        target = self.facts.config.predicts
        if target is not None and target.is_quantity:
            raise InvalidInput(f"expected a model of classes or survival, this one predicts {self.classes[0]}: predict")
        return self.predict(frames, cohort=cohort)

    def predict(self, frames: Frames, *, cohort: Cohort = None) -> pd.DataFrame:
        """Return probabilities of classes, an expected number, or chances of no event until each time, by patient.

        Values are in raw units: the transforms of training are applied. A patient may lack modalities.

        Args:
            frames: one table, or a table for each modality; indexed by patient or with a column of ids.
            cohort: of everybody, or by id, where no column ``cohort`` says it.

        Raises:
            InvalidInput: unknown or missing columns, a patient twice or without any modality; nothing is guessed.
        """
        ids, batch = read_frames(frames, self.facts, cohort)
        with torch.no_grad():
            found = self.probabilities(restricted(to_tensors(batch), self.facts.config.features))
        return pd.DataFrame(np.asarray(found.numpy(), dtype=np.float64), index=ids, columns=list(self.classes))

    def probabilities(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return what :meth:`predict` says of inputs after the transforms (:mod:`models.batch`), a row for each."""
        outputs, calibration = self.network(batch), self.facts.calibration
        return predicted(outputs if calibration is None else calibration.apply(outputs), self.facts.config)

    def _outputs(self, batch: Mapping[str, np.ndarray]) -> Tensor:
        with torch.no_grad():
            found: Tensor = self.network(restricted(to_tensors(batch), self.facts.config.features))
        return found

    def recalibrated(
        self, frames: Frames, outcome: Mapping[str, str] | pd.Series, *, cohort: Cohort = None, where: str
    ) -> Model:
        """Return this model with its probabilities calibrated on patients who did not train it.

        Args:
            frames: as for :meth:`predict`, of at least 30 patients.
            outcome: the class of each patient, by id, as :attr:`classes` names them.
            cohort: as for :meth:`predict`.
            where: whose patients they are; the model card says it.

        Raises:
            InvalidInput: a model without classes, too few patients, a patient without a class, or an unknown class.
        """
        ids, batch = read_frames(frames, self.facts, cohort)
        if not isinstance(outcome, (Mapping, pd.Series)):
            raise InvalidInput(f"expected the class of each patient by id, got a {type(outcome).__name__}")
        known = dict(outcome.items())
        label = [self._class(known.get(case)) for case in ids]
        return self.with_calibration(
            calibrated(self._outputs(batch), torch.tensor(label), self.facts.config, where=where, confined=False)
        )

    def _class(self, name: object) -> int:
        if name not in self.classes:
            raise InvalidInput(f"expected a class out of {', '.join(self.classes)} for every patient")
        return self.classes.index(str(name))

    def with_calibration(self, calibration: Calibration | None) -> Model:
        """Return this model with another calibration, or with none."""
        return Model(replace(self.facts, calibration=calibration), self.parameters, self.code)

    def calibrated_on(self, batch: Mapping[str, np.ndarray], label: np.ndarray, *, where: str) -> Model:
        """Return this model calibrated on records as a hospital keeps them; it stays there, since nothing is noised.

        Args:
            batch: arrays of :mod:`models.batch`, after the transforms.
            label: int64 [B], class numbers.
            where: whose records they are.

        Raises:
            InvalidInput: as :meth:`recalibrated`.
        """
        outputs, target = self._outputs(batch), torch.from_numpy(np.asarray(label, np.int64))
        return self.with_calibration(calibrated(outputs, target, self.facts.config, where=where, confined=True))

    def explain(self, frames: Frames, *, cohort: Cohort = None, threshold: int = 0) -> Explanation:
        """Return what each input adds to the log-odds of a class later than ``threshold``.

        Exact for the linear model; integrated gradients (captum) for networks.

        Args:
            frames: as for :meth:`predict_proba`.
            cohort: as for :meth:`predict_proba`.
            threshold: which output, from 0 on; a model of two classes has one.
        """
        from tessera.trained.explaining import explain

        ids, batch = read_frames(frames, self.facts, cohort)
        return explain(self, ids, batch, threshold)

    def save(self, folder: str | os.PathLike[str], *, onnx: bool = False) -> Path:
        """Write parameters, model card, schema and, if asked for, ONNX; return the folder.

        Args:
            folder: made when missing; files of an earlier save are replaced.
            onnx: whether to write ``model.onnx`` as well. It is checked with onnxruntime to 1e-5.

        Raises:
            InvalidInput: the exported network gives other numbers, the packages for ONNX are not installed, or the
                folder cannot be written.
        """
        target = Path(folder)
        files = {
            PARAMETERS: self.parameters,
            FACTS: json.dumps(dump(self.facts), indent=2, ensure_ascii=False).encode(),
            SCHEMA: json.dumps(self._schema(), indent=2, ensure_ascii=False).encode(),
            CARD: card_of(self.facts).encode(),
            **{f"{CODE}/{name}": data for name, data in self.code.items()},
        }
        if onnx:
            from tessera.trained.export import to_onnx

            files[ONNX] = to_onnx(self)
        try:
            for name, data in files.items():
                write_atomically(target / name, data, mode=0o644)
        except OSError as error:
            raise InvalidInput(f"expected a folder that can be written, {target} is none: {error.strerror}") from error
        return target

    def _schema(self) -> dict[str, object]:
        facts = self.facts
        return {
            "task": facts.task,
            "classes": facts.classes,
            "cohorts": facts.cohorts,
            "reading": facts.reading,
            "columns": self.columns,
            "inputs": {m: list(names) for m, names in facts.features.items()},
            "study_schema": None if facts.schema is None else dump(facts.schema),
        }

    def __repr__(self) -> str:
        config = self.facts.config
        what = "own network" if self.facts.code else config.architecture
        return f"Model({what}, {self.facts.task}, {' + '.join(config.modalities)}, {_charged(self.facts)})"

    def _repr_html_(self) -> str:
        facts = self.facts
        rows = [
            ("predicts", f"{facts.task}: {', '.join(facts.classes)}"),
            ("inputs", ", ".join(f"{m} ({len(names)})" for m, names in facts.features.items())),
            ("cohorts", ", ".join(facts.cohorts)),
            ("privacy", facts.privacy.statement),
            ("licence", facts.licence),
            *((name, value) for name, value in facts.metrics.items()),
        ]
        return html_table(f"Model of {facts.origin.study}", rows)


def load(folder: str | os.PathLike[str], *, run_code: bool = False) -> Model:
    """Return a model that :meth:`Model.save` wrote.

    Args:
        folder: where it lies.
        run_code: allow the Python code of an own network to run here. Tessera's own models have none.

    Raises:
        InvalidInput: a file is missing or is none of a model's.
        Refused: the model brings code, and ``run_code`` was not given.
        Tampered: a file is not the one that the model card names.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise InvalidInput(f"expected the folder of a saved model, got a {type(folder).__name__}")
    place = Path(folder)
    facts = parse(ModelFacts, _read(place / FACTS, _MOST_FACTS_BYTES))
    if facts.code and not run_code:
        raise Refused(
            "this model is an own network that brings Python code, which would run here with your rights; read "
            f"{CODE}/ and call load(..., run_code=True), or use its ONNX file"
        )
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in facts.code):
        raise InvalidInput("expected names of files inside the model's folder")
    code = {name: _read(place / CODE / name, _MOST_FACTS_BYTES) for name in facts.code}
    return Model(facts, _read(place / PARAMETERS, _ONE_GIB), code)


def _check_agreement(facts: ModelFacts) -> None:
    """Refuse a card whose parts contradict each other, which then is none that :meth:`Model.save` wrote.

    Raises:
        Tampered: other numbers of classes, or other inputs, than the configuration has.
    """
    config = facts.config
    told_apart = config.predicts is None or config.predicts.kind == "categorical"
    columns = config.classes if told_apart else config.outputs
    widths = {modality: len(set(names)) for modality, names in facts.features.items()}
    if len(set(facts.classes)) != columns or widths != dict(config.features):
        raise Tampered(
            f"the model card contradicts itself: expected {columns} classes or columns and inputs as configured, "
            "got others; get the model again"
        )


def _read(path: Path, most_bytes: int) -> bytes:
    try:
        if path.stat().st_size > most_bytes:
            raise InvalidInput(f"expected {path.name} of at most {most_bytes} bytes, it is larger")
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"expected a saved model with {path.name}, found none at {path.parent}; Model.save writes one"
        ) from error


def _own_network(model: Model) -> nn.Module:
    from datasites.worker.child import load_plan

    with tempfile.TemporaryDirectory() as scratch:
        for name, data in model.code.items():
            write_atomically(Path(scratch) / name, data)
        return load_plan(Path(scratch), model.facts.config, seed=0)[0]


def _charged(facts: ModelFacts) -> str:
    epsilon = facts.privacy.epsilon
    return "no privacy" if epsilon is None else f"epsilon {epsilon:.3g} at delta {facts.privacy.delta:g}"
