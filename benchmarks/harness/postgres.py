"""A PostgreSQL server of our own on a free port, for as long as a ``with`` block lasts."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.ports import kept_port
from privacy.errors import InvalidInput


@contextmanager
def postgres_server() -> Iterator[Callable[[str], str]]:
    """Yield what makes a new database by name and returns its address.

    Raises:
        InvalidInput: PostgreSQL's programs are not here, or nobody may run them.
    """
    programs = _programs()
    if programs is None:
        raise InvalidInput("needs PostgreSQL's programs (Debian: postgresql)")
    as_root = os.geteuid() == 0  # which PostgreSQL does not want to be
    if as_root and not any(entry.pw_name == "postgres" for entry in pwd.getpwall()):
        raise InvalidInput("PostgreSQL does not run as root, and there is no account called postgres")
    user = "postgres" if as_root else None
    folder = Path(tempfile.mkdtemp(prefix="tessera-postgres-"))
    if user:
        shutil.chown(folder, user)
    port = kept_port()

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [str(programs / program), *arguments], user=user, cwd=folder, stdout=subprocess.DEVNULL, check=True
        )

    data = str(folder / "data")
    control = ["-D", data, "-w", "-l", str(folder / "log")]
    run("initdb", "--no-sync", "--auth=trust", "--username=tessera", "--encoding=UTF8", data)
    run("pg_ctl", *control, "-o", f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off", "start")

    def new(name: str) -> str:
        run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "tessera", name)
        return f"postgresql://tessera@127.0.0.1:{port}/{name}"

    try:
        yield new
    finally:
        run("pg_ctl", *control, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(p) for p in [shutil.which("initdb")] if p]
    return found[-1].parent if found else None
