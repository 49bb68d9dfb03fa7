"""Plain PySyft jobs in the portal: people read the code that somebody sent, and say whether it may run on mock data."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from datasites.node.web.problems import describe
from datasites.portal.access import ApiReviewer, Context, FormReviewer, Reader
from datasites.portal.api import ERRORS
from datasites.portal.code_view import code_file
from datasites.portal.context import PortalContext
from datasites.portal.pages import page
from datasites.review.findings import find
from datasites.review.plain_jobs import PlainJob, PlainJobs
from privacy.errors import InvalidInput, Refused, TesseraError

Verdict = Literal["approved", "rejected"]
_Job = Annotated[str, InPath(pattern="^[0-9a-f]{64}$")]
_Secret = Annotated[str, Form(max_length=256)]
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


@pages.get("/jobs")
def jobs(request: Request, context: Context, _: Reader) -> HTMLResponse:
    """Show what waits for a decision, with its code, and what was decided."""
    return _page(request, context)


@pages.post("/jobs/{job_id}")
def decide(
    request: Request,
    job_id: _Job,
    context: Context,
    caller: FormReviewer,
    decision: Annotated[Verdict, Form()],
    password: _Secret,
    reason: _Reason = "",
) -> Response:
    """Approve or reject a job; needs the person's password."""
    try:
        _decided(context, job_id, decision, name=caller.account.name, password=password, reason=reason)
    except TesseraError as error:
        return _page(request, context, problem=str(error), status=describe(error).status)
    return RedirectResponse(f"/jobs?notice=job-{decision}", 303)


@api.get("/jobs", summary="Plain PySyft jobs", tags=["review"])
def list_jobs(context: Context, _: Reader) -> list[PlainJob]:
    """Return all plain jobs that were received here, the newest first."""
    return list(context.jobs.jobs()) if context.jobs else []


@api.post("/jobs/{job_id}/decision", summary="Approve or reject a plain job", tags=["review"])
def decide_job(context: Context, job_id: _Job, caller: ApiReviewer, body: JobDecision) -> PlainJob:
    """Approve or reject one job; needs the caller's password."""
    name = caller.account.name
    return _decided(context, job_id, body.decision, name=name, password=body.password, reason=body.reason)


def _decided(
    context: PortalContext, job_id: str, decision: Verdict, *, name: str, password: str, reason: str
) -> PlainJob:
    now = context.clock()
    person = context.accounts.authenticate(name, password, now=now)
    if not person.decides:
        raise Refused("an auditor reads and never decides; a steward or privacy officer looks at jobs")
    return _jobs(context).decide(job_id, decision, person=name, reason=reason.strip(), now=now)


def _jobs(context: PortalContext) -> PlainJobs:
    if context.jobs is None:
        raise InvalidInput("this datasite takes in no plain jobs")
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
