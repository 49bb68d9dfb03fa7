"""Types ``tessera`` with the given arguments; in a demo one hospital runs through the recorder.

python watched_demo.py demo --out FOLDER ...
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from orchestrator.cli.main import app
from orchestrator.demo import demo
from orchestrator.demo.processes import Processes

SITE = "brca-1"
ROOT = Path(__file__).parents[2]


class Watched(Processes):
    """Starts one site through the recorder."""

    def start(self, name: str, arguments: Any) -> None:
        if name != SITE:
            super().start(name, arguments)
            return
        self.logs.mkdir(parents=True, exist_ok=True)
        home = arguments[arguments.index("--home") + 1]
        command = [sys.executable, str(ROOT / "tests" / "support" / "recording_site.py"), home, f"{home}-sent.jsonl"]
        with (self.logs / f"{name}.log").open("ab") as log:
            self.children[name] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=ROOT, process_group=0
            )


if __name__ == "__main__":
    demo.Processes = Watched  # type: ignore[misc]
    app(sys.argv[1:])
