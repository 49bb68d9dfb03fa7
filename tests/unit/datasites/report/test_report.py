"""The privacy report over a whole story: two approved studies, one denied, a count, a release by hand, a failure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from datasites import report as reporting
from datasites.report.facts import Epsilon
from datasites.report.words import odds
from datasites.study.text import delta_text, epsilon_text
from privacy.dp.mechanism import HistogramRelease, LossRelease, Mechanism
from privacy.ledger.costs import gaussian_cost
from privacy.ledger.ledger import Ledger, case_hash

SCHEMA = Path(__file__).parents[4] / "docs" / "schemas" / "privacy-report.schema.json"
SECRET_CASES = [f"TCGA-AB-{n:04d}" for n in range(173)]
LOCAL = Mechanism(
    max_grad_norm=1.0,
    noise_multiplier=3.2,
    sampling_rate=0.2,
    steps_per_round=4,
    rounds=10,
    target_delta=1e-4,
    losses=LossRelease(every_rounds=2, bound=2.0, noise_multiplier=25.0),
)
SHARED = Mechanism(
    max_grad_norm=1.0,
    noise_multiplier=2.5,
    sampling_rate=0.25,
    steps_per_round=1,
    rounds=8,
    target_delta=1e-4,
    noise="shared",
    max_parameters=20_000,
    evaluation=HistogramRelease(every_rounds=8, noise_multiplier=20.0),
)


@dataclasses.dataclass
class Story:
    desk: Any
    ledger: Ledger
    population: str

    def build(self, **changes: Any) -> reporting.Report:
        fields = {
            "site": "alba",
            "institution": "Hospital Alba",
            "folder": self.desk.folder,
            "ledger": self.ledger,
            "journal": self.desk.journal,
            "requests": self.desk.store.requests(),
        }
        return reporting.build_report(**{**fields, **changes})


class Calendar:
    """A clock that moves on a few days with every look."""

    def __init__(self, start: dt.datetime) -> None:
        self.now = start

    def __call__(self) -> dt.datetime:
        self.now += dt.timedelta(days=2, hours=5)
        return self.now


@pytest.fixture
def story(new_desk, new_proposal, now) -> Story:
    desk = new_desk('[noise]\nmodes = ["local", "shared"]\n[review]\nrequired_reviewers = 2')
    ledger = Ledger(desk.folder / "ledger.sqlite", desk.store._identity, clock=Calendar(now))
    population = ledger.register_dataset("alba-lung", 1, [case_hash(b"k" * 32, case) for case in SECRET_CASES])
    ledger.set_cap(population, epsilon=8.0, delta=1e-4, by="Dr. Rossi", reason="Ethics board, minute 12 of 2026")
    count = {"name": "count of alba-lung version 1", "by": "publishing", "reason": "the number that scientists see"}
    ledger.release(population, cost=gaussian_cost(10.0), **count)
    desk.journal.append("count-released", {"dataset": "alba-lung", "version": 1, "patients": 181})
    told = Story(desk, ledger, population)
    first = approved(told, new_proposal(mechanism=LOCAL, rounds=10), now)
    play(told, first, rounds=10, failed=7)
    second = new_proposal(study="lung-survival", mechanism=SHARED, noise="shared", rounds=8, nonce="1" * 32)
    play(told, approved(told, second, now), rounds=5)
    denied = desk.submit(new_proposal(study="insurance-risk", purpose="Price risks.", nonce="2" * 32))
    desk.store.deny(denied, reviewer=desk.accounts.account("bela"), reason="No purpose of care.", now=now)
    return told


def approved(story: Story, proposal: Any, now: dt.datetime) -> Any:
    proposal_hash = story.desk.submit(proposal)
    story.desk.approve(proposal_hash, "anna")
    story.desk.approve(proposal_hash, "bela")
    plan = proposal.mechanism
    story.ledger.reserve(story.population, study=proposal.study, proposal_hash=proposal_hash, plan=plan)
    return proposal


def play(story: Story, proposal: Any, *, rounds: int, failed: int = 0) -> None:
    journal, ledger = story.desk.journal, story.ledger
    for number_of_round in range(1, rounds + 1):
        ledger.charge(proposal.proposal_hash, number_of_round)
        where = {"study": proposal.study, "round": number_of_round}
        if number_of_round == failed:
            journal.append("worker-failed", where)
        releases = {"loss/fused": 0.61} if proposal.mechanism.releases_losses(number_of_round) else {}
        journal.append("update-encrypted", {**where, "body_hash": "0" * 64, "bytes": 262_144, "releases": releases})
        heads = {"alba": {"journal": journal.head.hash, "ledger": ledger.head.hash}}
        journal.append("attested", {**where, "heads": heads})


def test_the_report_says_what_the_first_round_of_a_centred_study_was_asked_for(story: Story, new_proposal, now) -> None:
    plain = new_proposal(study="means")
    approved(story, dataclasses.replace(plain, model=dataclasses.replace(plain.model, centred=True)), now)
    facts = {f.label: f.value for f in story.build().studies[-1].mechanism}
    assert "averages in a gradient's place" in facts["Round 1"]
    assert "Round 1" not in {f.label for f in story.build().studies[0].mechanism}


def test_the_report_tells_the_whole_story(story: Story) -> None:
    report = story.build()
    assert report.summary.tone == "good" and "kept" in report.summary.verdict
    first, second = report.studies
    assert (first.state, second.state) == ("finished", "running")
    assert first.spent.value == pytest.approx(LOCAL.epsilon(1e-4))
    assert second.spent.value == pytest.approx(SHARED.epsilon(1e-4, rounds=5))
    assert second.worst_case.value == pytest.approx(SHARED.epsilon(1e-4))
    assert first.spent.value < first.two_hospitals.value < 2 * first.spent.value
    assert first.without_colluders is None and second.without_colluders.value < second.spent.value
    assert "orchestrator working with one other hospital" in second.spent.against
    assert [r.outcome for r in first.rounds][6] == "sent noise only (training failed)"
    assert first.rounds[1].releases == ("loss/fused",)
    assert {p.name for p in first.people} >= {"anna"} and first.legal_basis.startswith("DPIA")
    assert [(d.study, d.by, d.what) for d in report.denied] == [("insurance-risk", "bela", "study denied")]
    assert [r.guarantee for r in report.releases] == ["noised and charged"]
    assert all(chain.holds and chain.countersigned_heads == 15 for chain in report.chains)
    assert report.watermarks == ()
    left = " ".join(report.summary.left)
    assert "one noised, encrypted update of a model in each of 10 rounds (with noised losses or scores in 5" in left
    assert "(2 take part) was decrypted, by Notary office" in left and "1 noised count of patients" in left
    assert "Legal basis: DPIA 2026-017" in left and "dr-weber may have the model" in left


def test_every_epsilon_says_at_what_against_whom_and_by_which_accountant(story: Story) -> None:
    found = list(_epsilons(story.build()))
    assert len(found) > 20
    for epsilon in found:
        assert epsilon.delta == 1e-4
        assert epsilon.adjacency.startswith("add or remove") and epsilon.accountant and epsilon.against


def _epsilons(value: Any) -> Any:
    if isinstance(value, Epsilon):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _epsilons(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _epsilons(item)


def test_json_follows_the_published_schema_and_reads_back(story: Story, tmp_path: Path) -> None:
    report = story.build()
    reporting.write_json(report, tmp_path / "r.json")
    jsonschema.validate(json.loads((tmp_path / "r.json").read_text()), json.loads(SCHEMA.read_text()))
    assert reporting.read_json(tmp_path / "r.json") == report


def test_the_published_schema_is_that_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text()) == reporting.json_schema()


class Page(HTMLParser):
    """Collects what accessibility needs: headings, images, table headers, links, identifiers, languages."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag in tags]


