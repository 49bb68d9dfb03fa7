"""What a reader gets out of the PDF, by poppler's tools."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.report_story import Story, told_story

from datasites import report as reporting
from datasites.review.environment import current_environment


@pytest.fixture
def story(new_desk, new_proposal, now) -> Story:
    return told_story(new_desk, new_proposal, now)


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs poppler's pdftotext")
def test_a_hash_can_be_copied_from_the_pdf(story: Story, tmp_path: Path) -> None:
    report = story.build(environment=current_environment())
    reporting.write_pdf(report, tmp_path / "r.pdf")
    command = ["pdftotext", "-layout", str(tmp_path / "r.pdf"), "-"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "\u200b" not in text
    for chain in report.chains:
        assert all(value in text for value in (chain.head, chain.signature, chain.public_key))
    assert all(s.proposal_hash in text and s.code_hash in text for s in report.studies)
    assert "torch" in text and report.fingerprint in text
