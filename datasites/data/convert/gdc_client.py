"""Open-access TCGA from the GDC API: cases, STAR-counts files and their bytes; polite, patient and resumable.

Source: GDC API User's Guide, "Search and Retrieval" and "Downloading Files". Answers of the search endpoints have
the form ``{"data": {"hits": [...], "pagination": {"count", "total", "from", "size", ...}}, "warnings": {}}``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from datasites.data.convert.barcodes import PRIMARY_TUMOUR, case_of, sample_type
from datasites.node.credentials.trust import machine_context
from datasites.node.http import PLAIN, proxy_of_environment, read_plain
from privacy.errors import InvalidInput, TesseraError

T = TypeVar("T")
DEFAULT_URL = "https://api.gdc.cancer.gov"
MAX_FILE_BYTES = 64 * 1024**2
_MAX_PAGE_BYTES = 64 * 1024**2
_MAX_HITS = 50_000
_PAGE = 500
_LONGEST_WAIT_SECONDS = 300.0
_AGAIN = frozenset({429, 500, 502, 503, 504})
_NOT_GIVEN = frozenset({401, 403, 404, 410, 451})
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

_PROJECT = re.compile(r"[A-Z][A-Z0-9]*(-[A-Z0-9_]+)+")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

CASE_FIELDS = (
    "submitter_id",
    "project.project_id",
    *(
        f"demographic.{name}"
        for name in ("age_at_index", "gender", "sex_at_birth", "race", "ethnicity", "vital_status")
    ),
    *(
        f"diagnoses.{name}"
        for name in (
            *("age_at_diagnosis", "ajcc_pathologic_stage", "ajcc_pathologic_t", "ajcc_pathologic_n"),
            *("ajcc_pathologic_m", "ajcc_staging_system_edition", "classification_of_tumor", "primary_diagnosis"),
            *("diagnosis_is_primary_disease", "prior_malignancy", "prior_treatment", "tumor_grade"),
            *("year_of_diagnosis", "child_pugh_classification", "ishak_fibrosis_score", "residual_disease"),
        )
    ),
    *(f"exposures.{name}" for name in ("pack_years_smoked", "tobacco_smoking_status", "height", "weight", "bmi")),
)
FILE_FIELDS = (
    *("file_id", "file_name", "md5sum", "file_size", "access", "state"),
    *("cases.submitter_id", "cases.samples.submitter_id"),
)


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file at GDC: where it is, what it must hash to, and whose it is."""

    file_id: str
    name: str
    md5: str
    size_bytes: int
    case: str
    sample: str


class TryAgain(Exception):
    """The server is busy or the connection broke; ``after_seconds`` is what it asked for; never leaves this package."""

    def __init__(self, why: str, after_seconds: float | None = None) -> None:
        super().__init__(why)
        self.after_seconds = after_seconds


class NotGiven(TesseraError):
    """The server has a file and does not give it: it was withdrawn, or its access is controlled."""


