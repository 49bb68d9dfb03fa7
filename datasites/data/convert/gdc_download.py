"""Downloading a GDC project into a folder: resumable, checked, and the same when run again.

::

    <out>/<PROJECT>/cases.json       the hits of /cases
    <out>/<PROJECT>/files.json       file id, name and sample barcode of every file
    <out>/<PROJECT>/manifest.txt     id, filename, md5, size, state: as GDC's own download manifest
    <out>/<PROJECT>/<file id>/<name> as GDC's transfer tool lays them out

A file is at its place only when its length and MD5 are right; until then it is ``.<name>.part`` beside it. MD5 is what
GDC publishes; it finds broken transfers, while forgery is kept out by HTTPS.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from datasites.data.convert.gdc_client import GdcClient, NotGiven, RemoteFile, TryAgain, checked_project
from datasites.node.files import write_atomically
from privacy.errors import InvalidInput, Tampered, TesseraError

DEFAULT_MAX_BYTES = 20 * 1024**3
_SPARE_BYTES = 256 * 1024**2
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")

Progress = Callable[[str, int, int], None]
"""Called with what is happening, how many bytes are done, and how many there are in all."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What a project's folder holds now; ``bytes_moved`` went over the network this time.

    ``refused`` names the files that the server does not give, or gives with other bytes than it announces; all others
    are there.
    """

    folder: Path
    cases: int
    files: int
    bytes_moved: int
    refused: tuple[str, ...] = ()


def fetch_project(
    client: GdcClient,
    project: str,
    out: Path,
    *,
    limit: int | None = None,
    expression: bool = True,
    max_bytes: int = DEFAULT_MAX_BYTES,
    progress: Progress | None = None,
) -> Fetched:
    """Download a project's cases and, if wanted, one STAR-counts file per case into ``out/PROJECT``.

    Args:
        client: the server to ask.
        project: such as ``TCGA-BRCA``.
        out: a folder, new or with an earlier, perhaps unfinished download, which is continued.
        limit: at most so many cases, the first by barcode.
        expression: whether to download STAR-counts files.
        max_bytes: more than this in all is refused before the first file is asked for.
        progress: shown how far it is.

    Raises:
        InvalidInput: too much for ``max_bytes`` or the disk, or answers of another form than documented.
        TesseraError: the server does not answer.
    """
    folder = out / checked_project(project)
    folder.mkdir(parents=True, exist_ok=True)
    cases = client.cases(project, limit=limit)
    write_atomically(folder / "cases.json", json.dumps(cases, indent=1).encode(), mode=0o644)
    known = {str(case.get("submitter_id")) for case in cases}
    files = [f for f in client.star_counts(project) if f.case in known] if expression else []
    _check_room(folder, files, max_bytes)
    _write_lists(folder, files)
    total, done, moved = sum(f.size_bytes for f in files), 0, 0
    refused: list[RemoteFile] = []
    for file in files:
        shown = _Shifted(progress, project, done, total)
        try:
            moved += download(client, file, folder, progress=shown)
        except (NotGiven, Tampered):  # one file stands in nobody's way
            refused.append(file)
            _write_lists(folder, files, refused)
        done += file.size_bytes
        shown(file.size_bytes)
    return Fetched(
        folder=folder,
        cases=len(cases),
        files=len(files) - len(refused),
        bytes_moved=moved,
        refused=tuple(file.name for file in refused),
    )


@dataclass(frozen=True)
class _Shifted:
    """Shows the progress of one file as that of all."""

    progress: Progress | None
    what: str
    before: int
    total: int

    def __call__(self, position: int) -> None:
        if self.progress is not None:
            self.progress(self.what, self.before + position, self.total)


def download(
    client: GdcClient, file: RemoteFile, folder: Path, *, progress: Callable[[int], object] | None = None
) -> int:
    """Bring one file to ``folder/<file id>/<name>``, continuing what lies there; return the bytes that were moved.

    Raises:
        Tampered: length or MD5 differ from what was announced; nothing of the file is left.
        TesseraError: the server does not answer; what arrived is kept and continued next time.
    """
    target = folder / file.file_id / file.name
    part = target.with_name(f".{file.name}.part")
    if target.exists() and _is_whole(target, file):
        return 0
    target.unlink(missing_ok=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    moved = 0

    def arrived(position: int, count: int) -> None:
        nonlocal moved
        moved += count
        if progress:
            progress(position)

    def once() -> None:
        _continue(client, file, part, arrived)

    resumed = part.exists() and part.stat().st_size > 0
    client.patiently(once, what=file.name)
    if not _is_whole(part, file) and resumed:  # what an earlier run left may be the broken part
        part.unlink()
        client.patiently(once, what=file.name)
    if not _is_whole(part, file):
        part.unlink()
        raise Tampered(f"{file.name}: the bytes do not have the MD5 that GDC announces; removed, fetch it again")
    os.replace(part, target)  # noqa: PTH105 - Path.replace returns a path nobody needs
    return moved


def _continue(client: GdcClient, file: RemoteFile, part: Path, arrived: Callable[[int, int], None]) -> None:
    start = part.stat().st_size if part.exists() else 0
    if start >= file.size_bytes:
        part.unlink()
        start = 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    with client.opened("GET", f"/data/{file.file_id}", headers=headers) as response:
        position = _accepted_start(response, start, file, part)
        with part.open("r+b" if position else "wb") as out:
            out.seek(position)
            for piece in response.iter_raw(65_536):
                position += len(piece)
                if position > file.size_bytes:
                    part.unlink()
                    raise Tampered(f"{file.name}: expected {file.size_bytes} bytes, the server sends more; removed")
                out.write(piece)
                arrived(position, len(piece))
            out.flush()
            os.fsync(out.fileno())
    if position < file.size_bytes:
        raise TryAgain(f"the transfer ended at {position} of {file.size_bytes} bytes")


def _accepted_start(response: httpx.Response, start: int, file: RemoteFile, part: Path) -> int:
    """Return from which byte on the answer counts; a server that ignores the range starts again."""
    if response.status_code == 416:
        part.unlink(missing_ok=True)
        raise TryAgain("the server has no such range; starting again")
    if response.status_code != 206:
        return 0
    found = _RANGE.fullmatch(response.headers.get("content-range", ""))
    if found is None or (int(found[1]), int(found[3])) != (start, file.size_bytes):
        part.unlink(missing_ok=True)
        raise TryAgain("the server sent another range than asked for; starting again")
    return start


def _is_whole(path: Path, file: RemoteFile) -> bool:
    if path.stat().st_size != file.size_bytes:
        return False
    with path.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == file.md5


def _check_room(folder: Path, files: Sequence[RemoteFile], max_bytes: int) -> None:
    total = sum(file.size_bytes for file in files)
    if total > max_bytes:
        raise InvalidInput(
            f"the files have {total} bytes in all, allowed are {max_bytes}; raise --max-gigabytes or limit"
        )
    missing = sum(f.size_bytes for f in files if not (folder / f.file_id / f.name).exists())
    if missing + _SPARE_BYTES > shutil.disk_usage(folder).free:
        raise TesseraError(f"the disk has no room for another {missing} bytes; free some or choose another folder")


def _write_lists(folder: Path, files: Sequence[RemoteFile], refused: Sequence[RemoteFile] = ()) -> None:
    lines = ["id\tfilename\tmd5\tsize\tstate"]
    lines += [f"{f.file_id}\t{f.name}\t{f.md5}\t{f.size_bytes}\treleased" for f in files]
    write_atomically(folder / "manifest.txt", ("\n".join(lines) + "\n").encode(), mode=0o644)
    withheld = {f.file_id for f in refused}
    listed = [
        {"file_id": f.file_id, "file_name": f.name, "sample": f.sample}
        | ({"refused": True} if f.file_id in withheld else {})
        for f in files
    ]
    write_atomically(folder / "files.json", json.dumps(listed, indent=1).encode(), mode=0o644)
