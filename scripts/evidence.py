"""Evidence that the algorithms learn: each from the same start, on several seeds, written down as it was measured.

``python scripts/evidence.py`` carries out ``scripts/evidence.yaml`` and the three-stage pipeline, and writes
``docs/evidence.md`` and ``docs/evidence.png``. What was measured is kept in ``runs/evidence`` and not done again; take
that folder away to measure anew.
"""

import argparse
import asyncio
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fettle.cli import build
from fettle.cli.evaluated import evaluation
from fettle.cli.worlds import Speaker
from fettle.config import RLRun
from fettle.config.document import Loader
from fettle.config.layers import laid_over
from fettle.config.load import load
from fettle.tracking import read_metrics
from fettle.training import Summary

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "runs" / "evidence"
PIPELINE = "three stages"
Result = dict[str, Any]
Recipe = Mapping[str, Any]


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", default="", help="algorithms whose name holds this text")
    asked = parser.parse_args()
    recipes = yaml.load((ROOT / "scripts" / "evidence.yaml").read_text(), Loader)
    names = [name for name in [*recipes["algorithms"], PIPELINE] if asked.only in name]
    RUNS.mkdir(parents=True, exist_ok=True)
    for seed in asked.seeds:
        for name in names:
            kept = RUNS / f"{_slug(name)}-{seed}.json"
            if not kept.is_file():
                found = three_stages(seed) if name == PIPELINE else measured(name, recipes, seed)
                kept.write_text(json.dumps({"algorithm": name, "seed": seed, **found}, indent=2) + "\n")
            told = json.loads(kept.read_text())
            print(json.dumps({key: value for key, value in told.items() if key != "curve"}), flush=True)
    results = [json.loads(path.read_text()) for path in sorted(RUNS.glob("*.json"))]
    order = [*recipes["algorithms"], PIPELINE]
    results.sort(key=lambda result: (order.index(result["algorithm"]), result["seed"]))
    (ROOT / "docs" / "evidence.md").write_text(page(results), encoding="utf-8")
    draw(results, ROOT / "docs" / "evidence.png")


def measured(name: str, recipes: Recipe, seed: int) -> Result:
    """One algorithm on one seed: what was measured, by chance, before and after."""
    start, untrained = warmed_up(recipes["warm-up"], seed)
    recipe = dict(recipes["algorithms"][name])
    if "like" in recipe:
        recipe = laid_over(recipes["algorithms"][recipe.pop("like")], recipe)
    recipe = laid_over(recipe, {"seed": seed, "name": f"{_slug(name)}-{seed}", "policy": {"model": start}})
    summary = carried_out(recipe)
    rows = read_metrics(summary.folder / "metrics.jsonl")
    score = "heldout/reward" if recipe["type"] == "rl" else "heldout/accuracy"
    return {
        "measure": "held-out reward" if recipe["type"] == "rl" else "held-out pairs ranked right",
        "chance": _reward_of(untrained, recipes, seed) if recipe["type"] == "rl" else 0.5,
        "start": summary.first[score],
        "end": summary.last[score],
        "low": summary.last[f"{score}_low"],
        "high": summary.last[f"{score}_high"],
        "seconds": summary.seconds,
        "curve": [(row["step"], row[score]) for row in rows if score in row],
        **_besides(recipe, rows, summary, recipes, seed),
    }


def three_stages(seed: int) -> Result:
    """The pipeline on one seed: the true reward before stage 3 and after it."""
    recipe = yaml.load((ROOT / "configs" / "rlhf-three-stage.yaml").read_text(), Loader)
    seeded = [{**stage, "seed": seed} for stage in recipe["stages"]]
    began = time.perf_counter()
    summaries = _carried_out({**recipe, "name": f"{_slug(PIPELINE)}-{seed}", "stages": seeded})
    last = summaries[-1]
    rows = read_metrics(last.folder / "metrics.jsonl")
    stages = json.loads((last.folder.parent / "summary.json").read_text())["stages"]
    return {
        "measure": "true held-out reward",
        "chance": stages[0]["before"]["heldout/reward"],
        "start": last.first["heldout/reward"],
        "end": last.last["heldout/reward"],
        "low": last.last["heldout/reward_low"],
        "high": last.last["heldout/reward_high"],
        "seconds": time.perf_counter() - began,
        "curve": [(row["step"], row["heldout/reward"]) for row in rows if "heldout/reward" in row],
        "besides": f"reward model ranks {summaries[-2].last['heldout/accuracy']:.3f} of held-out pairs right",
    }


