"""Callbacks of :meth:`tessera.live.Run.wait` for experiment trackers: MLflow, TensorBoard, Weights & Biases (offline).

They are told public numbers alone: what was proposed, seconds, hospitals, bytes and norms of each round, and the final
metrics. No name of a hospital and no number that a hospital did not release is among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy.errors import InvalidInput

if TYPE_CHECKING:
    from tessera.live import Run


def public_facts(run: Run) -> dict[str, str | float | int]:
    """Return what was proposed, as trackers write it beside a run."""
    proposal = run.proposal
    return {
        "study": proposal.study,
        "proposal_hash": proposal.proposal_hash,
        "epsilon": proposal.mechanism.epsilon(),
        "delta": proposal.mechanism.target_delta,
        "noise": proposal.noise,
        "rounds": proposal.rounds,
        "hospitals": len(proposal.participants),
        "architecture": "own network" if proposal.own_network else proposal.model.architecture,
        "aggregation": proposal.training.aggregation,
    }


class MLflow:
    """Writes a run of MLflow; ``pip install mlflow-skinny`` or ``mlflow``.

    Args:
        experiment: its name; made when missing.
        tracking_uri: where MLflow writes, such as ``sqlite:///mlflow.db``; MLflow's own setting by default.
    """

    def __init__(self, experiment: str = "tessera", tracking_uri: str | None = None) -> None:
        self._client = _needed("mlflow.tracking", "mlflow-skinny").MlflowClient(tracking_uri=tracking_uri)
        self._experiment = experiment
        self.run_id = ""

    def begin(self, run: Run) -> None:
        """Make the run with the public facts as its parameters."""
        found = self._client.get_experiment_by_name(self._experiment)
        place = found.experiment_id if found is not None else self._client.create_experiment(self._experiment)
        self.run_id = self._client.create_run(place, run_name=run.name).info.run_id
        for name, value in public_facts(run).items():
            self._client.log_param(self.run_id, name, value)

    def round(self, run: Run, number: int, values: Mapping[str, float]) -> None:
        """Write one round's numbers."""
        for name, value in values.items():
            self._client.log_metric(self.run_id, name, value, step=number)

    def end(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Write the final metrics and close the run."""
        for name, value in metrics.items():
            self._client.log_metric(self.run_id, name, value)
        self._client.set_terminated(self.run_id)


class TensorBoard:
    """Writes event files for TensorBoard; ``pip install tensorboard``.

    Args:
        folder: of the logs; each study has a folder of its own below it.
    """

    def __init__(self, folder: str | Path = "runs") -> None:
        self._writer_of = _needed("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._folder, self._writer = Path(folder), None

    def begin(self, run: Run) -> None:
        """Open the writer and write the public facts as text."""
        self._writer = self._writer_of(log_dir=str(self._folder / run.proposal.proposal_hash[:16]))
        facts = "\n".join(f"* {name}: {value}" for name, value in public_facts(run).items())
        self._open().add_text("study", facts, 0)

    def round(self, run: Run, number: int, values: Mapping[str, float]) -> None:
        """Write one round's numbers as scalars."""
        for name, value in values.items():
            self._open().add_scalar(f"round/{name}", value, number)

    def end(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Write the final metrics and close the files."""
        for name, value in metrics.items():
            self._open().add_scalar(f"final/{name}", value, 0)
        self._open().close()

    def _open(self) -> Any:
        if self._writer is None:
            raise InvalidInput("expected begin() before a round; run.wait(callbacks=[...]) calls it")
        return self._writer


class WandB:
    """Writes a run of Weights & Biases to a folder, offline; nothing is sent. ``pip install wandb``.

    Args:
        project: its name.
        folder: where the offline run lies; ``wandb sync`` sends it later, if you choose to.
    """

    def __init__(self, project: str = "tessera", folder: str | Path = ".") -> None:
        self._wandb = _needed("wandb", "wandb")
        self._project, self._folder, self._run = project, Path(folder), None

    def begin(self, run: Run) -> None:
        """Start an offline run with the public facts as its configuration."""
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = self._wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True)
        self._run = self._wandb.init(
            project=self._project,
            name=run.name,
            dir=str(self._folder),
            mode="offline",
            config=public_facts(run),
            settings=settings,
        )

    def round(self, run: Run, number: int, values: Mapping[str, float]) -> None:
        """Write one round's numbers."""
        self._open().log({f"round/{name}": value for name, value in values.items()}, step=number)

    def end(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Write the final metrics as the run's summary and finish it."""
        self._open().summary.update(dict(metrics))
        self._open().finish()

    def _open(self) -> Any:
        if self._run is None:
            raise InvalidInput("expected begin() before a round; run.wait(callbacks=[...]) calls it")
        return self._run


def _needed(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise InvalidInput(f"this callback needs a package: install it with `pip install {package}`") from error
