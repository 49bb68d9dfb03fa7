"""Liars who try everything in any order: no two answered lists of a round ever share the honest hospital.

Played: random steps of an orchestrator, a keyholder and three hospitals that all lie, against one honest hospital and
two honest helpers: lists, commitments, signatures, voids, signatures for good, clearances, keys; helpers and the
hospital are started anew at any moment, and restored to any earlier moment, helpers in one game and the hospital in the
other. A sum can be read once a helper has answered its list, since the keyholder lies; so an answer is what the liars
want.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from harness.consortium import Hospital
from support.helped import H, HelpedStage, J

from datasites.hospital.rounds.beginnings import Beginning
from datasites.study.messages import Arrival, Attestation, Clearance, Commitments, Refusal
from datasites.study.signing import Signed, parse, seal
from privacy.ledger.journal import Journal

K, STEPS = "keyholder", 60


class Liars:
    """One game; ``answered`` are the lists with the honest hospital 0 that a helper answered."""

    def __init__(self, stage: HelpedStage, seed: int) -> None:
        self.stage, self.any = stage, random.Random(seed)  # noqa: S311 - a game that repeats
        self.updates: list[tuple[Signed, bytes]] = []
        self.lists: list[tuple[Signed, tuple[int, ...]]] = []
        self.signed: dict[str, list[Signed]] = {}
        self.voids: dict[str, Signed] = {}
        self.fresh: dict[str, Signed] = {}
        self.cleared: dict[str, list[Signed]] = {H: [], J: []}
        self.copies: list[Path] = []
        self.answered: set[str] = set()
        self.did = Counter[str]()
        for index in (1, 2, 3):
            assert stage.train(index)
        self.own = {i: self.hospital(i).participant.sent_now[(stage.proposal.study, 1)] for i in (1, 2, 3)}
        self.copy()
        self.train()
        self.copy()

    def hospital(self, index: int) -> Hospital:
        return self.stage.consortium.hospitals[index]

    # what the liars do -----------------------------------------------------------------------------------------

    def train(self) -> None:
        stage = self.stage
        if not stage.train(0) and stage.liar.sent["arrival"]:
            newest = stage.liar.sent["arrival"][-1]
            said = parse(Arrival, dict(newest.payload))
            false = Clearance(study=said.study, site=said.site, begun=said.begun, party=K, over=0, without=())
            documents = {"arrival": newest, f"clearance/{K}": self.lie("clearance", false)}
            for name in (H, J):
                self.clear(name)
                if self.cleared[name]:
                    documents[f"clearance/{name}"] = self.any.choice(self.cleared[name][-2:])
            self.did["cleared" if stage.train(0, more=documents) else "not cleared"] += 1
        found = stage.updates.get("site-0"), stage.bodies.get("site-0")
        if found[0] is not None and found not in self.updates:
            self.updates.append(found)  # type: ignore[arg-type]

    def lie(self, kind: str, value: object) -> Signed:
        return seal(self.stage.consortium.homes[K].identity(), kind, value)

    def clear(self, name: str = "") -> None:
        name = name or self.any.choice((H, J))
        if self.stage.liar.sent["arrival"]:
            said = self.stage.ask_clearance(name, self.any.choice(self.stage.liar.sent["arrival"][-2:]))
            self.cleared[name] += [said] if said is not None else []

    def fix(self) -> None:
        if self.updates:
            stage, sites = self.stage, (0, *sorted(self.any.sample((1, 2, 3), self.any.choice((2, 3)))))
            stage.updates["site-0"], stage.bodies["site-0"] = self.any.choice(self.updates)
            stage.keyholder.custody._updates.clear()
            helpers = self.any.choice(((H,), (J,), (H, J)))
            sealed, _ = stage.listed(*sites, asked=(), closing=len(self.lists) + 1, committing=(K, *helpers))
            self.lists.append((sealed, sites))

    def sign(self, kind: str) -> None:
        if not self.lists:
            return
        sealed, _ = self.any.choice(self.lists)
        documents = {"commitments": sealed, **self.stage.commitments[sealed.signature]}
        for number, (other, _) in enumerate(self.lists, 1):
            documents[f"void/{number}/{K}"] = self.stage.false_void(K, (other, []))
            found = {f"void/{number}/{name}": self.voids.get(f"{name} {number}") for name in (H, J)}
            documents |= {place: void for place, void in found.items() if void is not None}
        if kind == "confirm":
            documents = {"commitments": sealed, **{f"refusal/{name}": asked for name, asked in self.fresh.items()}}
        before = len(self.stage.liar.sent["attestation"])
        self.hospital(0).participant.handle(self.stage.item(kind, documents))
        for signed in self.stage.liar.sent["attestation"][before:]:
            self.signed.setdefault(sealed.signature, []).append(signed)
            self.did[kind] += 1

    def void(self) -> None:
        if self.lists:
            number, name = self.any.randrange(len(self.lists)), self.any.choice((H, J))
            said = self.stage.ask_void(name, (self.lists[number][0], []))
            if said is not None:
                self.voids[f"{name} {number + 1}"] = said
                self.did["void"] += 1

    def pads(self) -> None:
        there = [one for one in self.lists if one[0].signature in self.signed]
        if not there:
            return
        (sealed, sites), name = self.any.choice(there), self.any.choice((H, J))
        honest = self.any.choice(self.signed[sealed.signature][-3:])
        signed = [honest]
        for index in sites[1:]:
            self.hospital(index).participant.sent_now[(self.stage.proposal.study, 1)] = self.own[index]
            false = parse(Attestation, dict(self.stage.forged(index, (sealed, [])).payload))
            identity = self.stage.consortium.homes[f"site-{index}"].identity()
            signed.append(seal(identity, "attestation", replace(false, fresh=str(honest.payload.get("fresh", "")))))
        if self.stage.ask_pads(name, (sealed, signed)) is not None:
            self.answered.add(parse(Commitments, dict(sealed.payload)).list_hash)
            self.did["answered"] += 1
            return
        refused = self.stage.liar.sent["refusal"][-1]
        if parse(Refusal, dict(refused.payload)).fresh:
            self.fresh[name] = refused

    def key(self) -> None:
        name, number = self.any.choice((H, J)), self.any.choice((1, 1, 2, 3))
        before = len(self.stage.liar.sent["helper-key"])
        self.stage.helpers[name].handle(replace(self.stage.item("key"), round=number))
        if number == 1 and len(self.stage.liar.sent["helper-key"]) > before:
            self.stage.helper_keys[f"key/{name}"] = self.stage.liar.sent["helper-key"][-1]

    # starts and restores ---------------------------------------------------------------------------------------

    def copy(self) -> None:
        """Copy what the helpers and the honest hospital have on their disks."""
        place, hospital = self.stage.folder / f"copy-{len(self.copies)}", self.hospital(0)
        for name in (H, J):
            shutil.copytree(self.stage.folder / f"{name}-rounds", place / name)
        hospital.participant.journal.close()
        (place / "0").mkdir()
        for file in hospital.home.folder.glob("journal.sqlite*"):
            shutil.copy(file, place / "0" / file.name)
        round_ = hospital.home.round_folder(self.stage.proposal.study, 1)
        if round_.exists():
            shutil.copytree(round_, place / "round")
        self.copies.append(place)

    def restore_helper(self) -> None:
        name = self.any.choice((H, J))
        shutil.rmtree(self.stage.folder / f"{name}-rounds")
        shutil.copytree(self.any.choice(self.copies) / name, self.stage.folder / f"{name}-rounds")
        self.stage.restart_helper(name)

    def restore_hospital(self) -> None:
        place, hospital = self.any.choice(self.copies), self.hospital(0)
        hospital.participant.journal.close()
        for file in hospital.home.folder.glob("journal.sqlite*"):
            file.unlink()
        for file in (place / "0").iterdir():
            shutil.copy(file, hospital.home.folder / file.name)
        round_ = hospital.home.round_folder(self.stage.proposal.study, 1)
        shutil.rmtree(round_, ignore_errors=True)
        if (place / "round").exists():
            shutil.copytree(place / "round", round_)
        journal = Journal(hospital.home.folder / "journal.sqlite", hospital.home.identity())
        again = replace(hospital.participant, journal=journal, sent_now={}, beginning=Beginning())
        self.stage.consortium.hospitals[0] = replace(hospital, participant=again)

    def step(self, restored: str) -> None:
        restore = self.restore_helper if restored == "helpers" else self.restore_hospital
        steps: list[tuple[Callable[[], object], int]] = [
            (self.train, 12),
            (self.fix, 10),
            (lambda: self.sign("attest"), 18),
            (lambda: self.sign("confirm"), 10),
            (self.void, 8),
            (self.pads, 24),
            (self.key, 2),
            (self.clear, 3),
            (self.copy, 5),
            (lambda: self.stage.restart_helper(self.any.choice((H, J))), 4),
            (lambda: self.stage.restart_hospital(0), 2),
            (restore, 6),
        ]
        self.any.choices([act for act, _ in steps], [often for _, often in steps])[0]()


@pytest.mark.parametrize("helped", [{"rounds": 4}], indirect=True, ids=["four rounds"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("restored", ["helpers", "the hospital"])
def test_no_two_answered_lists_share_the_honest_hospital(helped: HelpedStage, restored: str, seed: int) -> None:
    liars = Liars(helped, seed)
    for _ in range(STEPS):
        liars.step(restored)
        assert len(liars.answered) <= 1, liars.did
    assert liars.did["attest"], liars.did
