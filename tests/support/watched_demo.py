"""Types ``tessera`` with the given arguments; in a demo one hospital runs through the recorder.

python watched_demo.py demo --out FOLDER ...
"""

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
        assert self.warm is not None
        with (self.logs / f"{name}.log").open("ab") as log:
            recorder, where = "support.recording_site", [home, f"{home}-sent.jsonl"]
            self.children[name] = self.warm.run(recorder, where, output=log.fileno(), group=True, warm=True)


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tests"))  # the process that roles are forked from finds packages where this one does
    demo.Processes = Watched  # type: ignore[misc]
    app(sys.argv[1:])
