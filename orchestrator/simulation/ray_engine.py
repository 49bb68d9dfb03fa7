"""Sites of one simulated study over many processes, on one machine or a Ray cluster: the one door to Ray.

    with ray_cluster(None, processes=8) as make:
        rounds = list(run_study(study.proposal, study.model, make(study)))

Every process holds a shard of the sites for the whole study and returns one sum a round, so that what travels grows
with processes and not with sites. Sums are of integers: the model is that of the local engine, bit for bit. On a
cluster every node needs Tessera installed (``pip install 'tessera-fl[ray]'``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from datasites.study.messages import RoundPlan
from datasites.study.proposal import Proposal
from orchestrator.simulation.engine import Shard, Sum, added
from orchestrator.simulation.sites import SimulatedSite, SimulatedStudy
from privacy.errors import InvalidInput, TesseraError


@contextmanager
def ray_cluster(address: str | None, *, processes: int) -> Iterator[Callable[[SimulatedStudy], RayEngine]]:
    """Connect to a cluster, or start one on this machine, and yield what makes engines on it.

    Args:
        address: of an existing cluster (``auto``, ``host:port`` or ``ray://host:port``); None starts a local one.
        processes: shards of a study, one process each.

    Raises:
        InvalidInput: Ray is not installed.
        TesseraError: the cluster cannot be reached.
    """
    ray = _ray()
    local = {"num_cpus": processes, "include_dashboard": False} if address is None else {}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="error", **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise TesseraError(f"no Ray cluster at {address or 'this machine'}: {str(error)[:200]}") from error
    try:
        yield lambda study: RayEngine(study, processes=processes)
    finally:
        ray.shutdown()


class RayEngine:
    """An engine whose sites live in Ray actors; they end when the next study's engine is made or Ray shuts down.

    Args:
        study: its sites are dealt to the shards in turn.
        processes: how many shards, at most one a site.
    """

    def __init__(self, study: SimulatedStudy, *, processes: int) -> None:
        self._ray = _ray()
        count = max(1, min(processes, len(study.sites)))
        proposal = self._ray.put(study.proposal)
        remote = self._ray.remote(_Actor)
        self._actors = [remote.remote(proposal, study.sites[place::count]) for place in range(count)]

    def round(self, plan: RoundPlan, model: bytes) -> Sum:
        """Have every shard do its part at the same time and return the sum of all."""
        given = self._ray.put((plan, model))
        return added(self._ray.get([actor.round.remote(given) for actor in self._actors]))


class _Actor:
    """One shard in a process of its own, with one thread for torch."""

    def __init__(self, proposal: Proposal, sites: Sequence[SimulatedSite]) -> None:
        import torch

        torch.set_num_threads(1)
        self._shard = Shard(proposal, sites)

    def round(self, given: tuple[RoundPlan, bytes]) -> Sum:
        """Train the shard's sites."""
        return self._shard.round(*given)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise InvalidInput(
            "--engine ray needs Ray, which is not installed here: pip install 'tessera-fl[ray]'"
        ) from error
    return ray
