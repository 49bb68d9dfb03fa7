"""The keyholder answers with integers that are not the sum, so that hospitals compute a model of its choice.

Played: invented integers; pad sums and keys made to fit them, also by keyholder and helpers together; an opening of
another list or sum; helpers that lie to the keyholder or to the hospitals; an orchestrator that swaps bytes or hides a
helper. In a study that publishes, every hospital recomputes the integers and refuses them before the next round is
charged. On the code before, a hospital took whatever the keyholder signed. `test_hidden_helper.py` plays the same with
commitments that lie, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load
from support.helped import H, HelpedStage, J

from datasites.hospital.rounds.published import UNCONFIRMED
from datasites.keyholder.opened import counts_of, integers_to_bytes, pack_opening, split_opening
from datasites.study.messages import PadSums
from datasites.study.recomputed.chain import RoundEvidence
from datasites.study.signing import parse, seal
from privacy.canonical import sha256_hex
from privacy.encryption import ckks, shares
from privacy.errors import Refused

ALL = (0, 1, 2, 3)


@pytest.fixture
def shown(helped: HelpedStage) -> RoundEvidence:
    helped.train_all()
    return helped.published(helped.listed(*ALL))


def invented(stage: HelpedStage) -> bytes:
    """The integers that the keyholder would like: the update of one hospital, four times over."""
    value = np.full(700, 4 * 17, np.int64)
    return integers_to_bytes({"shared": value}, stage.proposal.encryption)


def kept(stage: HelpedStage) -> tuple[bytes, dict[int, shares.PartSum]]:
    published, sums, _ = split_opening(stage.proposal, stage.liar.opened["opening"])
    counts = counts_of(stage.proposal)
    return published, {p: shares.from_bytes(data, counts, stage.proposal.encryption) for p, data in sums.items()}


def salts(stage: HelpedStage) -> bytes:
    return b"".join(split_opening(stage.proposal, stage.liar.opened["opening"])[2].values())


def with_sums(
    stage: HelpedStage, shown: RoundEvidence, part: int, change: shares.PartSum, **said: str
) -> RoundEvidence:
    """The keyholder publishes another sum of one of its parts."""
    published, sums = kept(stage)
    sums[part] = change
    body = published + b"".join(shares.to_bytes(sums[p]) for p in (1, 2)) + salts(stage)
    hashes = {str(p): sha256_hex(shares.to_bytes(sums[p])) for p in (1, 2)}
    return stage.opening(shown, body, parts=hashes, **said)


def fitting(stage: HelpedStage, part: int) -> shares.PartSum:
    """A pad sum under which the true sum decrypts to something else: the keyholder shifts it by an encoding."""
    published, sums = kept(stage)
    encryption = stage.proposal.encryption
    (chunk,) = ckks.encrypt(stage.liar.opened["key"], encryption, np.full(700, 3, np.int64))
    (c0, c1), q = np.frombuffer(chunk, "<u8").reshape(2, -1), encryption.data_prime
    s = np.frombuffer(published, "<u8")[: encryption.poly_modulus_degree]
    encoded = [(int(a) + int(b) * int(c)) % q for a, b, c in zip(c0, c1, s, strict=True)]
    shifted = [(int(p) - m) % q for p, m in zip(sums[part]["shared"][0], encoded, strict=True)]
    return {"shared": np.array([shifted], np.uint64)}


def test_the_true_sum_is_recomputed_by_everybody(helped: HelpedStage, shown: RoundEvidence) -> None:
    found = helped.recompute(shown)
    assert sha256_hex(found) == shown.result.payload["integers_hash"]  # type: ignore[union-attr]
    assert load(found)["shared"].tolist() == load(helped.liar.sent["result"][-1][1])["shared"].tolist()


def test_invented_integers_alone_are_noticed(helped: HelpedStage, shown: RoundEvidence) -> None:
    lied = helped.opening(shown, helped.liar.opened["opening"], integers_hash=sha256_hex(invented(helped)))
    with pytest.raises(Refused, match="signed other integers"):
        helped.recompute(lied)


@pytest.mark.parametrize("part", [1, 2])
def test_pad_sums_made_to_fit_are_noticed(helped: HelpedStage, shown: RoundEvidence, part: int) -> None:
    lied = with_sums(helped, shown, part, fitting(helped, part))
    with pytest.raises(Refused, match=f"pad sum {part} is not the one that the hospitals of the list vouch for"):
        helped.recompute(lied)


def test_a_third_pad_sum_made_to_fit_is_noticed(helped: HelpedStage, shown: RoundEvidence) -> None:
    counts = counts_of(helped.proposal)
    third = shares.from_bytes(helped.liar.opened["pads"], counts, helped.proposal.encryption)
    changed = third["shared"].copy()
    changed[0, 0] = (int(changed[0, 0]) + 1) % helped.proposal.encryption.data_prime
    helped.liar.opened["pads"] = shares.to_bytes({"shared": changed})
    with pytest.raises(Refused, match="pad sum 3 is not the one that the hospitals"):
        helped.recompute(shown)


def test_the_fitted_pad_sum_would_decrypt_and_no_word_of_a_helper_makes_it_right(
    helped: HelpedStage, shown: RoundEvidence
) -> None:
    """Played: keyholder and a helper sign the same false pad sum; before hospitals tagged their pads, this passed."""
    changed = fitting(helped, 1)
    sums = {**kept(helped)[1], 1: changed}
    third = shares.from_bytes(helped.liar.opened["pads"], counts_of(helped.proposal), helped.proposal.encryption)
    blocks = {"shared": _chunks(helped.liar.opened["sum"])}
    bare = shares.subtract(blocks, [*sums.values(), third], helped.proposal.encryption)
    secret = ckks.secret_of(kept(helped)[0], helped.liar.opened["key"], helped.proposal.encryption)
    found = ckks.decrypt_sum(secret, helped.proposal.encryption, bare["shared"], values=700, contributors=4)
    integers = integers_to_bytes({"shared": found}, helped.proposal.encryption)
    true = load(helped.liar.sent["result"][-1][1])["shared"]
    assert (found - true).tolist() == [3] * 700
    lied = with_sums(helped, shown, 1, changed, integers_hash=sha256_hex(integers))
    lied = helped.pads_said(J, lied, **{"1": sha256_hex(shares.to_bytes(changed))})
    with pytest.raises(Refused, match="pad sum 1 is not the one that the hospitals"):
        helped.recompute(lied)


def _chunks(body: bytes) -> list[bytes]:
    return [body[16 + i : 16 + i + 65536] for i in range(0, len(body) - 16, 65536)]


def test_another_secret_key_is_noticed(helped: HelpedStage, shown: RoundEvidence) -> None:
    _, sums = kept(helped)
    other = ckks.generate_round_key(helped.proposal.encryption).secret
    lied = helped.opening(shown, pack_opening(helped.proposal, other, list(sums.values()), [salts(helped)]))
    with pytest.raises(Refused, match="is not the secret of the round's public key"):
        helped.recompute(lied)


def test_an_opening_of_another_list_or_sum_is_noticed(helped: HelpedStage, shown: RoundEvidence) -> None:
    for changes in ({"list_hash": "0" * 64}, {"sum_hash": "0" * 64}, {"round": 2}, {"study": "another"}):
        lied = helped.opening(shown, helped.liar.opened["opening"], **changes)
        with pytest.raises(Refused, match="of another study, round, list or sum"):
            helped.recompute(lied)


def test_an_opening_that_the_orchestrator_made_up_is_noticed(helped: HelpedStage, shown: RoundEvidence) -> None:
    assert shown.opening is not None
    forged = seal(helped.liar.identity, "opening", parse(PadSums, dict(shown.helped[0].payload)))
    with pytest.raises(Refused, match="carries another key"):
        helped.recompute(replace(shown, opening=forged))


SWAPS: dict[str, Callable[[bytes], bytes]] = {
    "one bit": lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
    "cut short": lambda data: data[:-8],
    "empty": lambda _: b"",
    "longer": lambda data: data + b"\0" * 8,
}


@pytest.mark.parametrize("what", ["sum", "opening", "pads", "key"])
def test_swapped_bytes_are_noticed(helped: HelpedStage, shown: RoundEvidence, what: str) -> None:
    true = helped.liar.opened[what]
    for name, swap in SWAPS.items():
        helped.liar.opened[what] = swap(true)
        with pytest.raises(Refused):
            helped.recompute(shown)
            pytest.fail(f"{name} was not noticed")
    helped.liar.opened[what] = true
    assert helped.recompute(shown)


def test_a_helper_that_lies_to_the_hospitals_changes_nothing(helped: HelpedStage, shown: RoundEvidence) -> None:
    lied = helped.pads_said(H, shown, **{"2": "0" * 64})
    assert sha256_hex(helped.recompute(lied)) == shown.result.payload["integers_hash"]  # type: ignore[union-attr]


@pytest.mark.parametrize("there", [1, 0], ids=["one is hidden", "both are hidden"])
def test_a_hidden_helper_makes_no_difference(helped: HelpedStage, shown: RoundEvidence, there: int) -> None:
    journal = helped.consortium.hospitals[0].participant.journal
    before = len(list(journal.entries(kind=UNCONFIRMED)))
    assert helped.recompute(replace(shown, helped=shown.helped[:there]))
    assert len(list(journal.entries(kind=UNCONFIRMED))) == before


def test_a_missing_opening_is_no_way_out(helped: HelpedStage, shown: RoundEvidence) -> None:
    for missing in ({"opening": None}, {"key": None}, {"attestations": ()}, {"commitments": None}):
        with pytest.raises(Refused):
            helped.recompute(replace(shown, **missing))


def test_a_helper_that_lies_to_the_keyholder_is_left_out(helped: HelpedStage) -> None:
    helped.train_all()
    closed = helped.listed(*ALL)
    documents = helped.answers(closed)
    said = parse(PadSums, dict(documents[f"pads/{H}"].payload))
    key = helped.consortium.homes[H].identity()
    lie = replace(said, parts={**said.parts, "2": "0" * 64})
    false = {**helped.shown(closed), f"pads/{H}": seal(key, "pads", lie)}
    assert helped.decrypt(*closed, documents=false) is None
    assert helped.wanted() == (H, J)
    assert f"those of {H} are not right" in helped.refusal("keyholder")
    both = {**documents, f"pads/{H}": seal(key, "pads", lie)}
    assert helped.decrypt(*closed, documents=both) is not None  # the other helper's are


@pytest.mark.parametrize("liar", [H, J])
def test_of_two_helpers_that_differ_about_one_part_the_keyholder_knows_who_lies(helped: HelpedStage, liar: str) -> None:
    helped.train_all()
    closed = helped.listed(*ALL)
    documents = helped.answers(closed)
    said = parse(PadSums, dict(documents[f"pads/{liar}"].payload))
    body = bytearray(helped.liar.blobs[said.parts["3"]])
    body[16:24] = (5).to_bytes(8, "little")
    lie = replace(said, parts={**said.parts, "3": helped.liar.blob(bytes(body))})
    documents[f"pads/{liar}"] = seal(helped.consortium.homes[liar].identity(), "pads", lie)
    alone = {**helped.shown(closed), f"pads/{liar}": documents[f"pads/{liar}"]}
    assert helped.decrypt(*closed, documents=alone) is None
    assert f"those of {liar} are not right" in helped.refusal("keyholder")
    assert helped.decrypt(*closed, documents=documents) is not None
