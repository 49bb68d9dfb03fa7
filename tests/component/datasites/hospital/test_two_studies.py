"""Hospitals that work on two studies at once: every round has everybody, and is charged once."""

from __future__ import annotations

from pathlib import Path

from support.played import Played

from datasites.hospital.rounds.lanes import Lanes


class Laned(Played):
    """Hospitals begin what they are asked to, as their daemons do, and do not wait for it."""

    def __init__(self, folder: Path, *, sites: int) -> None:
        super().__init__(folder, sites=sites)
        self.lanes: dict[str, Lanes] = {}

    def step(self, role: str) -> None:
        if role not in self.names:
            super().step(role)
            return
        hospital = self.hospitals[self.names.index(role)]
        lanes = self.lanes.setdefault(role, Lanes(hospital.participant.handle, lambda: 2))
        try:
            lanes.show(self._queues[role].ask())
            self._queues[role].handled()
        except Exception as error:  # as the loops of the daemons do
            self.failures.append((role, error))


def test_two_studies_side_by_side_lose_nothing_and_are_charged_once(tmp_path: Path) -> None:
    with Laned(tmp_path, sites=3) as played:
        played.open()
        for study in ("a", "b"):
            played.propose(study, length=40, rounds=2)
        for status in [played.play("a"), played.play("b")]:
            assert status["state"] == "finished", status["reason"]
            assert [checkpoint["sites"] for checkpoint in status["checkpoints"]] == [played.names] * 2
        for lanes in played.lanes.values():
            lanes.close(5.0)
        for hospital in played.hospitals:
            entries = hospital.participant.journal.entries(kind="round-charged")
            charged = sorted((str(e.body["study"]), int(e.body["round"])) for e in entries)
            assert charged == [(study, number) for study in "ab" for number in (1, 2)]
