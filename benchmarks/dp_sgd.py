"""What a private step costs beside a plain one: our per-example clipping, Opacus ghost, Opacus hooks.

The model has 704,082 parameters in three modality branches. One torch thread; the methods take turns, every figure is
the median over the turns of the thread's own CPU time, so that a busy machine changes little. Steps are forward pass,
per-record clipping and SGD update; the noise costs the same for all methods and is reported apart ("noise"), drawn
from the keyed stream on the exact grid.

    python benchmarks/dp_sgd.py --json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from privacy.dp.clipping import RECORD
from privacy.dp.mechanism import Mechanism
from privacy.dp.opacus_engine import engine, keyed_optimizer
from privacy.dp.randomness import Randomness

FEATURES = {"mrna": 1500, "image": 768, "clinical": 274}
METHODS = ("plain", "per-example", "ghost", "hooks")
MECHANISM = Mechanism(
    max_grad_norm=1.0, noise_multiplier=0.0, sampling_rate=1.0, steps_per_round=1, rounds=1, target_delta=1e-5
)


class Staging(nn.Module):
    """An encoder per modality, embeddings masked by presence, one head: 704,082 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleDict({m: self.branch(width) for m, width in FEATURES.items()})
        self.head = nn.Linear(16 * len(FEATURES), 2)

    @staticmethod
    def branch(width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(width, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 16), nn.Tanh()
        )

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        parts = [
            branch(batch[m]) * batch["presence"][:, i : i + 1] for i, (m, branch) in enumerate(self.branches.items())
        ]
        return self.head(torch.cat(parts, dim=1))


def record_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch), batch["label"], reduction="none")


def records(count: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(count)
    batch = {m: torch.randn(count, width, generator=g) for m, width in FEATURES.items()}
    batch["presence"] = torch.randint(0, 2, (count, len(FEATURES)), generator=g).float()
    batch["label"] = torch.randint(0, 2, (count,), generator=g)
    return batch


def stepper(method: str, count: int) -> tuple[nn.Module, Callable[[], None]]:
    """Return a fresh model and one training step of ``method`` on a batch of ``count`` records."""
    torch.manual_seed(0)
    model, batch = Staging(), records(count)
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    if method == "plain":

        def plain() -> None:
            sgd.zero_grad()
            record_loss(model, batch).mean().backward()
            sgd.step()

        return model, plain
    values = sum(p.numel() for p in model.parameters())
    outer = keyed_optimizer(sgd, method=method, mechanism=MECHANISM, expected_batch_size=count, values=values)
    runner = engine(model, method=method, bounds={RECORD: MECHANISM.max_grad_norm}, group_of=None)
    outer.noise = lambda total: total

    def private() -> None:
        runner.accumulate(batch, record_loss)
        outer.step()

    return model, private


def seconds(count: int, turns: int) -> dict[str, float]:
    """Return the median CPU seconds of one step of each method, taking turns."""
    steps = {method: stepper(method, count)[1] for method in METHODS}
    spent: dict[str, list[float]] = {method: [] for method in METHODS}
    for turn in range(turns + 2):
        for method, step in steps.items():
            if method in ("ghost", "hooks") and turn % 4:
                continue  # the slow ones take every fourth turn
            start = time.thread_time()
            step()
            if turn >= 2:
                spent[method].append(time.thread_time() - start)
    return {method: statistics.median(values) for method, values in spent.items()}


def difference_to_hooks(count: int) -> float:
    """Return the largest difference of any parameter after one step with learning rate 1 and the mean gradient."""
    after = {}
    for method in ("per-example", "hooks"):
        model, step = stepper(method, count)
        before = [p.detach().clone() for p in model.parameters()]
        step()
        after[method] = [(p.detach() - b) / 0.01 for p, b in zip(model.parameters(), before, strict=True)]
    return max(float((a - b).abs().max()) for a, b in zip(after["per-example"], after["hooks"], strict=True))


def peak_mb(method: str, count: int) -> float:
    """Return how far a step raises the peak memory of a fresh process, in MB (Linux)."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (method, count))


def _peak(method: str, count: int) -> float:
    torch.set_num_threads(1)
    warm = nn.Linear(4, 2)
    warm(torch.zeros(2, 4)).sum().backward()  # what torch sets up once is not the step's
    _, step = stepper(method, count)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = _status("VmRSS")
    for _ in range(5):
        step()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(field)))


def noise() -> dict[str, float]:
    """Return what the noise of one step costs, from the keyed stream and, for comparison, from torch's generator."""
    total = torch.zeros(704_082)
    stream = Randomness(b"b" * 32, study="benchmark", round=1, plan_hash="p", dataset_fingerprint="f")

    def median(draw: Callable[[], object]) -> float:
        spent = []
        for _ in range(9):
            start = time.thread_time()
            draw()
            spent.append(time.thread_time() - start)
        return statistics.median(spent[1:])

    stream.add_gaussian(total.numpy(), 1.0)  # builds the sampler's table
    keyed = median(lambda: stream.add_gaussian(total.numpy(), 1.0))
    return {
        "keyed_ns_per_value": round(keyed / total.numel() * 1e9, 2),
        "keyed_ms_per_step": round(keyed * 1e3, 2),
        "torch_float_ms_per_step": round(median(total.normal_) * 1e3, 2),
    }


def measure(turns: int) -> dict[str, dict[str, float]]:
    """Return the figures by batch size, the memory of all methods, and the noise."""
    torch.set_num_threads(1)
    report: dict[str, dict[str, float]] = {}
    memory: dict[str, float] = {}
    for count in (64, 256):
        spent = seconds(count, turns)
        peaks = {method: peak_mb(method, count) for method in METHODS}
        report[str(count)] = {
            "ratio_to_plain": round(spent["per-example"] / spent["plain"], 3),
            "speedup_over_hooks": round(spent["hooks"] / spent["per-example"], 2),
            "speedup_over_ghost": round(spent["ghost"] / spent["per-example"], 2),
            "max_abs_diff_to_hooks": difference_to_hooks(count),
            "peak_mb": round(peaks["per-example"], 1),
        }
        memory |= {f"{method}_peak_mb_{count}": round(peak, 1) for method, peak in peaks.items()}
        memory[f"plain_ms_{count}"] = round(spent["plain"] * 1e3, 2)
    return report | {"others": memory, "noise": noise()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--turns", type=int, default=60, help="turns of the fast methods")
    arguments = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Opacus' hooks on first layers
        report = measure(arguments.turns)
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    for name, figures in report.items():
        print(name, *(f"{key}={value}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
