"""How one study takes encrypted updates: headers checked before bodies, bytes on disk, the sum grown in its process.

Nothing of a refused upload stays, and nothing of an accepted one is ever shown to anybody: only the sum leaves.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasites.node.files import sync_folder
from datasites.study.messages import Attestation, BlockShape, RoundPlan, UpdateHeader
from datasites.study.proposal import Proposal
from datasites.study.recomputed.checks import check_header_pads
from datasites.study.recomputed.released_numbers import checked_header_numbers
from datasites.study.recomputed.shown import header_limit, require_short
from datasites.study.signing import Signed, dump, open_sealed, parse
from orchestrator.rounds.store import Store
from orchestrator.rounds.summing.sums import RunningSumProcess, WorkerDied
from privacy.canonical import canonical_json
from privacy.encryption import tags
from privacy.encryption.ciphertexts import body_bytes, unpack
from privacy.errors import InvalidInput, Refused


class Intake:
    """The updates of one study and their running sum; everything runs on the event loop.

    Args:
        proposal: the study.
        store: where ciphertexts and headers are kept.
    """

    def __init__(self, proposal: Proposal, store: Store) -> None:
        self._proposal, self._store = proposal, store
        self._sum = RunningSumProcess(proposal.encryption)
        self._adding = asyncio.Lock()
        self._round = 0
        self.excluded: frozenset[str] = frozenset()

    @property
    def sites(self) -> set[str]:
        """Whose updates are in the sum."""
        return self._sum.sites

    def headers(self, number: int) -> dict[str, dict[str, Any]]:
        """Return the signed headers of the updates that were taken in a round, by site."""
        return self._store.documents(self._proposal.study, number, "update")

    async def open(self, number: int) -> None:
        """Begin to take updates of a round; those that were taken before a restart are added again."""
        remove_interrupted(self._store.update_folder(self._proposal.study, number))
        async with self._adding:
            await self._rebuild(number, set(self.headers(number)))
            self._round = number

    async def shut(self) -> None:
        """Take no more updates; what is being added is finished first."""
        async with self._adding:
            self._round = 0

    async def close(self) -> None:
        """Take no more updates and end the summing process."""
        async with self._adding:
            self._round = 0
            await self._sum.close()

    async def warm(self) -> None:
        """Start the summing process while the round's key is made."""
        async with self._adding:
            await self._sum.restart({b.name: b.length for b in self._proposal.exchanged_blocks()})

    async def sum_of(self, number: int, sites: set[str]) -> str:
        """Keep the sum of exactly these sites' updates as a blob and return its hash; built afresh if need be."""
        async with self._adding:
            path = self._store.update_folder(self._proposal.study, number) / f"sum-{len(sites)}"
            if self._sum.sites == sites:
                with suppress(WorkerDied):
                    return self._store.adopt_blob(path, await self._sum.finish(path))
            await self._rebuild(number, sites)
            return self._store.adopt_blob(path, await self._sum.finish(path))

    def announced(self, site: str, signed: Signed, number: int) -> UpdateHeader:
        """Check an update by its header alone, before a byte of it is read.

        Raises:
            Refused: the round is not open, made for another plan, this site sent another update already, or the
                header's pads are not for this study's helpers.
            InvalidInput: the header's names, shapes, lengths or released numbers are not what this round expects, or it
                is longer than follows from these.
            Tampered: the signature does not hold.
        """
        header = open_sealed(
            signed, "update", self._proposal.participant(site).public_key, UpdateHeader, since=self._proposal.canonical
        )
        if (header.study, header.round, header.site) != (self._proposal.study, number, site):
            raise InvalidInput("the update's header names another study, round or site than its address")
        plan = self._store.opened(RoundPlan, self._proposal.study, number, "plan")
        if plan is None or header.plan_hash != plan.plan_hash:
            raise Refused(f"round {number}: the update was made for another plan; fetch the current one")
        if header.proposal_hash != self._proposal.proposal_hash:
            raise Refused(f"round {number}: the update was made for another proposal")
        if site in self.excluded:
            raise Refused(f"{site} takes no part in this study any more: an update of it could not be used")
        if self._proposal.waits.starts_with and site not in self._store.documents(header.study, 0, "approval"):
            raise Refused(f"the approval of {site} has not arrived; send it first")
        self._check_shapes(site, header)
        check_header_pads(self._proposal, header)  # else keyholder and helpers refuse the whole list and name nobody
        checked_header_numbers(self._proposal, site, number, header.releases)
        canonical_json(dump(signed))  # the list of the round quotes it
        require_short(signed, header_limit(self._proposal, site))
        known = self.headers(number)
        if site in known and known[site] == dump(signed):
            return header
        if site in known or self._round != number:
            raise Refused(f"round {number} takes no update from {site!r} now; wait for the next round plan")
        if any(other["payload"]["body_hash"] == header.body_hash for other in known.values()):
            raise Refused("these ciphertexts were sent by another site; encrypt your own update")
        return header

    async def take(self, upload: Upload, header: UpdateHeader) -> None:
        """Keep and add one upload whose header was checked; doing it twice does no harm.

        Raises:
            Refused: the round closed meanwhile, or another update of this site came first.
            InvalidInput: the bytes are not the announced ciphertexts; nothing was added and nothing stays.
        """
        if upload.body_hash != header.body_hash:
            raise InvalidInput("the ciphertexts do not have the signed hash; send them again")
        async with self._adding:
            self.announced(header.site, upload.signed, header.round)
            if header.site in self.headers(header.round):
                return
            path = self._store.update_path(header.study, header.round, header.body_hash)
            upload.path.replace(path)
            try:
                await self._keep(upload, header, path)
            except InvalidInput:
                path.unlink(missing_ok=True)
                raise
            except BaseException:
                await self._sum.close()  # it may hold what no record tells of, and would take it twice: built afresh
                raise

    async def _keep(self, upload: Upload, header: UpdateHeader, path: Path) -> None:
        """Add the update at ``path``, make it durable, then write down that it is here."""
        steps = asyncio.gather(self._add(header, path), asyncio.to_thread(_sync, path), return_exceptions=True)
        for problem in filter(None, await steps):  # both have ended: nothing is added behind our back
            raise problem
        await asyncio.to_thread(
            self._store.put_document, header.study, header.round, "update", upload.signed, author=header.site
        )

    def check_tags(self, attestation: Attestation) -> None:
        """Check a site's tags against its own stored ciphertexts, so that a wrong one costs nobody else the round.

        Raises:
            InvalidInput: they are not those of what it sent, or it sent nothing.
        """
        document = self.headers(attestation.round).get(attestation.site)
        if document is None:
            raise InvalidInput(f"{attestation.site} sent no update in this round; there is nothing to attest")
        header = parse(UpdateHeader, document["payload"])
        path = self._store.update_path(header.study, header.round, header.body_hash)
        counts = {b.name: b.ciphertexts for b in header.blocks}
        blocks = unpack(path.read_bytes(), counts, self._proposal.encryption)
        challenge = tags.challenges(attestation.list_hash, attestation.sum_hash)
        if tags.tag(blocks, challenge, self._proposal.encryption) != tuple(map(int, attestation.tags)):
            raise InvalidInput("the tags are not those of the ciphertexts that this site sent")

    def _check_shapes(self, site: str, header: UpdateHeader) -> None:
        encryption = self._proposal.encryption
        expected = [
            BlockShape(name=b.name, values=b.length, ciphertexts=encryption.ciphertexts_for(b.length))
            for b in self._proposal.blocks_of(site)
        ]
        if sorted(header.blocks, key=lambda b: b.name) != sorted(expected, key=lambda b: b.name):
            raise InvalidInput(
                f"expected the blocks {sorted(b.name for b in expected)} of {site!r} with the proposal's lengths and "
                "numbers of ciphertexts, got other ones"
            )
        length = body_bytes({b.name: b.ciphertexts for b in expected}, encryption)
        if header.body_bytes != length:
            raise InvalidInput(f"expected {length} bytes of ciphertexts, got {header.body_bytes} announced")

    async def _add(self, header: UpdateHeader, path: Path) -> None:
        """Add a stored update; should the process die of something else than these bytes, try once more."""
        with suppress(WorkerDied):
            await self._sum.add(header.site, path, header.blocks)
            return
        await self._rebuild(header.round, set(self.headers(header.round)))
        try:
            await self._sum.add(header.site, path, header.blocks)
        except WorkerDied as error:
            await self._rebuild(header.round, set(self.headers(header.round)))
            raise InvalidInput("these ciphertexts cannot be read; encrypt and send them again") from error

    async def _rebuild(self, number: int, sites: set[str]) -> None:
        """Start the sum afresh from the stored ciphertexts of ``sites``."""
        await self._sum.restart({b.name: b.length for b in self._proposal.exchanged_blocks()})
        for site, document in self.headers(number).items():
            if site in sites:
                header = parse(UpdateHeader, dict(document["payload"]))
                path = self._store.update_path(self._proposal.study, number, header.body_hash)
                await self._sum.add(site, path, header.blocks)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


INCOMING = ".incoming-"
"""How the names of files begin that are still being written."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A body that lies complete at ``path``, with the hash it really has."""

    signed: Signed
    path: Path
    body_hash: str


def remove_interrupted(folder: Path) -> None:
    """Remove what a crash left of uploads that were under way."""
    for path in folder.glob(f"{INCOMING}*"):
        path.unlink(missing_ok=True)
