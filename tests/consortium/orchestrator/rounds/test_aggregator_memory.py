"""The aggregator's memory does not grow with the number of sites: one running sum, and network chunks."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from harness.consortium import Consortium
from support.forgery import Forger

from datasites.study.messages import BlockShape
from orchestrator.rounds.summing.sums import RunningSumProcess
from privacy.encryption import ciphertexts, ckks
from privacy.encryption.parameters import choose_parameters

LENGTH = 300_000
FEW, MANY = 5, 50


def peak_kilobytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def test_the_sum_of_fifty_sites_takes_no_more_memory_than_that_of_five(tmp_path: Path) -> None:
    encryption = choose_parameters(sites=MANY, levels=64, length=LENGTH)
    public = ckks.generate_round_key(encryption).public
    blocks = {"shared": ckks.encrypt(public, encryption, np.zeros(LENGTH, np.int64))}
    path = tmp_path / "update"
    path.write_bytes(ciphertexts.pack(blocks))
    shape = BlockShape(name="shared", values=LENGTH, ciphertexts=len(blocks["shared"]))

    async def peak(sites: int) -> int:
        running = RunningSumProcess(encryption)
        await running.restart({"shared": LENGTH})
        for index in range(sites):
            await running.add(f"site-{index}", path, [shape])
        await running.finish(tmp_path / "sum")
        assert running._process is not None
        found = peak_kilobytes(running._process.pid)
        await running.close()
        return found

    few, many = asyncio.run(peak(FEW)), asyncio.run(peak(MANY))
    assert many < 1.2 * few, (few, many)


def test_fifty_uploads_at_once_take_no_more_memory_of_the_server_than_five(tmp_path: Path) -> None:
    with Consortium(tmp_path, sites=3) as consortium:
        consortium.start()
        proposal = consortium.propose("memory", length=5 * LENGTH)
        hospital = consortium.hospitals[0]
        (item,) = [i for i in hospital.work(wait=10) if i.kind == "train"]
        forger = Forger(hospital=hospital, index=0, proposal=proposal, item=item)
        good = forger.envelope(forger.ciphertexts())
        wrong = good[:-1] + bytes([good[-1] ^ 1])  # streamed to its end and only then refused

        def upload(_: int) -> int:
            return forger.upload(wrong).status_code

        with ThreadPoolExecutor(FEW) as pool:
            assert set(pool.map(upload, range(FEW))) == {400}
        few = peak_kilobytes(consortium.pid("orchestrator"))
        with ThreadPoolExecutor(MANY) as pool:
            assert set(pool.map(upload, range(MANY))) == {400}
        many = peak_kilobytes(consortium.pid("orchestrator"))
    kept = (MANY - FEW) * len(good) / 1024  # what it would take to hold them all
    assert many - few < kept / 4, (few, many, kept)
