"""Names and purposes in any script are in all three formats of every report."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.report_story import Story, told_story

from datasites import report as reporting
from datasites.hospital import reports as hospital_reports
from datasites.node.web import fonts
from datasites.report import writing
from privacy.errors import TesseraError

NAMES = {
    "japanese": "東京大学医学部附属病院",
    "chinese": "北京协和医院",
    "korean": "서울대학교병원",
    "arabic": "مستشفى الملك فيصل التخصصي",
    "emoji": "Klinik 🏥🧬",
}
PURPOSE = "がんの病期分類 / 癌症分期 / 암 병기 결정 / تحديد مرحلة السرطان / 🧬📈 / staging"


@pytest.fixture
def story(new_desk, new_proposal, now) -> Story:
    return told_story(new_desk, new_proposal, now)


def renamed(request: Any) -> Any:
    """The same request from institutions all over the world."""
    plain = request.proposal
    people = [dataclasses.replace(p, institution=i) for p, i in zip(plain.participants, NAMES.values(), strict=False)]
    keyholder = dataclasses.replace(plain.keyholder, institution=NAMES["arabic"])
    orchestrator = dataclasses.replace(plain.orchestrator, institution=NAMES["emoji"])
    changes = {"participants": tuple(people), "keyholder": keyholder, "orchestrator": orchestrator, "purpose": PURPOSE}
    return dataclasses.replace(request, proposal=dataclasses.replace(plain, **changes))


def built(story: Story, language: str = "en") -> reporting.Report:
    requests = [renamed(request) for request in story.desk.store.requests()]
    return story.build(institution=" ".join(NAMES.values()), requests=requests, language=language)


def test_every_script_is_in_all_three_formats_and_languages(story: Story, tmp_path: Path) -> None:
    for language in ("en", "de", "fr"):
        report = built(story, language)
        html, pdf, data = reporting.write_all(report, tmp_path)
        page, plain = html.read_text(), json.loads(data.read_text())
        for name in NAMES.values():
            assert name in page and name in json.dumps(plain, ensure_ascii=False)
        assert "font-family: 'Tessera Letters'" in page
        assert pdf.read_bytes().startswith(b"%PDF-")


@pytest.mark.skipif(shutil.which("pdffonts") is None, reason="needs poppler's pdffonts")
def test_the_pdf_brings_the_fonts_of_every_script(story: Story, tmp_path: Path) -> None:
    report = built(story)
    reporting.write_pdf(report, tmp_path / "r.pdf")
    found = subprocess.run(["pdffonts", str(tmp_path / "r.pdf")], check=True, capture_output=True, text=True).stdout
    assert all(name in found for name in ("NotoSansCJK", "NotoSansArabic", "NotoEmoji"))


def test_a_letter_that_no_font_has_is_shown_as_its_code_point(story: Story, tmp_path: Path) -> None:
    hieroglyph = "\U00013000"
    assert fonts.printable(f"Klinik {hieroglyph} 東京") == "Klinik [U+13000] 東京"
    reporting.write_pdf(story.build(institution=f"Klinik {hieroglyph}"), tmp_path / "r.pdf")


def test_no_json_waits_for_a_page_or_a_pdf(story: Story, tmp_path: Path, monkeypatch) -> None:
    def there(suffix: str) -> list[str]:
        return sorted(path.name for path in tmp_path.glob(f"*.{suffix}"))

    def broken(*_: Any, **__: Any) -> bytes:
        assert {path.name for path in tmp_path.glob("*.json")} == {
            f"privacy-report{c}.json" for c in ("", ".de", ".fr")
        }
        raise TesseraError("the PDF could not be set")

    monkeypatch.setattr(writing, "render_pdf", broken)
    reports = [(story.build(language=language), lambda document: document) for language in ("en", "de", "fr")]
    paths, problem = hospital_reports._written(reports, tmp_path)
    assert paths == () and "could not be set" in str(problem)
    assert there("html") == ["privacy-report.de.html", "privacy-report.fr.html", "privacy-report.html"]
