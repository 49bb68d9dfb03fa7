"""The expression files of a GDC folder: which its lists name, which are there and whole, and whose they are.

Lists are ``files.json`` of ``tessera fetch``, GDC's sample sheet, its ``metadata*.json``, and manifests, which say
length and MD5 but not whose a file is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from datasites.data.convert.barcodes import PRIMARY_TUMOURS, sample_type
from datasites.data.reading.sniffing import told
from privacy.errors import InvalidInput

STAR_SUFFIX = ".tsv"
_STAR_NAME = "star_gene_counts"
_STAR_HEAD = b"gene_id\tgene_name"
_OTHER_KINDS = (".htseq.counts", ".fpkm.txt", ".fpkm-uq.txt", ".htseq_counts.txt")
_UNFINISHED = (".part", ".partial", ".crdownload", ".tmp", ".download")
_SIDE = ("clinical", "exposure", "pathology_detail", "family_history", "follow_up", "gdc_sample_sheet", "biospecimen")
_MAX_LIST_BYTES = 512 * 1024**2
_HEAD_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One file that some list names; what no list says is empty. ``refused`` files were not given by the server."""

    name: str
    samples: tuple[str, ...] = ()
    md5: str = ""
    size: int = 0
    refused: bool = False


@dataclass(kw_only=True)
class Expression:
    """The files to read, each with its sample, and what stands against going on, and lines about the others."""

    files: list[tuple[str, Path]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_expression(folder: Path) -> Expression:
    """Return the STAR-counts files of a folder with their samples; a normal sample's is in nobody's way.

    Raises:
        InvalidInput: a list cannot be read.
    """
    listed, found = _listed(folder), Expression()
    paths = _paths(folder)
    present = {_plain(path): path for path in paths}
    expected = [f for f in listed.values() if _is_star(f.name) or f.samples]
    withheld = [f for f in expected if f.refused and f.name not in present]
    absent = [f for f in expected if f.name not in present and not f.refused]
    broken = [f for f in expected if f.name in present and not _whole(present[f.name], f)]
    if absent:
        found.problems.append(
            f"{len(absent)} of the {len(expected)} files that the folder's lists name are not there, the first is "
            f"{absent[0].name}: the download is unfinished; run it again"
        )
    if broken:
        found.problems.append(
            f"{len(broken)} files have another length or MD5 than their list says, the first is {broken[0].name}; "
            "download them again"
        )
    if withheld:
        found.notes.append(f"{len(withheld)} files were refused by the server and are not there")
    _say_others(folder, found)
    unlisted = [p for name, p in present.items() if not (name in listed and listed[name].samples) and _looks_star(p)]
    if unlisted:
        found.problems.append(
            f"no list says whose {len(unlisted)} expression files are, the first is {unlisted[0].name}: put GDC's "
            "sample sheet (gdc_sample_sheet*.tsv) or metadata*.json into the folder"
        )
    spoiled = {f.name for f in broken}
    _choose([f for f in listed.values() if f.name in present and f.name not in spoiled], present, found)
    return found


def _choose(listed: Sequence[Listed], present: Mapping[str, Path], found: Expression) -> None:
    several, others = 0, 0
    for file in listed:
        if len(file.samples) != 1:
            several += bool(file.samples)
        elif sample_type(file.samples[0]) not in (*PRIMARY_TUMOURS, None):
            others += 1
        else:
            found.files.append((file.samples[0], present[file.name]))
    if several:
        found.notes.append(f"{several} files are of several samples each and are left out")
    if others:
        found.notes.append(f"{others} files are of no primary tumour (normal tissue, metastases) and are left out")


def read_list(path: Path) -> list[dict[str, Any]]:
    """Return a JSON list of objects.

    Raises:
        InvalidInput: longer than 512 MiB, no JSON, or no such list.
    """
    if path.stat().st_size > _MAX_LIST_BYTES:
        raise InvalidInput(f"{path.name}: expected at most {_MAX_LIST_BYTES} bytes")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path.name}: expected JSON, could not read it") from error
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidInput(f"{path.name}: expected a list of objects")
    return value


def column_of(table: pd.DataFrame, names: Sequence[str], where: str) -> pd.Series:
    """Return the first of some columns that a table has.

    Raises:
        InvalidInput: it has none.
    """
    for name in names:
        if name in table.columns:
            return table[name]
    raise InvalidInput(f"{where}: expected a column {' or '.join(names)}, found none")


