"""Compare the methods on one federation, many seeds, paired: the numbers behind docs/results.md.

    python benchmarks/staging.py --data ../shared/data/tcga --federation tri-modal --task early-late --seeds 20 --json

Exact metrics on held-out patients of public data (or of the synthetic tables when --data is not given), outside
the protocol. Intervals are Student's t over seeds; differences are paired with fedavg over the same seeds.

``--data`` takes any folder of cohorts (docs/data.md says which files): cohorts of any name, with or without images,
whose slide features may come from different encoders; one cohort is enough. ``--baseline ridge hgb`` adds what
scikit-learn makes of the pooled training patients with the same splits and the same modalities masked
(:mod:`research.baselines`).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from research.baselines import BASELINES, Predict, fit
from research.methods import DEFAULT_METHODS, architecture_of, method, settings_of
from research.scaling import halfway, standardised
from research.simulate import modality_mask, simulate
from research.summaries import SCORES, entry_of, mean, notes, table, unscored

from datasites.data.federations import FEDERATIONS, MINIMUM_SITES, SPLITS, build
from datasites.data.synthetic import generate
from datasites.data.tcga.tables import Images, Tables, read_tables
from models.batch import modalities_of
from models.config import ModelConfig
from models.networks import combinations
from orchestrator.simulation.sites import Records, corrupted, make_sites, patients, pool, predict, score
from orchestrator.studies.evaluation import Metrics, evaluate
from orchestrator.studies.proposing.constants import begun_with, read_constants
from privacy.errors import InvalidInput, TesseraError


def main() -> int:
    arguments = parse()
    started = time.monotonic()
    jobs = [(vars(arguments), seed) for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)]
    try:
        check(arguments)
        if min(arguments.processes, len(jobs)) == 1:  # another process would only import everything again
            results = [run_seed(job) for job in jobs]
        else:
            with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as executor:
                results = list(executor.map(run_seed, jobs))
    except TesseraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report = summarise(arguments, results) | {"seconds": round(time.monotonic() - started, 1)}
    if arguments.rounds is not None and math.isfinite(arguments.epsilon):
        print("note: with --epsilon a schedule decides how many rounds; --rounds changes nothing", file=sys.stderr)
    for line in notes(report, MINIMUM_SITES):
        print(f"note: {line}", file=sys.stderr)
    print(json.dumps(report, separators=(",", ":")) if arguments.json else table(report))
    return 0


MODELS = ("linear", "mlp", "mlp-auxiliary", "convolutional")  # the last reads tissue maps, which BRCA alone has


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of cohort tables; synthetic tables when not given")
    parser.add_argument("--federation", choices=FEDERATIONS, default="tri-modal")
    parser.add_argument("--task", choices=("I-II", "early-late", "ordinal", "I-IV"), default="early-late")
    parser.add_argument("--model", choices=MODELS, default="linear")
    parser.add_argument("--methods", nargs="+", default=list(DEFAULT_METHODS))
    parser.add_argument("--baseline", nargs="*", choices=BASELINES, default=[], help="scikit-learn on pooled patients")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, help="without privacy, 40 by default; under --epsilon a schedule decides")
    parser.add_argument("--epsilon", type=float, default=math.inf)
    parser.add_argument("--delta", type=float, default=1e-4)
    parser.add_argument("--noise", choices=("local", "shared"), default="local")
    parser.add_argument("--noise-draws", type=int, default=1, help="private runs per split, whose scores are averaged")
    parser.add_argument("--gains", nargs="*", default=[], help="factors of the model's gains, such as image=1.3")
    parser.add_argument("--cohort-gain", type=float, help="factor of the model's cohort indicator")
    parser.add_argument("--split", choices=SPLITS, default="stratified")
    parser.add_argument("--corrupt", default="", help="flip:SITE,SITE or permute")
    parser.add_argument("--alpha", type=float, default=0.5, help="of the dirichlet federation")
    parser.add_argument("--minimum-cases", type=int, default=30, help="of a tissue source site")
    parser.add_argument(
        "--constants", help="of public tables (tessera constants make), used where the schedule takes it"
    )
    parser.add_argument("--rename", action="store_true", help="give image features names that have no public scale")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


_ROUNDS = 40


def check(arguments: argparse.Namespace) -> None:
    """Refuse unknown methods, and options that would change nothing (InvalidInput)."""
    for name in arguments.methods:
        method(name)
    if arguments.rename and arguments.model == "convolutional":
        raise InvalidInput("tissue maps have no names to change: expected --rename with image features")
    if arguments.model == "convolutional" and arguments.data is None:
        raise InvalidInput("the convolutional model reads tissue maps: expected --data with some, got none")
    factors_of(arguments.gains)


def rounds_of(options: dict) -> int | None:
    """Return the rounds without privacy; None where a schedule decides, for each method (``rounds`` beside it)."""
    return None if math.isfinite(options["epsilon"]) else options["rounds"] or _ROUNDS


_DRAW = 100_000  # between the seeds of one split's draws of noise


@lru_cache(maxsize=1)
def tables_of(data: str | None, images: Images, rename: bool) -> Tables:
    found = read_tables(Path(data), images=images, columns="all") if data else generate(seed=0)
    return renamed(found) if rename else found


@lru_cache(maxsize=1)
def patients_of(data: str | None, images: Images, rename: bool, task: str, cohorts: tuple[str, ...]):
    return patients(tables_of(data, images, rename), task, cohorts)


def renamed(tables: Tables) -> Tables:
    """Return the tables with image features under names that nobody knows, so that each needs a scale of its own."""
    names = {name: f"z{number:04d}" for number, name in enumerate(tables.image_features)}
    cohorts = {
        name: replace(
            c, modalities={m: t.rename(columns=names) if m == "image" else t for m, t in c.modalities.items()}
        )
        for name, c in tables.cohorts.items()
    }
    return replace(tables, cohorts=cohorts, image_features=tuple(names.values()))


def run_seed(job: tuple[dict, int]) -> dict[str, dict]:
    options, seed = job
    torch.set_num_threads(1)
    draws = [seed + _DRAW * i for i in range(1 if math.isinf(options["epsilon"]) else options["noise_draws"])]
    found = {name: averaged([run_method(options, seed, name, draw) for draw in draws]) for name in options["methods"]}
    found |= {name: run_baseline(options, seed, name) for name in options["baseline"]}
    everyone = federate(options, seed, options["federation"])[2]
    said = {
        "lost": list(tables_of(options["data"], images_of(options), options["rename"]).notes),
        "cohorts": list(everyone.cohorts),
    }
    return found | said | {"kept_local": kept_local(options, seed)}


def kept_local(options: dict, seed: int) -> list[str]:
    """Return the modalities whose part of the model stays at its hospitals: fewer than three hold them.

    Under shared noise every hospital sends every part, whatever it holds, so that all shares of the noise are in it.

    Raises:
        InvalidInput: that is all of them, so that the hospitals would exchange nothing.
    """
    if options["noise"] == "shared" and math.isfinite(options["epsilon"]):
        return []
    sites, _, everyone = federate(options, seed, options["federation"])
    holders = {m: sum(m in site.modalities for site in sites) for m in everyone.features}
    kept = [m for m, n in holders.items() if n < MINIMUM_SITES]
    if len(kept) == len(holders):
        raise InvalidInput(
            f"expected a modality that at least {MINIMUM_SITES} of these hospitals hold, got {holders}: they would "
            "exchange nothing; use --federation upper-bound, or more cohorts"
        )
    return kept


def averaged(runs: list) -> Any:
    """Return the mean of results of one shape, number by number."""
    if isinstance(runs[0], dict):
        return {key: averaged([run[key] for run in runs]) for key in runs[0]}
    return [mean(list(v)) for v in zip(*runs, strict=True)] if isinstance(runs[0], list | tuple) else mean(runs)


def run_method(options: dict, seed: int, name: str, draw: int) -> dict:
    chosen = method(name)
    federation = "upper-bound" if chosen.arrangement == "upper-bound" else options["federation"]
    sites, test, everyone = federate(options, seed, federation)
    if chosen.scaled:
        if math.isfinite(options["epsilon"]):
            raise InvalidInput(f"{name} exchanges exact deviations: expected it without --epsilon")
        sites, test = halfway(sites, test)
    architecture = architecture_of(chosen, options["model"])
    config = ModelConfig(
        architecture=architecture,
        features=everyone.features,
        cohorts=everyone.cohorts,
        classes=everyone.classes,
        heads=chosen.heads if architecture == "mlp" else "shared",
    )
    config = with_gains(config, options)
    settings = settings_of(
        chosen,
        config,
        unscaled=everyone.unscaled,
        rounds=options["rounds"] or _ROUNDS,
        epsilon=options["epsilon"],
        delta=options["delta"],
        noise=options["noise"] if chosen.arrangement in ("federated", "upper-bound") else "local",
        sites=len(sites),
        constants=options["constants"] is not None,
    )
    if options["cohort_gain"] is not None:
        settings = replace(settings, cohort_gain=options["cohort_gain"])
    if chosen.arrangement == "alone":
        return alone(config, sites, test, settings, draw)
    together = [pool(sites)] if chosen.arrangement == "pooled" else sites
    outcome = simulate(config, together, test, settings, seed=draw, begin=beginning(options, everyone))
    return everything(partial(predict, outcome.model, config=config), config, sites, test) | {
        "curve": outcome.curve,
        "weights": outcome.weights,
        "scales": outcome.scales,
    }


def factors_of(given: list[str]) -> dict[str, float]:
    """Return the factors of ``MODALITY=FACTOR``.

    Raises:
        InvalidInput: one is not of this form, or no number above 0.
    """
    found = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = math.nan
        if not 0 < found[name] < math.inf:
            raise InvalidInput(f"expected --gains MODALITY=FACTOR such as image=1.3, got {text!r}")
    return found


def with_gains(config: ModelConfig, options: dict) -> ModelConfig:
    factors = factors_of(options["gains"])
    unknown = sorted(set(factors) - set(config.features))
    if unknown:
        raise InvalidInput(f"--gains: no modality called {unknown[0]!r}; there are {', '.join(config.features)}")
    return replace(config, gains={m: factors[m] * config.gain(m) for m in config.features if m in factors})


def beginning(options: dict, everyone):
    """Return what writes public constants into an initial model, None without them."""
    if options["constants"] is None:
        return None
    file = read_constants(Path(options["constants"]))
    return lambda model, config: begun_with(file, model, config, task=options["task"], names=everyone.names)[1]


def run_baseline(options: dict, seed: int, name: str) -> dict:
    """Score one of scikit-learn's models as :func:`run_method` scores ours, on the same patients."""
    sites, test, everyone = federate(options, seed, options["federation"])
    config = ModelConfig(
        architecture="linear", features=everyone.features, cohorts=everyone.cohorts, classes=everyone.classes
    )
    config = with_gains(config, options)
    return everything(fit(name, pool(sites).records, config), config, sites, test)


