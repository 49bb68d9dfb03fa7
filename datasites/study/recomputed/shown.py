"""What was signed about a finished round and the files that these documents speak of, as one answer.

A hospital that recomputes a round needs up to three files besides the documents. One request brings all of it::

    4 bytes: length of the header | header: JSON of documents and sizes | the files, in the order of their names

An orchestrator of an earlier release answers with the documents alone, as JSON; then files are asked for one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from datasites.study.proposal import Proposal
from datasites.study.recomputed.chain import RoundEvidence
from datasites.study.recomputed.released_numbers import numbers_bytes
from datasites.study.signing import Message, Signed, dump, parse
from privacy.canonical import plain_json
from privacy.errors import InvalidInput

MOST_BYTES = 24 << 10
"""How long one signed document of a round may be, beside what grows with the proposal (:func:`header_limit`)."""

_ROUND_BYTES = 256 << 10
"""The plan without its weights, the list without its headers, and at most eight documents of keyholder and helpers."""
_NUMBER_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class _Header(Message):
    evidence: RoundEvidence
    sizes: Mapping[str, int]


def documents_limit(proposal: Proposal) -> int:
    """Return how many bytes the documents of one round of a study have at most.

    The orchestrator takes no document that is longer than its share (:func:`require_short`), so that one party alone
    cannot make the documents of a round too long to be read.
    """
    sites = [p.name for p in proposal.participants]
    own = (header_limit(proposal, site) + MOST_BYTES + _weights_bytes(proposal, site) for site in sites)
    return _ROUND_BYTES + sum(own)


def header_limit(proposal: Proposal, site: str) -> int:
    """Return how many bytes the signed header of a site's update has at most: its numbers follow from the proposal."""
    shapes = sum(len(plain_json(block.name)) + _NUMBER_BYTES for block in proposal.blocks_of(site))
    return MOST_BYTES + shapes + numbers_bytes(proposal, site)


def require_short(signed: Signed, most: int = MOST_BYTES) -> None:
    """Check that a signed document is no longer than its share of a round's documents.

    Raises:
        InvalidInput: it is longer.
    """
    length = len(plain_json(dump(signed)))
    if length > most:
        raise InvalidInput(f"expected a signed {signed.kind[:40]} of at most {most} bytes, got {length}")


def _weights_bytes(proposal: Proposal, site: str) -> int:
    """Return how much room a site's weights take in a plan at most."""
    names = len(plain_json(site)) + _NUMBER_BYTES
    return sum(len(plain_json(block.name)) + names for block in proposal.blocks_of(site))


def shown_header(evidence: bytes, sizes: Mapping[str, int]) -> bytes:
    """Return what stands before the files: the documents as JSON, and the length of each file by its name."""
    said = b",".join(b'"%s":%d' % (name.encode(), size) for name, size in sorted(sizes.items()))
    header = b'{"evidence":' + evidence + b',"sizes":{' + said + b"}}"
    return len(header).to_bytes(4, "big") + header


def read_shown(answer: bytes) -> tuple[RoundEvidence, dict[str, bytes]]:
    """Return the documents of a round, and by name the files that came along.

    Raises:
        InvalidInput: there is no header, or the files have other lengths than it says.
    """
    if answer.startswith(b"{"):
        return parse(RoundEvidence, answer), {}
    length = int.from_bytes(answer[:4], "big")
    if not 0 < length <= len(answer) - 4:
        raise InvalidInput(f"expected the documents of a round before its files, got {len(answer)} bytes")
    header = parse(_Header, answer[4 : 4 + length])
    files, start = {}, 4 + length
    for name, size in sorted(header.sizes.items()):
        if size < 0:
            raise InvalidInput("expected files of a round with no length below 0")
        files[name] = answer[start : start + size]
        start += size
    if start != len(answer):
        raise InvalidInput(f"expected {start} bytes of a round's documents and files, got {len(answer)}")
    return header.evidence, files
