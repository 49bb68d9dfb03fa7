"""No secret key and no plaintext update in the orchestrator, no single ciphertext at the keyholder.

The patterns are looked for in the memory of the processes, in the orchestrator's folder and in what hospitals exchange
with it, at every stage of a round, and found where they belong: in the hospitals' own process, which is this one.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from harness.consortium import BOUND, LEVELS, Consortium, steps_of
from support.benchmarks import BENCHMARKS
from support.forgery import Forger

from datasites.keyholder.custody import KeyFiles
from datasites.study.messages import RoundKey
from datasites.study.signing import parse
from privacy.encryption import packing

SITES, LENGTH, PIECE = 3, 5000, 96


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with Consortium(tmp_path_factory.mktemp("secrets"), sites=SITES) as made:
        made.start()
        yield made


def memory(pid: int) -> Iterator[bytes]:
    """Yield the readable, private memory of a process, region by region."""
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as mem:
        for line in maps:
            span, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            try:
                mem.seek(start)
                yield mem.read(end - start)
            except (OSError, OverflowError):
                continue  # a region that cannot be read, such as the kernel's own


def found_in(pieces: Iterator[bytes] | list[bytes], patterns: dict[str, bytes]) -> set[str]:
    found: set[str] = set()
    for piece in pieces:
        found |= {name for name, pattern in patterns.items() if name not in found and pattern in piece}
    return found


def files(folder: Path) -> list[bytes]:
    return [p.read_bytes() for p in folder.rglob("*") if p.is_file()]


def spellings(steps: np.ndarray, packed: np.ndarray) -> dict[str, bytes]:
    """Return every form in which one hospital's values could lie in memory: a piece long enough to be no accident."""
    values = steps * BOUND / LEVELS
    some = slice(100, 100 + PIECE)
    return {
        "float32": values.astype(np.float32)[some].tobytes(),
        "float64": values[some].tobytes(),
        "int64": steps.astype(np.int64)[some].tobytes(),
        "int32": steps.astype(np.int32)[some].tobytes(),
        "int16": steps.astype(np.int16)[some].tobytes(),
        "packed slots": packed[0, 10 : 10 + PIECE].tobytes(),
        "packed real parts": packed[0].real[10 : 10 + PIECE].tobytes(),
        "packed integers": packed[0].real[10 : 10 + PIECE].astype(np.int64).tobytes(),
    }


def orchestrators(consortium: Consortium) -> list[int]:
    root = psutil.Process(consortium.pid("orchestrator"))
    return [root.pid, *(c.pid for c in root.children(recursive=True))]


def record(consortium: Consortium) -> list[bytes]:
    """Keep everything that hospitals send and receive."""
    traffic: list[bytes] = []

    def sent(request: httpx.Request) -> None:
        traffic.append(request.read())

    def received(response: httpx.Response) -> None:
        traffic.append(response.read())

    for hospital in consortium.hospitals:
        hospital.client._client.event_hooks = {"request": [sent], "response": [received]}
    return traffic


def test_what_is_secret_stays_where_it_belongs(consortium: Consortium) -> None:
    traffic = record(consortium)
    proposal = consortium.propose("secrets", length=LENGTH)
    forgers = []
    for index, hospital in enumerate(consortium.hospitals):
        (item,) = [i for i in hospital.work(wait=10) if i.kind == "train"]
        forgers.append(Forger(hospital=hospital, index=index, proposal=proposal, item=item))
    steps = steps_of(0, "shared", LENGTH)
    secrets = spellings(steps, packing.pack(steps, proposal.encryption))
    secrets |= key_pieces(consortium, forgers[0])
    ciphertexts: dict[str, bytes] = {}
    for index, forger in enumerate(forgers):
        blocks = forger.ciphertexts()
        assert forger.commit(blocks).status_code == 200
        ciphertexts[f"ciphertext of site {index}"] = blocks["shared"][0][1000:1200]
        if index == 1:
            look(consortium, secrets, ciphertexts)
    folder = consortium.folder / "orchestrator"
    assert found_in(files(folder), ciphertexts) == set(ciphertexts)  # they do lie there, as files by hash
    with consortium.working():
        consortium.wait(proposal.study, "finished")
    look(consortium, secrets, ciphertexts)
    assert found_in(files(folder), ciphertexts) == set()  # and are gone with the round
    assert found_in(traffic, secrets) == set()


HOSPITAL = """
import sys, numpy as np
sys.path.insert(0, sys.argv[1])  # benchmarks/
from harness.consortium import BOUND, LEVELS, steps_of
from privacy.encryption import packing
from privacy.encryption.parameters import choose_parameters
from privacy.encryption.packing import quantise
update = (steps_of(0, "shared", 5000) * BOUND / LEVELS).astype(np.float32)
integers = quantise(update, bound=BOUND, weight=1.0, levels=LEVELS, uniform=np.zeros)
slots = packing.pack(integers, choose_parameters(sites=3, levels=LEVELS, length=5000))
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_process_that_had_handled_the_update_would_be_found_out(consortium: Consortium) -> None:
    steps = steps_of(0, "shared", LENGTH)
    packed = packing.pack(steps, consortium.proposal("control", length=LENGTH).encryption)
    command = [sys.executable, "-c", HOSPITAL, str(BENCHMARKS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        found = found_in(memory(child.pid), spellings(steps, packed))
        child.kill()
    assert found >= {"float32", "int64", "packed slots"}


def key_pieces(consortium: Consortium, forger: Forger) -> dict[str, bytes]:
    """Return pieces of the round's secret key, read from the keyholder's folder with the keyholder's own identity."""
    home = consortium.homes["keyholder"]
    key = parse(RoundKey, dict(forger.item.documents["key"].payload))
    secret = KeyFiles(home.folder / "keys", home.identity()).load(key)
    return {f"secret key {at}": secret[start : start + PIECE] for at, start in enumerate((200, 9000, 30000, 40000))}


def look(consortium: Consortium, secrets: dict[str, bytes], ciphertexts: dict[str, bytes]) -> None:
    """See that no secret is in the orchestrator and no single ciphertext at the keyholder."""
    for pid in orchestrators(consortium):
        assert found_in(memory(pid), secrets) == set()
    assert found_in(files(consortium.folder / "orchestrator"), secrets) == set()
    keyholder = consortium.pid("keyholder")
    assert found_in(memory(keyholder), ciphertexts) == set()
    assert found_in(files(consortium.folder / "keyholder"), ciphertexts | secrets) == set()
