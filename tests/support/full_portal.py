"""A portal on which every form of every page waits for somebody; where asked for, with names as long as can be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from support.review_desk import NOW, PASSWORD, identity, make_context, make_desk, make_proposal, participant, party

from datasites.data.glance import Glance, Preview, Terms, Variables
from datasites.data.missing import Changes, Missing, Whole
from datasites.node.notices.absences import Absences
from datasites.node.notices.settings import FILE
from datasites.portal.context import PortalContext, ReportFile
from datasites.review import budgets
from datasites.review.budget_acts import BudgetActs
from datasites.review.endings import Endings, held_rounds
from datasites.review.people.acts import PersonAct, people_acts
from datasites.review.plain_jobs import PlainJobs
from datasites.review.policy import Policy
from datasites.review.policy_file import PolicyFile
from datasites.study.proposal import Proposal
from privacy.canonical import sha256_hex
from privacy.ledger.costs import StudyCost, gaussian_cost
from privacy.ledger.ledger import Ledger, case_hash

LONG = 80
_STUDY = StudyCost(rounds=4, round=gaussian_cost(3.0))
_POLICY = "[budget]\nepsilon_cap = 8.0\ndelta = 1e-5\nrequired_people = 2\n[people]\nrequired_people = 2\n"
_CODE = b"print(2)\n"


class FullPortal:
    """One hospital with a request that waits, one that is approved, a failed round, jobs, acts and absences.

    Args:
        folder: for its files.
        letters: how long the names of everybody and everything are, without a space; 0 for names as in other tests.
    """

    def __init__(self, folder: Path, letters: int = 0) -> None:
        self.folder, self._letters = folder, letters
        folder.mkdir(exist_ok=True)
        (folder / "policy.toml").write_text(_POLICY)
        self.desk = make_desk(folder, Policy.parse(_POLICY), self._study())
        self.newcomer = self.name("newcomer", most=63)
        link = self.desk.accounts.invite("steward", now=NOW, by="bela")
        self.desk.accounts.register(link, self.newcomer, PASSWORD, now=NOW)
        self._rename()
        self._mail()
        self.absences = Absences(folder)
        self.ledger = Ledger(folder / "ledger.sqlite", identity("alba"), clock=lambda: NOW)
        self.proposal, self.approved = (self.desk.submit(self._study(nonce=digit * 32)) for digit in "67")
        self.desk.approve(self.approved)
        self.desk.store.ask(
            self.proposal, reviewer=self.desk.accounts.account("bela"), reason=self.name("reason"), now=NOW
        )
        self._propose()
        self.context = self._context()
        self.pages = (
            f"/requests/{self.proposal}", f"/requests/{self.approved}", "/inbox", "/jobs", "/studies", "/budget",
            "/people", "/away", "/reports", "/fingerprints", "/policy", "/journal", f"/requests/{'0' * 64}",
        )  # fmt: skip

    def name(self, word: str, *, most: int = 1000) -> str:
        """Return a name that begins with ``word``; all are as long as the portal's names are."""
        return (word * 20)[: min(most, self._letters)] if self._letters else word

    def close(self) -> None:
        """Close the stores that only this portal has; the desk's are closed with the test's folder."""
        self.absences.close()
        self.ledger.close()
        self.desk.close()

    def _rename(self) -> None:
        if self._letters:
            for person in ("anna", "bela", "otto", self.newcomer):
                self.desk.accounts.rename(person, full_name=self.name(person), function=self.name("function"))

    def _mail(self) -> None:
        people = ("anna", "bela", self.newcomer)
        text = '[smtp]\nhost = "127.0.0.1"\nsender = "a@b.example"\n'
        text += "".join(f'[[people]]\nname = "{name}"\nemail = "a@b.example"\n' for name in people)
        (self.folder / FILE).write_text(text)

    def _study(self, **changes: str) -> Proposal:
        if not self._letters:
            return make_proposal(**changes)
        sites = [participant(name) for name in ("alba", "bruna", "corva")]
        sites = [
            replace(
                site,
                institution=self.name(f"klinikum{site.name}"),
                dataset=replace(site.dataset, name=self.name("dataset", most=64)),
            )
            for site in sites
        ]
        return make_proposal(
            study=self.name("study", most=64),
            participants=tuple(sites),
            orchestrator=party("dr-lang", self.name("universität"), "orchestrator"),
            keyholder=party("notary", self.name("notariat"), "keyholder"),
            legal_basis=self.name("basis"),
            **changes,
        )

    def _propose(self) -> None:
        bela, acts = self.desk.accounts.account("bela"), people_acts(self.desk.journal)
        key = PersonAct(kind="fingerprint", target="1" * 64, name=self.name("party"), institution=self.name("hospital"))
        for act in (PersonAct(kind="invite", target="auditor"), key):
            acts.add(act, person=bela, reason=self.name("because"), now=NOW)

    def _context(self) -> PortalContext:
        ledger, desk = self.ledger, self.desk
        dataset = self.name("alba-lung", most=64)
        population = ledger.register_dataset(dataset, 1, [case_hash(bytes(32), "case")])
        ledger.set_cap(population, epsilon=8.0, delta=1e-5, by="policy file", reason="published")
        policies = PolicyFile(self.folder / "policy.toml", journal=desk.journal, ledger=ledger)
        desk.store.policy = policies.current
        pilot = self.name("pilot", most=64)
        ledger.reserve(population, study=pilot, proposal_hash="a" * 64, plan=_STUDY)
        ledger.charge("a" * 64, 1)
        desk.journal.append("worker-failed", {"study": pilot, "round": 1})
        (self.folder / "policy.toml").write_text(_POLICY.replace("8.0", "9.0"))
        policies.current()  # held back: it takes two people
        (study,) = ledger.account(population).studies
        status = budgets.study_status(ledger.account(population), study, "approved")
        shown = replace(status, failed=held_rounds(desk.journal, pilot))
        context = make_context(desk, NOW, self.folder)
        return replace(
            context,
            institution=self.name("Universitätsklinikum") if self._letters else context.institution,
            budgets=lambda: budgets.budgets(ledger),
            history=lambda: {p: ledger.timeline(p) for p in ledger.populations()},
            budget_details=lambda: {p: budgets.details(ledger, p) for p in ledger.populations()},
            budget_acts=BudgetActs(
                ledger=ledger,
                journal=desk.journal,
                policies=policies,
                endings=Endings(ledger=ledger, journal=desk.journal, approvals=desk.store),
            ),
            studies=lambda: (shown,),
            jobs=self._jobs(),
            absences=self.absences,
            glance=lambda _: self._glance(),
            reports=lambda: tuple(self._reports(context)),
            policy_problem=lambda: policies.problem,
        )

    def _reports(self, context: PortalContext) -> list[ReportFile]:
        return [
            replace(one, title=self.name("Privacy report"), name=f"{self.name('privacy')}.pdf")
            for one in context.reports()
        ]

    def _glance(self) -> Glance:
        columns = tuple(self.name(column) for column in ("age", "grade"))
        return Glance(
            name=self.name("dataset"),
            version=1,
            cohort="LUSC",
            task="early-late",
            classes=2,
            patients=190,
            source=self.name("registry"),
            variables=(Variables(modality="clinical", count=2, names=columns),),
            preprocessing={"clinical": self.name("scaled")},
            terms=Terms(data_use=("DUO:0000007 cancer",)),
            previews=(Preview(name=self.name("mock"), columns=columns, rows=((self.name("value"), "1"),)),),
            missing=Whole(
                modalities=(Missing(modality="clinical", patients=150, of=190, variables=((columns[0], 4),)),),
                changes=Changes(since=1, added=1, changed=2, withdrawn=3, same=4),
            ),
        )

    def _jobs(self) -> PlainJobs:
        jobs = PlainJobs(self.folder / "jobs", record=self.desk.journal.append)
        (self.folder / "job").mkdir()
        (self.folder / "job" / "plan.py").write_bytes(_CODE)
        for number, answer in ((1, ""), (2, "rejected")):
            jobs.receive(
                self.name(f"mean{number}", most=64),
                self.name("scientist", most=64),
                self.folder / "job",
                {"plan.py": sha256_hex(_CODE)},
                now=NOW,
            )
            if answer:
                newest = jobs.waiting()[-1].job_id
                jobs.decide(newest, answer, person="anna", reason=self.name("reason"), now=NOW)
        return jobs
