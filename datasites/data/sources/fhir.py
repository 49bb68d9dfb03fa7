"""FHIR Bulk Data: NDJSON files of Patient and Observation, line by line (HL7 FHIR R4, "Bulk Data Access").

``patient`` has a row per patient. Each code of an observation becomes a table of its own with a row per value: patient,
date, value with its unit. Two codes of one name are two tables, the second with its code in its name. Nothing is
converted: the schema knows the units.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from datasites.data.reading.sniffing import what_is
from datasites.data.sources.extraction import Extraction, table_name
from privacy.errors import InvalidInput

_LONGEST_LINE = 4 << 20
_NOT_COUNTED = frozenset({"entered-in-error", "cancelled", "unknown", "registered"})


def extract_fhir(folder: Path, made: Extraction, *, codes: Mapping[str, str] | None = None) -> None:
    """Read every ``*.ndjson`` (also ``.gz``) of a folder.

    Args:
        folder: of a bulk export, as it was downloaded.
        made: gets the tables.
        codes: code to the name of its table and column; others are counted and passed over. Default: every code.

    Raises:
        InvalidInput: no such file, one that is unfinished, or a line that is no JSON object; it is named.
    """
    paths = sorted(p for p in folder.rglob("*") if p.name.lower().endswith((".ndjson", ".ndjson.gz")))
    half = [p for p in folder.rglob("*") if p.name.lower().endswith((".part", ".partial", ".tmp", ".crdownload"))]
    if half:
        raise InvalidInput(f"{len(half)} files are unfinished, the first is {half[0].name}; download them again")
    if not paths:
        raise InvalidInput(f"expected *.ndjson files of a bulk export below {folder.name}, found none")
    seen: set[str] = set()
    tables = _Tables(codes)
    for path in paths:
        for resource in _resources(path):
            kind = str(resource.get("resourceType"))
            if kind == "Patient":
                _patient(resource, made, seen)
            elif kind == "Observation":
                _observation(resource, made, tables)
            else:
                made.passed_over[f"{kind[:40]}: no patient and no observation"] += 1


class _Tables:
    """The table of each code: its name by the list of codes, else by its display text."""

    def __init__(self, codes: Mapping[str, str] | None) -> None:
        self.codes = codes
        self._owners: dict[str, str] = {}

    def of(self, coded: Sequence[Mapping[str, Any]]) -> str | None:
        """Return the name of a value's table, None where its code is not wanted."""
        if self.codes is not None:
            wanted = [self.codes[str(c["code"])] for c in coded if str(c["code"]) in self.codes]
            return table_name(wanted[0]) if wanted else None
        first, code = coded[0], str(coded[0]["code"])
        own, name = f"{first.get('system')}|{code}", table_name(str(first.get("display") or code))
        if self._owners.setdefault(name, own) == own:
            return name
        name = table_name(f"{name}-{code}")
        return name if self._owners.setdefault(name, own) == own else table_name(f"{name}-{first.get('system')}")


def _resources(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with _opened(path) as lines:
            for number, line in enumerate(iter(lambda: lines.readline(_LONGEST_LINE + 1), ""), start=1):
                if not line.strip():
                    continue
                if len(line) > _LONGEST_LINE:
                    raise InvalidInput(f"{path.name}: line {number} is longer than {_LONGEST_LINE >> 20} MiB")
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    found = what_is(path) if number == 1 else "other content"
                    raise InvalidInput(
                        f"{path.name}: line {number}: expected a JSON object, found {found}; the file may be cut off"
                    ) from error
                if not isinstance(value, dict):
                    raise InvalidInput(f"{path.name}: line {number}: expected a JSON object")
                yield value
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path.name}: could not be read to its end; download it again") from error


def _opened(path: Path) -> TextIO:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _patient(resource: Mapping[str, Any], made: Extraction, seen: set[str]) -> None:
    identity = str(resource.get("id") or "")
    if not identity:
        made.passed_over["Patient without an id"] += 1
    elif any(isinstance(link, dict) and link.get("type") == "replaced-by" for link in resource.get("link") or []):
        made.passed_over["Patient that another record replaces"] += 1
    elif identity in seen:
        made.passed_over["Patient a second time, the first counts"] += 1
    else:
        seen.add(identity)
        made.add(
            "patient",
            {
                "patient_id": identity,
                "gender": str(resource.get("gender") or ""),
                "birth_date": str(resource.get("birthDate") or ""),
            },
        )


def _observation(resource: Mapping[str, Any], made: Extraction, tables: _Tables) -> None:
    status = str(resource.get("status"))
    patient = _patient_of(resource.get("subject"))
    if status in _NOT_COUNTED:
        made.passed_over[f"Observation that is {status}"] += 1
    elif not patient:
        made.passed_over["Observation of no patient"] += 1
    else:
        date = str(resource.get("effectiveDateTime") or (resource.get("effectivePeriod") or {}).get("start") or "")
        parts = [resource, *(p for p in resource.get("component") or [] if isinstance(p, dict))]
        valued = [part for part in parts if any(key.startswith("value") for key in part)]
        if not valued:
            made.passed_over["Observation without a value"] += 1
        for part in valued:
            _value(part, patient, date, made, tables)


def _value(part: Mapping[str, Any], patient: str, date: str, made: Extraction, tables: _Tables) -> None:
    coded = [c for c in (part.get("code") or {}).get("coding") or [] if isinstance(c, dict) and c.get("code")]
    name, text = tables.of(coded) if coded else None, _text_of(part)
    if not coded and tables.codes is None:
        made.passed_over["Observation without a code"] += 1
    elif name is None:
        made.passed_over["Observation of a code that was not asked for"] += 1
    elif text is None:
        made.passed_over["Observation whose value is of another kind than quantity, word, number or truth"] += 1
    else:
        made.add(name, {"patient_id": patient, "date": date[:10], name: text})


def _text_of(part: Mapping[str, Any]) -> str | None:
    quantity = part.get("valueQuantity")
    if isinstance(quantity, dict) and "value" in quantity:
        unit = str(quantity.get("unit") or quantity.get("code") or "")
        return f"{quantity.get('comparator') or ''}{quantity['value']} {unit}".strip()
    concept = part.get("valueCodeableConcept")
    if isinstance(concept, dict):
        coded = [c for c in concept.get("coding") or [] if isinstance(c, dict)]
        words = [concept.get("text"), *(c.get("display") for c in coded), *(c.get("code") for c in coded)]
        return next((str(word) for word in words if word), None)
    for key in ("valueString", "valueInteger", "valueBoolean", "valueDateTime"):
        if key in part:
            value = part[key]
            return str(value).lower() if isinstance(value, bool) else str(value)
    return None


def _patient_of(subject: object) -> str:
    reference = str(subject.get("reference") or "") if isinstance(subject, dict) else ""
    kind, _, identity = reference.partition("/_history/")[0].rpartition("/")
    if kind.rpartition("/")[2] == "Patient":
        return identity
    return reference.removeprefix("urn:uuid:") if reference.startswith("urn:uuid:") else ""