def beside(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a folder and of its sub-folders whose name fits, hidden ones left out."""
    found = [*folder.glob(pattern), *folder.glob(f"*/{pattern}")]
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def _listed(folder: Path) -> dict[str, Listed]:
    found: dict[str, Listed] = {}
    for file in _named(folder):
        name = file.name.removesuffix(".gz")
        before = found.get(name, Listed(name=name))
        found[name] = replace(
            before,
            samples=file.samples or before.samples,
            md5=file.md5 or before.md5,
            size=file.size or before.size,
            refused=file.refused or before.refused,
        )
    return found


def _named(folder: Path) -> Iterator[Listed]:
    for path in beside(folder, "*sample_sheet*.tsv"):
        sheet = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        names = column_of(sheet, ("File Name", "file_name"), path.name)
        for name, sample in zip(names, column_of(sheet, ("Sample ID", "sample_id"), path.name), strict=True):
            samples = tuple(dict.fromkeys(part.strip() for part in sample.split(",") if part.strip()))
            yield Listed(name=name.strip(), samples=samples)
    for path in beside(folder, "metadata*.json"):
        for file in read_list(path):
            entities = file.get("associated_entities") or []
            samples = tuple(str(e.get("entity_submitter_id", "")) for e in entities if isinstance(e, dict))
            size = file.get("file_size")
            yield Listed(
                name=str(file.get("file_name")),
                samples=samples,
                md5=str(file.get("md5sum") or ""),
                size=size if isinstance(size, int) else 0,
            )
    for path in beside(folder, "*[mM][aA][nN][iI][fF][eE][sS][tT]*.txt"):
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        if {"id", "filename"} <= set(table.columns):
            for row in table.to_dict("records"):
                size = str(row.get("size", ""))
                name = Path(str(row["filename"])).name
                yield Listed(name=name, md5=str(row.get("md5", "")), size=int(size) if size.isdecimal() else 0)
    if (folder / "files.json").exists():
        for file in read_list(folder / "files.json"):
            sample = str(file.get("sample") or "")
            yield Listed(
                name=str(file.get("file_name")), samples=(sample,) if sample else (), refused=bool(file.get("refused"))
            )


def _paths(folder: Path) -> list[Path]:
    found = [path for suffix in (STAR_SUFFIX, f"{STAR_SUFFIX}.gz") for path in folder.rglob(f"*{suffix}")]
    return sorted(path for path in found if not path.name.startswith((".", *_SIDE)) and "sample_sheet" not in path.name)


def _plain(path: Path) -> str:
    return path.name.removesuffix(".gz")


def _is_star(name: str) -> bool:
    return name.endswith(STAR_SUFFIX) and _STAR_NAME in name


def _looks_star(path: Path) -> bool:
    if _STAR_NAME in path.name:
        return True
    try:
        with path.open("rb") as file:
            return _STAR_HEAD in file.read(_HEAD_BYTES)
    except OSError:
        return False


def _whole(path: Path, listed: Listed) -> bool:
    if path.name.endswith(".gz") != listed.name.endswith(".gz") and path.name.endswith(".gz"):
        return True  # packed by somebody else: what the list says is of the unpacked file
    if listed.size and path.stat().st_size != listed.size:
        return False
    with path.open("rb") as content:
        if listed.md5 and told(content.read(_HEAD_BYTES)):
            return True  # no table at all: reading it says what it is
        content.seek(0)
        digest = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return not listed.md5 or digest == listed.md5.lower()


def _say_others(folder: Path, found: Expression) -> None:
    half = [p for p in folder.rglob("*") if p.is_file() and p.name.lower().endswith(_UNFINISHED)]
    if half:
        found.problems.append(
            f"{len(half)} downloads are unfinished, the first is {half[0].name}; run the download again"
        )
    older = [p for p in folder.rglob("*") if p.name.lower().removesuffix(".gz").endswith(_OTHER_KINDS)]
    if older:
        found.problems.append(
            f"{len(older)} expression files are of another workflow (HTSeq, as {older[0].name}), which is not read; "
            "download those of the workflow `STAR - Counts`"
        )
    packed = [p for pattern in ("*.tar.gz", "*.tgz", "*.tar", "*.zip") for p in folder.glob(pattern)]
    if packed:
        found.problems.append(f"{packed[0].name} is an archive and is not read; unpack it")
