"""The same round in the clear, to measure against: float32 vectors for ciphertexts, no keyholder, no tags.

It lives here and nowhere else: neither the product's orchestrator nor its datasites can be told to do this. Run as a
script it is the orchestrator's process (``python benchmarks/harness/plain.py FOLDER``).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasites.hospital.rounds.models import Models
from datasites.hospital.rounds.round_pads import PadKeys
from datasites.hospital.rounds.taking_part import RoundParticipant
from datasites.node.files import write_atomically
from datasites.node.process import end_with_parent
from datasites.study.messages import BlockShape, Commitments, RoundKey, RoundPlan, UpdateHeader, WorkItem
from datasites.study.proposal import Proposal
from datasites.study.signing import Signed, dump, parse, seal
from datasites.training.encoding import checked_update
from datasites.worker.job import TrainingResult
from orchestrator import daemon
from orchestrator.rounds import service
from orchestrator.rounds.runner import StudyRunner
from orchestrator.rounds.summing.intake import Intake
from privacy.canonical import sha256_hex


class FetchedModels(Models):
    """Fetches each model as its plan names it: where nobody signs sums, none can be recomputed."""

    def before(self, proposal: Proposal, plan: RoundPlan) -> bytes:
        """Return the model that the plan names."""
        return self._fetched(proposal, plan.model_hash)

    def finish(self, proposal: Proposal) -> None:
        """Recompute nothing."""


class PlainParticipant(RoundParticipant):
    """A hospital that sends its weighted update as it is."""

    @property
    def models(self) -> FetchedModels:
        """The orchestrator's models."""
        return FetchedModels(home=self.home, client=self.client, journal=self.journal, build=self.build)

    def _pad_keys(self, proposal: Proposal, plan: RoundPlan, item: WorkItem) -> PadKeys:  # noqa: ARG002
        own = parse(RoundKey, dict(item.documents["key"].payload))  # the orchestrator's own: there is no keyholder
        return PadKeys(round_key=own)

    def _public_key(self, proposal: Proposal, keys: PadKeys) -> bytes:  # noqa: ARG002
        return b""

    def _encoded(self, proposal: Proposal, plan: RoundPlan, result: TrainingResult) -> dict[str, np.ndarray]:  # noqa: ARG002
        return dict(result.updates)

    def _store_update(
        self,
        folder: Path,
        proposal: Proposal,
        plan: RoundPlan,
        keys: PadKeys,  # noqa: ARG002
        public: bytes,  # noqa: ARG002
        integers: Mapping[str, np.ndarray],
        numbers: Mapping[str, float],
    ) -> None:
        """Bound, weight and write down, with the header of an encrypted update."""
        bound = proposal.training.update_bound
        blocks = sorted(proposal.blocks_of(self.site), key=lambda b: b.name)
        body = b"".join(
            np.float32(
                plan.weights[b.name][self.site] * np.clip(checked_update(integers[b.name], b.length), -bound, bound)
            ).tobytes()
            for b in blocks
        )
        header = UpdateHeader(
            study=plan.study,
            proposal_hash=plan.proposal_hash,
            round=plan.round,
            plan_hash=plan.plan_hash,
            site=self.site,
            blocks=tuple(BlockShape(name=b.name, values=b.length, ciphertexts=0) for b in blocks),
            body_hash=sha256_hex(body),
            body_bytes=len(body),
            pad="",
            releases=dict(numbers),
            journal_head=self.journal.head.hash,
            ledger_head=self.ledger.head.hash,
        )
        write_atomically(folder / "update.bin", body)
        signed = seal(self.home.identity(), "update", header)
        write_atomically(folder / "header.json", json.dumps(dump(signed)).encode())
        self.journal.append("update-plain", {"study": plan.study, "round": plan.round, "body_hash": header.body_hash})


class PlainSum:
    """A running sum of float32 vectors, in the server's process."""

    def __init__(self) -> None:
        self.sites: set[str] = set()
        self.totals: dict[str, np.ndarray] = {}

    async def restart(self, blocks: Mapping[str, int]) -> None:
        """Begin an empty sum."""
        self.sites = set()
        self.totals = {name: np.zeros(length, np.float32) for name, length in blocks.items()}

    async def add(self, site: str, path: Path, shapes: Sequence[BlockShape]) -> None:
        """Add one stored update."""
        await asyncio.to_thread(self._add, path, shapes)
        self.sites.add(site)

    def _add(self, path: Path, shapes: Sequence[BlockShape]) -> None:
        values = np.fromfile(path, np.float32)
        start = 0
        for shape in sorted(shapes, key=lambda s: s.name):
            self.totals[shape.name] += values[start : start + shape.values]
            start += shape.values

    async def finish(self, path: Path) -> str:  # noqa: ARG002
        """Nothing is closed in the clear."""
        return ""

    async def close(self) -> None:
        """Nothing to end."""


class PlainIntake(Intake):
    """Takes plain updates: the same headers and files, other lengths."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._sum: Any = PlainSum()

    def _check_shapes(self, site: str, header: UpdateHeader) -> None:
        """Any shape will do here."""

    @property
    def totals(self) -> dict[str, np.ndarray]:
        """The sum so far."""
        found: dict[str, np.ndarray] = self._sum.totals
        return found


class PlainRunner(StudyRunner):
    """A study in the clear: plan, collect, step."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.intake: PlainIntake = PlainIntake(self.proposal, self._store)

    async def _round(self, number: int) -> None:
        started = time.monotonic()
        no_key = RoundKey(
            study=self.proposal.study,
            proposal_hash=self.proposal.proposal_hash,
            round=number,
            key_hash=sha256_hex(b""),
            key_bytes=0,
            pad_key="",
        )
        key = seal(self._identity, "round-key", no_key)
        plan = self._plan(number, key)
        await self._collect(number, {"plan": plan, "key": key})
        updates = self.intake.headers(number)
        closed = Commitments(
            study=self.proposal.study,
            round=number,
            plan_hash=parse(RoundPlan, dict(plan.payload)).plan_hash,
            closing=1,
            updates=tuple(parse(Signed, u) for u in updates.values()),
            sum_hash="0" * 64,
            canonical=self.proposal.canonical,
        )
        steps = self.proposal.encryption.levels / self.proposal.training.update_bound
        totals = {name: np.rint(total * steps) for name, total in self.intake.totals.items()}
        commitments = seal(self._identity, "commitments", closed)
        await asyncio.to_thread(self._step, number, plan, commitments, totals, time.monotonic() - started)


def main() -> None:
    """Be the orchestrator of plain studies."""
    end_with_parent()
    service.StudyRunner = PlainRunner  # type: ignore[attr-defined]  # the product has no such switch
    daemon.run(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
