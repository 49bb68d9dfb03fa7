"""``tessera backup`` and ``tessera restore``: a role's folder as one file, and back."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from datasites.node.commands import HomeOption, JsonOption, console, show

app = typer.Typer()


@app.command()
def backup(
    home: HomeOption,
    out: Annotated[Path, typer.Option(help="The new file; it holds the role's key, so keep it like the folder.")],
    json_output: JsonOption = False,
) -> None:
    """Write one file with everything that a role must remember; the role may run meanwhile."""
    from datasites.node.archives.archive import back_up
    from datasites.node.home import Home

    made = back_up(Home(folder=home), out)
    console.print(f"{made.role} {made.name}: {len(made.files)} files in {out}", highlight=False, markup=False)
    if json_output:
        show({"role": made.role, "name": made.name, "made": made.made, "files": len(made.files), "out": str(out)})


@app.command()
def restore(
    archive: Annotated[Path, typer.Argument(help="What `tessera backup` wrote.")],
    home: HomeOption,
    json_output: JsonOption = False,
) -> None:
    """Make a role's folder from a backup, in a folder that is missing or empty."""
    from datasites.node.archives.archive import restore as unpack

    made = unpack(archive, home)
    console.print(f"{home} is the {made.role} {made.name} as of {made.made}.", highlight=False, markup=False)
    gap = {"helper": "", "orchestrator": "tessera orchestrator import-gap"}.get(
        made.role, f"tessera {made.role} import-gap --home {shlex.quote(str(home))}"
    )
    if gap:
        console.print(
            f"If the role has run since, it will notice and do no round until a person says so: {gap}. Proposals that "
            "came since are offered again by `tessera study resend`.",
            highlight=False,
            markup=False,
        )
    if json_output:
        show({"role": made.role, "name": made.name, "made": made.made, "files": len(made.files), "home": str(home)})
