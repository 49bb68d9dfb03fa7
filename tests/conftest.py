"""Fixtures for every kind of test; they live in tests/support."""

import sys
from pathlib import Path

pytest_plugins = ("support.browser", "support.mailbox_server", "support.review_desk", "support.services")

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
