"""The keyholder crafts a round's key so that it can choose, after the sum is known, which secret it publishes.

Played on the real functions: a public key (b, a) = (1, p + 1), for which every small polynomial is a secret, and one
that shifts a value of the true sum; keys whose random part is another study's, another round's or SEAL's own; secrets
beside the true one, of every shape; keys that a restored keyholder makes anew. Before the random part followed from a
hash, hospitals encrypted with the first key and accepted the shifted sum: the check was whether the secret decrypts
what was encrypted then and there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from support.helped import ALL, HelpedStage

from datasites.study.messages import RoundKey
from datasites.study.proposal import Proposal
from datasites.study.recomputed.checks import check_public_key, random_part
from datasites.study.signing import Signed, parse, seal
from privacy.canonical import sha256_hex
from privacy.encryption import ckks, round_keys
from privacy.encryption.ciphertexts import RunningSum
from privacy.encryption.parameters import choose_parameters
from privacy.errors import InvalidInput, Refused

PARAMETERS = choose_parameters(sites=9, levels=512, length=1)
DEGREE, PRIMES = PARAMETERS.poly_modulus_degree, PARAMETERS.primes
PROPOSAL_HASH = "ab" * 32
PART = round_keys.expanded(PARAMETERS, PROPOSAL_HASH, 1)
PAIR = ckks.generate_round_key(PARAMETERS, PART)
SECRET = np.frombuffer(ckks.published_secret(PAIR.secret, PARAMETERS), "<u8").reshape(2, DEGREE)


def crafted() -> bytes:
    """The key of the attack: b = 1, a = p + 1, so that b + a s is s modulo p times something: any small s fits."""
    key = np.ones((2, 2, DEGREE), np.uint64)
    key[1, 0] = PRIMES[1] + 1
    return key.tobytes()


def rows(value: int) -> np.ndarray:
    """A constant polynomial in both primes, as evaluations."""
    return np.stack([np.full(DEGREE, value % prime, np.uint64) for prime in PRIMES])


def test_the_crafted_key_decrypts_with_many_secrets() -> None:
    """Why the attack worked: what is encrypted to it opens under 0, and under other secrets whose rows differ."""
    updates = [np.arange(-300, 300) + site for site in range(3)]
    total = RunningSum(PARAMETERS, ciphertexts=1)
    for update in updates:
        total.add(ckks.encrypt(crafted(), PARAMETERS, update))
    secret = PAIR.secret[: -rows(0).nbytes] + rows(0).tobytes()
    found = ckks.decrypt_sum(secret, PARAMETERS, total.to_ciphertexts(), values=600, contributors=3)
    assert (found == sum(updates)).all()
    with pytest.raises(InvalidInput, match=r"not the same modulo both"):
        ckks.secret_of(np.stack([rows(1)[0], rows(0)[1]]).tobytes(), crafted(), PARAMETERS)


@pytest.mark.parametrize(
    "made",
    [crafted, lambda: PAIR.public, lambda: ckks.generate_round_key(PARAMETERS).public],
    ids=["crafted", "of-another-study", "drawn-by-seal"],
)
def test_no_hospital_encrypts_with_a_key_of_another_random_part(helped: HelpedStage, made: Callable[[], bytes]) -> None:
    before = len(helped.liar.sent["update"])
    public = made()
    key = parse(RoundKey, dict(helped.key.payload))
    lied = replace(key, key_hash=helped.liar.blob(public), key_bytes=len(public))
    signed = seal(helped.keyholder.home.identity(), "round-key", lied)
    plan = seal(helped.liar.identity, "round-plan", helped.round_plan(key_hash=lied.key_hash))
    assert not helped.train(0, plan=plan, key=signed)
    assert len(helped.liar.sent["update"]) == before
    assert "does not have the random part that follows" in helped.refusal("site-0")
    charged = helped.consortium.hospitals[0].participant.journal.entries(kind="round-charged")
    assert helped.proposal.study not in {entry.body["study"] for entry in charged}


def test_the_key_of_another_round_or_proposal_is_refused(helped: HelpedStage) -> None:
    proposal = helped.proposal
    for number, other in ((2, proposal), (1, replace(proposal, nonce="1" * 32))):
        public = ckks.generate_round_key(proposal.encryption, random_part(other, number)).public
        with pytest.raises(Refused, match="does not have the random part"):
            check_public_key(proposal, 1, public)
        check_public_key(other, number, public)


def test_a_published_round_with_a_key_of_another_random_part_is_refused(helped: HelpedStage) -> None:
    """All its hospitals lie and encrypted all the same; an honest one that recomputes refuses."""
    helped.train_all()
    shown = helped.published(helped.listed(*ALL))
    public = ckks.generate_round_key(helped.proposal.encryption).public
    key = replace(parse(RoundKey, dict(helped.key.payload)), key_hash=sha256_hex(public))
    helped.liar.opened["key"] = public
    signed = seal(helped.keyholder.home.identity(), "round-key", key)
    with pytest.raises(Refused):  # the plan names the true key, and a signed one of another hash is another key
        helped.recompute(replace(shown, key=signed))
    with pytest.raises(Refused, match="another public key"):
        helped.recompute(shown)


SECRETS: dict[str, tuple[Callable[[], np.ndarray], str]] = {
    "zero": (lambda: rows(0), "not the secret"),
    "one": (lambda: rows(1), "not the secret"),
    "two": (lambda: rows(2), "not ternary"),
    "negated": (
        lambda: (np.array(PRIMES, np.uint64)[:, None] - SECRET) % np.array(PRIMES, np.uint64)[:, None],
        "secret",
    ),
    "another-modulo-p": (lambda: np.stack([SECRET[0], rows(0)[1]]), "not the same modulo both primes"),
    "another-modulo-q": (lambda: np.stack([rows(0)[0], SECRET[1]]), "not the same modulo both primes"),
    "swapped": (lambda: SECRET[::-1] % np.array(PRIMES, np.uint64)[:, None], "not the same modulo both primes"),
    "plus-one": (lambda: (SECRET + rows(1)) % np.array(PRIMES, np.uint64)[:, None], "not ternary|not the secret"),
    "one-evaluation-off": (lambda: np.concatenate([SECRET[:, :1] ^ np.uint64(1), SECRET[:, 1:]], 1), "both|ternary"),
    "out-of-range": (lambda: SECRET + np.array(PRIMES, np.uint64)[:, None], "out of range"),
}


@pytest.mark.parametrize("name", SECRETS)
def test_no_other_secret_is_that_of_a_public_key(name: str) -> None:
    made, reason = SECRETS[name]
    with pytest.raises(InvalidInput, match=reason):
        ckks.secret_of(made().astype("<u8").tobytes(), PAIR.public, PARAMETERS)


@pytest.mark.parametrize("length", [0, SECRET.nbytes - 8, SECRET.nbytes + 8, 2 * SECRET.nbytes])
def test_a_secret_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidInput, match="expected a key of"):
        ckks.secret_of(bytes(length), PAIR.public, PARAMETERS)


def test_a_key_with_an_error_beyond_the_samplers_is_refused() -> None:
    """The keyholder knows secret and error of such a key as well, but SEAL never draws one."""
    key = np.frombuffer(PAIR.public, "<u8").reshape(2, 2, DEGREE).copy()
    key[0] = (key[0] + rows(2 * round_keys.LARGEST_ERROR + 1)) % np.array(PRIMES, np.uint64)[:, None]
    with pytest.raises(InvalidInput, match="not the secret of the round's public key"):
        ckks.secret_of(SECRET.tobytes(), key.tobytes(), PARAMETERS)


def test_a_key_that_blurs_one_slot_is_refused() -> None:
    """A ternary secret that is large at one root of unity: its noise there is fifty times that of an honest key."""
    angles = np.pi / DEGREE * np.arange(DEGREE)
    chosen = np.sign(np.cos(angles)).astype(np.int64)
    assert round_keys.largest_embedding(chosen) > 1000
    public = key_of(chosen)
    published = evaluations(chosen)
    with pytest.raises(InvalidInput, match="no random one"):
        ckks.secret_of(published.tobytes(), public, PARAMETERS)


def key_of(secret: np.ndarray) -> bytes:
    """A public key without error for chosen coefficients."""
    parts = [PART[i].astype(object) * evaluations(secret)[i].astype(object) % p for i, p in enumerate(PRIMES)]
    b = np.stack([((p - part) % p).astype(np.uint64) for part, p in zip(parts, PRIMES, strict=True)])
    return np.stack([b, PART]).astype("<u8").tobytes()


def evaluations(coefficients: np.ndarray) -> np.ndarray:
    """The evaluations of a polynomial, by the definition and independently of the product's transform."""
    return np.stack([_evaluated(coefficients, prime) for prime in PRIMES])


