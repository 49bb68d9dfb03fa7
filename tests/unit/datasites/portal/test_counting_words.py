"""What people read before they decide on statistics."""

from __future__ import annotations

import pytest
from support.counting import counting

from datasites.language.catalog import speaking
from datasites.portal.shown.words import summary


@pytest.mark.parametrize(("language", "words"), [("en", "No model is trained"), ("de", "kein Modell"), ("fr", "Aucun")])
def test_a_counting_study_is_no_training(language, words, new_proposal):
    with speaking(language):
        text = " ".join(summary(counting(new_proposal), "alba", None))
    assert words in text and "patients" in text
    if language == "en":
        assert "asks for statistics" in text and "a patient counts in it once at most" in text
        assert (
            "The noised statistics go to" in text and "the round sends counts" in text and "trained model" not in text
        )
