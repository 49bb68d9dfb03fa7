"""``tessera predict``: a saved model on a table, without Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from datasites.node.commands import JsonOption, console, show
from datasites.study.signing import dump
from privacy.errors import InvalidInput

app = typer.Typer()


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Folder of a saved model.")],
    tables: Annotated[
        list[str],
        typer.Argument(help="CSV or Parquet: one table with all columns, or MODALITY=FILE for each modality."),
    ],
    out: Annotated[Path, typer.Option(help="Where the predictions go: .csv or .parquet.")],
    cohort: Annotated[str | None, typer.Option(help="Of every patient, where no column `cohort` says it.")] = None,
    run_code: Annotated[
        bool, typer.Option("--run-code", help="Run the code of a model that is an own network.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Predict every patient of a table with a saved model; ids are kept, unknown columns are refused."""
    from tessera.tables import read_frames, write_frame
    from tessera.trained.model import load

    made = load(model, run_code=run_code)
    found = made.predict(read_frames(tables), cohort=cohort)
    write_frame(found, out)
    console.print(f"{len(found)} patients written to {out}", highlight=False)
    if json_output:
        show({"patients": len(found), "classes": list(found.columns), "out": str(out)})


@app.command()
def recalibrate(
    model: Annotated[Path, typer.Argument(help="Folder of a saved model.")],
    home: Annotated[Path, typer.Option(envvar="TESSERA_HOME", help="This hospital's folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the calibrated model; it stays at this hospital.")],
    dataset: Annotated[str, typer.Option(help="Which dataset, where the hospital has several.")] = "",
    run_code: Annotated[
        bool, typer.Option("--run-code", help="Run the code of a model that is an own network.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Calibrate a model on this hospital's own held-out patients; nothing leaves, and nothing is charged."""
    from datasites.node.home import Home
    from tessera.trained.at_hospital import recalibrated
    from tessera.trained.model import load

    made, held_out = recalibrated(load(model, run_code=run_code), Home(folder=home), dataset)
    made.save(out)
    found = made.facts.calibration
    if found is None:
        raise InvalidInput("expected a calibration")
    console.print(
        f"calibrated on {found.patients} patients ({held_out}): slope {found.slope:.3f}, calibration error "
        f"{found.error_before:.3f} before, {found.error_after:.3f} after. Private records were used without noise: "
        f"{out} stays at this hospital.",
        highlight=False,
    )
    if json_output:
        show({**dump(found), "held_out": held_out, "out": str(out)})
