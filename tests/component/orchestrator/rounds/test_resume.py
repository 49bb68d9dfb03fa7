"""A study can be resumed from the moment anybody can read that it is paused."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from support.pilot_study import NAMES, proposal
from support.waiting import until_in_loop

from datasites.node.credentials.tokens import make_token
from datasites.study.recomputed.next_model import model_to_bytes
from datasites.study.signing import seal
from models.config import ModelConfig
from orchestrator.api.server import create_app
from orchestrator.rounds.service import Service
from orchestrator.rounds.summing.intake import Intake
from privacy.canonical import sha256_hex


@pytest.fixture
def service(new_service: Callable[..., Service]) -> Service:
    return new_service("dr-lang", "notary", *NAMES)


def register(service: Service, *, lost: bool) -> str:
    """Register a study that everybody approved, and whose round 1, which it cannot do without, was lost or not."""
    centred = ModelConfig(architecture="linear", features={"mrna": 6}, cohorts=("LUSC",), classes=2, centred=True)
    parties = {"orchestrator": service.roster.orchestrator, "keyholder": service.roster.keyholder}
    until_then = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).isoformat()
    study = proposal(model=centred, expires=until_then, **parties)
    store = service.store
    store.add_study(study.study, seal(service.identity, "proposal", study))
    for name in NAMES:
        store.put_document(study.study, 0, "approval", {"payload": {"reviewers": []}}, author=name)
    if not lost:
        return study.study
    checkpoint = {"lost": "its sum was none of honest updates", "moments_hash": store.put_blob(model_to_bytes({}))}
    store.put_document(study.study, 1, "checkpoint", checkpoint)
    return study.study


async def resume(service: Service, study: str, folder: Path) -> None:
    app = create_app(service, mailbox_folder=folder / "mailbox")
    path, identity = f"/studies/{study}/resume", service.identity
    request = {"method": "POST", "target": path, "body_hash": sha256_hex(b"")}
    token = make_token(identity, audience=identity.public_key, **request)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        (await client.post(path, headers={"Authorization": token})).raise_for_status()


def test_a_study_resumed_while_its_summing_process_still_ends_runs_again(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = Intake.close

    async def slowly(intake: Intake) -> None:
        await asyncio.sleep(0.1)  # a killed process takes a moment
        await ending(intake)

    monkeypatch.setattr(Intake, "close", slowly)

    def state() -> str:
        return service.store.study(study)[1]

    def pauses() -> int:
        return sum(1 for _ in service.journal.entries(kind="study-paused"))

    async def scene() -> tuple[str, int]:
        await service.begin()
        await until_in_loop(lambda: state() == "paused")
        await resume(service, study, tmp_path)
        await until_in_loop(lambda: pauses() == 2 and state() == "paused")
        seen = state(), pauses()
        await service.close()
        return seen

    study = register(service, lost=True)
    assert asyncio.run(scene()) == ("paused", 2)


def test_resuming_a_study_that_runs_changes_nothing(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Intake, "warm", lambda _: asyncio.sleep(0))  # no process of its own

    async def scene() -> tuple[str, str]:
        await service.begin()
        await until_in_loop(lambda: "its key" in service.waiting(study))
        await resume(service, study, tmp_path)
        seen = service.store.study(study)[1], service.waiting(study)
        await service.close()
        return seen

    study = register(service, lost=False)
    state, waiting = asyncio.run(scene())
    assert state == "running"
    assert "its key" in waiting
