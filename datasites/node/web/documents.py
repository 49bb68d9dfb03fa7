"""Reports as documents: a self-contained web page, and an accessible PDF of the same pictures."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from datasites.language import LANGUAGES, current, tr, tr_plural
from datasites.language.formats import decimal, moment, percent, significant, whole
from datasites.language.messages import typst_messages
from datasites.node.web import fonts
from datasites.node.web.charts import Picture
from datasites.study.text import delta_text, epsilon_text
from privacy.errors import TesseraError

_STYLE = Path(__file__).parent / "static" / "report.css"
_SHARED = Path(__file__).parent / "templates" / "document.typ"
_LETTERS = "/* letters */"


def render_page(template: Path, **values: Any) -> bytes:
    """Return a web page without script and without any address outside it, in the language that is spoken.

    The style sheet is part of it, and the letters that not every machine has a font for.
    """
    page = _environment(template.parent).get_template(template.name).render(**values, language=current())
    return page.replace(_LETTERS, fonts.embedded(page), 1).encode()


def inlined(pictures: Sequence[Picture]) -> dict[str, dict[str, str]]:
    """Return the pictures by name, as a page embeds them."""
    return {
        p.name: {"data": base64.b64encode(p.svg).decode(), "caption": p.caption, "alternative": p.alternative}
        for p in pictures
    }


def render_pdf(template: Path, view: Mapping[str, Any], pictures: Sequence[Picture]) -> bytes:
    """Return a PDF (tagged, PDF/UA-1) that typst sets, in the language that is spoken.

    Args:
        template: a typst file; it imports ``document.typ``, which reads ``view.json``, and the pictures by their names.
        view: what the template shows. Added to it: the texts of the pictures by name as ``pictures``, the sentences of
            the template as ``texts``, the ``language`` and the ``fonts``. A letter that no font has is shown as its
            code point.
        pictures: drawn already.

    Raises:
        TesseraError: typst could not set it; the message says why.
    """
    import typst

    described = {p.name: {"caption": p.caption, "alternative": p.alternative} for p in pictures}
    sources = {path.name: path.read_text() for path in (template, _SHARED)}
    texts = {message: tr(message) for source in sources.values() for message in typst_messages(source)}
    whole_view = {
        **view, "pictures": described, "texts": texts, "language": current(), "fonts": fonts.families()
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for picture in pictures:
            (folder / picture.name).write_bytes(picture.svg)
        shown = fonts.printable(json.dumps(whole_view, allow_nan=False, ensure_ascii=False))
        (folder / "view.json").write_text(shown)
        for name, source in sources.items():
            (folder / name).write_text(source)
        try:
            document: bytes = typst.compile(
                str(folder / template.name),
                root=str(folder),
                format="pdf",
                pdf_standards=["ua-1"],
                font_paths=[str(path) for path in fonts.folders()],
                ignore_system_fonts=True,
            )
        except typst.TypstError as error:
            raise TesseraError(f"the PDF could not be set: {error}; the page and the JSON were written") from error
    return document


@lru_cache(maxsize=4)
def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals |= {"number": epsilon_text, "small": delta_text, "tr": tr, "tr_plural": tr_plural}
    environment.globals |= {
        "decimal": decimal, "significant": significant, "whole": whole, "percent": percent, "moment": moment
    }  # fmt: skip
    environment.globals["languages"] = LANGUAGES
    environment.globals["css"] = Markup(_STYLE.read_text() + _LETTERS)  # noqa: S704 - our own style sheet
    return environment
