"""Plain PySyft jobs in the portal: people read the code that somebody sent, and say whether it may run on mock data."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from datasites.node.web.problems import describe
from datasites.portal.access import (
    ApiReviewer,
    Context,
    FormReviewer,
    PasswordProof,
    Reader,
    ServiceHere,
    address_of,
    json_proof,
)
from datasites.portal.api import ERRORS
from datasites.portal.context import PortalContext
from datasites.portal.pages import page
from datasites.portal.people.proof import Proof
from datasites.portal.service import PortalService
from datasites.portal.shown.code_view import code_file
from datasites.review.accounts import Credential
from datasites.review.findings import find
from datasites.review.people.security_keys import LONGEST_ANSWER
from datasites.review.people.vouching import check_age
from datasites.review.plain_jobs import PlainJob, PlainJobs
from privacy.errors import InvalidInput, Refused, TesseraError
from privacy.sentences import say, sentence_of

Verdict = Literal["approved", "rejected"]
_Job = Annotated[str, InPath(pattern="^[0-9a-f]{64}$")]
_Reason = Annotated[str, Form(max_length=4000)]
_SHOWN = 20
pages = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api", responses=ERRORS)


class JobDecision(BaseModel):
    """What a person decides, with their own password: a session or token alone decides nothing."""

    model_config = ConfigDict(extra="forbid", strict=True)

    decision: Verdict
    password: Annotated[str, Field(min_length=1, max_length=256)]
    reason: Annotated[str, Field(max_length=4000)] = ""
    security_key: Annotated[str, Field(max_length=LONGEST_ANSWER)] = ""


@pages.get("/jobs")
def jobs(request: Request, context: Context, _: Reader) -> HTMLResponse:
    """Show what waits for a decision, with its code, and what was decided."""
    return _page(request, context)


@pages.post("/jobs/{job_id}")
async def decide(
    request: Request,
    job_id: _Job,
    service: ServiceHere,
    caller: FormReviewer,
    decision: Annotated[Verdict, Form()],
    proof: PasswordProof,
    reason: _Reason = "",
) -> Response:
    """Approve or reject a job; needs the person's password."""

    def work() -> Response:
        try:
            _decided(service, job_id, decision, caller=caller, proof=proof, reason=reason)
        except TesseraError as error:
            return _page(request, service.context, problem=sentence_of(error), status=describe(error).status)
        return RedirectResponse(f"/jobs?notice=job-{decision}", 303)

    return await service.people.signing.run(address_of(request), caller.account.name, work)


@api.get("/jobs", summary="Plain PySyft jobs", tags=["review"])
def list_jobs(context: Context, _: Reader) -> list[PlainJob]:
    """Return all plain jobs that were received here, the newest first."""
    return list(context.jobs.jobs()) if context.jobs else []


@api.post("/jobs/{job_id}/decision", summary="Approve or reject a plain job", tags=["review"])
async def decide_job(
    request: Request, service: ServiceHere, job_id: _Job, caller: ApiReviewer, body: JobDecision
) -> PlainJob:
    """Approve or reject one job; needs the caller's password."""
    proof = json_proof(request, body)
    work = partial(_decided, service, job_id, body.decision, caller=caller, proof=proof, reason=body.reason)
    return await service.people.signing.run(address_of(request), caller.account.name, work)


def _decided(
    service: PortalService, job_id: str, decision: Verdict, *, caller: Credential, proof: Proof, reason: str
) -> PlainJob:
    service.people.prove(caller, proof)
    if not caller.account.decides:
        raise Refused(say("an auditor reads and never decides; a steward or privacy officer looks at jobs"))
    jobs = _jobs(service.context)
    for job in jobs.jobs():
        if job.job_id == job_id:
            check_age(caller.account, job.received)
    now = service.context.clock()
    return jobs.decide(job_id, decision, person=caller.account.signature, reason=reason.strip(), now=now)


def _jobs(context: PortalContext) -> PlainJobs:
    if context.jobs is None:
        raise InvalidInput(say("this datasite takes in no plain jobs"))
    return context.jobs


def _page(request: Request, context: PortalContext, *, problem: str = "", status: int = 200) -> HTMLResponse:
    found = context.jobs.jobs() if context.jobs else ()
    waiting = [
        {
            "job": job,
            "findings": find(_jobs(context).code(job.job_id), sorted(job.files)),
            "files": [
                code_file(_jobs(context).code(job.job_id), name, digest) for name, digest in sorted(job.files.items())
            ],
        }
        for job in found
        if job.decision == "waiting"
    ][:_SHOWN]
    decided = [job for job in found if job.decision != "waiting"][:100]
    return page(request, "jobs.html", status=status, problem=problem, waiting=waiting, decided=decided)
