"""Ten thousand made-up hospital tables, each written in another way: is a patient, value or label lost unseen?

    python benchmarks/hospital_tables.py --tables 10000 --json

``harness/hospital_tables.py`` says what is made and what counts as a loss. Exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import sys

from harness.hospital_tables import run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=10_000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report = run(arguments.first_seed, arguments.tables)
    lines = (
        json.dumps(report, ensure_ascii=False) if arguments.json else "\n".join(f"{k}: {v}" for k, v in report.items())
    )
    print(lines)
    return 1 if report["silent_losses"] or report["tracebacks"] else 0


if __name__ == "__main__":
    sys.exit(main())
