"""Letters of every script for reports: the Noto fonts, from two packages of data.

A report shows names and purposes as people wrote them. PDFs and charts are set with these fonts on every machine alike;
a web page carries the few letters it needs beyond the Latin ones, so that it shows them where no such font is
installed. What no font has is written as its code point, as ``[U+13000]``.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_PACKAGES = ("manimgx_fonts", "manimgx_fonts_cjk")
_CJK = "NotoSansCJK-VF.otf.ttc"
_FIRST = ("NotoSans[wght].ttf", "NotoSansSymbols[wght].ttf", _CJK)
_LAST = "NotoEmoji[wght].ttf"
_PLAIN = ((0x20, 0x4FF), (0x1E00, 0x1FFF), (0x2000, 0x22FF))
"""Code points that every font here and every browser has: Latin, Greek, Cyrillic, punctuation, mathematics."""
_JOINING = frozenset("\ufe0e\ufe0f")
BODY = ("Libertinus Serif", "Noto Sans")


@dataclass(frozen=True)
class Face:
    """One font: its family, its file, and its place in the file."""

    family: str
    path: Path
    number: int = -1


def folders() -> tuple[Path, ...]:
    """Return where the fonts lie."""
    found = (importlib.util.find_spec(package) for package in _PACKAGES)
    return tuple(Path(spec.origin).parent for spec in found if spec is not None and spec.origin is not None)


@lru_cache(maxsize=1)
def faces() -> tuple[Face, ...]:
    """Return the fonts in the order in which a letter is looked for; Chinese characters have their Japanese form."""
    from fontTools.ttLib import TTFont

    files = {path.name: path for folder in folders() for path in folder.glob("*.tt[fc]") if "Italic" not in path.name}
    middle = sorted(set(files) - {*_FIRST, _LAST})
    found = []
    for name in (*_FIRST, *middle, _LAST):
        if name in files:
            number = 0 if name == _CJK else -1
            with TTFont(files[name], fontNumber=number, lazy=True) as font:
                family = font["name"].getBestFamilyName()
            found.append(Face(family.removesuffix(" Thin").removesuffix(" Light"), files[name], number))
    return tuple(found)


def families() -> tuple[str, ...]:
    """Return the families of a document's text, the first preferred."""
    return (*BODY, *(face.family for face in faces() if face.family not in BODY))


def special(text: str) -> frozenset[str]:
    """Return the letters of ``text`` that not every font has."""
    if text.isascii():
        return frozenset()
    return frozenset(c for c in set(text) if ord(c) > 0x7F and not any(a <= ord(c) <= b for a, b in _PLAIN))


def chosen(letters: Iterable[str]) -> dict[Face, str]:
    """Return which fonts are needed for letters, with the letters that each one gives."""
    found: dict[Face, str] = {}
    for letter in sorted(letters):
        face = next((face for face in faces() if ord(letter) in _coverage(face)), None)
        if face is not None and unicodedata.category(letter) not in ("Co", "Cn"):
            found[face] = found.get(face, "") + letter
    return found


def printable(text: str) -> str:
    """Return ``text`` with every letter that no font has as its code point.

    >>> printable("Klinik")
    'Klinik'
    """
    letters = special(text)
    missing = letters - set("".join(chosen(letters).values())) - _JOINING
    return text.translate({ord(letter): f"[U+{ord(letter):04X}]" for letter in missing})


@lru_cache(maxsize=64)
def _coverage(face: Face) -> frozenset[int]:
    from fontTools.ttLib import TTFont

    with TTFont(face.path, fontNumber=face.number, lazy=True) as font:
        font.setGlyphOrder([str(number) for number in range(font["maxp"].numGlyphs)])  # names that need no reading
        return frozenset(font.getBestCmap())


def embedded(text: str) -> str:
    """Return the style sheet that gives a web page the letters of ``text`` beyond the plain ones; often empty.

    The family is called "Tessera Letters". With it, a page needs no font of the machine it is read on.
    """
    parts = [
        "@font-face { font-family: 'Tessera Letters'; font-weight: 100 900; "
        f"src: url(data:font/otf;base64,{base64.b64encode(_subset(face, letters)).decode()}); "
        f"unicode-range: {', '.join(f'U+{ord(letter):X}' for letter in letters)}; }}"
        for face, letters in chosen(special(text)).items()
    ]
    return "\n".join(parts)


@lru_cache(maxsize=64)
def _subset(face: Face, letters: str) -> bytes:
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import TTFont

    options = Options()
    options.layout_features = ["*"]
    subsetter = Subsetter(options)
    subsetter.populate(text=letters + " \u200d\ufe0f")
    buffer = io.BytesIO()
    with TTFont(face.path, fontNumber=face.number, lazy=True) as font:
        subsetter.subset(font)
        font.save(buffer)
    return buffer.getvalue()


@contextmanager
def charted(texts: Iterable[str]) -> Iterator[None]:
    """Let matplotlib draw ``texts`` inside the block: its own font first, then those that the letters need."""
    from matplotlib import rc_context

    needed = [face.family for face in chosen(special("".join(texts)))]
    if needed:
        _register()
    with rc_context({"font.family": ["DejaVu Sans", *needed]}):
        yield


@lru_cache(maxsize=1)
def _register() -> None:
    """Tell matplotlib about the fonts; as it cannot choose a weight of a variable font, every weight is "normal"."""
    import dataclasses

    from matplotlib.font_manager import fontManager

    for face in faces():
        fontManager.addfont(face.path)
    known = {face.path.as_posix() for face in faces()}
    entries: list[Any] = fontManager.ttflist
    entries[:] = [dataclasses.replace(e, weight=400) if Path(e.fname).as_posix() in known else e for e in entries]
