"""A seeded adversary: at random moments it kills, stops, cuts, holds, slows or starves a random role.

======  =========================================================================================
kill    ``kill -9`` of a role's process (or of the orchestrator's summing process), then a restart
stop    SIGSTOP, and SIGCONT some seconds later
cut     the role's connections are reset, in the middle of what they carry, and new ones refused
hold    the role's connections stay open, and nothing passes: a partition that nobody notices
slow    some kilobytes a second
full    the role's disk has no room; sometimes it is killed in that state, too
======  =========================================================================================
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

import psutil
from chaos_consortium import ORCHESTRATOR, STANDBY, ChaosConsortium, Role
from proxy import Link

from privacy.errors import TesseraError

WEIGHTS = {"kill": 0.62, "stop": 0.1, "cut": 0.08, "hold": 0.06, "slow": 0.06, "full": 0.08}
FAULTS = tuple(WEIGHTS)
SUM = "summing process"
_AT_ONCE = 2
_MEAN_PAUSE_SECONDS = 1.5
_SLOW_BYTES_PER_SECOND = 60_000.0


class Adversary:
    """Does ``kills`` kills and as many other faults as come with them, each in its own thread.

    Args:
        consortium: whose roles suffer.
        seed: of role, kind, moment and length of every fault; when a role is where in a round is the machine's.
        kinds: which faults.
        kills: how many ``kill -9`` in all.
        after: called after each fault, once the role is up again, one call at a time.
        state: says how far the newest round is; asked at every kill.
    """

    def __init__(
        self,
        consortium: ChaosConsortium,
        *,
        seed: int,
        kinds: tuple[str, ...],
        kills: int,
        after: Callable[[str], None],
        state: Callable[[], str] = lambda: "",
    ) -> None:
        self._consortium, self._after, self._state = consortium, after, state
        self._random = random.Random(seed)  # noqa: S311  not for secrets
        self._kinds, self._most = kinds, kills
        self._lock, self._checking = threading.Lock(), threading.Lock()
        self._slots = threading.Semaphore(_AT_ONCE)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="adversary")
        self.kills = 0
        self.faults: Counter[str] = Counter()
        self.roles: Counter[str] = Counter()
        self.killed_in: Counter[str] = Counter()
        self.problems: list[str] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether every kill was made and every fault is over."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Make the faults under way the last."""
        self._ended.set()
        self._thread.join(300)

    def _run(self) -> None:
        threads = []
        while not self._ended.is_set() and self._left():
            self._slots.acquire()
            threads.append(threading.Thread(target=self._guarded, args=self._choice(), daemon=True))
            threads[-1].start()
            self._ended.wait(self._random.expovariate(1.0) * _MEAN_PAUSE_SECONDS * _slowness())
        for thread in threads:
            thread.join(300)

    def _left(self) -> bool:
        """Whether to go on: for as long as kills are missing, counting those under way."""
        with self._lock:
            return self.faults["kill"] < self._most

    def _choice(self) -> tuple[str, str, float]:
        with self._lock:
            kind = self._random.choices(self._kinds, [WEIGHTS[k] for k in self._kinds])[0]
            free = [n for n, role in self._consortium.roles.items() if not role.busy]
            if kind in ("cut", "hold", "slow"):
                free = [name for name in free if self._consortium.roles[name].link is not None]
            name = self._random.choice(free)
            self._consortium.roles[name].busy = True
            also_kill = kind == "full" and self._random.random() < 0.4 and self.faults["kill"] < self._most
            self.faults[kind] += 1
            self.faults["kill"] += also_kill
            self.roles[name] += 1
            return name, "full+kill" if also_kill else kind, self._random.random()

    def _guarded(self, name: str, kind: str, draw: float) -> None:
        role = self._consortium.roles[name]
        try:
            self._do(role, kind, draw)
            self._consortium.wait_until_ready(name)
        except (TesseraError, OSError, psutil.Error) as error:
            self.problems.append(f"{kind} of {name}: {error}")
        finally:
            role.busy = False
            self._slots.release()
        with self._checking:
            try:
                self._after(name)
            except Exception as error:  # a check that cannot be made is a finding
                self.problems.append(f"check after {kind} of {name}: {type(error).__name__}: {error}")

    def _do(self, role: Role, kind: str, draw: float) -> None:
        if kind == "kill":
            self._kill(role, draw)
        elif kind == "stop":
            self._stop(role, 0.2 + 4 * draw)
        elif kind in ("full", "full+kill"):
            self._full(role, 1 + 4 * draw, kill=kind != "full")
        elif role.link is not None:
            _disturb(role.link, kind)
            self._rest(0.3 + 5 * draw)
            role.link.heal()

    def _kill(self, role: Role, draw: float) -> None:
        if role.name in (ORCHESTRATOR, STANDBY) and draw < 0.3 and self._kill_sum(role):
            return
        role.wanted = False  # the supervisor is to wait for us
        below, state = role.kill(), self._state()
        with self._lock:
            self.kills += 1
            self.killed_in[f"{role.name} after {state}"] += 1
        self._rest(1.5 * draw)
        role.start()
        role.wanted = True
        self._consortium.check_orphans(role, below)

    def _kill_sum(self, role: Role) -> bool:
        for process in role.descendants():
            with contextlib.suppress(psutil.Error):
                if "orchestrator.rounds.summing.sum_worker" in process.cmdline():
                    process.kill()
                    with self._lock:
                        self.kills += 1
                        self.roles[SUM] += 1
                    return True
        return False

    def _stop(self, role: Role, seconds: float) -> None:
        if role.pid:
            os.kill(role.pid, signal.SIGSTOP)
            try:
                self._rest(seconds)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(role.pid, signal.SIGCONT)

    def _full(self, role: Role, seconds: float, *, kill: bool) -> None:
        self._consortium.fill_disk(role.name)
        try:
            self._rest(seconds)
            if kill:
                self._kill_here(role)
                self._rest(1.0)
        finally:
            self._consortium.free_disk(role.name)

    def _kill_here(self, role: Role) -> None:
        role.exits_asked += 1
        below = role.kill()  # the supervisor starts it again, on a full disk
        with self._lock:
            self.kills += 1
        self._consortium.check_orphans(role, below)

    def _rest(self, seconds: float) -> None:
        time.sleep(seconds)


def _slowness() -> float:
    """Return how many processes want each core: as many times longer takes a round, and so do the faults' pauses."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def _disturb(link: Link, kind: str) -> None:
    if kind == "cut":
        link.cut()
    elif kind == "hold":
        link.hold()
    else:
        link.slow(_SLOW_BYTES_PER_SECOND)
