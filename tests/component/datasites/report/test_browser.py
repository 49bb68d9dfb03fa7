"""Reports in Chromium: axe on every one in every language, printing, and letters without a font of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.pilot_study import NAMES, proposal, status
from support.report_story import Story, told_story
from support.review_desk import NOW, make_desk, make_proposal

from datasites import report as reporting
from datasites.language import LANGUAGES
from datasites.review.policy import Policy
from orchestrator.studies.facts import study_facts
from orchestrator.studies.report import write_study_report

pytestmark = pytest.mark.browser
LONG = "東京大学医学部附属病院 مستشفى الملك فيصل 🏥 " + "Universitätsklinikum" * 4


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    told = told_story(lambda policy: make_desk(folder, Policy.parse(policy)), make_proposal, NOW)
    yield told
    told.ledger.close()
    told.desk.close()


@pytest.fixture(scope="module")
def pages(story: Story, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every report in every language; tests only look at them."""
    folder = tmp_path_factory.mktemp("pages")
    sites = [{"name": n, "epsilon_spent": 3.0, "epsilon_cap": 8.0, "delta": 1e-4} for n in NAMES]
    found = []
    for language in LANGUAGES:
        path = folder / f"privacy.{language}.html"
        reporting.write_html(story.build(institution=LONG, language=language), path)
        facts = study_facts(status(proposal()), sites=sites, curve=[(1, 0.6), (6, 0.7)], language=language)
        found += [path, write_study_report(facts, folder / language)[0]]
    return found


@pytest.mark.parametrize("width", [360, 1200])
def test_axe_finds_no_violation_on_any_report_in_any_language(browser, axe, shoot, pages, width: int) -> None:
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    found, wide = {}, {}
    for path in pages:
        page.goto(path.as_uri())
        found[path.name] = axe(page)
        wide[path.name] = page.evaluate("document.documentElement.scrollWidth")
        shoot(page, f"report-{width}-{path.parent.name}-{path.name}")
    assert {name: problems for name, problems in found.items() if problems} == {}
    assert {name: pixels for name, pixels in wide.items() if pixels > width} == {}


def test_a_printed_report_shows_also_what_a_reader_closed(browser, pages) -> None:
    page = browser.new_context().new_page()
    page.goto(pages[0].as_uri())
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = false")
    page.emulate_media(media="print")
    heights = page.evaluate(
        "[...document.querySelectorAll('details > :last-child')].map(part => part.getBoundingClientRect().height)"
    )
    assert heights and min(heights) > 10
    assert page.locator(".sign-off").is_visible()


def test_a_page_brings_the_letters_that_it_shows(browser, pages) -> None:
    page = browser.new_context().new_page()
    page.goto(pages[0].as_uri())
    page.evaluate("document.fonts.ready")
    loaded = page.evaluate("[...document.fonts].filter(face => face.status === 'loaded').length")
    assert loaded >= 3  # Japanese, Arabic, emoji