def warmed_up(recipe: Recipe, seed: int) -> tuple[str, str]:
    """The model that every algorithm of a seed begins with, and the random one that it was made from."""
    folder = RUNS / f"warm-up-{seed}"
    for path in sorted(folder.glob("*/progress.json")):
        progress = json.loads(path.read_text())
        if progress["step"] == recipe["steps"]:
            return str(path.parent / "checkpoints" / progress["checkpoint"]), str(path.parent / "model")
    summary = carried_out({**recipe, "seed": seed, "name": "warm-up"}, within=folder)
    return summary.checkpoint, str(summary.folder / "model")


def carried_out(recipe: Recipe, *, within: Path = RUNS) -> Summary:
    """A single run."""
    return _carried_out(recipe, within=within)[-1]


def page(results: Sequence[Result]) -> str:
    """The page, in the order of the recipes."""
    lines = [
        "# Evidence",
        "",
        "<!-- Written by scripts/evidence.py, as it was measured: run `make evidence` to measure anew. -->",
        "",
        "Each algorithm starts from the same model of a seed, a small one that was taught to add and subtract numbers",
        "of two digits sloppily, and is scored on 200 held-out sums that no stage trains on. Chance is what a model of",
        "random weights scores, or one half for pairs. A seed keys what is drawn and in which order; the random",
        "weights that the warm-up starts from and the sums are those of seed 0. Intervals are of 95 %. Recipes:",
        "`scripts/evidence.yaml` and",
        f"`configs/rlhf-three-stage.yaml`; torch {torch.__version__}, {torch.get_num_threads()} threads of a CPU.",
        "Seconds are by the clock, and tell as much of what else the machine was doing.",
        "",
        "| algorithm | seed | measured | chance | start | end | interval | seconds | besides |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        numbers = f"{r['chance']:.3f} | {r['start']:.3f} | {r['end']:.3f} | {r['low']:.3f} to {r['high']:.3f}"
        lines.append(
            f"| {r['algorithm']} | {r['seed']} | {r['measure']} | {numbers} | {r['seconds']:.0f} "
            f"| {r.get('besides', '')} |"
        )
    return "\n".join([*lines, "", "![Held-out score by step, one line a seed](evidence.png)", ""])


def draw(results: Sequence[Result], path: Path) -> None:
    """One panel an algorithm, one line a seed."""
    names = list(dict.fromkeys(result["algorithm"] for result in results))
    columns = 4
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.set_title(name, fontsize=9, loc="left")
        axes.set_ylim(0, 1.02)
        axes.tick_params(labelsize=8)
        axes.grid(color="#e4e6ea")
        for result in results:
            if result["algorithm"] == name:
                axes.axhline(result["chance"], color="#8b919a", linewidth=0.6)
                steps, scores = zip(*result["curve"], strict=True)
                axes.plot(steps, scores, marker="o", markersize=3, linewidth=1.2, label=f"seed {result['seed']}")
        if place == 0:
            axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def _carried_out(recipe: Recipe, *, within: Path = RUNS) -> list[Summary]:
    within.mkdir(parents=True, exist_ok=True)
    written = within / f"{recipe['name']}.yaml"
    written.write_text(yaml.safe_dump(dict(recipe), sort_keys=False))
    config = load(written)
    summaries = asyncio.run(build.run(config, build.new_folder(within, config)))
    if summaries[-1].interrupted:
        raise SystemExit(130)
    return summaries


def _besides(
    recipe: Recipe, rows: Sequence[Mapping[str, float]], summary: Summary, recipes: Recipe, seed: int
) -> Result:
    """What else tells of an algorithm."""
    if kept := [row["trust/kl"] for row in rows if "trust/kl" in row]:
        furthest = max(kept)
        return {"besides": f"greatest divergence of an update kept {furthest:.4f} nats a token"}
    if recipe["type"] == "preference":
        before, after = (_reward_of(model, recipes, seed) for model in (recipe["policy"]["model"], summary.checkpoint))
        return {"besides": f"held-out reward of its replies {before:.3f} to {after:.3f}"}
    return {}


def _reward_of(model: str, recipes: Recipe, seed: int) -> float:
    """The held-out reward of a model's replies, as the GRPO recipe scores them."""
    tree = laid_over(recipes["algorithms"]["GRPO"], {"seed": seed, "policy": {"model": model}})
    config = RLRun.model_validate(tree)
    found, _ = asyncio.run(evaluation(config, Speaker(model)))
    return found.reward


def _slug(name: str) -> str:
    return "-".join(name.replace(",", "").split())


if __name__ == "__main__":
    main()
