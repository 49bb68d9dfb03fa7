"""A real PostgreSQL server of our own, where its programs are installed."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(p) for p in [shutil.which("initdb")] if p]
    return found[-1].parent if found else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[str], str]]:
    """A PostgreSQL server of our own on a free port; call it with a name to get the address of a new database."""
    programs = _programs()
    if programs is None:
        pytest.skip("needs PostgreSQL's programs (Debian: postgresql)")
    as_root = os.geteuid() == 0  # which PostgreSQL does not want to be
    if as_root and not any(entry.pw_name == "postgres" for entry in pwd.getpwall()):
        pytest.skip("PostgreSQL does not run as root, and there is no account called postgres")
    user = "postgres" if as_root else None
    folder = Path(tempfile.mkdtemp(prefix="tessera-postgres-"))
    if user:
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data, quiet = str(folder / "data"), {"user": user, "cwd": folder, "stdout": subprocess.DEVNULL, "check": True}
    initdb = [programs / "initdb", "--no-sync", "--auth=trust", "--username=tessera", "--encoding=UTF8", data]
    subprocess.run(initdb, **quiet)
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
    control = [programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log"]
    subprocess.run([*control, "-o", options, "start"], **quiet)

    def new(name: str) -> str:
        create = [programs / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "tessera", name]
        subprocess.run(create, **quiet)
        return f"postgresql://tessera@127.0.0.1:{port}/{name}"

    try:
        yield new
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)
        shutil.rmtree(folder, ignore_errors=True)
