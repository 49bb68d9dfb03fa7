"""Sites of one simulated study over several processes of this machine: the local engine, so many times as wide.

Every process holds a shard of the sites for the whole study and returns one sum a round, as on a Ray cluster
(:mod:`orchestrator.simulation.ray_engine`). Sums are of integers: the model is that of the local engine, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType

from datasites.study.messages import RoundPlan
from datasites.study.proposal import Proposal
from orchestrator.simulation.engine import Engine, Shard, Sum, added
from orchestrator.simulation.sites import SimulatedSite, SimulatedStudy

FEWEST_SITES = 40
"""With fewer sites a process takes longer to start than it saves."""

_shards: list[Shard] = []


class ProcessEngine:
    """An engine whose sites live in processes of their own; use it in a ``with``, which ends them.

    Args:
        study: its sites are dealt to the processes in turn.
        processes: how many, at most one a site.
    """

    def __init__(self, study: SimulatedStudy, *, processes: int) -> None:
        count = max(1, min(processes, len(study.sites)))
        context = get_context("spawn")
        self._pools = [
            ProcessPoolExecutor(
                1, mp_context=context, initializer=_begin, initargs=(study.proposal, study.sites[k::count], study.code)
            )
            for k in range(count)
        ]

    def round(self, plan: RoundPlan, model: bytes) -> Sum:
        """Have every process do its sites' part at the same time and return the sum of all."""
        waiting = [pool.submit(_round, plan, model) for pool in self._pools]
        return added(future.result() for future in waiting)

    def close(self) -> None:
        """End the processes."""
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> ProcessEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _begin(proposal: Proposal, sites: Sequence[SimulatedSite], code: Path | None) -> None:
    import torch

    torch.set_num_threads(1)
    _shards[:] = [Shard(proposal, sites, code)]


def _round(plan: RoundPlan, model: bytes) -> Sum:
    return _shards[0].round(plan, model)


@contextmanager
def processes_for(processes: int, device: str = "cpu") -> Iterator[Callable[[SimulatedStudy], Engine]]:
    """Yield what makes a study's engine: over processes where it has many sites, else in this one; then end them.

    On another device than ``cpu`` there is one process: it has the device for itself.
    """
    with ExitStack() as stack:

        def make(study: SimulatedStudy) -> Engine:
            if processes < 2 or len(study.sites) < FEWEST_SITES or device != "cpu":
                return Shard(study.proposal, study.sites, study.code, device=device)
            return stack.enter_context(ProcessEngine(study, processes=processes))

        yield make
