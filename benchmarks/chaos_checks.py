"""What was lost? Counted from evidence that the code under test did not write, or wrote long before the fault.

* Rounds whose records were read, integers before encryption and accepted uploads come from each hospital's witness
  (:mod:`chaos_site`), charges from the rows of its ledger, read with plain SQL.
* What was decrypted comes from the orchestrator's store, read with plain SQL and as the files it serves.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from chaos_consortium import KEYHOLDER, ORCHESTRATOR, STANDBY, ChaosConsortium
from safetensors.numpy import load

from datasites.study.proposal import Proposal
from privacy.ledger.costs import study_cost
from privacy.ledger.verification import verify_folder

Round = tuple[str, int]


@dataclass
class Findings:
    """Everything that was found wrong, each thing once however often it is looked at."""

    lost_updates: set[str] = field(default_factory=set)
    missing_updates: set[str] = field(default_factory=set)
    double_charges: set[str] = field(default_factory=set)
    lost_charges: set[str] = field(default_factory=set)
    for_nothing: set[str] = field(default_factory=set)
    wrong_sums: set[str] = field(default_factory=set)
    lost_rounds: set[str] = field(default_factory=set)
    charged_in_lost: set[str] = field(default_factory=set)
    redrawn: set[str] = field(default_factory=set)
    second_answers: set[str] = field(default_factory=set)
    unsigned: set[str] = field(default_factory=set)
    chains: set[str] = field(default_factory=set)
    incomplete: dict[str, int] = field(default_factory=dict)
    """By study, the first round that went without somebody: later models differ from an undisturbed study's."""


