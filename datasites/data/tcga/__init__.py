"""What the TCGA tables mean: columns, labels, maps and public constants.

Everything here is public knowledge about the tables; no statistic of a private record enters. Start with
``tables.py``.
"""
