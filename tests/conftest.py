"""What every kind of test may ask for; it imports nothing of the product."""

pytest_plugins = ("support.benchmarks", "support.browser", "support.postgres")
