"""``tessera datasite budget`` and ``reload``: what a hospital's people see and change of its budgets and its policy.

Every change asks for the person's own password, and for a reason; the policy says whether one person is enough.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datasites.node.commands import HomeOption, JsonOption, console, show
from privacy.errors import Refused

if TYPE_CHECKING:
    from datasites.review.accounts import Account
    from datasites.review.budget_acts import Act, BudgetActs
    from datasites.review.policy_file import PolicyFile
    from privacy.ledger.ledger import Ledger

app = typer.Typer(help="Privacy budgets: what is left, and what people change by hand.", no_args_is_help=True)
_By = Annotated[str, typer.Option(help="Your account's name; a steward or privacy officer decides.")]
_Population = Annotated[str, typer.Option(help="The patient population, as `show` names it.")]
_Reason = Annotated[str, typer.Option(help="Why; it becomes part of the record.")]
_Stdin = Annotated[bool, typer.Option("--password-stdin", help="Read your password from standard input.")]


class _Open:
    """A datasite's stores, opened beside the process that may be serving."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        from datasites.data.publishing import Datasets
        from datasites.node.home import Home
        from datasites.node.rollback import Gap
        from datasites.review.accounts import AccountStore
        from datasites.review.approvals import ApprovalStore
        from datasites.review.budget_acts import BudgetActs
        from datasites.review.endings import Endings
        from datasites.review.policy_file import PolicyFile
        from privacy.ledger.journal import Journal
        from privacy.ledger.ledger import Ledger

        found = Home(folder=home)
        config, identity = found.config(), found.identity()
        journal = stack.enter_context(closing(Journal(home / "journal.sqlite", identity)))
        self.ledger: Ledger = stack.enter_context(closing(Ledger(home / "ledger.sqlite", identity)))
        self.policies: PolicyFile = PolicyFile(home / "policy.toml", journal=journal, ledger=self.ledger)
        approvals = stack.enter_context(
            closing(
                ApprovalStore(
                    home / "approvals.sqlite",
                    site=config.name,
                    identity=identity,
                    policy=self.policies.current,
                    record=journal.append,
                )
            )
        )
        self.accounts = stack.enter_context(closing(AccountStore(home / "accounts.sqlite")))
        datasets = Datasets(home=found, ledger=self.ledger, journal=journal, policy=self.policies.current)
        gap = Gap(folder=home)
        endings = Endings(
            ledger=self.ledger, journal=journal, approvals=approvals, newest=datasets.newest, held=lambda: gap.trouble
        )
        self.acts: BudgetActs = BudgetActs(ledger=self.ledger, journal=journal, policies=self.policies, endings=endings)

    def person(self, by: str, password_stdin: bool) -> Account:
        """Return who acts, by their own password.

        Raises:
            Refused: a wrong password, or somebody who acts with a security key, which only a browser can ask for.
        """
        password = _password(by, password_stdin)
        person = self.accounts.authenticate(by, password, now=dt.datetime.now(dt.UTC))
        wanted = self.policies.current().people.security_key == "required"
        if wanted or self.accounts.security_keys.of(by):
            raise Refused(f"{by} acts with a security key, which only a browser can ask for: use the portal's pages")
        return person


def _password(by: str, password_stdin: bool) -> str:
    if password_stdin:
        return typer.get_text_stream("stdin").readline().rstrip("\r\n")
    return str(typer.prompt(f"Password of {by}", hide_input=True, err=True))


@contextmanager
def _opened(home: Path) -> Iterator[_Open]:
    with ExitStack() as stack:
        yield _Open(home, stack)


@app.command("show")
def show_budgets(home: HomeOption, json_output: JsonOption = False) -> None:
    """Show every budget: spent, reserved and for whom, what came back and why, and how many studies still fit."""
    from dataclasses import asdict

    from datasites.review import budgets

    with _opened(home) as site:
        lines = [(line, budgets.details(site.ledger, line.population)) for line in budgets.budgets(site.ledger)]
        waiting = site.acts.waiting(now=dt.datetime.now(dt.UTC))
    for line, details in lines:
        for text in _lines(line, details):
            console.print(text, highlight=False, markup=False)
    for asked in waiting:
        console.print(f"waits for another person: {asked.act.title}, asked by {', '.join(asked.people)}", markup=False)
    if json_output:
        plain = []
        for line, details in lines:
            more = asdict(details)
            plain.append(_finite({**asdict(line), **more, "reserved": line.reserved, "reservations": more["reserved"]}))
        show({"budgets": plain, "waiting": [asdict(asked) for asked in waiting]})


