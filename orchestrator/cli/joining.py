"""``tessera invite``, ``join``, ``admit`` and ``confirm-roster``: how a party comes into a consortium."""

from __future__ import annotations

import datetime as dt
import shlex
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from datasites.node.commands import HomeOption, JsonOption, console, show
from privacy.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.enrolment.desk import Member, Standing

app = typer.Typer()
_PATIENCE_SECONDS = 60.0
DAYS = 14.0
"""How long an invitation is good unless told otherwise."""

_Out = Annotated[Path, typer.Option(help="The invitation's file; with --consortium a folder for all of them.")]


@app.command()
def invite(
    home: HomeOption,
    out: _Out,
    name: Annotated[str, typer.Argument(help="Name of the invited party, such as hospital-d.")] = "",
    institution: Annotated[str, typer.Option(help="Its institution.")] = "",
    role: Annotated[str, typer.Option(help="datasite, keyholder or helper.")] = "datasite",
    consortium: Annotated[
        Path | None, typer.Option(help="Invite everybody in this file (TOML, docs/deploy.md) instead of one party.")
    ] = None,
    qr: Annotated[Path | None, typer.Option("--qr", help="Also draw the invitation's QR code there (PNG).")] = None,
    schema: Annotated[
        Path | None, typer.Option(help="Schema of the studies: a file, or the name of one that comes along.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="Who vouches for the orchestrator's server, if not its own authority.")
    ] = None,
    days: Annotated[float, typer.Option(min=0.001, max=366, help="How long it is good.")] = DAYS,
    json_output: JsonOption = False,
) -> None:
    """Invite a party, on the orchestrator's machine: a signed file with roster, address, authority and schema."""
    from orchestrator.enrolment.members import members_of, one_member

    if (consortium is None) == (not name):
        raise InvalidInput("expected either the name of one party or --consortium FILE")
    if consortium is not None and qr is not None:
        raise InvalidInput("expected --qr with one party; with --consortium each code lies beside its invitation")
    members = members_of(consortium) if consortium else [one_member(name, institution, role)]
    written = hand_out_to(members, home, out, qr=qr, folder=consortium is not None, days=days, schema=schema, ca=ca)
    if json_output:
        show({"invitations": written})


def hand_out_to(
    members: Sequence[Member],
    home: Path,
    out: Path,
    *,
    folder: bool = True,
    days: float = DAYS,
    qr: Path | None = None,
    schema: Path | None = None,
    ca: Path | None = None,
) -> list[str]:
    """Write an invitation for each member, say where it lies and what comes next, and return the files' names."""
    from datasites.node.home import Home
    from orchestrator.enrolment.desk import Desk
    from orchestrator.enrolment.members import hand_out, read_schema

    desk = Desk(home=Home(folder=home))
    issued = desk.invite(members, days=days, now=dt.datetime.now(dt.UTC), schema=read_schema(schema), ca=ca)
    written = hand_out(issued, out, qr=qr, folder=folder)
    for one, paths in zip(issued, written, strict=True):
        named = ", ".join(str(path) for path in paths)
        console.print(
            f"{one.invitation.name}: {named}, good until {one.invitation.expires[:10]}", highlight=False, markup=False
        )
    console.print(
        "Next: give each party its invitation, run the orchestrator, and `tessera admit` once they have joined."
    )
    return [str(path) for paths in written for path in paths]


@app.command()
def join(
    invitation: Annotated[
        str, typer.Argument(help="The invitation's file, a picture (PNG) of its QR code, or the code's text.")
    ],
    home: HomeOption,
    fingerprint: Annotated[
        str, typer.Option("--fingerprint", help="The orchestrator's, as its operator told you; refused if it differs.")
    ] = "",
    host: Annotated[str, typer.Option(help="Address the portal listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the portal; 0 takes a free one.")] = 8080,
    portal_name: Annotated[
        list[str] | None,
        typer.Option(help="Host name of the portal; asks for a certificate. May be given several times."),
    ] = None,
    public_url: Annotated[
        str,
        typer.Option(envvar="TESSERA_PUBLIC_URL", help="Where people reach the portal, if not where it listens."),
    ] = "",
    proxy: Annotated[
        str,
        typer.Option(
            envvar="TESSERA_PROXY", help="Forward proxy (http://USER:PASSWORD@HOST:PORT) to the orchestrator."
        ),
    ] = "",
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the orchestrator now; `run` will.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Make this party's folder from an invitation: key, settings, policy draft and certificate request."""
    from datasites.node.consortium import check_address
    from datasites.node.home import Home
    from datasites.node.joining.codes import read_any
    from datasites.node.joining.documents import read_invitation
    from datasites.node.joining.entering import Place, enter
    from privacy import identity

    data = read_any(invitation, proxy=proxy)
    _, known = read_invitation(data)
    theirs = identity.fingerprint(known.orchestrator.public_key)
    if fingerprint and "".join(fingerprint.split()).lower() != "".join(theirs.split()):
        raise InvalidInput(
            f"expected an invitation of the orchestrator {fingerprint[:80]}, got one of {theirs}; ask who sent it"
        )
    if public_url:
        check_address(public_url)
    place = Place(host=host, port=port, names=tuple(portal_name or ()), public_url=public_url, proxy=proxy)
    enter(data, home, place, now=dt.datetime.now(dt.UTC), offline=offline)
    own = identity.fingerprint(Home(folder=home).party().public_key)
    _say_joined(known, home, theirs, own)
    if json_output:
        show(
            {
                "role": known.role,
                "name": known.name,
                "home": str(home),
                "fingerprint": own,
                "orchestrator_fingerprint": theirs,
            }
        )


def _say_joined(known: Any, home: Path, theirs: str, own: str) -> None:
    lines = [
        f"{known.name} ({known.institution}) is set up in {home}.",
        f"orchestrator's fingerprint: {theirs}",
        f"your fingerprint:           {own}",
        "Call the operator on a number that you know, and read both fingerprints to each other.",
        f"Next: tessera {known.role} run --home {shlex.quote(str(home))}",
    ]
    if known.role == "datasite":
        lines.insert(4, f"Look through {home / 'policy.toml'}, and ingest your tables (tessera datasite ingest).")
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)


@app.command()
def admit(
    home: HomeOption,
    names: Annotated[
        list[str] | None, typer.Argument(help="Whom to admit; without names the answers are listed.")
    ] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Admit all who have answered.")] = False,
    without: Annotated[list[str] | None, typer.Option(help="Who leaves the roster.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Show who has answered an invitation, or admit them after comparing fingerprints; signs the new roster."""
    from datasites.node.home import Home
    from orchestrator.enrolment.desk import Desk
    from orchestrator.enrolment.handing_over import HandOvers
    from privacy.identity import fingerprint

    desk = Desk(home=Home(folder=home))
    standings = desk.standings()
    for one in standings:
        console.print(escape(_line(one)), highlight=False, soft_wrap=True)
    handovers = HandOvers(desk.home)
    waiting = handovers.waiting()
    for key in waiting:
        console.print(escape(key.line), highlight=False, soft_wrap=True)
    chosen = list(names or ())
    if everybody:
        answered = [one.invitation.name for one in standings if one.party and not one.admitted]
        answered += [key.handover.name for key in waiting]
        chosen += [name for name in answered if name not in chosen]
    if not chosen and not without:
        console.print("Compare the fingerprints by telephone, then: tessera admit NAME ... (or --all)")
        if json_output:
            handed = [{"name": key.handover.name, "fingerprint": fingerprint(key.handover.new_key)} for key in waiting]
            show({"answers": [_facts(one) for one in standings], "handovers": handed})
        return
    now, keys = dt.datetime.now(dt.UTC), {key.handover.name for key in waiting}
    edition = handovers.admit([name for name in chosen if name in keys], now=now) if keys & set(chosen) else None
    if set(chosen) - keys or without:
        edition = desk.admit([name for name in chosen if name not in keys], without=without or (), now=now)
    if edition is None:
        raise InvalidInput("expected somebody to admit")
    console.print(
        f"The roster's edition {edition.serial} is signed, with {len(edition.roster.everybody)} parties. Hospitals "
        "confirm it in their portals, keyholder and helpers with `tessera confirm-roster`. Whoever joined has it.",
        highlight=False,
    )
    if json_output:
        parties = [party.name for party in edition.roster.everybody]
        show({"serial": edition.serial, "parties": parties, "digest": edition.digest})


def _line(one: Standing) -> str:
    """Say how far an invitation has come."""
    state = "in the roster" if one.admitted else "has not answered"
    if one.party and not one.admitted:
        state = f"fingerprint {one.fingerprint}"
        state += f"; certificate for {', '.join(one.names)}" if one.names else ""
        state += f"; NO CERTIFICATE: {one.problem}" if one.problem else ""
    return f"{one.invitation.name} ({one.invitation.institution}), {one.invitation.role}: {state}"


def _facts(one: Standing) -> dict[str, Any]:
    return {"name": one.invitation.name, "fingerprint": one.fingerprint, "admitted": one.admitted}


@app.command("confirm-roster")
def confirm_roster(
    home: HomeOption,
    by: Annotated[str, typer.Option(help="Who compared the fingerprints; with it the change is confirmed.")] = "",
    json_output: JsonOption = False,
) -> None:
    """Show how the consortium's roster has changed, or confirm the change: at keyholder, helper or hospital.

    Right after `tessera join` this waits up to a minute for the operator's `tessera admit`.
    """
    from datasites.node.home import Home
    from datasites.node.joining.changes import CONFIRMED, confirm, look, offered
    from datasites.node.joining.entering import await_admission
    from orchestrator.studies.status import client_of
    from privacy.identity import fingerprint
    from privacy.ledger.journal import Journal

    place = Home(folder=home)
    await_admission(place, seconds=_PATIENCE_SECONDS)
    with client_of(place, answer_seconds=_PATIENCE_SECONDS) as client:  # it starts anew once there is a first roster
        look(place, client)
    change = offered(place)
    if change is None:
        console.print("The roster here is the newest one.")
        if json_output:
            show({"offered": None})
        return
    for what, parties in (
        ("joins as {role}", change.joins),
        ("leaves", change.leaves),
        ("has a new key, which the one known here has signed", change.handed),
        ("would get another key, which nobody here can confirm", change.unsigned),
        ("would become {role}", change.moved),
    ):
        for party in parties:
            part = "" if party in change.leaves else change.part_of(party)
            line = f"{party.name} ({party.institution}) {what.format(role=part)}: {fingerprint(party.public_key)}"
            console.print(escape(line), highlight=False, soft_wrap=True)
    if by.strip():
        confirm(place, change.digest)
        with closing(Journal(place.folder / "journal.sqlite", place.identity())) as journal:
            journal.append(CONFIRMED, change.entry(by=by.strip()))
        console.print(f"Edition {change.edition.serial} is in force here.", highlight=False)
    else:
        console.print("Compare the fingerprints by telephone, then: tessera confirm-roster --by NAME")
    if json_output:
        show({"offered": change.edition.serial, "confirmed": bool(by.strip())})
