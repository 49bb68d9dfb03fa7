"""Text from elsewhere that people read before they decide: it has to say what it seems to say.

Unicode can turn the reading direction round, hide letters and break lines where nobody sees it, so that a reviewer
reads one thing and a machine another ("Trojan Source", Boucher and Anderson 2023). Pages and reports also write every
epsilon and delta the same way, with :func:`epsilon_text` and :func:`delta_text`, and that there is none.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence

from datasites.language import tr
from datasites.language.formats import decimal, significant
from models.config import InvalidModel, check_modality
from privacy.errors import InvalidInput
from privacy.sentences import say

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"  # some scripts cannot be written without
_STUDY = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}")


def unseen(text: str, *, besides: str = "") -> Iterator[tuple[int, str]]:
    """Yield place and code point of every character that is not seen, but for those in ``besides``.

    >>> list(unseen("a\\u202eb"))
    [(1, 'U+202E')]
    """
    if text.isascii() and text.isprintable():
        return
    for place, letter in enumerate(text):
        if unicodedata.category(letter) in _UNSEEN and letter not in besides:
            yield place, f"U+{ord(letter):04X}"


def visible(text: str, *, besides: str = "\n\t") -> str:
    """Return ``text`` with what is not seen written out, for terminals and logs, which obey control characters.

    >>> visible("paused\x1b[2J")
    'paused\\x1b[2J'
    """
    hidden = dict.fromkeys(letter for place, _ in unseen(text, besides=besides) for letter in text[place])
    table = str.maketrans({letter: letter.encode("unicode_escape").decode() for letter in hidden})
    return text.translate(table)


def check_name(text: str, what: str) -> str:
    """Return a name that may be shown on one line.

    Raises:
        InvalidInput: empty, or with a character that is not seen.
    """
    return _checked(text, what, besides="")


def check_line(text: str, what: str) -> str:
    """Return a person's name or function in any script, on one line.

    Raises:
        InvalidInput: empty, or with a character that is not seen, other than what joins letters.
    """
    return _checked(text, what, besides=_JOINERS)


def check_prose(text: str, what: str) -> str:
    """Return text of several lines that may be shown.

    Raises:
        InvalidInput: with a character that is not seen, other than line ends and what joins letters.
    """
    return _checked(text, what, besides="\n\t" + _JOINERS) if text else text


def folded(text: str) -> str:
    """Return an institution's name without the differences that make no other institution.

    These are case, spaces, and the many spellings that Unicode has for a text that reads the same (NFKC).

    >>> folded("  Klinik   S\u00dcD ") == folded("klinik su\u0308d")
    True
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(plain.split())


def check_modality_name(name: str) -> str:
    """Return the name of a modality, which stands in file names, on pages and in a model's parameters.

    Raises:
        InvalidInput: anything but small letters, digits and dashes (at most 40), or a reserved name.
    """
    try:
        check_modality(name)
    except InvalidModel as error:
        raise InvalidInput(str(error)) from error
    return name


def check_study_name(name: str) -> str:
    """Return the name of a study, which stands in addresses, logs and file names.

    Raises:
        InvalidInput: anything but 1 to 80 letters, digits, spaces, dots, dashes and underscores of ASCII.
    """
    if not _STUDY.fullmatch(name):
        raise InvalidInput(
            say("expected a study's name of 1 to 80 letters, digits, dots and dashes, got {name!r}", name=name[:80])
        )
    return name


def epsilon_text(value: float | None) -> str:
    """Return an epsilon as people read it; None and infinity are "unbounded".

    >>> epsilon_text(3.2149), epsilon_text(0.0421), epsilon_text(None)
    ('3.21', '0.042', 'unbounded')
    """
    if value is None or math.isinf(value):
        return tr("unbounded")
    if value == 0:
        return "0"
    return decimal(value, 3 if value < 0.1 else 2)


def delta_text(value: float) -> str:
    """Return a delta in full while that is readable, and with a power of ten below 0.000001.

    >>> delta_text(1e-05), delta_text(2e-09)
    ('0.00001', '2 * 10^-9')
    """
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(value))
    if exponent < -6:
        digit = value / 10**exponent
        head = "" if round(digit, 2) == 1 else f"{significant(digit, 2)} * "
        return f"{head}10^{exponent}"
    digits = len(f"{value:.{-exponent + 1}f}".rstrip("0").partition(".")[2])
    return decimal(value, digits)


def self_scaled_text() -> str:
    """Return what a study means for privacy whose hospitals scaled values by statistics of their own patients."""
    return tr(
        "NO PRIVACY: hospitals scaled values by statistics of their own patients, so one patient moves everybody's "
        "inputs; no epsilon can be stated."
    )


def spans(numbers: Sequence[int]) -> str:
    """Return rising numbers with every run of three or more as its ends.

    >>> spans([1, 2, 4, 5, 6, 9])
    '1, 2, 4-6, 9'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    listed = [f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(listed)


def shortened(text: str, longest: int) -> str:
    """Return ``text``, or its beginning with a mark that something was left out.

    >>> shortened("not charged", 6)
    'not c…'
    """
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _checked(text: str, what: str, *, besides: str) -> str:
    hidden = next(unseen(text, besides=besides), None)
    if hidden and hidden[1].startswith("U+DC"):  # a byte that the terminal's encoding could not read
        raise InvalidInput(
            f"expected {what} in letters that this terminal's language can carry, got others; set LANG=C.UTF-8"
        )
    if hidden or not text.strip():
        which = say("the unseen character {character}", character=hidden[1]) if hidden else say("nothing")
        raise InvalidInput(
            say("expected {what} that reads as it is, got {which}; write it in plain letters", what=what, which=which)
        )
    return text
