"""What a private step of a network of 20 million parameters costs beside a plain one, on a GPU.

    python benchmarks/device.py --json
    python benchmarks/device.py --device cpu --parameters 200000     # where there is no GPU, to see that it runs

Both take turns in one run: forward pass, gradient, update; the private step also clips every record and adds keyed
noise. "noise" is its part: it is drawn on the processor, from the keyed stream on the exact grid, and moved. Without a
GPU it prints one line and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from privacy.dp.clipping import RECORD
from privacy.dp.mechanism import Mechanism
from privacy.dp.opacus_engine import engine, keyed_optimizer, use_noise
from privacy.dp.randomness import Randomness

WIDTH, DEPTH = 1500, 3
MECHANISM = Mechanism(
    max_grad_norm=1.0, noise_multiplier=1.0, sampling_rate=1.0, steps_per_round=1, rounds=1, target_delta=1e-5
)


def network(parameters: int) -> nn.Module:
    """Return a network of about so many parameters: three hidden layers as wide as that takes."""
    hidden = max(16, int((-WIDTH + (WIDTH**2 + 4 * (DEPTH - 1) * parameters) ** 0.5) / (2 * (DEPTH - 1))))
    layers: list[nn.Module] = [nn.Linear(WIDTH, hidden), nn.ReLU()]
    for _ in range(DEPTH - 1):
        layers += [nn.Linear(hidden, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, 2))


def record_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch["x"]), batch["label"], reduction="none")


def steps_on(device: torch.device, parameters: int, records: int) -> dict[str, Callable[[], None]]:
    """Return one step of plain SGD, one of DP-SGD, and one of DP-SGD without drawing noise, each on its own model."""
    batch = {
        "x": torch.randn(records, WIDTH, device=device),
        "label": torch.randint(0, 2, (records,), device=device),
    }
    plain_model = network(parameters).to(device)
    plain_sgd = torch.optim.SGD(plain_model.parameters(), lr=0.01)

    def plain() -> None:
        plain_sgd.zero_grad()
        record_loss(plain_model, batch).mean().backward()
        plain_sgd.step()

    return {
        "plain": plain,
        "private": _private(network(parameters).to(device), batch, noised=True),
        "clipped": _private(network(parameters).to(device), batch, noised=False),
    }


def _private(model: nn.Module, batch: dict[str, Tensor], *, noised: bool) -> Callable[[], None]:
    count, values = len(batch["label"]), sum(p.numel() for p in model.parameters())
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    outer = keyed_optimizer(sgd, method="per-example", mechanism=MECHANISM, expected_batch_size=count, values=values)
    runner = engine(model, method="per-example", bounds={RECORD: MECHANISM.max_grad_norm}, group_of=None)
    stream = Randomness(b"s" * 32, study="bench", round=1, plan_hash="p", dataset_fingerprint="f")
    if not noised:
        outer.noise = lambda total: total

    def step() -> None:
        if noised:
            use_noise(outer, stream)
        runner.accumulate(batch, record_loss)
        outer.step()

    return step


def seconds(step: Callable[[], None], device: torch.device) -> float:
    """Return how long one step takes, until the device has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--parameters", type=int, default=20_000_000)
    parser.add_argument("--records", type=int, default=256)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("skipped: no CUDA device here; --device cpu runs it on the processor")
        return
    device = torch.device(given.device)
    steps = steps_on(device, given.parameters, given.records)
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(given.turns + 2):  # the first two warm up
        for name, step in steps.items():
            took = seconds(step, device)
            if turn >= 2:
                spent[name].append(took)
    found = {name: statistics.median(values) for name, values in spent.items()}
    report = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "parameters": sum(p.numel() for p in network(given.parameters).parameters()),
        "records": given.records,
        "milliseconds": {name: round(1e3 * value, 2) for name, value in found.items()},
        "ratio": round(found["private"] / found["plain"], 2),
        "ratio_without_noise": round(found["clipped"] / found["plain"], 2),
    }
    print(json.dumps(report) if given.json else "\n".join(f"{name}: {value}" for name, value in report.items()))


if __name__ == "__main__":
    main()
