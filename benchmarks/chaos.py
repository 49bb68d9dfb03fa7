"""A real consortium under a seeded adversary, and what was lost: nothing, if the product keeps its word.

    python benchmarks/chaos.py --kills 200 --seed 1 --json

Orchestrator (two with ``--standby``), keyholder and hospitals are the product's own processes
(:mod:`chaos_consortium`), patients are made up, and studies are proposed over PySyft and approved in each portal, two
at a time (``--at-once``), while the adversary (:mod:`chaos_faults`) kills, stops, cuts, holds, slows and fills disks.
After every fault, once the role is up again, and at the end :mod:`chaos_checks` counts:

=============================  =====================================================================================
``kills``                      processes ended by ``kill -9``
``rounds_completed``           rounds with a new model
``lost_updates``               a site's update was accepted, yet the first list of its round, which was not lost, lacks
                               it; or, since faults here only delay, a round was finished without a site of the study
``double_charges``             a round stands twice in a ledger, or a ledger's charges sum to more than the rounds read
``lost_charges``               a worker was asked to read records for a round that the ledger does not charge
``charged_for_nothing``        a worker failed after the charge: its hospital sent only noise
``charged_in_lost_rounds``     charges of hospitals, each counted, for the rounds of ``rounds_lost``: their records were
                               read and encrypted, nobody could read the update, and the charge stands
``wrong_sums``                 decrypted integers differ from the sum of what the witnesses kept before encryption
``second_answers``             rounds of which keyholder and helpers together answered two lists
``unsigned_updates``           with helpers only: a hospital was started anew between its upload and its signature, and
                               the round went on without it (docs/decisions/0018-pads-among-helpers.md)
``rounds_lost``                with helpers only: both helpers were started anew in one round, a list could not be
                               declared void, or a hospital was started anew in a round beside the keyholder or a helper
``killed_in``                  kills by role, and by the last thing that the newest round had got
``orphans``                    processes below a killed or ended role that outlive it by more than 20 s
``chain_ok``                   ``tessera verify`` of every folder, with the heads that all others have seen; and of the
                               folder concerned after each fault
``final_model_equals_reference``  every round's model has the SHA-256 of the same round's in an undisturbed consortium
                               with the same homes, public seed and participants; with helpers, of each study's rounds
                               before the first that went without somebody; null if that leaves none
=============================  =====================================================================================

The seed fixes which role suffers what and for how long; where in a round that falls, the machine decides. A public
seed replaces the sites' own noise, in this consortium of made-up patients whose policies allow it: no privacy.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from chaos_checks import Checks
from chaos_consortium import ORCHESTRATOR, ChaosConsortium, approve, make_homes, may_mount, until
from chaos_faults import FAULTS, Adversary
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from datasites.study.proposal import Proposal
from orchestrator.studies.proposing.settings import Offer, StudySettings
from orchestrator.studies.submit import offers_of, scientist, submit
from privacy.errors import TesseraError

KINDS = ((False, "fedavg"), (True, "fedavg"), (True, "dgb+pcw"))
"""Studies take turns: shared noise; local noise; local noise with weights that depend on earlier rounds."""
STUDY_SECONDS = 2400.0
ANSWER_SECONDS = 300.0
_console = Console(stderr=True)


class Studies:
    """Proposes studies to a consortium and sees them through, resuming what a fault paused."""

    def __init__(self, consortium: ChaosConsortium, *, seed: int, rounds: int) -> None:
        self._consortium, self._seed, self._rounds = consortium, seed, rounds
        self._home = consortium.roles[ORCHESTRATOR].home
        self._node = scientist(self._home, consortium.client)
        self._offers: list[Offer] = []
        self.pauses: list[str] = []
        self.models: dict[tuple[str, int], str] = {}

    def meet(self) -> None:
        """Read what the hospitals offer."""
        self._offers = offers_of(self._node, self._home, self._consortium.sites, seconds=ANSWER_SECONDS)

    def propose(self, number: int) -> Proposal:
        """Propose the study of this number, again and again until every hospital has it."""
        local, aggregation = KINDS[number % len(KINDS)]
        settings = StudySettings(
            study=f"chaos-{number}",
            purpose="To see what survives.",
            legal_basis="Made-up patients.",
            task="early-late",
            rounds=self._rounds,
            noise="local" if local else "shared",
            aggregation=aggregation,
            sampling_rate=0.5,
            steps_per_round=2 if local else None,
            seed=self._seed,
            deadline_seconds=int(STUDY_SECONDS),
            min_sites=3,
        )
        until(partial(self._proposed, settings), ANSWER_SECONDS, "the proposal")
        return self._proposal

    def _proposed(self, settings: StudySettings) -> bool:
        try:
            self._proposal = submit(self._node, self._home, self._consortium.client, settings, self._offers)
        except (OSError, TesseraError) as error:  # a scientist would give the command again
            _console.print(f"proposing {settings.study}: {error}")
            return False
        return True

    def approve(self, proposal: Proposal) -> None:
        """Sign in every portal, for as long as it takes until the orchestrator knows."""
        for site in self._consortium.sites:
            until(partial(self._approved, site, proposal), ANSWER_SECONDS, f"the approval of {site}")

    def _approved(self, site: str, proposal: Proposal) -> bool:
        try:
            return approve(self._consortium.roles[site].home, site, proposal.proposal_hash)
        except (httpx.HTTPError, OSError, ValueError, KeyError):
            return False  # its portal suffers just now

    def see_through(self, first: int, count: int, progress: Any, started: Any = lambda _: None) -> None:
        """Propose ``count`` studies, have them approved, and wait until all of them are over, side by side."""
        proposals = [self.propose(number) for number in range(first, first + count)]
        for proposal in proposals:
            started(proposal)
            self.approve(proposal)
        deadline = time.monotonic() + STUDY_SECONDS
        while True:
            over = [self._over(proposal, progress) for proposal in proposals]
            if all(over):
                return
            if time.monotonic() > deadline:
                raise TesseraError(f"{[p.study for p in proposals]} are not over after {STUDY_SECONDS:g} s")
            time.sleep(0.3)

    def _over(self, proposal: Proposal, progress: Any) -> bool:
        """Note the models of a study, let it go on where a fault paused it, and say whether it is finished."""
        status = self._status(proposal.study)
        for index, checkpoint in enumerate(status.get("checkpoints", ()), start=1):
            self.models[(proposal.study, index)] = str(checkpoint["model_hash"])
        progress(len(self.models))
        if status.get("state") in ("paused", "failed"):
            self.pauses.append(f"{proposal.study} {status['state']}: {status['reason']}")
            self._consortium.client.post_json(f"/studies/{proposal.study}/resume", {})
        return bool(status.get("state") == "finished")

    def _status(self, study: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._consortium.client.get_json(f"/studies/{study}")
        except TesseraError:
            return {}
        return found


class Display:
    """Two bars on standard error."""

    def __init__(self, kills: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=_console, transient=True)
        self._kills = self._progress.add_task("kills", total=kills)
        self._rounds = self._progress.add_task("rounds", total=None)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def kills(self, done: int) -> None:
        self._progress.update(self._kills, completed=done)

    def rounds(self, done: int) -> None:
        self._progress.update(self._rounds, completed=done)


def disturbed(
    consortium: ChaosConsortium, arguments: argparse.Namespace, kinds: tuple[str, ...], display: Display
) -> dict[str, Any]:
    """Run studies until every kill is made; the last one is seen through."""
    checks = Checks(consortium)
    studies = Studies(consortium, seed=arguments.seed, rounds=arguments.rounds)
    studies.meet()

    def after(role: str) -> None:
        checks.look(role)
        display.kills(adversary.kills)

    adversary = Adversary(
        consortium, seed=arguments.seed, kinds=kinds, kills=arguments.kills, after=after, state=checks.state
    )

    def proposed(proposal: Proposal) -> None:
        checks.proposals[proposal.study] = proposal

    number = 0
    adversary.start()
    try:
        while not adversary.done or number == 0:
            studies.see_through(number + 1, arguments.at_once, display.rounds, proposed)
            number += arguments.at_once
    finally:
        adversary.stop()
    left_over = consortium.end()
    chain_ok = checks.finish()
    found, roles = checks.findings, consortium.roles.values()
    orphans = [f"{role.name}: {name}" for role in roles for name in role.orphans]
    lost = found.lost_updates | found.missing_updates  # every fault only delays: nobody should be missing
    lost |= set() if consortium.helpers else found.lost_rounds
    return {
        "kills": adversary.kills,
        "rounds_completed": len(checks.rounds) - len(found.lost_rounds),
        "lost_updates": len(lost),
        "double_charges": len(found.double_charges),
        "lost_charges": len(found.lost_charges),
        "charged_for_nothing": len(found.for_nothing),
        "wrong_sums": len(found.wrong_sums),
        "second_answers": len(found.second_answers),
        "unsigned_updates": len(found.unsigned),
        "rounds_lost": len(found.lost_rounds),
        "charged_in_lost_rounds": len(found.charged_in_lost),
        "orphans": len(orphans) + left_over,
        "chain_ok": chain_ok,
        "studies": number,
        "faults": dict(adversary.faults),
        "roles": dict(adversary.roles),
        "killed_in": dict(sorted(adversary.killed_in.items())),
        "checks": checks.looks,
        "redrawn": len(found.redrawn),
        "refusals": checks.refusals,
        "exits_unasked": dict(Counter(f"{r.name}: {code}" for r in roles for code in r.exits_unasked)),
        "pauses": studies.pauses,
        "problems": adversary.problems,
        "details": sorted(
            lost
            | found.double_charges
            | found.lost_charges
            | found.for_nothing
            | found.wrong_sums
            | found.second_answers
            | found.lost_rounds
            | found.unsigned
            | found.chains
        )
        + orphans,
        "models": checks.rounds,
        "incomplete": found.incomplete,
    }


def undisturbed(consortium: ChaosConsortium, arguments: argparse.Namespace, number: int, display: Display) -> Any:
    """Run the same studies in peace; return the model of every round."""
    studies = Studies(consortium, seed=arguments.seed, rounds=arguments.rounds)
    studies.meet()
    for first in range(1, number + 1, arguments.at_once):
        studies.see_through(first, arguments.at_once, display.rounds)
    return studies.models


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True)
        yield given.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="tessera-chaos-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run both consortia and compare them."""
    started = time.monotonic()
    kinds = tuple(arguments.faults.split(","))
    if not set(kinds) <= set(FAULTS) or "kill" not in kinds:
        raise SystemExit(f"expected --faults kill and any of {', '.join(FAULTS)}")
    with _folder(arguments.out) as folder, Display(arguments.kills) as display:
        disks = may_mount(folder / "probe")
        if not disks and "full" in kinds:
            _console.print("no tmpfs can be mounted here: disks are not filled")
            kinds = tuple(kind for kind in kinds if kind != "full")
        pristine = folder / "pristine"
        sites, helpers = make_homes(pristine, sites=arguments.sites, seed=arguments.seed, helpers=arguments.helpers)
        with ChaosConsortium(
            pristine, folder / "disturbed", sites, disks=disks, helpers=helpers, standby=arguments.standby
        ) as consortium:
            result = disturbed(consortium, arguments, kinds, display)
        seconds = time.monotonic() - started
        models, incomplete = result.pop("models"), result.pop("incomplete")
        if arguments.reference:
            with ChaosConsortium(pristine, folder / "undisturbed", sites, disks=False, helpers=helpers) as consortium:
                reference = undisturbed(consortium, arguments, result["studies"], display)
            compared = {(s, n) for s, n in set(models) | set(reference) if n < incomplete.get(s, n + 1)}
            differing = sorted(r for r in compared if models.get(r) != reference.get(r))
            result["rounds_compared"] = len(compared)
            result["final_model_equals_reference"] = not differing if compared else None
            result["details"] += [f"another model than the reference's after {s} round {n}" for s, n in differing[:3]]
        result |= {"seconds": round(seconds, 1), "seconds_with_reference": round(time.monotonic() - started, 1)}
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="processes to end by kill -9")
    parser.add_argument("--seed", type=int, default=0, help="of the adversary, the patients and the public noise")
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--helpers", type=int, choices=(0, 2), default=2, help="parties that hold part of the pads")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of each study")
    parser.add_argument("--at-once", type=int, choices=(1, 2, 3), default=2, help="studies that run side by side")
    parser.add_argument("--standby", action="store_true", help="a second orchestrator, both on a PostgreSQL")
    parser.add_argument("--faults", default=",".join(FAULTS), help="kill and any others, by commas")
    parser.add_argument("--out", type=Path, help="a new folder that is kept, with homes, logs and witnesses")
    parser.add_argument("--no-reference", dest="reference", action="store_false", help="skip the undisturbed run")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is ended and unmounted
    result = run(arguments)
    if arguments.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:30} {value}")
    counts = (
        "lost_updates",
        "double_charges",
        "lost_charges",
        "charged_for_nothing",
        "wrong_sums",
        "second_answers",
        "orphans",
    )
    bad = any(result[name] for name in counts) or not result["chain_ok"] or not result["rounds_completed"]
    sys.exit(1 if bad or result.get("final_model_equals_reference") is False else 0)


if __name__ == "__main__":
    threading.excepthook = lambda details: _console.print(f"{details.thread}: {details.exc_value}")
    main()
