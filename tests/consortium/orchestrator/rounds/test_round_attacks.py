"""Attacks on a live round: real orchestrator and keyholder processes, real uploads, exact sums in spite of all."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from harness.consortium import LEVELS, Consortium, steps_of
from support.forgery import Forger, asked, probing, transparent, with_coefficient

from datasites.study.messages import Attestation, BlockShape, Commitments
from datasites.study.patience import Patience
from datasites.study.proposal import Proposal
from datasites.study.signing import dump, parse, seal
from models.config import ModelConfig
from privacy.canonical import sha256_hex
from privacy.encryption import pads
from privacy.errors import TesseraError
from privacy.identity import Identity

SITES = 4
LENGTH = 9000


@pytest.fixture(scope="module")
def consortium(running: Consortium) -> Consortium:
    return running.among(SITES)


def forger(consortium: Consortium, index: int, proposal: Proposal) -> Forger:
    hospital = consortium.hospitals[index]
    item = asked(hospital, "train", proposal.study)
    return Forger(hospital=hospital, index=index, proposal=proposal, item=item)


def expected_mean(sites: list[int], length: int = LENGTH, block: str = "shared") -> np.ndarray:
    return sum(steps_of(i, block, length) for i in sites) / LEVELS / len(sites)


def finish(
    consortium: Consortium, proposal: Proposal, sites: list[int], *, working: list[int] | None = None
) -> dict[str, Any]:
    with consortium.working(*(working or sites)):
        status = consortium.wait(proposal.study, "finished")
    assert status["checkpoints"][-1]["sites"] == [f"site-{i}" for i in sites]
    model = consortium.model(status)["shared"]
    np.testing.assert_allclose(model, expected_mean(sites, proposal.blocks[0].length), atol=1e-6)
    return status


# outsiders, and insiders whose bytes are no update --------------------------------------------------------------


def shape(name: str, values: int, ciphertexts: int) -> BlockShape:
    return BlockShape(name=name, values=values, ciphertexts=ciphertexts)


class Attempts:
    """Every bad upload, with the status and the reason it must be answered with."""

    def __init__(self, forger: Forger, other: Forger, earlier: Forger) -> None:
        self.forger, self.other, self.earlier = forger, other, earlier
        self.blocks = forger.ciphertexts()
        self.good = forger.envelope(self.blocks)
        self.stranger = Identity.from_seed(b"x" * 32)

    def changed(self, change: Callable[[bytes], bytes]) -> bytes:
        blocks = {name: [change(c[0]), *c[1:]] for name, c in self.blocks.items()}
        return self.forger.envelope(blocks)

    def all(self) -> dict[str, tuple[Callable[[], httpx.Response], int, str]]:
        f, good = self.forger, self.good
        prime = f.proposal.encryption.data_prime
        more = {"shared": [*self.blocks["shared"], self.blocks["shared"][0]]}
        half = len(good) // 2
        return {
            "unsigned": (lambda: f.send(good, None), 403, "Authorization header"),
            "malformed token": (lambda: f.send(good, "Tessera abc.def"), 400, "base64url"),
            "unknown caller": (lambda: f.send(good, f.token(good, signer=self.stranger)), 403, "not known"),
            "wrong signature": (lambda: f.send(good, f.token(good)[:-6] + "AAAA=="), 400, "signature"),
            "token for another address": (lambda: f.send(good, f.token(good, path="/work")), 403, "address"),
            "token for another body": (lambda: f.send(good, f.token(good + b" ")), 403, "another body"),
            "empty": (lambda: f.upload(b""), 400, "signed header"),
            "header without end": (lambda: f.upload(b"\xff\xff\xff\xff" + good[4:]), 400, "header of at most"),
            "header that is no message": (lambda: f.upload(b"\0\0\0\x02{}" + good), 400, "not a valid Signed"),
            "truncated": (lambda: f.upload(good[:-1000]), 400, "bytes after the header"),
            "longer": (lambda: f.upload(good + bytes(1000)), 400, "bytes after the header"),
            "flipped bit": (lambda: f.upload(good[:half] + bytes([good[half] ^ 1]) + good[half + 1 :]), 400, "hash"),
            "no content-length": (lambda: f.send(iter([good]), f.token(good)), 400, "content-length"),
            "more ciphertexts than fit": (lambda: f.upload(f.envelope(more)), 400, "announced"),
            "more ciphertexts, announced": (
                lambda: f.upload(f.envelope(more, blocks=(shape("shared", LENGTH, len(more["shared"])),))),
                400,
                "numbers of ciphertexts",
            ),
            "other length": (
                lambda: f.upload(f.envelope(self.blocks, blocks=(shape("shared", 7, 1),))),
                400,
                "lengths",
            ),
            "another block": (
                lambda: f.upload(f.envelope(self.blocks, blocks=(*f.header(b"").blocks, shape("x", 1, 1)))),
                400,
                "blocks",
            ),
            "no block": (lambda: f.upload(f.envelope_of(b"", blocks=())), 400, "blocks"),
            "another ring": (lambda: f.upload(f.envelope_of(good[-40000:])), 400, "announced"),
            "not a container": (
                lambda: f.upload(f.envelope_of(bytes(f.header(b"").blocks[0].ciphertexts * 65536 + 16))),
                400,
                "starts with something else",
            ),
            "coefficient out of range": (
                lambda: f.upload(self.changed(lambda c: with_coefficient(c, 5, prime))),
                400,
                "data prime",
            ),
            "transparent": (lambda: f.upload(self.changed(transparent)), 400, "transparent"),
            "another plan": (lambda: f.upload(f.envelope(self.blocks, plan_hash="0" * 64)), 403, "another plan"),
            "another proposal": (
                lambda: f.upload(f.envelope(self.blocks, proposal_hash="0" * 64)),
                403,
                "another proposal",
            ),
            "an earlier study's": (
                lambda: f.upload(self.earlier.envelope(self.blocks)),
                400,
                "another study, round or site",
            ),
            "another round's": (lambda: f.upload(f.envelope(self.blocks, round=2)), 400, "another study, round"),
            "another site's, replayed": (lambda: f.upload(self.other.envelope(self.blocks)), 400, "another key"),
            "another site's name": (
                lambda: f.upload(f.envelope(self.blocks, site="site-1")),
                400,
                "another study, round",
            ),
            "signed by somebody else": (
                lambda: f.upload(f.envelope(self.blocks, signer=self.stranger)),
                400,
                "another key",
            ),
        }


def test_every_bad_upload_is_refused_with_its_reason_and_the_round_goes_on(consortium: Consortium) -> None:
    first = consortium.propose("bad-uploads-before", length=LENGTH)
    earlier = forger(consortium, 0, first)
    finish(consortium, first, [0, 1, 2, 3])
    proposal = consortium.propose("bad-uploads", length=LENGTH)
    attempts = Attempts(forger(consortium, 0, proposal), forger(consortium, 1, proposal), earlier)
    for name, (attempt, status, reason) in attempts.all().items():
        response = attempt()
        assert response.status_code == status, f"{name}: {response.status_code} {response.text}"
        assert response.headers["content-type"] == "application/problem+json", name
        assert reason in response.json()["detail"], f"{name}: {response.json()['detail']}"
    token = attempts.forger.token(b"x" * 20)
    assert "header of at most" in attempts.forger.send(b"x" * 20, token).json()["detail"]
    assert "used before" in attempts.forger.send(b"x" * 20, token).json()["detail"]
    assert "site-0" not in " ".join(consortium.status(proposal.study)["refusals"]["1"])
    finish(consortium, proposal, [0, 1, 2, 3])
    assert not list((consortium.folder / "orchestrator" / "store" / "updates").rglob("*.incoming*"))


def test_a_length_beyond_all_bounds_is_refused_before_the_body_is_read(consortium: Consortium) -> None:
    proposal = consortium.propose("too-long", length=LENGTH)
    f = forger(consortium, 0, proposal)
    envelope = f.envelope(f.ciphertexts())
    host, port = f.hospital.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        head = (f"PUT {f.path} HTTP/1.1", "Host: x", f"Authorization: {f.token(envelope)}", f"Content-Length: {10**13}")
        connection.sendall("\r\n".join((*head, "", "")).encode() + envelope[:20000])
        answer = connection.recv(4096).decode()
    assert answer.startswith("HTTP/1.1 400") and "application/problem+json" in answer
    finish(consortium, proposal, [0, 1, 2, 3])


def test_ciphertexts_copied_from_another_site_are_refused_at_the_door(consortium: Consortium) -> None:
    proposal = consortium.propose("copied", length=LENGTH)
    one, two = forger(consortium, 0, proposal), forger(consortium, 1, proposal)
    blocks = one.ciphertexts()
    assert one.commit(blocks).status_code == 200
    copied = two.upload(two.envelope(blocks))
    assert copied.status_code == 403 and "another site" in copied.json()["detail"]
    assert one.commit(blocks).status_code == 200  # the same again does no harm
    other = one.upload(one.envelope(one.ciphertexts()))
    assert other.status_code == 403 and "takes no update" in other.json()["detail"]
    finish(consortium, proposal, [0, 1, 2, 3])


# the summing process ----------------------------------------------------------------------------------------------


def sum_workers(consortium: Consortium) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(consortium.pid("orchestrator")).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # one that ends just now
            if "orchestrator.rounds.summing.sum_worker" in " ".join(child.cmdline()):
                found.append(child)
    return sorted(found, key=psutil.Process.create_time)


def test_a_summing_process_killed_in_the_middle_of_an_add_changes_nothing(consortium: Consortium) -> None:
    proposal = consortium.propose("killed-adding", length=LENGTH)
    f = [forger(consortium, i, proposal) for i in range(SITES)]
    workers = sum_workers(consortium)
    assert f[0].commit(f[0].ciphertexts()).status_code == 200
    (worker,) = [w for w in workers if w in sum_workers(consortium)][-1:]
    worker.send_signal(signal.SIGSTOP)
    answers: list[int] = []
    blocks = f[1].ciphertexts()
    uploading = threading.Thread(target=lambda: answers.append(f[1].commit(blocks).status_code))
    uploading.start()
    time.sleep(0.5)
    assert not answers  # the add has begun and cannot end
    os.kill(worker.pid, signal.SIGKILL)
    uploading.join(120)
    assert answers == [200]
    for w in sum_workers(consortium):
        with contextlib.suppress(psutil.NoSuchProcess):
            w.kill()  # and once more while nothing is added
    time.sleep(0.1)
    assert f[2].commit(f[2].ciphertexts()).status_code == 200
    assert httpx.get(f"{consortium.url}/healthz", trust_env=False).status_code == 200
    assert f[3].commit(f[3].ciphertexts()).status_code == 200
    finish(consortium, proposal, [0, 1, 2, 3])


# one bad hospital costs nobody else the round ----------------------------------------------------------------------


def test_a_pad_that_does_not_open_costs_one_round_and_its_sender_its_place(consortium: Consortium) -> None:
    """The round is lost, not closed again without the site: the keyholder would have two sums to compare."""
    proposal = consortium.propose("bad-pad", length=LENGTH, rounds=2)
    bad = forger(consortium, 1, proposal)
    assert bad.commit(bad.ciphertexts(), pad="0" * pads.SEALED_HEX).status_code == 200
    status = finish(consortium, proposal, [0, 2, 3], working=[0, 1, 2, 3])
    lost = status["checkpoints"][0]
    assert lost["without"] == ["site-1"] and lost["sites"] == [] and "do not open" in lost["lost"]
    closed = [e.body for e in consortium.journal().entries(kind="round-closed")]
    assert [c["round"] for c in closed if c["study"] == proposal.study] == [1, 2]
    again = bad.upload(bad.envelope(bad.ciphertexts()))
    assert again.status_code == 403


def test_a_centred_study_whose_first_round_is_lost_pauses_and_a_resume_does_not_get_it_past(
    consortium: Consortium,
) -> None:
    """Trained without the means that round 1 releases, its schedule would be worse than none."""
    centred = ModelConfig(architecture="linear", features={"mrna": 1}, cohorts=("LUSC",), classes=2, centred=True)
    proposal = consortium.propose("no-means", length=LENGTH, rounds=3, model=centred)
    bad = forger(consortium, 1, proposal)
    assert bad.commit(bad.ciphertexts(), pad="0" * pads.SEALED_HEX).status_code == 200
    with consortium.working(0, 1, 2, 3):
        for _ in range(2):
            status = consortium.wait(proposal.study, "paused")
            assert "feature means, was lost; propose the study again" in status["reason"]
            assert [c["sites"] for c in status["checkpoints"]] == [[]]
            consortium.client.post_json(f"/studies/{proposal.study}/resume", {})


def test_wrong_tags_are_refused_at_the_door_and_cost_nobody_else_the_round(consortium: Consortium) -> None:
    proposal = consortium.propose("bad-tags", length=LENGTH)
    for hospital in consortium.hospitals:
        hospital.participant.handle(asked(hospital, "train", proposal.study))
    liar = consortium.hospitals[1]
    item = asked(liar, "attest", proposal.study)
    commitments = parse(Commitments, dict(item.documents["commitments"].payload))
    lie = Attestation(
        study=proposal.study,
        round=1,
        plan_hash=commitments.plan_hash,
        list_hash=commitments.list_hash,
        sum_hash=commitments.sum_hash,
        site="site-1",
        tags=("1", "2", "3", "4"),
    )
    with pytest.raises(TesseraError, match="not those of the ciphertexts"):
        path = f"/studies/{proposal.study}/rounds/1/attestation"
        liar.client.post_json(path, dump(seal(liar.home.identity(), "attestation", lie)))
    finish(consortium, proposal, [0, 2, 3])
    entries = consortium.journal().entries(kind="tags-refused")
    named = [e.body["site"] for e in entries if e.body["study"] == proposal.study]
    assert named == ["site-1"]


# who vanishes, who is late ----------------------------------------------------------------------------------------


def test_an_update_that_comes_too_late_is_refused(consortium: Consortium) -> None:
    proposal = consortium.propose("late", length=LENGTH, deadline_seconds=600, patience=Patience(grace_seconds=1))
    late = forger(consortium, 3, proposal)
    finish(consortium, proposal, [0, 1, 2])
    answer = late.upload(late.envelope(late.ciphertexts()))
    assert answer.status_code == 403 and "takes no update" in answer.json()["detail"]


# signed insiders --------------------------------------------------------------------------------------------------


def random_polynomials(ciphertext: bytes, prime: int) -> bytes:
    values = np.random.default_rng(3).integers(0, prime, len(ciphertext) // 8, dtype=np.uint64)
    return values.tobytes()


def test_an_insiders_polynomials_cost_the_round_and_never_an_answer(consortium: Consortium) -> None:
    proposal = consortium.propose("insider", length=LENGTH, rounds=4)
    prime = proposal.encryption.data_prime
    forgeries: list[Callable[[bytes], bytes]] = [probing, lambda c: random_polynomials(c, prime)]
    for number, forge in enumerate(forgeries, 1):
        f = forger(consortium, 3, proposal)
        assert f.item.round == number
        honest = f.ciphertexts()
        assert f.commit({name: [forge(c[0]), *c[1:]] for name, c in honest.items()}).status_code == 200
        with consortium.working():
            status = consortium.wait(proposal.study, "paused")
        assert "the keyholder refused: the sum is not one of honest updates" in status["reason"]
        assert "site-" not in status["reason"]
        lost = status["checkpoints"][number - 1]
        assert lost["sites"] == [] and lost["model_hash"] == status["initial"]["model_hash"]
        study = sha256_hex(proposal.study.encode())
        assert not (consortium.folder / "keyholder" / "keys" / f"{study}-{number}.key").exists()
        assert (consortium.folder / "keyholder" / "keys" / f"{study}-{number + 1}.key").exists()
        consortium.client.post_json(f"/studies/{proposal.study}/resume", {})
    with consortium.working():
        status = consortium.wait(proposal.study, "paused")
    assert "paused after sums with unsafe slots" in status["reason"]