@app.command()
def release(
    home: HomeOption,
    study: Annotated[str, typer.Option(help="The study whose open rounds go back, or the start of its hash.")],
    by: _By,
    reason: _Reason,
    password_stdin: _Stdin = False,
) -> None:
    """Give back what is reserved for a study and was not charged; the study charges nothing here any more."""
    from datasites.review.budget_acts import Act

    with _opened(home) as site:
        act = Act(kind="release", target=site.acts.find(study))
        _ask(site, act, by, reason, password_stdin)


@app.command()
def cap(
    home: HomeOption,
    epsilon: Annotated[str, typer.Option(help="The new cap of every patient population here; inf for none.")],
    by: _By,
    reason: _Reason,
    delta: Annotated[str, typer.Option(help="The new delta; as it is when left out.")] = "",
    password_stdin: _Stdin = False,
) -> None:
    """Move the cap: it is written into policy.toml and holds from the next approval and the next round."""
    from datasites.review.budget_acts import cap_act

    with _opened(home) as site:
        _ask(site, cap_act(epsilon, delta), by, reason, password_stdin)


@app.command()
def close(
    home: HomeOption,
    population: _Population,
    by: _By,
    reason: _Reason,
    password_stdin: _Stdin = False,
) -> None:
    """Forbid every further computation on a patient population, for ever."""
    from datasites.review.budget_acts import Act

    with _opened(home) as site:
        target = site.ledger.account(population).population
        _ask(site, Act(kind="close", target=target), by, reason, password_stdin)


@app.command()
def note(
    home: HomeOption,
    population: _Population,
    what: Annotated[str, typer.Option(help="What was given out, such as: a survival curve for the board.")],
    by: _By,
    reason: _Reason,
    password_stdin: _Stdin = False,
) -> None:
    """Note what people gave out themselves: no epsilon covers it, and every report says so."""
    from datasites.review.budget_acts import Act

    with _opened(home) as site:
        target = site.ledger.account(population).population
        _ask(site, Act(kind="note", target=target, name=what), by, reason, password_stdin)


def go_on(
    home: HomeOption,
    study: Annotated[str, typer.Option(help="The study that waits after a failed round, or the start of its hash.")],
    by: _By,
    reason: _Reason,
    password_stdin: _Stdin = False,
) -> None:
    """Let a study charge again after a round that failed here, once its cause is found."""
    from datasites.review.budget_acts import Act

    with _opened(home) as site:
        _ask(site, Act(kind="continue", target=site.acts.find(study)), by, reason, password_stdin)


def reload(
    home: HomeOption,
    by: Annotated[str, typer.Option(help="Your account's name, to ask for a file that takes several people.")] = "",
    reason: _Reason = "",
    password_stdin: _Stdin = False,
    json_output: JsonOption = False,
) -> None:
    """Read policy.toml again, show what differs, and put it in force; a running datasite notices by itself."""
    from dataclasses import asdict

    from datasites.review.budget_acts import Act

    with _opened(home) as site:
        if by and site.acts.held:
            _ask(site, Act(kind="policy", target=site.acts.held), by, reason, password_stdin)
            return
        changes = site.policies.changes + site.policies.reload()
    for change in changes:
        console.print(f"{change.key}: {change.before} -> {change.after}", highlight=False, markup=False)
    if not changes:
        console.print("nothing differs from the policy in force", highlight=False)
    if json_output:
        show({"changes": [asdict(change) for change in changes]})


def _ask(site: _Open, act: Act, by: str, reason: str, password_stdin: bool) -> None:
    person = site.person(by, password_stdin)
    outcome = site.acts.ask(act, person=person, reason=reason, now=dt.datetime.now(dt.UTC))
    console.print(outcome.text, highlight=False, markup=False)


def _lines(line: Any, details: Any) -> Iterator[str]:
    from datasites.study.text import epsilon_text

    yield f"{line.population}: {', '.join(line.datasets) or 'no dataset'}{' (closed)' if details.closed else ''}"
    yield f"  cap epsilon {epsilon_text(line.cap)} at delta {line.delta:g}"
    yield f"  spent {epsilon_text(line.spent)}, with everything reserved {epsilon_text(line.reserved)}"
    for one in details.reserved:
        name = f"{one.study} ({one.proposal_hash[:12]})"
        yield f"  reserved for {name}: {one.rounds} rounds, epsilon {epsilon_text(one.epsilon)}"
    for one in details.returned:
        yield f"  came back from {one.study}: {len(one.rounds)} rounds, by {one.by}: {one.reason}"
    for one in details.by_hand:
        yield f"  given out by hand, without a guarantee: {one.name}, by {one.by}: {one.reason}"
    room = ", ".join(f"{one.studies} of epsilon {one.epsilon:g}" for one in details.room)
    yield f"  still fit: {room or 'no limit' if not details.closed else 'nothing'}"


def _finite(value: Any) -> Any:
    import math

    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and math.isinf(value) else value