class Checks:
    """Looks at a consortium from outside; :meth:`look` after every fault, :meth:`finish` at the end."""

    def __init__(self, consortium: ChaosConsortium) -> None:
        self._consortium = consortium
        self.findings = Findings()
        self.proposals: dict[str, Proposal] = {}
        self.rounds: dict[Round, str] = {}
        self.looks = 0
        self.refusals: list[str] = []
        self._lost: set[Round] = set()

    def look(self, role: str) -> None:
        """Check everything that can be known at this moment, and the chains of one role."""
        self.looks += 1
        for site in self._consortium.sites:
            self._charges(site)
        self._sums()
        self._chain(role)

    def finish(self) -> bool:
        """Check everything once more, now that all roles have ended; return whether every chain holds."""
        for site in self._consortium.sites:
            self._charges(site)
            self._spend(site)
        self._sums()
        for site in self._consortium.sites:
            charged = {(body["study"], body["round"]) for body in self._ledger(site, "charge")}
            self.findings.charged_in_lost |= {f"{site} {study} round {n}" for study, n in charged & self._lost}
        self._answers()
        self.refusals = self._refused()
        verified = {name: self._verified(name) for name in self._consortium.roles if name != self._behind()}
        return all(verified.values()) and not self.findings.chains

    def _behind(self) -> str:
        """Return which of two orchestrators has the shorter journal: it stood by at the end, and lacks the rest."""
        if STANDBY not in self._consortium.roles:
            return ""
        query = "SELECT COUNT(*) FROM entries"
        homes = {name: self._consortium.roles[name].home.folder for name in (ORCHESTRATOR, STANDBY)}
        lengths = {name: _rows(home / "journal.sqlite", query)[0][0] for name, home in homes.items()}
        return min(lengths, key=lambda name: int(lengths[name]))

    def _stored(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the orchestrator's database."""
        if not self._consortium.database:
            return _rows(self._consortium.store / "orchestrator.sqlite", query, *values)
        with psycopg.connect(self._consortium.database) as connection:
            return connection.execute(query.replace("?", "%s").encode(), values).fetchall()

    # charges ---------------------------------------------------------------------------------------------------

    def _charges(self, site: str) -> None:
        read = set(self._witnessed(site, "reads.jsonl"))  # before the ledger: a charge comes first
        charged = Counter((body["study"], body["round"]) for body in self._ledger(site, "charge"))
        self.findings.double_charges |= {f"{site} {r}" for r, times in charged.items() if times > 1}
        self.findings.lost_charges |= {f"{site} {r}" for r in read - set(charged)}
        journal = self._consortium.roles[site].home.folder / "journal.sqlite"
        failed = [json.loads(b) for (b,) in _rows(journal, "SELECT body FROM entries WHERE kind = 'worker-failed'")]
        self.findings.for_nothing |= {f"{site} {b['study']} round {b['round']}: only noise" for b in failed}
        self.findings.redrawn |= {f"{site} {r}" for r in self._witnessed(site, "redrawn.jsonl")}

    def _spend(self, site: str) -> None:
        """Compare the sum of all charges with that of the rounds whose records were read, order by order."""
        total = np.zeros(1)
        for body in self._ledger(site, "charge"):
            total = total + np.asarray(body["cost"]["rdp"], dtype=float)
        expected = np.zeros(1)
        read = set(self._witnessed(site, "reads.jsonl"))
        for study in {study for study, _ in read}:
            cost = study_cost(self.proposals[study].mechanism)
            rounds = cost.of_rounds(sorted(number for name, number in read if name == study))
            expected = expected + np.asarray(rounds.rdp, dtype=float)
        if np.any(total > expected * (1 + 1e-9)):
            self.findings.double_charges.add(f"{site}: more was charged than was read")
        if np.any(total < expected * (1 - 1e-9)):
            self.findings.lost_charges.add(f"{site}: less was charged than was read")

    def _ledger(self, site: str, kind: str) -> list[dict[str, Any]]:
        path = self._consortium.roles[site].home.folder / "ledger.sqlite"
        return [json.loads(body) for (body,) in _rows(path, "SELECT body FROM entries WHERE kind = ?", kind)]

    def _witnessed(self, site: str, name: str) -> Iterator[Round]:
        path = self._consortium.witness(site) / name
        for line in path.read_bytes().splitlines() if path.exists() else ():
            value = json.loads(line)
            yield str(value["study"]), int(value["round"])

    # sums ------------------------------------------------------------------------------------------------------

    def _sums(self) -> None:
        query = "SELECT study, round, document FROM documents WHERE kind = 'checkpoint' ORDER BY study, round"
        finished = [(str(s), int(n), json.loads(d)) for s, n, d in self._stored(query)]
        for study, number, checkpoint in finished:
            if (study, number) not in self.rounds and study in self.proposals:
                self._round(study, number, checkpoint)
                self.rounds[(study, number)] = str(checkpoint["model_hash"])

    def _round(self, study: str, number: int, checkpoint: dict[str, Any]) -> None:
        where, proposal = f"{study} round {number}", self.proposals[study]
        inside = set(checkpoint["sites"])
        if inside != set(self._consortium.sites):
            self.findings.incomplete.setdefault(study, number)
        listed = self._listed(study, number)
        for site in self._consortium.sites:
            taken = (study, number) in set(self._witnessed(site, "accepted.jsonl"))
            if taken and site not in listed and not checkpoint.get("lost"):
                self.findings.lost_updates.add(f"{site} {where}: accepted and in no list")
            if site not in inside and not checkpoint.get("lost"):
                self._missing(site, study, number)
        if checkpoint.get("lost"):
            self.findings.lost_rounds.add(f"{where}: {checkpoint['lost']}")
            self._lost.add((study, number))
            return
        query = "SELECT document FROM documents WHERE study = ? AND round = ? AND kind = 'result' AND author = ?"
        ((result,),) = self._stored(query, study, number, KEYHOLDER)
        digest = json.loads(result)["payload"]["integers_hash"]
        decrypted = load((self._consortium.store / "blobs" / digest).read_bytes())
        expected = {block.name: np.zeros(block.length, np.int64) for block in proposal.exchanged_blocks()}
        for site in inside:
            for index, block in enumerate(proposal.blocks_of(site)):
                kept = self._consortium.witness(site) / "kept" / study / str(number) / f"{index}.npy"
                expected[block.name] += np.load(kept)
        same = set(decrypted) == set(expected)
        if not same or any(not np.array_equal(decrypted[name], expected[name]) for name in expected):
            self.findings.wrong_sums.add(where)

    def _missing(self, site: str, study: str, number: int) -> None:
        """Note an update that is in no sum. With helpers, a hospital started anew in between may not sign its list."""
        query = "SELECT COUNT(*) FROM documents WHERE kind = 'refusal' AND study = ? AND round = ? AND author = ?"
        ((refusals,),) = self._stored(query, study, number, site)
        found = self.findings.unsigned if self._consortium.helpers and refusals else self.findings.missing_updates
        found.add(f"{site} {study} round {number}")

    def _answers(self) -> None:
        """Look for two lists of a round that keyholder or helpers answered, by the journals of all three."""
        answered: dict[Round, set[str]] = {}
        for name, kind in [(KEYHOLDER, "decrypted"), *((name, "pads-summed") for name in self._consortium.helpers)]:
            path = self._consortium.roles[name].home.folder / "journal.sqlite"
            for (text,) in _rows(path, "SELECT body FROM entries WHERE kind = ?", kind):
                body = json.loads(text)
                answered.setdefault((str(body["study"]), int(body["round"])), set()).add(str(body["list_hash"]))
        self.findings.second_answers |= {
            f"{study} round {n}" for (study, n), lists in answered.items() if len(lists) > 1
        }

    def state(self) -> str:
        """Return how far the newest round is, by the last kind of document that the orchestrator keeps of it."""
        last = "round DESC, closing DESC" if self._consortium.database else "rowid DESC"
        query = f"SELECT study, round, kind FROM documents WHERE kind != 'refusal' ORDER BY {last} LIMIT 1"  # noqa: S608
        try:
            found = self._stored(query)
        except (sqlite3.Error, psycopg.Error):  # it is being made
            return "starting"
        return str(found[0][2]) if found else "starting"

    def _listed(self, study: str, number: int) -> set[str]:
        """Return the sites in the list with which a round was closed first."""
        query = "SELECT document FROM documents WHERE study = ? AND round = ? AND kind = 'commitments' AND closing = 1"
        rows = self._stored(query, study, number)
        return {update["payload"]["site"] for (text,) in rows for update in json.loads(text)["payload"]["updates"]}

    def _refused(self) -> list[str]:
        """Return what hospitals or keyholder refused; where faults only delay, nobody should."""
        rows = self._stored("SELECT document FROM documents WHERE kind = 'refusal'")
        found = [json.loads(document)["payload"] for (document,) in rows]
        return [f"{f['party']} {f['study']} round {f['round']}: {f['reason']}" for f in found]

    # chains ----------------------------------------------------------------------------------------------------

    def _chain(self, name: str) -> None:
        home = self._consortium.roles[name].home
        if name == STANDBY and not (home.folder / "journal.sqlite").exists():
            return  # it has never led
        found = verify_folder(home.folder, public_key=home.identity().public_key, name=name)
        self.findings.chains |= {f"{name}: {finding.file}: {finding.message}" for finding in found.findings}

    def _verified(self, name: str) -> bool:
        """Run ``tessera verify`` on a folder, with everybody else's as peers."""
        roles = self._consortium.roles
        peers = [part for p in roles if p != name for part in ("--peers", str(roles[p].home.folder))]
        command = [
            sys.executable,
            "-m",
            "orchestrator.cli.main",
            "verify",
            str(roles[name].home.folder),
            *peers,
            "--json",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.findings.chains.add(f"{name}: {(done.stdout + done.stderr).strip()[-500:]}")
        return done.returncode == 0


def _rows(path: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Read a role's database beside the role, without the right to write."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30.0)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()
