"""How quick a hospital's portal is for many people at once, while a study trains on the same machine.

A demo consortium trains; simulated people with a session each open pages of one hospital's portal, read for about two
seconds, and open the next. The client runs on the same cores.

    python benchmarks/portal.py --users 100 --json
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from datasites.node.home import Home, address
from datasites.review.accounts import AccountStore
from orchestrator.studies.status import read_status

_READY_SECONDS = 240.0
_WAIT_SECONDS = 30.0
_LAG = "waiting for a core"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the measurement")
    parser.add_argument("--think", type=float, default=2.0, help="mean seconds between two pages of one person")
    parser.add_argument("--rounds", type=int, default=200, help="of the study that trains meanwhile; at most 200")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tessera-portal-") as folder:
        found = measure(Path(folder) / "demo", arguments)
    if arguments.json:
        print(json.dumps(found))
    else:
        print(f"{found['pages']} pages, p50 {found['p50_ms']} ms, p95 {found['p95_ms']} ms, p99 {found['p99_ms']} ms")
        for page, figures in found["by_page"].items():
            print(f"  {page}: {figures}")


def measure(out: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Start the demo, wait until rounds finish, and let people read."""
    command = ["demo", "--sites", "3", "--rounds", str(arguments.rounds), "--noise", "shared", "--out", str(out)]
    with (out.parent / "demo.log").open("wb") as log:
        child = subprocess.Popen([sys.executable, "-m", "orchestrator.cli.main", *command], stdout=log, stderr=log)
        try:
            orchestrator = Home(folder=out / "orchestrator")
            first = wait_for_rounds(orchestrator, child, Path(log.name))
            home = Home(folder=next(p for p in out.iterdir() if (p / "ledger.sqlite").exists()))
            cookies, pages = sessions(home, arguments.users), paths(home)
            before = os.getloadavg()[0]
            began = time.monotonic()
            loads = asyncio.run(everybody(address(home.folder), cookies, pages, arguments))
            seconds = time.monotonic() - began
            rounds = read_status(orchestrator).studies[0].rounds_completed - first
        finally:
            child.send_signal(signal.SIGINT)
            child.wait(_WAIT_SECONDS)
    return report(loads, arguments, seconds=seconds, rounds=rounds, before=before)


def wait_for_rounds(home: Home, child: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until the study's first rounds are finished; return how many are."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        if (home.folder / "address.json").exists():
            studies = read_status(home).studies
            if studies and studies[0].rounds_completed >= 2:
                return studies[0].rounds_completed
        time.sleep(0.5)
    raise SystemExit(f"the demo did not begin to train:\n{log.read_text()[-2000:]}")


def sessions(home: Home, users: int) -> list[str]:
    """Return one session's cookie per person (of one auditor's account; signing in is not measured)."""
    store, now = AccountStore(home.folder / "accounts.sqlite"), dt.datetime.now(dt.UTC)
    try:
        account = store.register(store.invite("auditor", now=now), "reader", "a sentence to read with", now=now)
        name = f"tessera-{home.identity().public_key[:12]}"
        return [f"{name}={store.open_session(account, now=now)[0]}" for _ in range(users)]
    finally:
        store.close()


def paths(home: Home) -> list[str]:
    """Return the pages people open; the request's more often than the others."""
    from datasites.review.records import ReviewRecords

    records = ReviewRecords(home.folder / "approvals.sqlite")
    try:
        request = f"/requests/{records.requests()[0].proposal_hash}"
    finally:
        records.close()
    others = ["/inbox", "/studies", "/budget", "/journal", "/reports", "/fingerprints", "/policy", "/people"]
    return [*others, "/inbox", request, request]


async def everybody(
    base: str, cookies: Sequence[str], pages: Sequence[str], arguments: argparse.Namespace
) -> dict[str, list[float]]:
    """Let all read at once; return the seconds of every page load by page, and how late the client's own clock was."""
    loads: dict[str, list[float]] = defaultdict(list)
    end = time.monotonic() + arguments.seconds

    async def person(index: int, client: httpx.AsyncClient) -> None:
        choice = random.Random(index)  # noqa: S311 - which page somebody opens is no secret
        headers = {"accept": "text/html", "cookie": cookies[index]}
        await asyncio.sleep(choice.uniform(0, arguments.think))
        while time.monotonic() < end:
            page = choice.choice(pages)
            began = time.monotonic()
            answer = await client.get(page, headers=headers)
            loads["/requests" if page.startswith("/requests") else page].append(time.monotonic() - began)
            answer.raise_for_status()
            await asyncio.sleep(choice.uniform(0.5, 1.5) * arguments.think)

    async def clock() -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            loads[_LAG].append(time.monotonic() - began - 0.01)

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=base, timeout=60, trust_env=False, limits=limits) as client:
        await asyncio.gather(clock(), *(person(index, client) for index in range(len(cookies))))
    return loads


def report(
    loads: dict[str, list[float]], arguments: argparse.Namespace, *, seconds: float, rounds: int, before: float
) -> dict[str, Any]:
    lag = loads.pop(_LAG)
    every = [s for of in loads.values() for s in of]
    return {
        "users": arguments.users,
        "think_seconds": arguments.think,
        "seconds": round(seconds, 1),
        "pages": len(every),
        "pages_per_second": round(len(every) / seconds, 1),
        "rounds_meanwhile": rounds,
        "cores": os.cpu_count(),
        "load_before": round(before, 1),
        "load_after": round(os.getloadavg()[0], 1),
        **percentiles(every),
        "waiting_for_a_core": percentiles(lag),
        "by_page": {page: {"pages": len(of), **percentiles(of)} for page, of in sorted(loads.items())},
    }


def percentiles(values: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else [*values] * 99
    return {f"p{n}_ms": round(1000 * cuts[n - 1], 1) for n in (50, 95, 99)}


if __name__ == "__main__":
    main()
