"""Who helps in a proposed study, and when its rounds are published."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from datasites.portal.shown.words import summary
from datasites.study.proposal import DatasetReference, Party, Proposal
from datasites.study.signing import dump, parse
from orchestrator.demo import demo
from orchestrator.studies import run
from orchestrator.studies.proposing.propose import build_proposal
from orchestrator.studies.proposing.settings import Offer, StudySettings
from privacy.errors import InvalidInput

NAMES = ("alba", "bruna", "corva", "dorna")
HELPERS = tuple(
    Party(name=f"helper-{name}", institution=f"Hospital {name}", public_key=f"{i + 7}" * 64)
    for i, name in enumerate(NAMES[:2])
)
SETTINGS = StudySettings(
    study="pilot",
    purpose="To test who helps.",
    legal_basis="None needed.",
    task="early-late",
    rounds=20,
    noise="shared",
)


def offers() -> list[Offer]:
    return [
        Offer(
            party=Party(name=name, institution=f"Hospital {name}", public_key=f"{i}" * 64),
            cohort="LUSC",
            modalities=("mrna", "clinical"),
            dataset=DatasetReference(
                name=f"{name}-lung", version=1, fingerprint="a" * 64, schema_hash="b" * 64, patients=300
            ),
            features={"mrna": 6, "clinical": 3},
            cohorts=("LUSC",),
            task="early-late",
        )
        for i, name in enumerate(NAMES)
    ]


def proposed(helpers: tuple[Party, ...] = HELPERS, **changes: object) -> Proposal:
    made, _ = build_proposal(
        replace(SETTINGS, **changes),  # type: ignore[arg-type]
        offers(),
        orchestrator=Party(name="lang", institution="University", public_key="e" * 64),
        keyholder=Party(name="notary", institution="Notary", public_key="f" * 64),
        helpers=helpers,
        code={},
    )
    return made


def test_a_study_takes_the_rosters_two_helpers_and_publishes_its_rounds() -> None:
    made = proposed()
    assert made.helpers == HELPERS and made.published
    assert parse(Proposal, dump(made)).proposal_hash == made.proposal_hash


@pytest.mark.parametrize("helpers", [(), HELPERS[:1]], ids=["none", "one"])
def test_a_roster_with_fewer_than_two_helpers_gives_a_study_without(helpers: tuple[Party, ...]) -> None:
    made = proposed(helpers)
    assert not made.helpers and not made.published
    assert "helpers" not in dump(made) and "published" not in dump(made)  # as before there were helpers


def test_a_study_can_do_without_helpers_and_keep_its_keys() -> None:
    assert not proposed(helpers=HELPERS, **{"publish": False}).published
    bare = replace(SETTINGS, helpers=0)
    made, _ = build_proposal(
        bare,
        offers(),
        orchestrator=Party(name="lang", institution="University", public_key="e" * 64),
        keyholder=Party(name="notary", institution="Notary", public_key="f" * 64),
        helpers=HELPERS,
        code={},
    )
    assert not made.helpers


def test_more_helpers_than_there_are_is_an_error() -> None:
    wishes = replace(SETTINGS, helpers=2)
    with pytest.raises(InvalidInput, match="tessera helper init"):
        build_proposal(
            wishes,
            offers(),
            orchestrator=Party(name="lang", institution="University", public_key="e" * 64),
            keyholder=Party(name="notary", institution="Notary", public_key="f" * 64),
            code={},
        )


def test_rounds_that_colluders_could_read_are_not_published() -> None:
    """Orchestrator and two hospitals with the two helpers read single updates of a published round."""
    made = proposed(colluders=2, min_sites=4)
    assert made.helpers == HELPERS and not made.published
    with pytest.raises(InvalidInput, match="take a helper from outside"):
        replace(made, published=True)
    outside = (HELPERS[0], replace(HELPERS[1], institution="A university"))
    assert proposed(outside, colluders=2, min_sites=4).published


def test_the_approval_page_says_who_helps_and_what_it_means_that_nobody_does() -> None:
    text = " ".join(summary(proposed(), "corva", None))
    assert "no two parties together read a single update" in text
    assert "helper-alba of Hospital alba and helper-bruna of Hospital bruna" in text
    assert "every hospital recomputes the sum" in text
    bare = " ".join(summary(proposed(()), "corva", None))
    assert "No helpers hold part of the pads: orchestrator and keyholder together could read" in bare


@pytest.mark.parametrize("helpers", [(), HELPERS], ids=["none", "two"])
def test_whoever_proposes_is_told_what_it_means_that_nobody_helps(
    monkeypatch: pytest.MonkeyPatch, helpers: tuple[Party, ...]
) -> None:
    """The commands `propose` and `study run`, and the demo."""
    notes = list[str]()
    progress: Any = SimpleNamespace(step=lambda _: None, note=notes.append)
    fakes = {"client_of": lambda *_, **__: nullcontext(), "scientist": lambda *_: None, "_check_new": lambda *_: None}
    fakes |= {"offers_of": lambda *_, **__: (), "submit": lambda *_: proposed(helpers)}
    for name, fake in fakes.items():
        monkeypatch.setattr(run, name, fake)
        monkeypatch.setattr(demo, name, fake, raising=False)
    monkeypatch.setattr(run, "Draft", SimpleNamespace(find=lambda *_: None))
    monkeypatch.setattr(demo, "_study", lambda *_: None)
    monkeypatch.setattr(demo, "new_link", lambda _: "link")
    home: Any = SimpleNamespace(orchestrator=None)
    run.propose(home, SETTINGS, progress, sites=("alba",))
    said = [note for note in notes if note.startswith("No helpers hold part of the pads")]
    shown: Any = SimpleNamespace(sites=(), federation=SimpleNamespace(task="", lost=()))
    parts: Any = {"settings": None, "homes": home, "stewards": [], "processes": SimpleNamespace(check=None)}
    demo._Demo(progress=progress, prepared=shown, client=SimpleNamespace(), **parts)._propose()  # type: ignore[arg-type]
    assert len([note for note in notes if note.startswith("No helpers")]) == 2 * (not helpers)
    for line in said:
        assert "orchestrator and keyholder together could read every single update" in line
        assert "tessera helper init" in line and "--helpers 2" in line and "\n" not in line
