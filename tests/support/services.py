"""The consortium that benchmarks and tests share lies beside the benchmarks; a real PostgreSQL server, where it is."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from datasites.node.roster import Roster
from datasites.study.proposal import Party
from orchestrator.rounds.service import Service
from orchestrator.rounds.store import Store
from privacy.identity import Identity
from privacy.ledger.journal import Journal


@pytest.fixture
def new_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """An orchestrator's service with empty stores; call it with the names of orchestrator, keyholder and sites."""
    with contextlib.ExitStack() as open_stores:

        def make(*names: str) -> Service:
            keys = [Identity.generate() for _ in names]
            parties = [Party(name=n, institution=n, public_key=k.public_key) for n, k in zip(names, keys, strict=True)]
            made = Service(
                identity=keys[0],
                roster=Roster(orchestrator=parties[0], keyholder=parties[1], sites=tuple(parties[2:])),
                store=Store(tmp_path / "store"),
                journal=Journal(tmp_path / "journal.sqlite", keys[0]),
            )
            open_stores.callback(made.store.close)
            open_stores.callback(made.journal.close)
            return made

        yield make


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
