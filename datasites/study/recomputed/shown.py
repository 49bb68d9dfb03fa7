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
from datasites.study.signing import Message, parse
from privacy.errors import InvalidInput

_ROUND_BYTES = 256 << 10
_SITE_BYTES = 64 << 10


@dataclass(frozen=True, kw_only=True)
class _Header(Message):
    evidence: RoundEvidence
    sizes: Mapping[str, int]


def documents_limit(proposal: Proposal) -> int:
    """Return how many bytes the documents of one round of a study have at most: a few of each hospital."""
    return _ROUND_BYTES + _SITE_BYTES * len(proposal.participants)


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
