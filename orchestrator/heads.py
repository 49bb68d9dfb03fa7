"""What a peer has shown of its own past, given back to it: how a restore from an old backup is noticed.

Every update header carries the heads of its site's journal and ledger under the site's own signature, and the other
sites of the round attest the list it stands in. A site that lost its newest entries gets them back from here.
"""

from __future__ import annotations

from typing import Any

from datasites.contract import dump
from orchestrator.store import Store


def shown_heads(store: Store, site: str) -> list[dict[str, Any]]:
    """Return, for every study with updates of ``site``: the proposal, its headers, and its newest attested list.

    Each item has ``proposal`` and ``updates`` (signed documents), ``commitments`` (signed, or None) and
    ``attestations`` (the other sites' signed documents for that list).
    """
    found = []
    for study, proposal, _, _ in store.studies():
        if all(participant["name"] != site for participant in proposal.payload["participants"]):
            continue
        rounds = range(1, store.last_round(study, "update") + 1)
        updates = [u for n in rounds if (u := store.documents(study, n, "update").get(site)) is not None]
        if updates:
            found.append({"proposal": dump(proposal), "updates": updates, **_newest_list(store, study, site)})
    return found


def keyholder_heads(store: Store, keyholder: str) -> list[dict[str, Any]]:
    """Return, for every study that ``keyholder`` serves: the proposal, the keys and the results that it signed."""
    found = []
    for study, proposal, _, _ in store.studies():
        if proposal.payload["keyholder"]["name"] == keyholder:
            keys, results = (_signed_by(store, study, kind, keyholder) for kind in ("key", "result"))
            found.append({"proposal": dump(proposal), "keys": keys, "results": results})
    return found


def _signed_by(store: Store, study: str, kind: str, author: str) -> list[dict[str, Any]]:
    rounds = range(1, store.last_round(study, kind) + 1)
    return [d for n in rounds if (d := store.documents(study, n, kind).get(author)) is not None]


def _newest_list(store: Store, study: str, site: str) -> dict[str, Any]:
    for number in range(store.last_round(study, "commitments"), 0, -1):
        closing = 1
        while store.document(study, number, "commitments", closing=closing + 1) is not None:
            closing += 1
        commitments = store.document(study, number, "commitments", closing=closing)
        if commitments is not None and any(u["payload"]["site"] == site for u in commitments["payload"]["updates"]):
            attested = store.documents(study, number, "attestation", closing=closing)
            others = [document for name, document in sorted(attested.items()) if name != site]
            return {"commitments": commitments, "attestations": others}
    return {"commitments": None, "attestations": []}
