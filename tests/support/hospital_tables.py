"""Tables of a made-up heart hospital, to be read by the schema that comes with Tessera."""

from __future__ import annotations

import random
from pathlib import Path


def heart_rows(patients: int, seed: int = 0) -> list[dict[str, str]]:
    """Return rows of all three modalities; disease goes with age, pressure and chest pain."""
    draw = random.Random(seed)  # noqa: S311 - made-up patients
    rows = []
    for number in range(patients):
        age = draw.randint(30, 80)
        pain = draw.choice(["1", "2", "3", "4"])
        sick = draw.random() < 0.15 + 0.4 * (age > 55) + 0.3 * (pain == "4")
        rows.append(
            {
                "patient_id": f"H-{seed}-{number:04d}",
                "age": str(age),
                "sex": draw.choice("01"),
                "cp": pain,
                "trestbps": str(draw.randint(95, 190)),
                "chol": str(draw.randint(140, 380)),
                "fbs": draw.choice("01"),
                "restecg": draw.choice("012"),
                "thalach": str(draw.randint(90, 195)),
                "exang": draw.choice("01"),
                "oldpeak": f"{draw.uniform(0, 4):.1f}",
                "slope": draw.choice("123"),
                "disease": str(int(sick)),
            }
        )
    return rows


def write_table(path: Path, rows: list[dict[str, str]], *, separator: str = ",") -> Path:
    """Write rows as a text table."""
    names = list(rows[0])
    lines = [separator.join(names), *(separator.join(row[name] for name in names) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path