def images_of(options: dict) -> Images:
    return "tissue-maps" if options["model"] == "convolutional" else "features"


def federate(options: dict, seed: int, federation: str):
    images = images_of(options)
    tables = tables_of(options["data"], images, options["rename"])
    made = build(
        federation,
        tables,
        task=options["task"],
        seed=seed,
        minimum_cases=options["minimum_cases"],
        alpha=options["alpha"],
        split=options["split"],
    )
    everyone = patients_of(options["data"], images, options["rename"], options["task"], made.cohorts)
    sites, test = make_sites(everyone, made)
    if everyone.unscaled and math.isinf(options["epsilon"]):
        sites, test = standardised(sites, test, everyone.unscaled)
    return corrupted(sites, options["corrupt"], everyone.classes, seed), test, everyone


def alone(config, sites, test, settings, seed: int) -> dict:
    """Train every site by itself and score it on its own cohort's test patients; average within cohorts first."""
    found = {}
    for site in sites:
        outcome = simulate(config, [site], test, settings, seed=seed)
        rows = test["cohort"] == site.cohort
        own = {n: v[rows] for n, v in test.items()}
        found[site.name] = (site.cohort, scores(score(outcome.model, own, config)))
    result: dict = {"sites": {name: own["auroc"] for name, (_, own) in found.items()}}
    cohorts = sorted({cohort for cohort, _ in found.values()})
    for key in SCORES:
        means = {config.cohorts[c]: mean([own[key] for k, own in found.values() if k == c]) for c in cohorts}
        by_cohort = {cohort: value for cohort, value in means.items() if math.isfinite(value)}
        result[key] = mean(list(by_cohort.values())) if by_cohort else math.nan
        if key == "auroc":
            result["auroc_by_cohort"] = by_cohort
    return result


