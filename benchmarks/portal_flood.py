"""How quick a hospital's portal is for its steward while strangers flood it with sign-ins.

One process serves a portal with requests, with passwords as hard to try as in a hospital. ``--connections`` strangers
try wrong passwords from one address, each again as soon as it is answered, each under its own name or, with
``--new-names``, under a new one every time. Meanwhile a steward with a session opens the inbox again and again, and
another person signs in from the flood's own address with the right password and a browser that nobody knows, trying
again as long as the portal says that it is busy. The clients run on the same cores.

    python benchmarks/portal_flood.py --connections 80 --json

Targets: the inbox under 500 ms at the median, and every sign-in with the right password works within a few seconds.
With ``--new-names`` the first sign-in waits for as many checks as there are strangers; then its address is known.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
from harness import proposals

from datasites.node.home import Config
from datasites.node.web.server import WebServer
from datasites.portal.app import create_portal
from datasites.portal.context import PortalContext
from datasites.review.accounts import AccountStore
from datasites.review.approvals import ApprovalStore
from datasites.review.policy import Policy
from datasites.study.proposal import Party, Plan
from datasites.study.signing import seal
from privacy.canonical import sha256_hex
from privacy.identity import Identity
from privacy.ledger.journal import Journal

MEDIAN_MS = 500.0
_SENTENCE = "a sentence to sign in with"
_CODE = b"architecture = 'linear'\n"
_PAGE = {"accept": "text/html"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=80, help="strangers who sign in at once, 0 for none")
    parser.add_argument("--new-names", action="store_true", help="strangers use a name once only")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the measurement")
    parser.add_argument("--requests", type=int, default=20, help="in the steward's inbox")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.requests)
        return
    with tempfile.TemporaryDirectory(prefix="tessera-flood-") as folder:
        found = measure(Path(folder), arguments)
    print(json.dumps(found) if arguments.json else "\n".join(f"{key}: {value}" for key, value in found.items()))
    if not found["ok"]:
        raise SystemExit(1)


def serve(folder: Path, requests: int) -> None:
    """Serve a portal with requests on a free port; its address and a steward's cookie are written into ``folder``."""
    now, key = dt.datetime.now(dt.UTC), Identity.from_seed(b"alba" * 8)
    journal = Journal(folder / "journal.sqlite", key)
    accounts = AccountStore(folder / "accounts.sqlite")
    people = [accounts.register(accounts.invite("steward", now=now), n, _SENTENCE, now=now) for n in ("anna", "bela")]
    store = ApprovalStore(
        folder / "approvals.sqlite", site="alba", identity=key, policy=Policy(), record=journal.append
    )
    _fill(store, folder, requests, now)
    context = PortalContext(
        site="alba",
        institution="Hospital Alba",
        public_key=key.public_key,
        accounts=accounts,
        approvals=store,
        journal=journal,
        preview=_never,
        budgets=tuple,
        history=dict,
        studies=tuple,
        reports=tuple,
        dry_run=_never,
        layers=dict,
    )
    app = create_portal(context)
    config = Config(name="alba", institution="Hospital Alba", role="datasite", orchestrator_url="http://127.0.0.1:1")
    server = WebServer(app, config, app.state.service.streams.close)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    cookie = f"tessera-{key.public_key[:12]}={accounts.open_session(people[0], now=now)[0]}"

    ready = {"address": f"http://127.0.0.1:{listener.getsockname()[1]}", "cookie": cookie}
    (folder / "ready.new").write_text(json.dumps(ready))
    (folder / "ready.new").rename(folder / "ready.json")
    server.run(sockets=[listener])


def _never(*_: object) -> Any:
    raise NotImplementedError("no page of this benchmark asks for it")


