"""The research simulator of benchmarks/: not part of the product."""
