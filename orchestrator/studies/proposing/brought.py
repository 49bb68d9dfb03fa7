"""What a scientist brings to a study besides settings: the code of an own network, constants from public tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datasites.node.files import write_atomically
from datasites.node.home import Home
from datasites.strategy.own_step import PLAN_FILE, RULE_PLAN
from datasites.study.proposal import Proposal
from orchestrator.studies.proposing.constants import ConstantsFile
from privacy.canonical import sha256_hex
from privacy.errors import InvalidInput

PLAN_TEXT = '''"""What this study asks for.

The plan is declarative: every datasite trains the model named in the proposal with its own, already reviewed
Tessera code (see `environment.code_hash` in the proposal). No code of this job ever sees a record.
"""
'''


@dataclass(frozen=True, kw_only=True)
class Brought:
    """``tree`` has the files of own code, ``constants`` those of public tables; without any settings make the study."""

    tree: Mapping[str, bytes] = field(default_factory=dict)
    constants: ConstantsFile | None = None

    @property
    def files(self) -> Mapping[str, bytes]:
        """The files that hospitals get: the own code, or one that says that there is none."""
        return self.tree or {PLAN_FILE: PLAN_TEXT.encode()}

    @property
    def network(self) -> bool:
        """Whether a network of one's own is among them; otherwise the model is Tessera's, with its blocks."""
        return bool(self.tree) and self.tree.get(PLAN_FILE) != RULE_PLAN.encode()

    @property
    def code(self) -> dict[str, str]:
        """The SHA-256 of each of these files, as the proposal binds them."""
        return {name: sha256_hex(data) for name, data in sorted(self.files.items())}

    @property
    def key(self) -> str:
        """A hash of everything that is brought; empty where nothing is."""
        parts = [json.dumps(self.code)] if self.tree else []
        parts += [self.constants.constants_hash] if self.constants else []
        return sha256_hex("".join(parts).encode()) if parts else ""


NOTHING = Brought()
"""What a study brings that is made of settings alone."""


def keep_tree(home: Home, proposal: Proposal, brought: Brought) -> None:
    """Keep own code in the orchestrator's home, so that it can be sent again."""
    for name, data in brought.tree.items():
        write_atomically(_folder(home, proposal) / name, data)


def files_of(home: Home, proposal: Proposal) -> dict[str, bytes]:
    """Return the files that hospitals get with a proposal.

    Raises:
        InvalidInput: own code is not here any more, or is not the approved one.
    """
    if proposal.plan.kind == "declarative":
        return {PLAN_FILE: PLAN_TEXT.encode()}
    from datasites.syft.client import read_tree  # loads PySyft

    files = read_tree(_folder(home, proposal)) if _folder(home, proposal).is_dir() else {}
    if {name: sha256_hex(data) for name, data in files.items()} != dict(proposal.plan.code):
        raise InvalidInput(f"the code of {proposal.study!r} is not in this folder as it was proposed; put it back")
    return files


def _folder(home: Home, proposal: Proposal) -> Path:
    return home.folder / "plans" / proposal.proposal_hash[:16]
