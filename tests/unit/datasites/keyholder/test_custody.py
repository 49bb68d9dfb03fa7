"""Round keys are made once, kept encrypted, used for one sum and destroyed."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from datasites.keyholder.checks import CheckedSum
from datasites.keyholder.custody import BadPads, KeyCustody, integers_to_bytes
from datasites.keyholder.opened import FreshWanted
from datasites.keyholder.served import Served
from datasites.study.proposal import Block, Proposal
from privacy.canonical import sha256_hex
from privacy.encryption import ckks, pads
from privacy.encryption.ciphertexts import RunningSum, pack
from privacy.encryption.parameters import choose_parameters
from privacy.errors import Refused, Tampered, UnsafeSum
from privacy.identity import Identity

ENCRYPTION = choose_parameters(sites=4, levels=100, length=30)
KEYHOLDER = Identity.from_seed(b"k" * 32)
SITES = ("alba", "bruna", "corva")
SEEDS = {site: pads.new_seed() for site in SITES}
PAD = pads.generate_pad_key()


@pytest.fixture
def proposal(new_proposal) -> Proposal:
    blocks = (
        Block(name="shared", modality=None, length=30, parameters=("w",)),
        Block(name="mrna", modality="mrna", length=8, parameters=("v",)),
    )
    return dataclasses.replace(new_proposal(), encryption=ENCRYPTION, blocks=blocks, rounds=5)


@pytest.fixture
def custody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyCustody]:
    monkeypatch.setattr(pads, "generate_pad_key", lambda: PAD)
    made = KeyCustody(tmp_path / "keys", KEYHOLDER)
    yield made
    made.close()


def key_files(folder: Path) -> list[Path]:
    return sorted((folder / "keys").glob("*.key"))


def checked_sum(proposal: Proposal, public: bytes, *, number: int = 1, value: int = 5) -> CheckedSum:
    running = {block.name: RunningSum(ENCRYPTION, ciphertexts=1) for block in proposal.blocks}
    for site in SITES:
        bare = {b.name: ckks.encrypt(public, ENCRYPTION, np.full(b.length, value)) for b in proposal.blocks}
        for name, ciphertexts in pads.pad(bare, SEEDS[site], ENCRYPTION).items():
            running[name].add(ciphertexts)
    return sealed_sum(proposal, {name: total.to_ciphertexts() for name, total in running.items()}, number)


def sealed_sum(proposal: Proposal, ciphertexts: dict[str, list[bytes]], number: int = 1) -> CheckedSum:
    return CheckedSum(
        proposal=proposal,
        round=number,
        plan_hash="a" * 64,
        list_hash="b" * 64,
        sum_hash=sha256_hex(pack(ciphertexts)),
        ciphertexts=ciphertexts,
        contributors=dict.fromkeys(ciphertexts, SITES),
        pads={site: pads.seal_seed(SEEDS[site], PAD.public, label(proposal, number, site)) for site in SITES},
    )


def label(proposal: Proposal, number: int, site: str) -> pads.PadLabel:
    return pads.PadLabel(study=proposal.study, round=number, plan_hash="a" * 64, site=site)


def attack(proposal: Proposal, number: int) -> CheckedSum:
    forged = np.zeros((2, 4096), np.uint64)
    forged[1] = 1 << 45
    return sealed_sum(proposal, {b.name: [forged.tobytes()] for b in proposal.blocks}, number)


def test_a_sum_is_answered_with_its_exact_integers(custody: KeyCustody, proposal: Proposal) -> None:
    key, public = custody.open_round(proposal, 1)
    assert (key.key_hash, key.key_bytes, key.round) == (sha256_hex(public), len(public), 1)
    answer = custody.answer(checked_sum(proposal, public))
    totals = load(answer.integers)
    assert {name: (t.dtype, t.tolist()) for name, t in totals.items()} == {
        "shared": (np.int16, [15] * 30),
        "mrna": (np.int16, [15] * 8),
    }
    assert answer.integers_hash == sha256_hex(answer.integers)


def test_the_key_of_a_round_is_the_same_until_it_is_answered(custody: KeyCustody, proposal: Proposal) -> None:
    first, again, other = (custody.open_round(proposal, number) for number in (1, 1, 2))
    assert first == again and first != other
    custody.answer(checked_sum(proposal, first[1]))
    with pytest.raises(Refused, match="over"):
        custody.open_round(proposal, 1)
    assert custody.round_key(proposal.study, 1) == first[0]


def test_a_pad_that_does_not_open_is_named_and_the_round_stays_open_for_another_list(
    custody: KeyCustody, proposal: Proposal
) -> None:
    _, public = custody.open_round(proposal, 1)
    good = checked_sum(proposal, public)
    swapped = {**good.pads, SITES[0]: good.pads[SITES[1]]}
    for bad in (swapped, {**good.pads, SITES[0]: "00"}, {**good.pads, SITES[0]: "zz" * (pads.SEALED_HEX // 2)}):
        with pytest.raises(BadPads, match=SITES[0]) as caught:
            custody.answer(dataclasses.replace(good, pads=bad))
        assert caught.value.sites == (SITES[0],)
    assert custody.answered_sum(proposal.study, 1) is None
    assert load(custody.answer(good).integers)["mrna"].tolist() == [15] * 8


@pytest.mark.parametrize("counts", [(1, 0, 0), (0, 1, 1), (2, 1, 1), (3, 0, 0)])
def test_a_sum_that_holds_a_listed_update_any_other_than_once_decrypts_to_nothing(
    custody: KeyCustody, proposal: Proposal, counts: tuple[int, ...]
) -> None:
    _, public = custody.open_round(proposal, 1)
    running = {b.name: RunningSum(ENCRYPTION, ciphertexts=1) for b in proposal.blocks}
    for site, count in zip(SITES, counts, strict=True):
        bare = {b.name: ckks.encrypt(public, ENCRYPTION, np.full(b.length, 5)) for b in proposal.blocks}
        for name, ciphertexts in pads.pad(bare, SEEDS[site], ENCRYPTION).items():
            for _ in range(count):
                running[name].add(ciphertexts)
    total = {name: total.to_ciphertexts() for name, total in running.items()}
    with pytest.raises(UnsafeSum):
        custody.answer(sealed_sum(proposal, total))


def test_the_same_sum_gets_the_same_answer_and_no_other_sum_ever_one(
    custody: KeyCustody, proposal: Proposal, tmp_path: Path
) -> None:
    _, public = custody.open_round(proposal, 1)
    first, second = checked_sum(proposal, public), checked_sum(proposal, public, value=6)
    answer = custody.answer(first)
    assert not key_files(tmp_path)
    assert custody.answer(first) == answer
    with pytest.raises(Refused, match="another sum"):
        custody.answer(second)
    again = KeyCustody(tmp_path / "keys", KEYHOLDER)
    assert again.answer(first) == answer
    assert again.answered_sum(proposal.study, 1) == first.sum_hash
    with pytest.raises(Refused, match="another sum"):
        again.answer(second)
    again.close()


def test_a_crash_while_deciding_binds_the_round_to_that_sum(
    custody: KeyCustody, proposal: Proposal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, public = custody.open_round(proposal, 1)
    first, second = checked_sum(proposal, public), checked_sum(proposal, public, value=6)
    with monkeypatch.context() as patch:
        patch.setattr(ckks, "decrypt_sums", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            custody.answer(first)
    again = KeyCustody(tmp_path / "keys", KEYHOLDER)
    with pytest.raises(Refused, match="another sum"):
        again.answer(second)
    assert load(again.answer(first).integers)["mrna"].tolist() == [15] * 8
    again.close()


def test_an_unsafe_sum_destroys_the_key_and_ends_the_round(
    custody: KeyCustody, proposal: Proposal, tmp_path: Path
) -> None:
    _, public = custody.open_round(proposal, 1)
    with pytest.raises(UnsafeSum):
        custody.answer(attack(proposal, 1))
    assert not key_files(tmp_path)
    for later in (attack(proposal, 1), checked_sum(proposal, public)):
        with pytest.raises(Refused):
            custody.answer(later)


def test_two_unsafe_sums_pause_the_study_until_its_operator_resumes_it(custody: KeyCustody, proposal: Proposal) -> None:
    for number in (1, 2):
        custody.open_round(proposal, number)
        with pytest.raises(UnsafeSum):
            custody.answer(attack(proposal, number))
    assert custody.unsafe_sums(proposal.study) == 2
    with pytest.raises(Refused, match="paused"):
        custody.open_round(proposal, 3)
    custody.resume(proposal.study)
    _, public = custody.open_round(proposal, 3)
    custody.answer(checked_sum(proposal, public, number=3))


def test_a_paused_study_decrypts_nothing_more(custody: KeyCustody, proposal: Proposal) -> None:
    publics = {number: custody.open_round(proposal, number)[1] for number in (1, 2, 3)}
    for number in (1, 2):
        with pytest.raises(UnsafeSum):
            custody.answer(attack(proposal, number))
    with pytest.raises(Refused, match="paused"):
        custody.answer(checked_sum(proposal, publics[3], number=3))


def test_secret_keys_lie_encrypted_and_unreadable_for_others(
    custody: KeyCustody, proposal: Proposal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    generate = ckks.generate_round_key
    monkeypatch.setattr(ckks, "generate_round_key", lambda *p: made.append(generate(*p)) or made[-1])
    custody.open_round(proposal, 1)
    (path,) = key_files(tmp_path)
    assert path.stat().st_mode & 0o077 == 0
    for file in (tmp_path / "keys").iterdir():
        assert made[0].secret[1000:1064] not in file.read_bytes()


def test_a_changed_key_file_or_another_keyholders_is_refused(
    custody: KeyCustody, proposal: Proposal, tmp_path: Path
) -> None:
    _, public = custody.open_round(proposal, 1)
    (path,) = key_files(tmp_path)
    whole = path.read_bytes()
    thief = KeyCustody(tmp_path / "keys", Identity.from_seed(b"t" * 32))
    with pytest.raises(Tampered):
        thief.answer(checked_sum(proposal, public))
    thief.close()
    for bad in (whole[:-1], b"", bytes([whole[0] ^ 1]) + whole[1:], whole[:50] + b"\0" + whole[51:]):
        path.write_bytes(bad)
        with pytest.raises((Tampered, Refused)):
            custody.answer(checked_sum(proposal, public))


def test_a_key_file_of_another_round_is_refused(custody: KeyCustody, proposal: Proposal, tmp_path: Path) -> None:
    public = custody.open_round(proposal, 1)[1]
    custody.open_round(proposal, 2)
    one, two = sorted(key_files(tmp_path), key=lambda p: int(p.stem.rsplit("-", 1)[1]))
    one.write_bytes(two.read_bytes())
    with pytest.raises(Tampered):
        custody.answer(checked_sum(proposal, public))


def test_a_key_lies_under_the_whole_hash_of_its_study_and_one_from_before_is_read_and_destroyed(
    custody: KeyCustody, proposal: Proposal, tmp_path: Path
) -> None:
    """Half a hash is one that two studies can be made to share; files from before have such names."""
    _, public = custody.open_round(proposal, 1)
    (path,) = key_files(tmp_path)
    digest = sha256_hex(proposal.study.encode())
    assert path.name == f"{digest}-1.key"
    path.rename(path.with_name(f"{digest[:32]}-1.key"))
    again = KeyCustody(tmp_path / "keys", KEYHOLDER)
    assert len(key_files(tmp_path)) == 1
    with pytest.raises(FreshWanted):  # the key is there, of before this start
        again.answer(checked_sum(proposal, public))
    again.close()
    assert custody.answer(checked_sum(proposal, public)).integers
    assert not key_files(tmp_path)


def test_an_event_that_was_journaled_under_half_a_hash_is_not_journaled_again(tmp_path: Path) -> None:
    home: Any = SimpleNamespace(folder=tmp_path)
    written: list[Any] = []
    journal: Any = SimpleNamespace(append_all=written.extend)
    served = Served(home=home, client=None, journal=journal)  # type: ignore[arg-type]
    (tmp_path / "journaled").mkdir()
    (tmp_path / "journaled" / sha256_hex(b"old")[:32]).touch()
    for what in ("old", "new", "new"):
        served.journal_once(what, "kind", {})
    assert written == [("kind", {})]
    assert (tmp_path / "journaled" / sha256_hex(b"new")).exists()
    served.journal_each_once([("old", "opened", {}), ("newer", "decrypted", {}), ("new", "kind", {})])
    assert written == [("kind", {}), ("decrypted", {})]


def test_keys_that_a_crash_left_behind_are_destroyed_at_the_next_start(
    custody: KeyCustody, proposal: Proposal, tmp_path: Path
) -> None:
    custody.open_round(proposal, 1)
    orphan = tmp_path / "keys" / ("0" * 32 + "-7.key")
    orphan.write_bytes(b"left behind")
    kept = KeyCustody(tmp_path / "keys", KEYHOLDER)
    assert not orphan.exists() and len(key_files(tmp_path)) == 1
    kept.close()


def test_the_keys_of_a_finished_study_are_destroyed(custody: KeyCustody, proposal: Proposal, tmp_path: Path) -> None:
    publics = {number: custody.open_round(proposal, number)[1] for number in (1, 2)}
    answer = custody.answer(checked_sum(proposal, publics[1]))
    custody.forget(proposal.study)
    assert not key_files(tmp_path)
    assert custody.answer(checked_sum_again(answer.sum_hash, proposal)) == answer
    with pytest.raises(Refused):
        custody.answer(checked_sum(proposal, publics[2], number=2))
    assert custody.unsafe_sums(proposal.study) == 0


def checked_sum_again(sum_hash: str, proposal: Proposal) -> CheckedSum:
    return dataclasses.replace(attack(proposal, 1), sum_hash=sum_hash)


def test_a_round_outside_the_study_or_of_another_proposal_gets_no_key(custody: KeyCustody, proposal: Proposal) -> None:
    for number in (0, 6):
        with pytest.raises(Refused, match="between 1 and 5"):
            custody.open_round(proposal, number)
    _, public = custody.open_round(proposal, 1)
    other = dataclasses.replace(proposal, purpose="something else")
    with pytest.raises(Refused, match="another proposal"):
        custody.open_round(other, 1)
    with pytest.raises(Refused, match="no key"):
        custody.answer(checked_sum(other, public))
    with pytest.raises(Refused, match="no key"):
        custody.round_key("unknown", 1)


def test_answers_use_the_smallest_type_that_holds_every_sum() -> None:
    total = {"a": np.array([1, -2])}
    for levels, kind in ((100, np.int16), (20_000, np.int32)):
        parameters = choose_parameters(sites=4, levels=levels, length=1)
        assert load(integers_to_bytes(total, parameters))["a"].dtype == kind


def test_the_record_of_answers_holds_no_secret_columns(custody: KeyCustody, tmp_path: Path) -> None:
    record = sqlite3.connect(tmp_path / "keys" / "answers.sqlite")
    columns = {row[1] for row in record.execute("PRAGMA table_info(rounds)")}
    record.close()
    assert columns == {
        "study",
        "round",
        "proposal_hash",
        "key_hash",
        "public",
        "pad_key",
        "state",
        "sum_hash",
        "integers",
        "list_hash",
        "opening",  # a secret key only once it is to be published
    }