class GdcClient:
    """Asks one GDC server, at most ``requests_per_second``, and again when it is busy.

    Args:
        base_url: the API's address; ``https``, or ``http`` on this machine.
        requests_per_second: the most that is asked of the server, above 0.
        attempts: how often one request is tried in all.
        timeout_seconds: for connecting and for each read.
        transport: in place of the network.
        sleep: waits; tests give another.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        requests_per_second: float = 4.0,
        attempts: int = 8,
        timeout_seconds: float = 60.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        host = _checked_host(base_url)
        if not 0 < requests_per_second <= 50:
            raise InvalidInput(f"expected above 0 and at most 50 requests a second, got {requests_per_second:g}")
        self._client = httpx.Client(
            base_url=base_url.rstrip("/"),
            timeout=timeout_seconds,
            transport=transport,
            trust_env=False,
            verify=machine_context() if base_url.startswith("https:") else False,
            proxy=None if host in _LOOPBACK else proxy_of_environment(base_url),
            headers={"User-Agent": "tessera-fl"} | PLAIN,
        )
        self._attempts = attempts
        self._sleep = sleep
        self._gap_seconds = 1.0 / requests_per_second
        self._next_request = 0.0

    def __enter__(self) -> GdcClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def cases(self, project: str, *, limit: int | None = None) -> list[dict[str, Any]]:
        """Return the cases of a project such as ``TCGA-BRCA``, by barcode, with demographic, diagnoses, exposures."""
        wanted = {"op": "in", "content": {"field": "project.project_id", "value": [checked_project(project)]}}
        return self._hits("/cases", wanted, CASE_FIELDS, sort="submitter_id:asc", limit=limit)

    def star_counts(self, project: str, *, max_file_bytes: int = MAX_FILE_BYTES) -> list[RemoteFile]:
        """Return one open STAR-counts file of the primary tumour per case, by case.

        Raises:
            InvalidInput: the server describes a file in a way that is not safe to use.
        """
        wanted = {
            "op": "and",
            "content": [
                _equals("cases.project.project_id", checked_project(project)),
                _equals("data_type", "Gene Expression Quantification"),
                _equals("analysis.workflow_type", "STAR - Counts"),
                _equals("access", "open"),
            ],
        }
        found: dict[str, RemoteFile] = {}
        for hit in self._hits("/files", wanted, FILE_FIELDS, sort="file_id:asc"):
            file = remote_file(hit, max_file_bytes=max_file_bytes)
            if file is not None:
                found[file.case] = min(found.get(file.case, file), file, key=lambda f: (f.sample, f.file_id))
        return [found[case] for case in sorted(found)]

    def _hits(
        self, path: str, filters: Mapping[str, Any], fields: Sequence[str], *, sort: str, limit: int | None = None
    ) -> list[dict[str, Any]]:
        hits: list[dict[str, Any]] = []
        while True:
            size = _PAGE if limit is None else min(_PAGE, limit - len(hits))
            question = {
                "filters": filters,
                "fields": ",".join(fields),
                "format": "JSON",
                "size": size,
                "from": len(hits),
                "sort": sort,
            }
            page, total = _page(self._ask(path, question), path)
            hits += page
            if not page or len(hits) >= min(total, limit or total):
                return hits
            if total > _MAX_HITS:
                raise InvalidInput(
                    f"{path}: expected at most {_MAX_HITS} hits, the server has {total}; narrow the question"
                )

    def _ask(self, path: str, question: Mapping[str, Any]) -> bytes:
        def once() -> bytes:
            with self.opened("POST", path, json=question) as response:
                return read_plain(response, _MAX_PAGE_BYTES)

        return self.patiently(once, what=path)

    @contextmanager
    def opened(self, method: str, path: str, **arguments: Any) -> Iterator[httpx.Response]:
        """Send one request when it is its turn and yield the answer, unread.

        Raises:
            TryAgain: the server is busy or the connection broke, also while the answer is read.
            NotGiven: a file that is withdrawn or not open.
            TesseraError: any other answer than success.
        """
        self._wait_for_turn()
        try:
            with self._client.stream(method, path, **arguments) as response:
                if response.status_code in _AGAIN:
                    raise TryAgain(f"status {response.status_code}", _retry_after(response))
                if response.status_code in _NOT_GIVEN and path.startswith("/data/"):
                    raise NotGiven(f"the GDC server does not give {path} (status {response.status_code})")
                if not response.is_success and response.status_code != 416:
                    raise TesseraError(f"the GDC server answered {method} {path} with status {response.status_code}")
                yield response
        except httpx.TransportError as error:
            raise TryAgain(str(error) or type(error).__name__) from error

    def patiently(self, once: Callable[[], T], *, what: str) -> T:
        """Call ``once`` until it does not raise :class:`TryAgain`, waiting ever longer, or as the server asks.

        Raises:
            TesseraError: it never succeeded, or the server wants more patience than we have.
        """
        backoff = wait_exponential_jitter(multiplier=0.5, max=60.0, jitter=0.5)

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.after_seconds if isinstance(error, TryAgain) else None
            if asked is not None and asked > _LONGEST_WAIT_SECONDS:
                raise TesseraError(
                    f"the GDC server asks to come back in {asked:.0f} s; run the same command again then"
                )
            return max(asked, 0.0) if asked is not None else backoff(state)

        retrying = Retrying(
            retry=retry_if_exception_type(TryAgain),
            wait=pause,
            stop=stop_after_attempt(self._attempts),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(once)
        except TryAgain as error:
            raise TesseraError(
                f"{what}: the GDC server did not answer in {self._attempts} attempts ({error}); "
                "run the same command again, it continues where it stopped"
            ) from error

    def _wait_for_turn(self) -> None:
        pause = self._next_request - time.monotonic()
        if pause > 0:
            self._sleep(pause)
        self._next_request = time.monotonic() + self._gap_seconds


def remote_file(hit: Mapping[str, Any], *, max_file_bytes: int = MAX_FILE_BYTES) -> RemoteFile | None:
    """Read one hit of ``/files``; None where it is not of exactly one case's primary tumour.

    Raises:
        InvalidInput: a name, hash or size that must not be trusted with the disk.
    """
    samples = [str(s.get("submitter_id", "")) for c in hit.get("cases", ()) for s in c.get("samples", ())]
    if len(hit.get("cases", ())) != 1 or not samples or any(sample_type(s) != PRIMARY_TUMOUR for s in samples):
        return None
    file_id, name, md5 = str(hit.get("file_id")), str(hit.get("file_name")), str(hit.get("md5sum"))
    size = hit.get("file_size")
    if not _UUID.fullmatch(file_id) or not _NAME.fullmatch(name) or not _MD5.fullmatch(md5):
        raise InvalidInput("the GDC server describes a file by an id, name or MD5 of another form than documented")
    if type(size) is not int or not 0 < size <= max_file_bytes:
        raise InvalidInput(f"expected files of at most {max_file_bytes} bytes, the GDC server announces {size!r:.40}")
    case = case_of(samples[0], where="files")
    return RemoteFile(file_id=file_id, name=name, md5=md5, size_bytes=size, case=case, sample=min(samples))


def checked_project(project: str) -> str:
    """Return ``project`` if it has the form of a GDC project id such as ``TCGA-BRCA``.

    Raises:
        InvalidInput: it has another.
    """
    if len(project) > 64 or not _PROJECT.fullmatch(project):
        raise InvalidInput(f"expected a project such as TCGA-BRCA, got {project[:64]!r}")
    return project


def _equals(field: str, value: str) -> dict[str, Any]:
    return {"op": "=", "content": {"field": field, "value": value}}


def _page(body: bytes, path: str) -> tuple[list[dict[str, Any]], int]:
    try:
        data = json.loads(body)["data"]
        hits, total = data["hits"], data["pagination"]["total"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInput(
            f"{path}: expected data.hits and data.pagination.total as JSON; is this a GDC API?"
        ) from error
    if not isinstance(hits, list) or type(total) is not int or not all(isinstance(hit, dict) for hit in hits):
        raise InvalidInput(f"{path}: expected a list of hits and their number; is this a GDC API?")
    return hits, total


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _checked_host(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
    if not secure or not host or parts.username or parts.query or parts.fragment:
        raise InvalidInput("expected the GDC API as https://HOST (http only on this machine), without user or query")
    return host
