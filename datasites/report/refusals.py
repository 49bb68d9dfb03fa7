"""What was turned down: requests, and rounds that were not answered.

A decision ends a study's later rounds as well. Each of those is refused once but journaled twice, before the round and
in the answer; it is a consequence of the decision and no further request. So the rounds of one study that were refused
for one reason are one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from datasites.language import mark, tr, tr_plural
from datasites.language.formats import listed
from datasites.report.facts import DeniedRequest
from datasites.report.records import Records
from datasites.review.records import Request
from privacy.ledger.chain import Entry

_DENIALS = {
    "denied": mark("study denied"),
    "changes-requested": mark("changes requested"),
    "revoked": mark("approval revoked"),
}


def turned_down(requests: Sequence[Request], records: Records) -> Iterator[DeniedRequest]:
    """Yield every request that a person or the software turned down, and the rounds that were not answered."""
    for request in requests:
        for decision in request.decisions:
            if decision.kind in _DENIALS:
                yield DeniedRequest(
                    at=decision.at,
                    study=request.proposal.study,
                    what=tr(_DENIALS[decision.kind]),
                    by=decision.who,
                    reason=decision.reason,
                )
    for entry in records.journal:
        if entry.kind == "proposal-rejected":
            what = tr("proposal turned away before review")
            yield _line(entry, str(entry.body.get("job", "")), what, kind="request")
    yield from _rounds(records, {request.proposal_hash: request.proposal.study for request in requests})


def _rounds(records: Records, names: dict[str, str]) -> Iterator[DeniedRequest]:
    """Yield one line for the refused rounds of a study with one reason, at the time of the first."""
    first: dict[tuple[str, str], Entry] = {}
    rounds: dict[tuple[str, str], set[int]] = {}
    looks: dict[tuple[str, str], int] = {}
    for entry in records.journal:
        body, reason = entry.body, str(entry.body.get("reason", ""))
        if entry.kind == "refused":
            key = (str(body.get("study", "")), reason)
            rounds.setdefault(key, set()).add(int(body.get("round", 0)))
        elif entry.kind == "round-refused":
            key = (names.get(str(body.get("proposal_hash")), ""), reason)
            looks[key] = looks.get(key, 0) + 1
        else:
            continue
        first.setdefault(key, entry)
    for key, entry in first.items():
        numbers = sorted(rounds.get(key, ()))
        if numbers:
            what = tr_plural(
                "round {rounds} not answered",
                "rounds {rounds} not answered",
                len(numbers),
                rounds=listed(map(str, numbers)),
            )
        else:
            what = tr_plural(
                "a round not started: its approval did not hold",
                "a round not started, {count} times: its approval did not hold",
                looks[key],
            )
        yield _line(entry, key[0], what, kind="rounds")


def _line(entry: Entry, study: str, what: str, *, kind: str) -> DeniedRequest:
    return DeniedRequest(
        at=entry.at,
        study=study,
        what=what,
        by="datasite",
        reason=str(entry.body.get("reason", "")),
        kind="request" if kind == "request" else "rounds",
    )
