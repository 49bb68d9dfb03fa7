"""Starting a consortium's roles as child processes and ending them all, whatever happens."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib
import os
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from datasites.node.process import own_module
from datasites.node.warm import Child, Warm
from datasites.study.text import visible
from privacy.errors import TesseraError

_END_SECONDS = 10.0
_INHERITED = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "DATABASE_URL", "DATABASE_URL_FILE", "STORE_FOLDER"}
    | {"TESSERA_TRACES"}
)
_IN_ADVANCE = (
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "datasites.portal.pages:compile_templates",
    "privacy.ledger.verification:expected_structure",
    "orchestrator.daemon",
    "datasites.keyholder.daemon",
    "datasites.helper.daemon",
    "datasites.hospital.daemon",
    "datasites.worker.server:preload",
    "datasites.report.rehearsal:rehearse",
)
_OWN = (
    "models.build",
    "matplotlib.backends.backend_svg",
    "pyhanko.pdf_utils.incremental_writer",
    "pyhanko.sign.signers",
)


def warm_start() -> Warm:
    """Start a process that imports what every role needs, from which :class:`Processes` forks them in milliseconds."""
    return Warm.start(_IN_ADVANCE)


def import_ahead() -> None:
    """Import what proposing and the study's report need later, while the warm process still imports on another core."""
    for name in _OWN:
        importlib.import_module(name)


@dataclass
class Processes:
    """Child processes by name; leaving the ``with`` block ends every one of them.

    Each child gets the read end of a pipe as standard input, so it also ends when this process is killed outright.
    With ``warm`` they are forked from that process; otherwise each imports what it needs, which takes seconds.
    """

    logs: Path
    warm: Warm | None = None
    children: dict[str, Child] = field(default_factory=dict)

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def start(self, name: str, arguments: Sequence[str]) -> None:
        """Start ``tessera ARGUMENTS`` with its log in ``logs/NAME.log``."""
        self.logs.mkdir(parents=True, exist_ok=True)
        module, line = "orchestrator.cli.main", [*arguments, "--end-with-parent"]
        with (self.logs / f"{name}.log").open("ab") as log:
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            log.write(f"{now} starting: tessera {shlex.join(arguments)}\n".encode())
            log.flush()
            if self.warm is not None:
                self.children[name] = self.warm.run(
                    module, line, env=_environment(), output=log.fileno(), group=True, warm=True
                )
                return
            self.children[name] = subprocess.Popen(  # noqa: S603  our own command line, no shell
                own_module(module, *line),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=_environment(),
                process_group=0,
            )

    def check(self) -> None:
        """Raise if a child has ended by itself."""
        for name, child in self.children.items():
            if child.poll() is not None:
                raise TesseraError(
                    f"the process of {name} ended with code {child.returncode}; its log says why: "
                    f"{self.logs / f'{name}.log'}"
                )

    def wait_until_ready(self, homes: Sequence[Path], seconds: float) -> None:
        """Wait until every role has announced itself in its folder.

        Raises:
            TesseraError: one ended, or is not ready in time.
        """
        deadline = time.monotonic() + seconds
        waiting = list(homes)
        while waiting:
            self.check()
            waiting = [home for home in waiting if not (home / "address.json").exists()]
            if waiting and time.monotonic() > deadline:
                raise TesseraError(self._late([home.name for home in waiting], seconds))
            time.sleep(0.05)

    def _late(self, names: Sequence[str], seconds: float) -> str:
        """Say who is not ready, and what the first of them said last."""
        log = self.logs / f"{names[0]}.log"
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
        last = f"; the last line of {log} is: {visible(said[-1])}" if said else ""
        return (
            f"not ready after {seconds:.0f} s: {', '.join(names)}. On a busy machine give more time with "
            f"--start-seconds (or TESSERA_START_SECONDS){last}"
        )

    def end(self) -> None:
        """Ask every child to end, and end what has not after ten seconds."""
        for child in self.children.values():
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + _END_SECONDS
        for child in self.children.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.1, deadline - time.monotonic()))
            if child.poll() is None:
                child.kill()
                child.wait()
            if child.stdin is not None:
                child.stdin.close()
        self.children.clear()


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k in _INHERITED}
    return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
