"""Random numbers that repeat after a crash and that nobody else can predict.

One stream per (site secret, study, round, plan hash, dataset fingerprint): HKDF-SHA256 (RFC 5869) makes a key,
ChaCha20 (RFC 8439) the keystream, numpy the arrays. A round that is run again draws the same bytes again; another
round, plan or dataset draws independent ones.

    >>> one = Randomness(b"s" * 32, study="demo", round=1, plan_hash="p", dataset_fingerprint="f")
    >>> two = Randomness(b"s" * 32, study="demo", round=1, plan_hash="p", dataset_fingerprint="f")
    >>> bool((one.gaussian((3,), 1.0) == two.gaussian((3,), 1.0)).all())
    True
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.canonical import canonical_json
from privacy.dp import discrete_gaussian
from privacy.errors import InvalidInput

Floats = npt.NDArray[np.float64]
_DOMAIN = b"tessera/v1/randomness/"
_CHUNK = 1 << 14
_ZEROS = bytes(16 * _CHUNK)


class Randomness:
    """A keyed stream of random numbers for one round at one site.

    Args:
        secret: at least 32 secret bytes of the site (``Identity.derive_secret("noise")``).
        study: name of the study.
        round: number of the round.
        plan_hash: hash of the round plan.
        dataset_fingerprint: keyed fingerprint of the dataset.
    """

    def __init__(
        self,
        secret: bytes,
        *,
        study: str,
        round: int,  # noqa: A002 - the contract's messages call it so
        plan_hash: str,
        dataset_fingerprint: str,
    ) -> None:
        if len(secret) < 32:
            raise InvalidInput(f"expected a secret of at least 32 bytes, got {len(secret)}")
        context = {"study": study, "round": round, "plan": plan_hash, "dataset": dataset_fingerprint}
        self._start(_derive(secret, canonical_json(context, 1)))

    @classmethod
    def public(
        cls,
        seed: int,
        *,
        site: str,
        study: str,
        round: int,  # noqa: A002 - the contract's messages call it so
        plan_hash: str,
    ) -> Randomness:
        """Return the stream of a public seed: **no privacy**, for demos and simulations.

        Args:
            seed: any integer, part of the proposal.
            site: name of the site, so that sites draw independently.
            study: name of the study.
            round: number of the round.
            plan_hash: hash of the round plan.
        """
        secret = _derive(b"public seed, no privacy: 32 bytes", canonical_json({"seed": seed, "site": site}, 1))
        return cls(secret, study=study, round=round, plan_hash=plan_hash, dataset_fingerprint="public")

    def child(self, label: str) -> Randomness:
        """Return an independent stream named ``label``; the same label gives the same stream."""
        other = Randomness.__new__(Randomness)
        other._start(_derive(self._key, b"child/" + label.encode()))
        return other

    def uniform_words(self, n: int) -> npt.NDArray[np.uint64]:
        """Return ``n`` uniform 64-bit words."""
        return np.frombuffer(self._bytes(8 * n), dtype="<u8")

    def uniform(self, n: int) -> Floats:
        """Return ``n`` floats uniform on the multiples of 2**-53 in [0, 1)."""
        return np.asarray((self.uniform_words(n) >> np.uint64(11)) * 2.0**-53, dtype=np.float64)

    def poisson_sample(self, n: int, q: float) -> npt.NDArray[np.int64]:
        """Return the sorted indices of a Poisson sample: each of ``n`` records independently with probability ``q``.

        Args:
            n: records, at least 0.
            q: in (0, 1], realised to 2**-64.
        """
        if not 0 < q <= 1:
            raise InvalidInput(f"expected a sampling rate above 0 and at most 1, got {q}")
        words = self.uniform_words(n)
        if q == 1:
            return np.arange(n, dtype=np.int64)
        return np.flatnonzero(words < np.uint64(int(q * 2**64))).astype(np.int64)

    def grid_gaussian(self, n: int) -> npt.NDArray[np.int64]:
        """Return ``n`` integers of the discrete Gaussian of deviation ``discrete_gaussian.DEVIATION``."""
        out = np.empty(n, dtype=np.int64)
        for start in range(0, n, _CHUNK):
            count = min(_CHUNK, n - start)
            words = np.frombuffer(self._bytes(8 * count), dtype="<u4")
            out[start : start + count] = discrete_gaussian.sample(words, self._refine)
        return out

    def gaussian(self, shape: Sequence[int], sigma: float) -> Floats:
        """Return Gaussian noise of standard deviation ``sigma`` on a grid of about ``sigma / 245,001``.

        To noise private values use :meth:`add_gaussian`, which puts them on the same grid first.
        """
        samples = self.grid_gaussian(math.prod(shape)).reshape(tuple(shape))
        return np.asarray(samples * grid_step(sigma), dtype=np.float64)

    def add_gaussian(self, values: npt.NDArray[np.floating], sigma: float) -> Floats:
        """Round ``values`` to the noise's grid and add Gaussian noise of standard deviation ``sigma``.

        Args:
            values: any shape; below ``2**51`` grid steps in size, which is ``9e9 sigma``.
            sigma: at least 0; 0 returns the values unchanged.

        Returns:
            float64 of the same shape, exact multiples of the grid step before the last multiplication.

        Raises:
            InvalidInput: a value that is not finite or too large for the grid (no value is named).
        """
        if sigma == 0:
            return np.asarray(values, dtype=np.float64)
        step = grid_step(sigma)
        steps = np.rint(np.asarray(values, dtype=np.float64) / step)
        if not bool((np.abs(steps) < 2.0**51).all()):
            raise InvalidInput("expected finite values of fewer than 2**51 noise grid steps; check the clipping")
        noised = steps + self.grid_gaussian(steps.size).reshape(steps.shape)
        return np.asarray(noised * step, dtype=np.float64)

    def _start(self, key: bytes) -> None:
        self._key = key
        self._stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()

    def _bytes(self, count: int) -> bytes:
        if count <= len(_ZEROS):
            return self._stream.update(memoryview(_ZEROS)[:count])
        return self._stream.update(bytes(count))

    def _refine(self) -> int:
        return int.from_bytes(self._bytes(24), "little")


def grid_step(sigma: float) -> float:
    """Return the grid step of Gaussian noise of standard deviation ``sigma`` (about ``sigma / 245,001``)."""
    if not (math.isfinite(sigma) and sigma > 0):
        raise InvalidInput(f"expected a standard deviation above 0, got {sigma}")
    return sigma / discrete_gaussian.DEVIATION


def covering_deviation(noise_multiplier: float, sensitivity: float, values: int) -> float:
    """Return the standard deviation that covers ``sensitivity``, float32 clipping errors and the grid's rounding.

    Rounding ``values`` coordinates to the grid moves a sum by at most ``sqrt(values) / 2`` grid steps, hence two
    neighbouring sums apart by ``sqrt(values)`` more. For 704k parameters at multiplier 1 this is 0.36 % more noise.

    Args:
        noise_multiplier: what is charged, at least 0.
        sensitivity: L2 sensitivity of the exact sum, above 0.
        values: coordinates.
    """
    rounding = noise_multiplier * math.sqrt(values) / discrete_gaussian.DEVIATION
    if rounding >= 0.5:
        raise InvalidInput("expected less noise or fewer coordinates: the noise's grid would be too coarse")
    return noise_multiplier * sensitivity * (1 + 2.0**-13) / (1 - rounding)


def _derive(secret: bytes, context: bytes) -> bytes:
    return HKDF(SHA256(), 32, None, _DOMAIN + context).derive(secret)
