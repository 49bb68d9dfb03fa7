"""Encrypted aggregation: ours against the usual CKKS default, side by side in one run.

    python benchmarks/encryption.py --parameters 1000000 --sites 10 --json

The usual default is N=8192, moduli [60, 40, 40, 60], scale 2**40, one value per slot, weights multiplied in by the
server. ``client_seconds`` is one site's work (ours: quantise, pack, encrypt, hash, tag), ``server_seconds`` the
aggregator's work per site (ours: hash, check, add), ``decrypt_seconds`` the keyholder's (ours with all its checks),
each the median; ``bytes`` is one site's upload. Ratios are baseline / ours. Seconds are CPU seconds of this process, so
that a busy machine does not decide. The last line of standard output is one JSON object with ``--json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import tenseal

from privacy.canonical import sha256_hex
from privacy.dp.randomness import Randomness
from privacy.encryption import ciphertexts, ckks, tags
from privacy.encryption.ciphertexts import RunningSum
from privacy.encryption.packing import dequantise, quantise
from privacy.encryption.parameters import EncryptionParameters, choose_parameters, default_levels

T = TypeVar("T")
Figures = dict[str, float]
BOUND = 1.0
BASELINE_SITES = 3  # its time and size per site do not depend on how many there are


def timed(work: Callable[[], T]) -> tuple[float, T]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def updates(parameters: int, sites: int) -> list[np.ndarray]:
    generator = np.random.default_rng(20)
    return [np.clip(generator.normal(0, 0.3, parameters), -1, 1).astype(np.float32) for _ in range(sites)]


def site_draws(site: int) -> Callable[[int], np.ndarray]:
    stream = Randomness(bytes(32), study="benchmark", round=1, plan_hash=str(site), dataset_fingerprint="none")
    return stream.uniform


def run_ours(values: list[np.ndarray], chosen: EncryptionParameters) -> tuple[Figures, float, bool]:
    length, sites = values[0].size, len(values)
    pair = ckks.generate_round_key(chosen)
    counts = {"all": chosen.ciphertexts_for(length)}
    running = RunningSum(chosen, ciphertexts=counts["all"])
    expected = np.zeros(length, np.int64)
    challenge = tags.challenges("0" * 64, "1" * 64)
    client, server, site_tags = [], [], []
    for site, value in enumerate(values):

        def prepare(value: np.ndarray = value, site: int = site) -> tuple[np.ndarray, dict[str, list[bytes]], bytes]:
            integers = quantise(value, bound=BOUND, weight=1.0, levels=chosen.levels, uniform=site_draws(site))
            blocks = {"all": ckks.encrypt(pair.public, chosen, integers)}
            body = ciphertexts.pack(blocks)
            sha256_hex(body)
            return integers, blocks, body

        def receive(body: bytes) -> None:
            sha256_hex(body)
            running.add(ciphertexts.unpack(body, counts, chosen)["all"])

        seconds, (integers, blocks, body) = timed(prepare)
        tag_seconds, site_tag = timed(lambda blocks=blocks: tags.tag(blocks, challenge, chosen))
        server.append(timed(lambda body=body: receive(body))[0])
        client.append(seconds + tag_seconds)
        site_tags.append(site_tag)
        expected += integers

    def answer() -> np.ndarray:
        blocks = {"all": running.to_ciphertexts()}
        if tags.tag(blocks, challenge, chosen) != tags.combine(site_tags, chosen):
            raise SystemExit("the tags do not add up")
        return ckks.decrypt_sum(pair.secret, chosen, blocks["all"], values=length, contributors=sites)

    decrypted = [timed(answer) for _ in range(3)]
    total = decrypted[0][1]
    mean = dequantise(total, bound=BOUND, levels=chosen.levels, total_weight=float(sites))
    error = float(np.abs(mean - np.mean(values, axis=0, dtype=np.float64)).max())
    figures = {
        "client_seconds": statistics.median(client),
        "server_seconds": statistics.median(server),
        "decrypt_seconds": statistics.median(seconds for seconds, _ in decrypted),
        "bytes": ciphertexts.body_bytes(counts, chosen),
    }
    return figures, error, bool((total == expected).all())


def run_baseline(values: list[np.ndarray]) -> Figures:
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40, 60])
    context.global_scale = 2.0**40
    chunks = [range(start, min(start + 4096, values[0].size)) for start in range(0, values[0].size, 4096)]
    client, server, size = [], [], 0
    totals: list[Any] = []
    for value in values[:BASELINE_SITES]:
        seconds, upload = timed(
            lambda value=value: [
                tenseal.ckks_vector(context, value[c.start : c.stop].tolist()).serialize() for c in chunks
            ]
        )
        client.append(seconds)
        size = sum(len(part) for part in upload)

        def receive(upload: list[bytes] = upload) -> None:
            for index, part in enumerate(upload):
                weighted = tenseal.ckks_vector_from(context, part) * (1.0 / len(values))
                if index == len(totals):
                    totals.append(weighted)
                else:
                    totals[index] += weighted

        server.append(timed(receive)[0])
    return {
        "client_seconds": statistics.median(client),
        "server_seconds": statistics.median(server),
        "decrypt_seconds": timed(lambda: [total.decrypt() for total in totals])[0],
        "bytes": size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--levels", type=int, help="levels of the quantiser (default: what packs three to a part)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    levels = arguments.levels or default_levels(arguments.sites)
    chosen = choose_parameters(sites=arguments.sites, levels=levels, length=arguments.parameters)
    values = updates(arguments.parameters, arguments.sites)
    ours, error, exact = run_ours(values, chosen)
    baseline = run_baseline(values)
    ratio = {name: baseline[name] / ours[name] for name in ours}
    if arguments.json:
        result = {"ours": ours, "baseline": baseline, "ratio": ratio, "max_error": error, "exact": exact}
        print(json.dumps(result))
        return
    print(f"{arguments.parameters:,} parameters, {arguments.sites} sites, +-{levels} levels; exact: {exact}")
    for name in ours:
        print(f"{name:16} ours {ours[name]:14,.4f}  baseline {baseline[name]:14,.4f}  {ratio[name]:7.1f}x")
    print(f"size: {ours['bytes'] / (4 * arguments.parameters):.2f}x float32; largest error {error:.2e}")


if __name__ == "__main__":
    main()
