"""``tessera datasite extract``: from a hospital's systems to private tables that ``ingest`` reads."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from datasites.node.commands import JsonOption, console, show
from privacy.errors import InvalidInput

URL = "TESSERA_SQL_URL"
_MOST_BYTES = 1 << 20


def extract(
    kind: Annotated[str, typer.Argument(help="sql, omop, fhir or h5ad.")],
    source: Annotated[Path, typer.Argument(help="A file with one SELECT, a folder of OMOP or FHIR files, an .h5ad.")],
    out: Annotated[Path, typer.Option(help="New private folder for the tables.")],
    codes: Annotated[
        Path | None, typer.Option(help="TOML of codes (FHIR) or concept ids (OMOP): code = 'name'.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Write tables from a database, an OMOP or FHIR export or an AnnData file; nothing leaves this machine.

    The database's URL is taken from the variable TESSERA_SQL_URL, never from the command line.
    """
    from datasites.data.sources.anndata import extract_h5ad
    from datasites.data.sources.extraction import extracting
    from datasites.data.sources.fhir import extract_fhir
    from datasites.data.sources.omop import extract_omop
    from datasites.data.sources.sql import extract_sql

    wanted = _codes(codes) if codes else None
    if kind in ("omop", "fhir") and not source.is_dir():
        raise InvalidInput(f"expected a folder of {kind} files at {source}")
    with extracting(out) as made:
        if kind == "sql":
            if not os.environ.get(URL):
                raise InvalidInput(f"expected the database's URL in the variable {URL}")
            extract_sql(os.environ[URL], source, made)
        elif kind == "omop":
            extract_omop(source, made, concepts=wanted)
        elif kind == "fhir":
            extract_fhir(source, made, codes=wanted)
        elif kind == "h5ad":
            extract_h5ad(source, made)
        else:
            raise InvalidInput(f"expected sql, omop, fhir or h5ad, got {kind[:40]!r}")
    for table, rows in sorted(made.rows.items()):
        console.print(f"{table}: {rows} rows", highlight=False)
    for reason, count in made.passed_over.most_common():
        console.print(f"  passed over, {reason}: {count}", highlight=False, markup=False)
    if json_output:
        show({"out": str(out), "rows": dict(made.rows), "passed_over": dict(made.passed_over)})


def _codes(path: Path) -> Mapping[str, str]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InvalidInput(f"{path.name}: expected at most 1 MiB of codes")
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"expected codes in TOML at {path.name}, could not read it") from error
    if not found or not all(isinstance(name, str) and name for name in found.values()):
        raise InvalidInput(f"{path.name}: expected lines such as 2160-0 = 'creatinine'")
    return {str(code): name for code, name in found.items()}
