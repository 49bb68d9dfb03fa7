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

from datasites.node.web.charts import Picture
from datasites.study.text import delta_text, epsilon_text

_STYLE = Path(__file__).parent / "static" / "report.css"


def render_page(template: Path, **values: Any) -> bytes:
    """Return a web page without script and without any address outside it; the style sheet is part of it."""
    return _environment(template.parent).get_template(template.name).render(**values).encode()


def inlined(pictures: Sequence[Picture]) -> dict[str, dict[str, str]]:
    """Return the pictures by name, as a page embeds them."""
    return {
        p.name: {"data": base64.b64encode(p.svg).decode(), "caption": p.caption, "alternative": p.alternative}
        for p in pictures
    }


def render_pdf(template: Path, view: Mapping[str, Any], pictures: Sequence[Picture]) -> bytes:
    """Return a PDF (tagged, PDF/UA-1) that typst sets.

    Args:
        template: a typst file; it reads ``view.json`` and the pictures by their names.
        view: what the template shows; the texts of the pictures are added to it, by name, as ``pictures``.
        pictures: drawn already.
    """
    import typst

    texts = {p.name: {"caption": p.caption, "alternative": p.alternative} for p in pictures}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for picture in pictures:
            (folder / picture.name).write_bytes(picture.svg)
        (folder / "view.json").write_text(json.dumps({**view, "pictures": texts}, allow_nan=False))
        (folder / template.name).write_bytes(template.read_bytes())
        document: bytes = typst.compile(
            str(folder / template.name), root=str(folder), format="pdf", pdf_standards=["ua-1"]
        )
    return document


@lru_cache(maxsize=4)
def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals |= {"number": epsilon_text, "small": delta_text}
    environment.globals["css"] = Markup(_STYLE.read_text())  # noqa: S704 - our own style sheet
    return environment
