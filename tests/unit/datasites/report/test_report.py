"""The privacy report over a whole story: two approved studies, one denied, a count, a release by hand, a failure."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.report_story import LOCAL, SECRET_CASES, SHARED, Story, approved, play, told_story

from datasites import report as reporting
from datasites.report.facts import Epsilon
from datasites.report.shown import presentable
from datasites.report.words import certainty, odds
from datasites.review.environment import current_environment
from datasites.study.text import delta_text, epsilon_text
from privacy.errors import Refused
from privacy.ledger.costs import gaussian_cost
from privacy.ledger.ledger import Ledger, case_hash

SCHEMA = Path(__file__).parents[4] / "docs" / "schemas" / "privacy-report.schema.json"


@pytest.fixture
def story(new_desk, new_proposal, now) -> Story:
    return told_story(new_desk, new_proposal, now)


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
    assert "one noised, encrypted update of a model in each of 10 rounds. 5 of them came with noised losses" in left
    assert "(2 take part) was decrypted, by Notary office" in left and "1 noised count of patients" in left
    assert "Legal basis: DPIA 2026-017" in left and "dr-weber may have the model" in left


def test_the_report_says_what_was_spent_against_readers_of_sums(
    story: Story, new_proposal, now, tmp_path: Path
) -> None:
    plain = dataclasses.replace(LOCAL, sampling_rate=1.0, steps_per_round=1, losses=None)
    study = new_proposal(study="sums", mechanism=plain, rounds=10, nonce="5" * 32)
    study = dataclasses.replace(study, training=dataclasses.replace(study.training, update_bound=0.01))
    play(story, approved(story, study, now), rounds=10)
    found = story.build().studies[-1]
    assert found.readers_of_sums and all(f.epsilon.value < found.spent.value for f in found.readers_of_sums)
    reporting.write_html(story.build(), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    for figure in found.readers_of_sums:
        assert figure.label in page and "Spent, against those who read sums only" in page


def test_the_headline_says_what_was_kept_and_what_that_means(story: Story) -> None:
    report = story.build()
    spent = epsilon_text(report.populations[0].spent.value)
    assert f"at most ε {spent} of 8.00 was used for any patient" in report.summary.verdict
    assert f"more than {certainty(report.populations[0].spent.value)} sure" in report.summary.verdict


def test_a_report_names_its_number_period_product_and_policy(story: Story) -> None:
    report = story.build(policy_hash="ab" * 32, environment=current_environment())
    journal, ledger = story.desk.journal.head.index, story.ledger.head.index
    assert report.number == f"alba-J{journal}-L{ledger}"
    assert report.since == min(next(iter(story.ledger.entries())).at, next(iter(story.desk.journal.entries())).at)
    shown = {fact["label"]: fact["value"] for fact in presentable(report)["document"]}
    assert shown["Product"] == f"Tessera {report.version}" and shown["Policy in force"] == "ab" * 32
    assert " to " in shown["Period"] and "torch" in report.software[-1].value
    dates = [date.label for date in report.studies[0].dates]
    assert dates == [
        "Request received", "Budget reserved", "First round charged", "Last round charged", "Request expires"
    ]  # fmt: skip
    assert all(line.at for line in report.studies[0].rounds)


def test_one_denial_and_one_revocation_are_two_requests_however_many_rounds_they_end(story: Story, now) -> None:
    second = story.desk.store.requests()[1]
    officer = story.desk.accounts.account("bela")
    story.desk.store.revoke(second.proposal_hash, reviewer=officer, reason="The patients objected.", now=now)
    for number in (6, 7):
        with pytest.raises(Refused) as refused:
            story.desk.store.check_decision(second.proposal_hash, now=now)
        body = {"item": "round", "study": "lung-survival", "round": number, "reason": str(refused.value)}
        story.desk.journal.append("refused", body)
    report = story.build()
    assert [line.kind for line in report.denied].count("request") == 2
    rounds = [line for line in report.denied if line.kind == "rounds"]
    assert [(line.study, line.what) for line in rounds] == [("lung-survival", "rounds 6 and 7 not answered")]
    assert "2 requests turned down" in report.summary.figures[1].note
    assert report.studies[1].state == "revoked" and "Revoked" in {date.label for date in report.studies[1].dates}


def test_nothing_is_hidden_when_a_page_is_printed(story: Story, tmp_path: Path) -> None:
    reporting.write_html(story.build(), tmp_path / "r.html")
    page = Page((tmp_path / "r.html").read_text())
    assert page.all("details") and all("open" in attributes for attributes in page.all("details"))
    for choice in ("approve", "approve with conditions, attached", "refuse"):
        assert f"☐ {choice}" in " ".join(page.words).replace("\xa0", " ")


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
    records = reporting.Records.read(desk.folder, "alba", ledger, desk.journal)
    report = reporting.build_report(site="alba", institution="Hospital Alba", records=records)
    assert report.studies == () and reporting.write_all(report, tmp_path)


def test_a_revoked_study_promises_nothing_once_its_reservation_went_back(story: Story, now) -> None:
    second = story.desk.store.requests()[1]
    officer = story.desk.accounts.account("bela")
    story.desk.store.revoke(second.proposal_hash, reviewer=officer, reason="The patients objected.", now=now)
    before = story.build()
    assert "not yet" in before.studies[1].given_back
    story.ledger.release_reservation(second.proposal_hash, by="bela", reason="revoked: the patients objected")
    after = story.build()
    assert after.studies[1].given_back == "the cost of 3 rounds (revoked: the patients objected)"
    assert after.populations[0].promised_and_spent.value == after.populations[0].spent.value
    assert after.populations[0].acts[-1].what == "lung-survival: the cost of 3 rounds given back"
    assert "lung-survival" not in " ".join(after.summary.sentences)
    assert after.studies[1].dates[-2].label == "Reservation given back"


@pytest.mark.parametrize("language", ["de", "fr"])
def test_a_report_in_another_language_has_no_english_sentence_of_ours(story: Story, language: str) -> None:
    english, other = story.build(), story.build(language=language)
    assert other.language == language and other.summary.verdict != english.summary.verdict
    for part in ("sentences", "limits", "left"):
        ours, theirs = getattr(english.summary, part), getattr(other.summary, part)
        assert len(ours) == len(theirs) and not set(ours) & set(theirs)
    assert not {t.meaning for t in english.terms} & {t.meaning for t in other.terms}
    for ours, theirs in zip(english.studies, other.studies, strict=True):
        assert ours.spent.value == theirs.spent.value and ours.state == theirs.state
        assert not {e.who for e in ours.exposure} & {e.who for e in theirs.exposure}
        assert not {f.label for f in ours.mechanism} & {f.label for f in theirs.mechanism} - {"Evaluation"}
    cap = other.populations[0].acts[0].what
    assert "8,00" in cap and "0,0001" in cap


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