def test_the_page_is_self_contained_and_accessible(story: Story, tmp_path: Path) -> None:
    reporting.write_html(story.build(), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert not page.all("script", "link", "iframe")
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", text)
    assert page.all("html")[0]["lang"] == "en" and page.all("title")
    images = page.all("img")
    assert len(images) == 2 and all(image["alt"] and image["src"].startswith("data:") for image in images)
    assert all(header["scope"] in ("col", "row") for header in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    levels = [int(tag[1]) for tag, _ in page.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    names = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(names) == len(set(names))
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(names)


def test_what_people_wrote_cannot_become_markup(story: Story, new_proposal, now, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> #eval(1) $x$"
    story.desk.store.deny(
        story.desk.submit(new_proposal(study="evil", nonce="4" * 32)),
        reviewer=story.desk.accounts.account("bela"),
        reason=evil,
        now=now,
    )
    report = story.build()
    reporting.write_html(report, tmp_path / "r.html")
    assert "<script>" not in (tmp_path / "r.html").read_text()
    assert evil in " ".join(Page((tmp_path / "r.html").read_text()).words)
    reporting.write_pdf(report, tmp_path / "r.pdf")  # typst reads it as data


def test_no_exact_count_and_no_patient_leaves_in_a_report(story: Story, tmp_path: Path) -> None:
    html, _, data = reporting.write_all(story.build(), tmp_path)
    for text in (html.read_text(), data.read_text()):
        assert "181" in text  # the noised count
        assert not re.search(r"\b173\b", re.sub(r"data:image[^\"]*", "", text))
        assert "TCGA" not in text and case_hash(b"k" * 32, SECRET_CASES[0]) not in text


def test_the_pdf_is_one_with_pages(story: Story, tmp_path: Path) -> None:
    reporting.write_pdf(story.build(), tmp_path / "r.pdf")
    document = (tmp_path / "r.pdf").read_bytes()
    assert document.startswith(b"%PDF-") and b"/StructTreeRoot" in document
    assert 20_000 < len(document) < 2_000_000


def test_a_public_seed_or_no_noise_is_a_watermark(story: Story, new_proposal, now, tmp_path: Path) -> None:
    story.ledger.set_cap(story.population, epsilon=float("inf"), delta=1e-4, by="Dr. Rossi", reason="demonstration")
    naked = dataclasses.replace(LOCAL, noise_multiplier=0.0, rounds=2)
    proposal = new_proposal(study="naked", mechanism=naked, rounds=2, seed=7, nonce="5" * 32)
    story.desk.submit(proposal)
    hashed = proposal.proposal_hash
    story.ledger.reserve(story.population, study="naked", proposal_hash=hashed, plan=naked)
    play(story, proposal, rounds=1)
    report = story.build()
    assert len(report.watermarks) == 2 and report.summary.tone == "bad"
    assert report.studies[-1].spent.value is None and "public seed" in report.populations[0].spent.against
    assert "no bound" in report.summary.sentences[0]
    assert {e.bound for e in report.studies[-1].exposure} == {"none", "none: the noise is public"}
    html, _, data = reporting.write_all(report, tmp_path)
    assert "NO PRIVACY" in html.read_text() and "unbounded" in html.read_text()
    jsonschema.validate(json.loads(data.read_text()), json.loads(SCHEMA.read_text()))


def test_releases_by_hand_imports_and_broken_records_come_first(story: Story) -> None:
    story.ledger.release_without_guarantee(story.population, name="a plot", by="Dr. Rossi", reason="for the board")
    story.ledger.import_spend(story.population, name="survey", cost=gaussian_cost(20.0), by="Dr. Rossi", reason="2019")
    report = story.build()
    assert report.summary.tone == "watch" and "by hand" in report.summary.verdict
    assert [r.epsilon is None for r in report.releases] == [False, False, True]
    (story.desk.folder / "ledger.sqlite.head").unlink()
    assert "do not verify" in story.build().summary.verdict


def test_a_datasite_without_any_study_has_a_report(new_desk, tmp_path: Path) -> None:
    desk = new_desk()
    ledger = Ledger(desk.folder / "ledger.sqlite", desk.store._identity)
    fields = {"site": "alba", "institution": "Hospital Alba", "folder": desk.folder}
    report = reporting.build_report(ledger=ledger, journal=desk.journal, **fields)
    assert report.studies == () and reporting.write_all(report, tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "unbounded"), (0.0, "0"), (0.0312, "0.031"), (3.14159, "3.14"), (float("inf"), "unbounded")],
)
def test_epsilons_are_written_for_people(value: float | None, text: str) -> None:
    assert epsilon_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(1e-5, "0.00001"), (2.5e-4, "0.00025"), (1e-9, "10^-9"), (0.0, "0")])
def test_deltas_are_written_for_people(value: float, text: str) -> None:
    assert delta_text(value) == text


def test_the_odds_are_those_of_the_definition() -> None:
    assert "at most 75 % sure" in odds(1.0986, 1e-5)  # e^1.0986 = 3, three to one
    assert "no bound" in odds(None, 1e-5)
