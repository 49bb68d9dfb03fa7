"""Remove from an environment what no role needs at run time, and make the byte code that roles do need.

    python slim.py /opt/tessera

Removed are tests, static libraries, headers, build helpers, formats and languages that Tessera never asks for, and what
debuggers read of shared libraries: their symbol tables and section tables, which follow everything that is loaded.
Byte code is made here, since no role can write it at run time, and only of modules that roles import: of the whole
environment it would take 235 MB.

RECORDs promise what is left (datasites/node/installed.py): a line that names a removed file goes, and that of a
shortened library gets the new hash.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import struct
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

FOLDERS = [
    "torch/test",
    "torch/testing/_internal/distributed/_tensor",
    "torch/testing/_internal/distributed/nn",
    "torch/testing/_internal/distributed/rpc",
    "torch/testing/_internal/generated",
    "torch/testing/_internal/opinfo",
    "torch/testing/_internal/optests",
    "torch/include",
    "torch/share",
    "caffe2",
    "torchgen/packaged",
    "torch/_inductor/codegen",
    "torch/_inductor/kernel",
    "torch/_inductor/fx_passes",
    "pyarrow/include",
    "pyarrow/src",
    "pyarrow/tests",
    "numpy/distutils",
    "sqlalchemy/dialects/mssql",
    "sqlalchemy/dialects/mysql",
    "sqlalchemy/dialects/oracle",
    "sympy/physics",
    "sqlalchemy/testing",
    "jedi/third_party",
    "matplotlib/mpl-data/sample_data",
    "matplotlib/mpl-data/fonts/afm",
    "matplotlib/mpl-data/fonts/pdfcorefonts",
]
FILES = [
    "libtenseal.so",
    "lxml/objectify.*",
    "numpy/_core/_simd.*",
    "scipy/io/_fast_matrix_market/_fmm_core.*",
    "torch/testing/_internal/common_methods_invocations.py",
    "torch/testing/_internal/common_modules.py",
    "torch/testing/_internal/common_nn.py",
    "torch/lib/*.a",
    "torch/lib/libtorchbind_test.so",
    "torch/lib/libjitbackend_test.so",
    "torch/lib/libbackend_with_compiler.so",
    "torch/lib/libaoti_custom_ops.so",
    "pyarrow/libarrow_flight.so*",
    "pyarrow/libarrow_python_flight.so*",
    "pyarrow/_flight.*",
    "pyarrow/libarrow_s3.so*",
    "pyarrow/_s3fs.*",
    "pyarrow/_pyarrow_cpp_tests.*",
    "PIL/_avif.*",
    "pillow.libs/libavif-*",
    "zstandard/_cffi.*",
    "zstandard/backend_cffi.py",
]
SUFFIXES = frozenset({".a", ".pyx", ".pxd", ".h", ".hpp", ".pyi", ".c", ".cpp"})
KEPT_TESTS = frozenset({"torch"})  # its own code imports folders of this name
KEPT_LANGUAGES = ("root", "de", "en", "fr")
KEPT_APIS = frozenset({"drive.v3.json"})  # what PySyft can ask for; the others take 100 MB

LEAST_BYTES = 100_000
"""Smaller libraries may lie there twice."""

IMPORTED = [
    "torch._dynamo",
    "opacus",
    "tenseal.sealapi",
    "syft_rds",
    "typst",
    "pyarrow.parquet",
    "pyarrow.feather",
    "pyarrow.csv",
    "pyarrow.dataset",
    "h5py",
    "psycopg",
    "obstore.store",
    "opentelemetry.sdk.trace.export",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "fastapi",
    "uvicorn.protocols.http.h11_impl",
    "httpx",
    "jinja2",
    "pygments.lexers.python",
    "pygments.formatters",
    "rich.live",
    "rich.progress",
    "rich.table",
    "rich.text",
    "typer",
    "sqlalchemy.orm",
    "sqlalchemy.dialects.sqlite",
    "sqlalchemy.dialects.postgresql",
    "alembic.migration",
    "alembic.operations",
    "alembic.script",
    "openpyxl",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "matplotlib.dates",
    "scipy.stats",
    "scipy.optimize",
    "pandas",
    "dp_accounting.pld",
    "dp_accounting.rdp",
    "webauthn",
    "authlib.oidc.core",
    "authlib.integrations.httpx_client",
    "joserfc.jwk",
    "joserfc.jwt",
    "argon2",
    "precis_i18n",
    "pyhanko.sign.signers",
    "pyhanko.sign.validation",
    "pyhanko.sign.diff_analysis",
    "fontTools.subset",
    "babel.dates",
    "babel.numbers",
    "babel.messages.pofile",
    "babel.messages.mofile",
    "babel.lists",
    "safetensors.torch",
    "safetensors.numpy",
    "tomlkit",
    "tenacity",
    "structlog",
    "zstandard",
    "psutil",
    "prometheus_client.exposition",
    "cryptography.x509",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "rfc8785",
    "idna",
    "certifi",
    "python_multipart",
]


def main(prefix: Path) -> None:
    """Make the environment at ``prefix`` small."""
    (site,) = prefix.glob("lib/python3*/site-packages")
    before = size(site)
    for path in superfluous(site):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    shortened = {path.relative_to(site).as_posix() for path in libraries(site) if shorten(path)}
    link_twins(libraries(site))
    for record in site.glob("*.dist-info/RECORD"):
        rewrite(record, shortened)
    python = prefix / "bin" / "python"
    subprocess.run([python, "-c", f"import {', '.join(IMPORTED)}"], check=True, cwd="/tmp")
    print(f"{before / 1e6:.0f} MB before, {size(site) / 1e6:.0f} MB after, {len(shortened)} libraries shortened")


def superfluous(site: Path) -> Iterator[Path]:
    """Yield what goes, folders before what is in others."""
    yield from (site / name for name in FOLDERS if (site / name).is_dir())
    for pattern in FILES:
        yield from site.glob(pattern)
    for path in sorted(site.rglob("*")):
        top = path.relative_to(site).parts[0]
        if path.is_dir() and not path.is_symlink():
            if path.name == "__pycache__" or (path.name in ("tests", "test") and top not in KEPT_TESTS):
                yield path
        elif path.suffix in SUFFIXES:
            yield path
    yield from (p for p in site.glob("torch/bin/*") if p.is_file() and p.name != "torch_shm_manager")
    yield from (p for p in site.glob("babel/locale-data/*.dat") if p.stem.split("_")[0] not in KEPT_LANGUAGES)
    yield from (p for p in site.glob("googleapiclient/discovery_cache/documents/*.json") if p.name not in KEPT_APIS)


def libraries(site: Path) -> list[Path]:
    """Return the shared libraries of an environment."""
    return [path for path in site.rglob("*.so*") if path.is_file() and not path.is_symlink()]


def shorten(path: Path) -> bool:
    """Cut off what no loader reads: everything behind the last segment of a 64-bit ELF file (what ``sstrip`` does).

    A loader goes by the program headers alone. Section headers and symbol tables serve linkers and debuggers.
    """
    with path.open("r+b") as file:
        head = file.read(64)
        if head[:6] != b"\x7fELF\x02\x01":  # 64 bits, little-endian
            return False
        (table,) = struct.unpack_from("<Q", head, 32)
        entry_bytes, entries = struct.unpack_from("<HH", head, 54)
        file.seek(table)
        headers = file.read(entry_bytes * entries)
        end = table + len(headers)
        for i in range(entries):
            (offset,) = struct.unpack_from("<Q", headers, i * entry_bytes + 8)
            (length,) = struct.unpack_from("<Q", headers, i * entry_bytes + 32)
            end = max(end, offset + length)
        if end >= file.seek(0, 2):
            return False
        file.seek(40)
        file.write(bytes(8))  # where the section table begins: there is none any more
        file.seek(58)
        file.write(bytes(6))  # size, number and names of its entries
        file.truncate(end)
    return True


def link_twins(paths: list[Path]) -> None:
    """Replace libraries that lie there twice by links to the first: a wheel cannot hold links."""
    first: dict[str, Path] = {}
    for path in sorted(paths):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest not in first:
            first[digest] = path
        elif path.stat().st_size > LEAST_BYTES:
            path.unlink()
            path.symlink_to(os.path.relpath(first[digest], path.parent))


def rewrite(record: Path, shortened: set[str]) -> None:
    """Leave the lines of files that are there, with the hashes that they have now."""
    site = record.parent.parent
    rows = list(csv.reader(record.read_text(encoding="utf-8").splitlines()))
    with record.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for path, promised, length in rows:
            if path in shortened:
                digest = hashlib.sha256((site / path).read_bytes()).digest()
                text = urlsafe_b64encode(digest).rstrip(b"=").decode()
                writer.writerow((path, f"sha256={text}", (site / path).stat().st_size))
            elif (site / path).exists():
                writer.writerow((path, promised, length))


def size(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