def _evaluated(coefficients: np.ndarray, prime: int) -> np.ndarray:
    base = next(b for b in range(2, 99) if pow(b, (prime - 1) // 2, prime) == prime - 1)
    root = pow(base, (prime - 1) // (2 * DEGREE), prime)
    root = min(pow(root, k, prime) for k in range(1, 2 * DEGREE, 2))
    values = [int(c) * pow(root, i, prime) % prime for i, c in enumerate(coefficients)]
    bits = DEGREE.bit_length() - 1
    found = _transform(values, root * root % prime, prime)
    return np.array([found[int(format(i, f"0{bits}b")[::-1], 2)] for i in range(DEGREE)], np.uint64)


def _transform(values: list[int], root: int, prime: int) -> list[int]:
    if len(values) == 1:
        return values
    even, odd = (_transform(values[i::2], root * root % prime, prime) for i in (0, 1))
    power, first, second = 1, [], []
    for one, other in zip(even, odd, strict=True):
        moved = other * power % prime
        first.append((one + moved) % prime)
        second.append((one - moved) % prime)
        power = power * root % prime
    return first + second


def test_honest_keys_are_accepted_and_stay_within_the_bounds() -> None:
    for number in range(1, 6):
        part = round_keys.expanded(PARAMETERS, PROPOSAL_HASH, number)
        pair = ckks.generate_round_key(PARAMETERS, part)
        round_keys.require_random_part(pair.public, part)
        assert ckks.secret_of(ckks.published_secret(pair.secret, PARAMETERS), pair.public, PARAMETERS) == pair.secret


def test_an_old_study_keeps_its_keys_and_a_new_one_of_the_old_kind_is_refused(helped: HelpedStage) -> None:
    old = replace(helped.proposal, protocol=1, study="as-before")
    assert random_part(old, 1) is None
    check_public_key(old, 1, crafted())  # what was approved before goes on; its published secrets are checked exactly
    hospital = helped.consortium.hospitals[0]
    with pytest.raises(Refused, match="of an older version"):
        hospital.approve(_sealed(helped, old))


def _sealed(stage: HelpedStage, proposal: Proposal) -> Signed:
    return seal(stage.consortium.identity, "proposal", proposal)
