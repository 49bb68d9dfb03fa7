"""The schema of a table with three counts and a binary outcome; ``RULE`` stands for the rule of several rows."""

SCHEMA = """
name = "pieces"
version = 1
title = "pieces"
cohorts = [{name = "all"}]
patient = {column = "pid"}
[[modalities]]
name = "wide"
kind = "sequence-counts"
label = "wide"
columns = ["a", "b", "c"]
measure = {name = "x", low = -100, high = 100}
RULE
[[outcomes]]
kind = "binary"
name = "o"
label = "o"
column = "o"
levels = [{name = "no"}, {name = "yes"}]
"""
