"""Fixtures for every kind of test; they live in tests/support."""

pytest_plugins = (
    "support.benchmarks",
    "support.browser",
    "support.mailbox_server",
    "support.review_desk",
    "support.services",
)