def _fill(store: ApprovalStore, folder: Path, requests: int, now: dt.datetime) -> None:
    sender = Identity.from_seed(b"o" * 32)
    parties = [Party(name=n, institution=f"Hospital {n}", public_key=Identity.from_seed(n.encode() * 8).public_key)
               for n in ("alba", "brun", "corv")]  # fmt: skip
    code = folder / "code"
    code.mkdir()
    (code / "plan.toml").write_bytes(_CODE)
    for number in range(requests):
        proposal = proposals.make_proposal(
            [proposals.make_participant(party) for party in parties],
            orchestrator=Party(name="dr-lang", institution="University", public_key=sender.public_key),
            keyholder=Party(**asdict(parties[0]) | {"name": "notary", "public_key": "7" * 64}),
            created=now,
            study=f"study-{number}",
            nonce=f"{number:032d}",
            plan=Plan(kind="declarative", code={"plan.toml": sha256_hex(_CODE)}),
        )
        store.receive(seal(sender, "proposal", proposal), code, now=now)


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Start the portal, flood it, and return what steward and newcomer waited for."""
    command = [sys.executable, __file__, "--serve", str(folder), "--requests", str(arguments.requests)]
    child = subprocess.Popen(command)
    try:
        ready = folder / "ready.json"
        while not ready.exists():
            if child.poll() is not None:
                raise SystemExit("the portal did not start")
            time.sleep(0.05)
        return asyncio.run(flood(**json.loads(ready.read_text()), arguments=arguments))
    finally:
        child.terminate()
        child.wait(30)


async def flood(address: str, cookie: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Let strangers, steward and newcomer come at once."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    inbox: list[float] = []
    signed: list[float] = []
    refused = tried = 0
    end = time.monotonic() + arguments.seconds

    async def stranger(number: int, client: httpx.AsyncClient) -> None:
        nonlocal refused, tried
        while time.monotonic() < end:
            name = f"nobody-{number}-{tried}" if arguments.new_names else f"nobody-{number}"
            form = {"name": name, "password": "a wrong sentence to try"}
            try:
                answer = await client.post("/login", data=form, headers=_PAGE)
            except httpx.TimeoutException:  # where names are used once, some wait very long
                continue
            tried, refused = tried + 1, refused + (answer.status_code == 429)

    async def steward(client: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            answer = await client.get("/inbox", headers={**_PAGE, "cookie": cookie})
            inbox.append(time.monotonic() - began)
            if answer.status_code != 200 or "study-0" not in answer.text:
                raise SystemExit(f"expected the inbox, got {answer.status_code}")
            await asyncio.sleep(0.1)

    async def newcomer(client: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            while True:
                answer = await client.post("/api/login", json={"name": "bela", "password": _SENTENCE})
                if answer.status_code != 429:
                    break
                await asyncio.sleep(float(answer.headers["retry-after"]))
            if answer.status_code != 200:
                raise SystemExit(f"expected a session, got {answer.status_code}: {answer.text[:200]}")
            signed.append(time.monotonic() - began)
            client.cookies.clear()

    async with (
        httpx.AsyncClient(base_url=address, timeout=120, trust_env=False, limits=limits) as crowd,
        httpx.AsyncClient(base_url=address, timeout=120, trust_env=False) as desk,
        httpx.AsyncClient(base_url=address, timeout=120, trust_env=False) as door,
    ):
        strangers = (stranger(number, crowd) for number in range(arguments.connections))
        await asyncio.gather(steward(desk), newcomer(door), *strangers)
    median = 1000 * statistics.median(inbox)
    return {
        "connections": arguments.connections,
        "new_names": arguments.new_names,
        "seconds": arguments.seconds,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "wrong_passwords_answered": tried - refused,
        "told_to_come_back": refused,
        "inbox_pages": len(inbox),
        "inbox_median_ms": round(median, 1),
        "inbox_most_ms": round(1000 * max(inbox), 1),
        "sign_ins": len(signed),
        "sign_in_median_seconds": round(statistics.median(signed), 2) if signed else None,
        "sign_in_first_seconds": round(signed[0], 2) if signed else None,
        "sign_in_most_seconds": round(max(signed), 2) if signed else None,
        "ok": median < MEDIAN_MS and bool(signed),
    }


if __name__ == "__main__":
    main()
