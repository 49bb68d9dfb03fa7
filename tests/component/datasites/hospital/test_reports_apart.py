"""The process that writes a hospital's reports ends with the hospital, however that ends."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

_HOSPITAL = """
import sys
from pathlib import Path
from datasites.hospital.reports import write_reports_apart
from datasites.node.home import Home
write_reports_apart(Home(folder=Path(sys.argv[1])))
"""


def test_a_killed_hospital_leaves_nobody_writing_reports(tmp_path: Path) -> None:
    settings = tmp_path / "config.json"
    os.mkfifo(settings)  # whoever reads it waits for what never comes
    hospital = subprocess.Popen([sys.executable, "-c", _HOSPITAL, str(tmp_path)], stdin=subprocess.DEVNULL)
    try:
        writer = os.open(settings, os.O_WRONLY)  # returns once the report's process reads its settings
        hospital.kill()
        hospital.wait()
        gone = select.poll()
        gone.register(writer, 0)
        assert gone.poll(120_000) == [(writer, select.POLLERR)], "a report's process outlives its hospital"
        os.close(writer)
    finally:
        hospital.kill()
        hospital.wait()