def scores(metrics: Metrics) -> dict:
    return asdict(metrics)


def everything(model: Predict, config: ModelConfig, sites, test: Records) -> dict:
    """Return the scores on the test patients: of all, of every site's kind, and with only some modalities."""
    return (
        scores(scored(model, test, config))
        | {"sites": site_scores(model, config, sites, test)}
        | {"combinations": combination_scores(model, config, test)}
    )


def scored(model: Predict, records: Records, config: ModelConfig) -> Metrics:
    return evaluate(model(records), records["label"].numpy(), records["cohort"].numpy(), config.cohorts)


def site_scores(model: Predict, config: ModelConfig, sites, test: Records) -> dict[str, float]:
    """Return the AUROC each site would see: its cohort's test patients, with the modalities it holds."""
    found = {}
    for site in sites:
        rows = (test["cohort"] == site.cohort).nonzero().ravel()
        own = modality_mask({n: v[rows] for n, v in test.items()}, site.modalities)
        found[site.name] = scored(model, own, config).auroc if len(rows) else math.nan
    return found


def combination_scores(model: Predict, config: ModelConfig, test: Records) -> dict[str, float]:
    """Return the AUROC with only some modalities, over the patients who have at least one of them."""
    found = {}
    for name in combinations(config.modalities):
        wanted = name.split("+")
        columns = [modalities_of(test).index(m) for m in wanted]
        rows = (test["presence"][:, columns].amax(dim=1) > 0).nonzero().ravel()
        own = modality_mask({n: v[rows] for n, v in test.items()}, wanted)
        found[name] = scored(model, own, config).auroc if len(rows) else math.nan
    return found


def summarise(arguments: argparse.Namespace, results: list[dict]) -> dict:
    reference = "fedavg" if "fedavg" in arguments.methods else arguments.methods[0]
    beside = [r[reference] for r in results]
    goal = mean([run["auroc"] for run in beside])
    methods = {}
    for name in (*arguments.methods, *arguments.baseline):
        methods[name] = entry_of([r[name] for r in results], beside, goal, reference)
    unsaid = {"json", "data", "constants"} | ({"cohort_gain"} if arguments.cohort_gain is None else set())
    settings = {k: v for k, v in vars(arguments).items() if k not in unsaid}
    if arguments.constants:
        settings["constants"] = read_constants(Path(arguments.constants)).constants_hash
    settings["epsilon"] = None if math.isinf(arguments.epsilon) else arguments.epsilon
    settings["rounds"] = rounds_of(vars(arguments))
    source = "public data, outside the protocol" if arguments.data else "synthetic tables"
    head = {"settings": settings, "metrics": f"exact on {source}", "reference": reference}
    first = results[0]
    said = {"kept_local": first["kept_local"], "lost": first["lost"], "unscored": unscored(beside, first["cohorts"])}
    return head | said | {"methods": methods}


if __name__ == "__main__":
    sys.exit(main())
