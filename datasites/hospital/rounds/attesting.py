"""A hospital's signature under the list of a round: its own update is in it, here are its tags.

A list is signed once, and another only after voids (:mod:`datasites.hospital.rounds.round_pads`). With helpers, the
signature also carries tags of this hospital's pads, under the commitments of keyholder and helpers. Each list is signed
under one set of commitments: two sets would tell two things about the same masked pad.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasites.hospital.rounds import round_pads
from datasites.hospital.rounds.round_pads import Sent
from datasites.keyholder.vouched import commitments_hash, opened_commitments, shown_commitments
from datasites.node.files import write_atomically
from datasites.node.home import Home
from datasites.node.http import SignedClient
from datasites.study.messages import Attestation, Commitments, RoundPlan, UpdateHeader, WorkItem
from datasites.study.proposal import Proposal
from datasites.study.recomputed import checks
from datasites.study.signing import Signed, dump, open_sealed, parse, seal, value_in
from datasites.training import proximity
from privacy.encryption import pad_tags, tags
from privacy.encryption.ciphertexts import unpack
from privacy.errors import Refused
from privacy.ledger.journal import Journal
from privacy.ledger.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Attesting:
    """Signs the lists of one hospital's rounds."""

    site: str
    home: Home
    client: SignedClient
    journal: Journal
    ledger: Ledger

    def attest(self, proposal: Proposal, item: WorkItem, sent: Sent | None) -> None:
        """Check a list, and sign and send it.

        Args:
            proposal: the study's.
            item: of kind ``attest`` or ``confirm``.
            sent: what this process knows of the update, or None if it was made before this process began.

        Raises:
            Refused: the list is not to be signed; says why.
            InvalidInput, Tampered: something in it is not signed by who should have.
        """
        folder = self.home.round_folder(item.study, item.round)
        if not (folder / "header.json").exists():
            raise Refused(f"round {item.round} was not trained here: there is nothing to attest")
        plan = parse(RoundPlan, (folder / "plan.json").read_bytes())
        sealed = item.documents["commitments"]
        commitments = open_sealed(
            sealed, "commitments", proposal.orchestrator.public_key, Commitments, since=proposal.canonical
        )
        own = parse(Signed, (folder / "header.json").read_bytes())
        checks.check_commitments(proposal, plan, commitments, self.site, own)
        header, fresh = parse(UpdateHeader, dict(own.payload)), round_pads.asked_for_good(proposal, item)
        keys = None if sent is None else sent.keys
        round_pads.require_may_sign(proposal, self.journal, item, commitments.list_hash, keys)
        self.journal.check_not_rolled_back([header.journal_head])
        self.ledger.check_not_rolled_back([header.ledger_head])
        if fresh and proposal.helpers:
            self._confirm(item, commitments, folder, fresh)
            return
        more = self._vouched(proposal, commitments, item, sent, folder)
        if isinstance(more, Signed):
            self._send(item, more)
            return
        attestation = self._attestation(proposal, plan, commitments, header, folder, fresh=fresh, **more)
        signed = seal(self.home.identity(), "attestation", attestation)
        if proposal.helpers:
            write_atomically(folder / "attestation.json", json.dumps(dump(signed)).encode())
        if fresh:
            about = {"study": item.study, "round": item.round, "list_hash": commitments.list_hash}
            self.journal.append("confirmed", about)
        self._remember_peers(commitments, sealed)
        present = [str(u.payload["site"]) for u in commitments.updates]
        proximity.keep_sites(proposal, plan, folder, present)
        self._send(item, signed)

    def _confirm(self, item: WorkItem, commitments: Commitments, folder: Path, fresh: str) -> None:
        """Sign a list of a study with helpers for good: what was signed before, with their words."""
        path = folder / "attestation.json"
        kept = parse(Signed, path.read_bytes()) if path.exists() else None
        if kept is None or kept.payload["list_hash"] != commitments.list_hash:
            raise Refused(f"round {item.round}: this list was not signed here")
        about = {"study": item.study, "round": item.round, "list_hash": commitments.list_hash}
        self.journal.append("confirmed", about)
        again = replace(parse(Attestation, dict(kept.payload)), fresh=fresh)
        self._send(item, seal(self.home.identity(), "attestation", again))

    def _vouched(
        self, proposal: Proposal, commitments: Commitments, item: WorkItem, sent: Sent | None, folder: Path
    ) -> dict[str, Any] | Signed:
        """Return the tags of this hospital's pads for its signature; or its signature, if it has signed this list."""
        if not proposal.helpers:
            return {}
        list_hash = commitments.list_hash
        found = opened_commitments(proposal, commitments, shown_commitments(item.documents))
        digest = commitments_hash(proposal, found)
        if round_pads.signed_before(self.journal, item, list_hash):
            path = folder / "attestation.json"
            kept = parse(Signed, path.read_bytes()) if path.exists() else None
            if kept is None or (kept.payload["list_hash"], kept.payload["pad_commitments"]) != (list_hash, digest):
                raise Refused(f"round {item.round}: this list was signed under other commitments to its pad sums")
            return kept
        if sent is None:
            raise Refused(f"round {item.round}: started anew since the update was sent; the pads are not known here")
        challenge = pad_tags.pad_challenge(list_hash, commitments.sum_hash, digest)
        return {"pad_tags": sent.own.tags(list_hash, challenge, proposal.encryption), "pad_commitments": digest}

    def _attestation(
        self,
        proposal: Proposal,
        plan: RoundPlan,
        commitments: Commitments,
        header: UpdateHeader,
        folder: Path,
        **more: Any,
    ) -> Attestation:
        """Return this hospital's word that its update is in the list, with the tags of its ciphertexts."""
        counts = {b.name: b.ciphertexts for b in header.blocks}
        blocks = unpack((folder / "update.bin").read_bytes(), counts, proposal.encryption)
        challenge = tags.challenges(commitments.list_hash, commitments.sum_hash)
        return Attestation(
            study=plan.study,
            round=plan.round,
            plan_hash=plan.plan_hash,
            list_hash=commitments.list_hash,
            sum_hash=commitments.sum_hash,
            site=self.site,
            tags=tuple(map(str, tags.tag(blocks, challenge, proposal.encryption))),
            earlier=checks.earlier_lists(self.journal, plan.study, plan.round, commitments.list_hash),
            **more,
        )

    def _remember_peers(self, commitments: Commitments, sealed: Signed) -> None:
        """Keep everybody's chain heads of this round, so that nobody can rewrite its own past unnoticed."""
        heads = {}
        for update in commitments.updates:
            header = value_in(update, UpdateHeader)
            heads[header.site] = {"journal": header.journal_head, "ledger": header.ledger_head}
        self.journal.append(
            "attested",
            {
                "study": commitments.study,
                "round": commitments.round,
                "closing": commitments.closing,
                "list_hash": commitments.list_hash,
                "sum_hash": commitments.sum_hash,
                "heads": heads,
                "orchestrator_signature": sealed.signature,
            },
        )

    def _send(self, item: WorkItem, signed: Signed) -> None:
        self.client.post_json(f"/studies/{item.study}/rounds/{item.round}/attestation", dump(signed))
