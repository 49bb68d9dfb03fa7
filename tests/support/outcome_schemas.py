"""A schema with seven modalities of odd names and one outcome of every kind."""

from __future__ import annotations

from datasites.study.schema.document import StudySchema, parse_schema

_VARIABLES = 'variables = [{kind = "number", name = "x%d", low = 0, high = 50, transform = "log1p", centre = 2}]'
SEVEN = "\n".join(
    ['name = "Seven"', "version = 1", 'title = "Seven odd modalities"', 'cohorts = [{name = "Ä 1"}, {name = "b"}]']
    + ['cohort_column = "where from?"']
    + [f'[[modalities]]\nname = "odd-{n}"\nkind = "tabular"\nlabel = "odd {n}"\n{_VARIABLES % n}' for n in range(6)]
    + ['[[modalities]]\nname = "slides"\nkind = "embedding"\nlabel = "slides"\nwidth = 64\nprefix = "f"\nencoder = "e"']
    + ['measure = {name = "activation", low = -90, high = 90}']
    + ['[[outcomes]]\nkind = "ordinal"\nname = "how bad"\nlabel = "grade"\ncolumn = "grade"']
    + ['levels = [{name = "1"}, {name = "2"}, {name = "3"}]']
    + ['[[outcomes]]\nkind = "binary"\nname = "relapse"\nlabel = "relapse"\ncolumn = "relapse"']
    + ['levels = [{name = "no"}, {name = "yes"}]']
    + ['[[outcomes]]\nkind = "survival"\nname = "os"\nlabel = "survival"\ntime = "t"\nevent = "e"\nunit = "months"']
    + ["edges = [3, 6, 12, 24, 48]", 'happened = {name = "1"}\ncensored = {name = "0"}']
    + ['[[outcomes]]\nkind = "categorical"\nname = "sub-type (WHO)"\nlabel = "type"\ncolumn = "type"']
    + ['levels = [{name = "a"}, {name = "b"}, {name = "c"}, {name = "d"}]']
    + ['[[outcomes]]\nkind = "count"\nname = "nodes"\nlabel = "positive nodes"\ncolumn = "nodes"\nunit = "nodes"']
    + ["low = 0", "high = 60", "typical = 4"]
    + ['[[outcomes]]\nkind = "continuous"\nname = "size"\nlabel = "tumour size"\ncolumn = "size"\nunit = "mm"']
    + ["low = 0", "high = 150", "typical = 30", "spread = 15"]
)
OUTCOMES = ("how bad", "relapse", "os", "sub-type (WHO)", "nodes", "size")


def seven() -> StudySchema:
    """Return the schema."""
    return parse_schema(SEVEN.encode(), toml=True)
