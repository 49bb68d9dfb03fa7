"""Tessera from Python: a study in a simulation and in a consortium, and a model to use afterwards.

>>> import tessera
>>> study = tessera.Study("pfs", outcome="stage", model="linear", epsilon=4)
>>> sim = study.simulate(sites=9, seeds=2)               # doctest: +SKIP
>>> round(sim.metrics["auroc"], 2)                       # doctest: +SKIP
0.72

The names below are stable. Everything runs on the same functions as the command line: the four packages ``datasites``,
``orchestrator``, ``privacy`` and ``models`` are the engine, and this one sits on top. Start with :mod:`tessera.study`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tessera._engine import settle

settle()

if TYPE_CHECKING:
    from datasites.strategy.server_steps import ServerStep
    from privacy.errors import InvalidInput, Refused, StudyOver, TesseraError
    from tessera.hub import Dataset, Hub, connect
    from tessera.live import Callback, Run
    from tessera.pictures import Picture
    from tessera.simulation import Simulation
    from tessera.statistics.answer import Statistic
    from tessera.statistics.asking import Analytics
    from tessera.statistics.simulated import analytics
    from tessera.study import Study
    from tessera.tracking import MLflow, TensorBoard, WandB
    from tessera.trained.explaining import Explanation
    from tessera.trained.model import Model, load

__all__ = [
    "Analytics",
    "Callback",
    "Dataset",
    "Explanation",
    "Hub",
    "InvalidInput",
    "MLflow",
    "Model",
    "Picture",
    "Refused",
    "Run",
    "ServerStep",
    "Simulation",
    "Statistic",
    "Study",
    "StudyOver",
    "TensorBoard",
    "TesseraError",
    "WandB",
    "analytics",
    "connect",
    "load",
]

_PLACES = {
    "Analytics": "tessera.statistics.asking",
    "Statistic": "tessera.statistics.answer",
    "analytics": "tessera.statistics.simulated",
    "ServerStep": "datasites.strategy.server_steps",
    "WandB": "tessera.tracking",
    "TensorBoard": "tessera.tracking",
    "MLflow": "tessera.tracking",
    "Callback": "tessera.live",
    "Dataset": "tessera.hub",
    "Explanation": "tessera.trained.explaining",
    "Hub": "tessera.hub",
    "InvalidInput": "privacy.errors",
    "Model": "tessera.trained.model",
    "Picture": "tessera.pictures",
    "Refused": "privacy.errors",
    "Run": "tessera.live",
    "Simulation": "tessera.simulation",
    "Study": "tessera.study",
    "StudyOver": "privacy.errors",
    "TesseraError": "privacy.errors",
    "connect": "tessera.hub",
    "load": "tessera.trained.model",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `import tessera` alone loads neither torch nor pandas."""
    if name not in _PLACES:
        raise AttributeError(f"tessera has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
