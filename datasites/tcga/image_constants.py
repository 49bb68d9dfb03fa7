"""Public centre and scale of every kind of human-interpretable image feature (HIF), after signed log1p.

The kind is read off the feature's *name*; a constant holds for all features of a kind and is rounded, so it says
what such a quantity looks like on a whole-slide image (areas of tens of square millimetres, 10,000s of cells,
ratios around one) and nothing about a hospital. Features of unknown kind get centre 0 and scale 1.
"""

from __future__ import annotations

IMAGE_CONSTANTS: tuple[tuple[str, float, float], ...] = (
    ("AREA.PROP", 0.4, 0.1),
    ("AREA", 3.5, 0.9),
    ("CELL.CLUSTERING.PROPERTIES..BALL.HALL.INDEX", 8.6, 0.2),
    ("CELL.CLUSTERING.PROPERTIES..CALINSKI.HARABASZ.INDEX", 10.5, 1.1),
    ("CELL.CLUSTERING.PROPERTIES..CLUSTER.EXTENT.MEAN", 4.9, 0.2),
    ("CELL.CLUSTERING.PROPERTIES..CLUSTER.EXTENT.STANDARD.DEVIATION", 3.9, 0.2),
    ("CELL.CLUSTERING.PROPERTIES..CLUSTER.SIZE", 3.5, 0.6),
    ("CELL.CLUSTERING.PROPERTIES..NUMBER", 6.0, 0.8),
    ("CELL.CLUSTERING.PROPERTIES..WITHIN.CLUSTER.DISPERSION", 12.5, 0.8),
    ("COUNT.PROP", 0.7, 0.2),
    ("DENSITY.RATIO", 0.7, 0.2),
    ("DENSITY", 6.0, 0.8),
    ("REGION.PROPERTIES..AREA..MM2.", 2.6, 1.2),
    ("REGION.PROPERTIES..AVERAGE.ECCENTRICITY", 0.6, 0.07),
    ("REGION.PROPERTIES..AVERAGE.EXTENT", 0.3, 0.05),
    ("REGION.PROPERTIES..AVERAGE.SOLIDITY", 0.4, 0.06),
    ("REGION.PROPERTIES..CONVEX.AREA", 3.5, 1.3),
    ("REGION.PROPERTIES..ECCENTRICITY", 0.6, 0.09),
    ("REGION.PROPERTIES..EULER.NUMBER", -7.5, 1.5),
    ("REGION.PROPERTIES..EXTENT", 0.3, 0.07),
    ("REGION.PROPERTIES..FILLED.AREA", 3.0, 1.3),
    ("REGION.PROPERTIES..FRACTAL.DIMENSION", 0.9, 0.05),
    ("REGION.PROPERTIES..LACUNARITY", 0.8, 0.1),
    ("REGION.PROPERTIES..MAJOR.AXIS", 2.3, 0.6),
    ("REGION.PROPERTIES..MINOR.AXIS", 1.8, 0.6),
    ("REGION.PROPERTIES..NUMBER", 4.5, 0.9),
    ("REGION.PROPERTIES..PERIMETER..MM.", 6.0, 1.3),
    ("REGION.PROPERTIES..PERIMETER.2", 10.0, 1.2),
    ("REGION.PROPERTIES..SOLIDITY", 0.4, 0.08),
    ("REGION.PROPERTIES..STANDARD.DEVIATION", 0.06, 0.04),
    ("REGION.PROPERTIES..TOTAL.CONVEX.AREA", 4.4, 1.0),
    ("REGION.PROPERTIES..TOTAL.EULER.NUMBER", 0.0, 6.5),
    ("REGION.PROPERTIES..TOTAL.FILLED.AREA", 3.8, 0.9),
    ("REGION.PROPERTIES..TOTAL.MAJOR.AXIS", 5.0, 0.8),
    ("REGION.PROPERTIES..TOTAL.MINOR.AXIS", 4.4, 0.8),
    ("REGION.PROPERTIES..TOTAL.PERIMETER", 7.5, 0.8),
    ("TOTAL", 10.0, 1.2),
)
"""(prefix of the name, centre, scale); the first prefix that fits counts."""


def constants_of(feature: str) -> tuple[float, float]:
    """Return centre and scale of one feature: ``constants_of("AREA..MM2..OF...TISSUE..")`` is ``(3.5, 0.9)``."""
    for prefix, centre, scale in IMAGE_CONSTANTS:
        if feature.startswith(prefix):
            return centre, scale
    return 0.0, 1.0
