"""TCGA barcodes (which patient, hospital and tissue a file belongs to), and the tables that carry them.

GDC and cBioPortal tables are tab-separated and begin with lines of explanation, which are skipped here.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import TextIO

from privacy.errors import InvalidInput

PRIMARY_TUMOUR = "01"
PRIMARY_TUMOURS = ("01", "03", "09")
"""Sample types of TCGA that are primary: solid tumour, and blood cancers from blood and from marrow."""

_CASE = re.compile(r"TCGA-([A-Z0-9]{2})-[A-Z0-9]{4}")
_SAMPLE = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}-(\d{2})")


def case_of(barcode: str, *, where: str) -> str:
    """Return the case that a barcode or a file name begins with: ``TCGA-BH-A0B3-01A`` gives ``TCGA-BH-A0B3``.

    Args:
        barcode: a case, sample, aliquot or slide barcode, alone or as the beginning of a file name.
        where: what is being read, for the message; the barcode itself is not repeated there.

    Raises:
        InvalidInput: it begins with no case barcode.
    """
    found = _CASE.match(barcode)
    if found is None:
        raise InvalidInput(f"{where}: expected names that begin with a case barcode TCGA-XX-XXXX, found another")
    return found.group(0)


def sample_type(barcode: str) -> str | None:
    """Return the two digits of the tissue (01 primary tumour, 11 normal tissue), or None for a case barcode."""
    found = _SAMPLE.match(barcode)
    return None if found is None else found.group(1)


def tissue_source_site(case: str) -> str:
    """Return the code of the collecting institution, or an empty text where the id is no TCGA barcode."""
    found = _CASE.match(case)
    return "" if found is None else found.group(1)


_MOST_LINES = 1000


def _opened(path: Path) -> TextIO:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def comment_lines(path: Path) -> int:
    """Return how many lines at the beginning of a file start with ``#``.

    Later ones are data: a value may hold that character.

    Raises:
        InvalidInput: the file cannot be read as text.
    """
    try:
        with _opened(path) as lines:
            for number, line in enumerate(lines):
                if not line.startswith("#") or number == _MOST_LINES:
                    return number
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InvalidInput(f"expected a readable text file {path.name}") from error
    return 0
