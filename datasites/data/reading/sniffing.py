"""What a file holds that is not what it should be: said in words, from its first bytes."""

from __future__ import annotations

from pathlib import Path

_HEAD = 512
_MARKS = (
    (b"version https://git-lfs", "a pointer of Git LFS and not the file; fetch it with `git lfs pull`"),
    (b"\x1f\x8b", "a gzip archive; its name should end in .gz"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PAR1", "a Parquet file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"%PDF", "a PDF document"),
    (b"SQLite format 3", "an SQLite database"),
)


def what_is(path: Path) -> str:
    """Return what a file seems to be; its content is not repeated.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return told(head) or "other content"


def told(head: bytes) -> str:
    """Return what a file that begins so is, an empty text where it may be a table.

    >>> told(b"<html>proxy says no</html>")
    'an HTML page, as proxies and log-in pages send it'
    """
    if not head:
        return "nothing: it is empty"
    if not head.strip(b"\0"):
        return "zero bytes only, as a broken transfer leaves them"
    for mark, words in _MARKS:
        if head.startswith(mark):
            return words
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:200].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page, as proxies and log-in pages send it"
    if start.startswith(b"<?xml") or (start.startswith(b"<") and b"xmlns" in start):
        return "an XML document"
    if start.startswith((b'{"', b"{\n", b"{}", b'[{"')):
        return "JSON, perhaps an error message of the server"
    return ""
