"""The command line: ``tessera`` and its subcommands.

Exit codes: 0 ok, 1 failed, 2 usage or bad input, 3 denied by a policy or a protocol rule. Errors are one line on
standard error; ``--json`` puts one JSON object on standard output.

Also here:

* ``tessera orchestrator dashboard-link``: the way into the dashboard.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from datasites.study.text import visible
from orchestrator.cli.audit import app as audit_app
from orchestrator.cli.data import app as fetch_app
from orchestrator.cli.operate import app as operations_app
from orchestrator.cli.roles import app as serve_app
from orchestrator.cli.roles import invite
from orchestrator.cli.simulate import app as simulate_app
from orchestrator.cli.study import app as study_app
from privacy.errors import InvalidInput, Refused, Tampered, TesseraError


def dashboard_link(
    home: Annotated[Path, typer.Option("--home", envvar="TESSERA_HOME", help="The orchestrator's folder.")],
) -> None:
    """Print a link that opens the studies' dashboard in one browser, once, within half an hour."""
    from datasites.node.home import Home
    from orchestrator.dashboard.access import new_link

    typer.echo(new_link(Home(folder=home)))


app = typer.Typer(
    name="tessera",
    help="Privacy-hardened, multi-modal federated learning for cancer staging.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
datasite_app = typer.Typer(help="A hospital's datasite.", no_args_is_help=True)
orchestrator_app = typer.Typer(help="The study scientists' orchestrator.", no_args_is_help=True)
keyholder_app = typer.Typer(help="The neutral keyholder.", no_args_is_help=True)
app.add_typer(datasite_app, name="datasite")
app.add_typer(orchestrator_app, name="orchestrator")
app.add_typer(keyholder_app, name="keyholder")
app.add_typer(audit_app)  # tessera audit-privacy
app.add_typer(fetch_app)  # tessera fetch, tessera convert
app.add_typer(operations_app)  # tessera status, tessera doctor
app.add_typer(serve_app)  # tessera serve, tessera roster
app.add_typer(simulate_app)  # tessera simulate
app.add_typer(study_app)  # tessera propose, tessera study
datasite_app.command("invite")(invite)
orchestrator_app.command("dashboard-link")(dashboard_link)

console = Console(stderr=True)

_USAGE_ERROR: Any = typer.BadParameter.__mro__[2]  # typer exports only this subclass of its usage errors

HomeOption = Annotated[Path, typer.Option("--home", envvar="TESSERA_HOME", help="The role's folder.")]
ParentOption = Annotated[bool, typer.Option("--end-with-parent", hidden=True)]


def show(value: Any) -> None:
    """Print one JSON object on one line of standard output."""
    typer.echo(json.dumps(value, sort_keys=False, default=str))


@app.command()
def demo(
    data: Annotated[Path | None, typer.Option(help="Folder of TCGA tables; synthetic patients when left out.")] = None,
    federation: Annotated[
        str, typer.Option(help="tri-modal, bi-modal, upper-bound, tissue-source-sites.")
    ] = "tri-modal",
    task: Annotated[str, typer.Option(help="I-II, early-late or ordinal.")] = "early-late",
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds of training.")] = 5,
    sites: Annotated[int, typer.Option(min=3, max=50, help="Number of institutions.")] = 9,
    out: Annotated[Path | None, typer.Option(help="Where everything is kept; a new folder by default.")] = None,
    manual: Annotated[bool, typer.Option("--manual", help="Leave one hospital's approval to you.")] = False,
    manual_all: Annotated[bool, typer.Option("--manual-all", help="Leave every hospital's approval to you.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the data split and, with --public-noise, of the noise.")] = 0,
    epsilon: Annotated[float, typer.Option(help="Worst-case epsilon per patient (inf: no privacy).")] = 8.0,
    noise: Annotated[str, typer.Option(help="local or shared.")] = "local",
    model: Annotated[str, typer.Option(help="linear, mlp or mlp-auxiliary.")] = "linear",
    aggregation: Annotated[
        str, typer.Option(help="fedavg, fedprox, fedadam, dgb (blending), pcw (proximity) or dgb+pcw.")
    ] = "fedavg",
    public_noise: Annotated[
        bool, typer.Option("--public-noise", help="Derive all noise from the seed: NO PRIVACY.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object on the last line of stdout.")] = False,
) -> None:
    """Start a whole consortium on this machine, train, and show what it cost."""
    from orchestrator.demo.demo import DemoSettings, run_demo
    from orchestrator.demo.view import DemoView

    settings = DemoSettings(
        data=data,
        federation=federation,
        task=task,
        rounds=rounds,
        sites=sites,
        out=out,
        manual=manual,
        manual_all=manual_all,
        seed=seed,
        epsilon=epsilon,
        noise=noise,
        architecture=model,
        aggregation=aggregation,
        public_noise=public_noise,
    )
    view = DemoView(console)
    by_hand = (manual or manual_all) and not json_output  # who approves in a browser reads the report there as well
    with view:
        result = run_demo(settings, view, stay=view.stay if by_hand else None)
    if not by_hand:
        view.summary(result)
    if json_output:
        show(result)


@datasite_app.command("init")
def datasite_init(
    home: HomeOption,
    name: Annotated[str, typer.Option(help="Name of the datasite, such as hospital-a.")],
    institution: Annotated[str, typer.Option(help="Name of the institution.")],
    orchestrator_url: Annotated[str, typer.Option(help="Address of the orchestrator.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the portal; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="Address the portal listens on.")] = "127.0.0.1",
) -> None:
    """Make a datasite's folder and identity, and show its public key."""
    _init(home, name, institution, "datasite", orchestrator_url, host, port)


@datasite_app.command("ingest")
def datasite_ingest(
    source: Annotated[Path, typer.Argument(help="Folder of tables, as described in docs/data.md.")],
    out: Annotated[Path, typer.Option(help="Folder that gets one dataset per institution.")],
    federation: Annotated[str, typer.Option(help="Preset that says who holds what.")] = "tri-modal",
    task: Annotated[str, typer.Option(help="I-II, early-late or ordinal.")] = "early-late",
    sites: Annotated[
        int | None, typer.Option(min=3, help="Number of institutions; the preset's own by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    images: Annotated[str, typer.Option(help="features, or tissue-maps for the convolutional model.")] = "features",
    json_output: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Turn tables into per-institution datasets with a private and a mock part."""
    from rich.progress import Progress

    from datasites.data.ingest import ingest
    from datasites.data.tcga.tables import images_of

    with Progress(console=console, transient=True) as bar:
        job = bar.add_task("Ingesting")
        plan = ingest(
            source,
            out,
            federation=federation,
            task=task,
            sites=sites,
            seed=seed,
            images=images_of(images),
            progress=lambda name, done, total: bar.update(job, description=name, completed=done, total=total),
        )
    for site in plan.sites:
        console.print(f"{site.name}: {len(site.cases)} patients, {', '.join(site.modalities)}", highlight=False)
    if json_output:
        sites_made = [{"name": s.name, "modalities": s.modalities, "patients": len(s.cases)} for s in plan.sites]
        show({"out": str(out), "federation": plan.name, "task": plan.task, "sites": sites_made, "test": len(plan.test)})


@datasite_app.command("report")
def datasite_report(home: HomeOption) -> None:
    """Write the privacy budget audit report (HTML, PDF, JSON) from ledger and journal."""
    from datasites.hospital.reports import write_reports
    from datasites.node.home import Home

    for path in write_reports(Home(folder=home)):
        typer.echo(path)


@datasite_app.command("import-gap")
def datasite_import_gap(
    home: HomeOption,
    by: Annotated[str, typer.Option(help="Who does this; it is written into journal and ledger.")],
    reason: Annotated[str, typer.Option(help="Why the newest copy is gone.")],
    json_output: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """After a restore from an old backup: book the rounds that journal and ledger have forgotten."""
    from datasites.node.home import Home
    from datasites.node.rollback import import_gap

    booked = import_gap(Home(folder=home), by=by, reason=reason)
    for study in booked:
        rounds = ", ".join(map(str, study["rounds"]))
        console.print(f"{study['study']}: rounds {rounds} are charged; the datasite works again", highlight=False)
    if json_output:
        show({"studies": booked})


@datasite_app.command("run")
def datasite_run(home: HomeOption, end_with_parent: ParentOption = False) -> None:
    """Run a datasite: portal, PySyft node and rounds."""
    from datasites.hospital.daemon import run

    _serve(lambda: run(home), end_with_parent)


@orchestrator_app.command("init")
def orchestrator_init(
    home: HomeOption,
    name: Annotated[str, typer.Option(help="Name of the orchestrator.")] = "orchestrator",
    institution: Annotated[str, typer.Option(help="Name of the institution.")] = "Study scientists",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="Address it listens on.")] = "127.0.0.1",
) -> None:
    """Make the orchestrator's folder and identity, and show its public key."""
    _init(home, name, institution, "orchestrator", "", host, port)


@orchestrator_app.command("run")
def orchestrator_run(home: HomeOption, end_with_parent: ParentOption = False) -> None:
    """Run the orchestrator: mailbox, rounds, encrypted sums."""
    from orchestrator.daemon import run

    _serve(lambda: run(home), end_with_parent)


@orchestrator_app.command("import-gap")
def orchestrator_import_gap(
    home: HomeOption,
    by: Annotated[str, typer.Option(help="Who does this; it is written into the journal.")],
    reason: Annotated[str, typer.Option(help="Why the newest copy is gone.")],
    json_output: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """After a restore from an old backup, while the orchestrator runs: write off the rounds it has forgotten."""
    from datasites.node.home import Home
    from orchestrator.studies.status import client_of

    with client_of(Home(folder=home)) as client:
        booked = client.post_json("/import-gap", {"by": by, "reason": reason})
    for study in booked["studies"]:
        rounds = ", ".join(map(str, study["rounds"])) or "none"
        console.print(f"{study['study']}: rounds written off: {rounds}", highlight=False)
    if json_output:
        show(booked)


@keyholder_app.command("init")
def keyholder_init(
    home: HomeOption,
    orchestrator_url: Annotated[str, typer.Option(help="Address of the orchestrator.")],
    name: Annotated[str, typer.Option(help="Name of the keyholder.")] = "keyholder",
    institution: Annotated[str, typer.Option(help="Name of the institution.")] = "Neutral keyholder",
) -> None:
    """Make the keyholder's folder and identity, and show its public key."""
    _init(home, name, institution, "keyholder", orchestrator_url, "127.0.0.1", 0)


@keyholder_app.command("run")
def keyholder_run(home: HomeOption, end_with_parent: ParentOption = False) -> None:
    """Run the keyholder: round keys, decryption of sums."""
    from datasites.keyholder.daemon import run

    _serve(lambda: run(home), end_with_parent)


@keyholder_app.command("import-gap")
def keyholder_import_gap(
    home: HomeOption,
    by: Annotated[str, typer.Option(help="Who does this; it is written into the journal.")],
    reason: Annotated[str, typer.Option(help="Why the newest copy is gone.")],
    json_output: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """After a restore from an old backup: close the rounds that the keyholder has forgotten, for ever."""
    from datasites.keyholder.rollback import import_gap
    from datasites.node.home import Home

    closed = import_gap(Home(folder=home), by=by, reason=reason)
    for study, number in closed:
        console.print(f"{study}: round {number} is over; its key is gone", highlight=False)
    if json_output:
        show({"rounds": [{"study": study, "round": number} for study, number in closed]})


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A role's folder, or a copy of it.")],
    peers: Annotated[
        list[Path] | None, typer.Option(help="A peer's folder: heads in its journal must lie in this one's chains.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Check journal and ledger of a folder offline and say where they break."""
    from datasites.node.home import Home
    from privacy.ledger.verification import heads_seen_by, verify_folder

    public_key = name = None
    if (folder / "config.json").exists() and (folder / "roster.json").exists():
        home = Home(folder=folder)
        name = home.config().name
        public_key = home.roster().by_name(name).public_key
    if peers and public_key is None:
        raise InvalidInput("expected config.json and roster.json in the folder, to know its key among the peers' heads")
    heads = [head for peer in peers or () for head in heads_seen_by(peer, owner=str(public_key), name=name)]
    found = verify_folder(folder, public_key=public_key, name=name, heads=heads)
    if json_output:
        show({"folder": str(folder), **asdict(found), "ok": found.holds})
    else:
        for chain in found.chains:
            console.print(f"{chain.file}: {chain.entries} entries, head {chain.head[:16]}, last {chain.last}")
        for finding in found.findings:
            console.print(f"[red]{finding.file}: {escape(visible(finding.message))}[/red]", highlight=False)
        if found.holds:
            console.print(f"[green]Every entry and signature holds; {found.heads_compared} heads compared.[/green]")
    if not found.holds:
        raise typer.Exit(1)


def _init(home: Path, name: str, institution: str, role: Any, url: str, host: str, port: int) -> None:
    from datasites.node.home import Config, Home
    from privacy.identity import fingerprint

    config = Config(name=name, institution=institution, role=role, orchestrator_url=url, host=host, port=port)
    party = Home.create(home, config).party()
    show({"role": role, **asdict(party), "fingerprint": fingerprint(party.public_key)})


def _serve(run: Any, end_with_parent: bool) -> None:
    from datasites.node.process import configure_logs, leave
    from datasites.node.process import end_with_parent as watch

    os.umask(0o077)
    configure_logs(os.environ.get("TESSERA_LOG_FORMAT", "text"), os.environ.get("TESSERA_LOG_LEVEL", "warning"))
    if end_with_parent:
        watch()
    run()
    leave()


def main() -> None:
    """Run the command line; every error of ours is one line and an exit code."""
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except (typer.Abort, KeyboardInterrupt):
        console.print("ended; nothing is left running")
        sys.exit(130)
    except TesseraError as error:
        console.print(f"[red]error:[/red] {escape(visible(str(error)))}", highlight=False, soft_wrap=True)
        sys.exit(_code(error))
    except _USAGE_ERROR as error:
        error.show()
        sys.exit(2)


def _code(error: TesseraError) -> int:
    if isinstance(error, InvalidInput):
        return 2
    return 3 if isinstance(error, Refused) and not isinstance(error, Tampered) else 1


if __name__ == "__main__":
    main()
