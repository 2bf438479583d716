"""Where each documented setting stands in a stage of a recipe."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fettle.compat.rllm.rewards import COMPLETION_TIME
from fettle.config import PRESETS, IssueCredit, RLRun
from fettle.errors import ConfigError

Tree = dict[str, Any]

PLACES: Mapping[str, Sequence[tuple[str, str]]] = MappingProxyType(
    {
        "model.max_seq_length": [("sft", "max_tokens")],
        "model.seed": [("*", "seed"), ("*", "policy.seed")],
        "training.algorithm": [("rl", "preset")],
        "training.learning_rate": [("*", "optimizer.learning_rate")],
        "training.weight_decay": [("*", "optimizer.weight_decay")],
        "training.warmup_steps": [("*", "schedule.warmup_steps")],
        "training.lr_scheduler_type": [("*", "schedule.type")],
        "training.save_steps": [("*", "checkpoints.every")],
        "training.save_total_limit": [("*", "checkpoints.keep")],
        "training.eval_steps": [("*", "evaluation.every")],
    }
)
"""Settings that stand in a recipe as they are: in stages of a type, or in all, and where there."""

ADAPTER = {"lora_r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout", "lora_target_modules": "targets"}
TORCH_DECAYS = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
CREDIT = {"code_quality_weight": "quality", "readability_weight": "readability"}
"""Documented weights that are parts of an environment's own credit."""
CREDIT_SCALE = 1 / 6
"""What they are multiplied by, so that the documented 0.3 of code quality is the environment's own 0.05."""
PART_SCALE = 0.2
"""What the weight of a part is multiplied by that looks at the reply alone."""


def asked(stage: Tree, said: Tree, *, half_precision: bool) -> Tree:
    """What settings ask of a stage."""
    kind, tree = stage["type"], Tree()
    model, training = said.get("model", {}), said.get("training", {})
    computed = [*_model(stage, model), *_training(training, half_precision=half_precision)]
    computed += _rl(stage, said) if kind == "rl" else _sft(training)
    for place, value in (*_copied(kind, said), *computed):
        put(tree, place, value)
    return tree


def put(tree: Tree, place: str, value: Any) -> None:
    """Set what stands at a dotted place; the mappings on the way are made anew."""
    *outer, last = place.split(".")
    for name in outer:
        inner = tree.get(name)
        tree[name] = dict(inner) if isinstance(inner, Mapping) else {}
        tree = tree[name]
    tree[last] = value


def _copied(kind: str, said: Tree) -> Iterator[tuple[str, Any]]:
    for key, places in PLACES.items():
        section, _, name = key.partition(".")
        if name in said.get(section, {}):
            yield from ((place, said[section][name]) for whose, place in places if whose in ("*", kind))


def _model(stage: Tree, model: Tree) -> Iterator[tuple[str, Any]]:
    if "model_id" in model and not _goes_on(stage):
        folder = Path(model["model_id"])
        yield "policy.model", str(folder.resolve()) if folder.is_dir() else model["model_id"]
    adapter = {ours: model[theirs] for theirs, ours in ADAPTER.items() if theirs in model}
    if not model.get("use_lora", True):
        yield "policy.lora", None
    elif adapter or "use_lora" in model:
        yield "policy.lora", adapter
    if "use_8bit" in model or "use_4bit" in model:
        yield "policy.quantization", "int8" if model.get("use_8bit") else "nf4" if model.get("use_4bit") else None


def _goes_on(stage: Tree) -> bool:
    model = stage["policy"]["model"]
    return isinstance(model, str) and (model == "previous" or model.startswith("stage:"))


def _training(training: Tree, *, half_precision: bool) -> Iterator[tuple[str, Any]]:
    if "fp16" in training or "bf16" in training:
        half = training.get("bf16") or (training.get("fp16") and half_precision)
        yield "policy.precision", "bfloat16" if half else "float32"
    if "optim" in training:
        yield from ((f"optimizer.{name}", value) for name, value in TORCH_DECAYS.items())
    if "max_grad_norm" in training:
        yield "optimizer.clip_norm", training["max_grad_norm"] or None
    if "early_stopping" in training:
        yield "evaluation.patience", training.get("early_stop_patience", 3) if training["early_stopping"] else None


def _sft(training: Tree) -> Iterator[tuple[str, Any]]:
    if (batch := _batch(training)) is not None:
        yield "batch_size", batch


def _batch(training: Tree) -> int | None:
    """Sequences of one optimizer step; None where nothing is said of them."""
    sizes = ("per_device_train_batch_size", "gradient_accumulation_steps")
    return math.prod(training.get(name, 1) for name in sizes) if training.keys() & set(sizes) else None


def _rl(stage: Tree, said: Tree) -> Iterator[tuple[str, Any]]:
    model, training, reward = (said.get(name, {}) for name in ("model", "training", "reward"))
    group = int(stage.get("group_size", RLRun.model_fields["group_size"].default))
    if (batch := _batch(training)) is not None:
        row = PRESETS[training.get("algorithm", stage.get("preset", "grpo"))]
        parts = int(stage.get("minibatches", row.get("minibatches", 1)))
        yield "groups_per_step", parts * math.ceil(batch / (group * parts))
    if "max_seq_length" in model:
        longest = model["max_seq_length"]
        yield "sampling.max_tokens", longest // 2
        if "per_device_train_batch_size" in training:
            yield "engine.train_tokens", longest * training["per_device_train_batch_size"]
        if "per_device_eval_batch_size" in training:
            yield "engine.sample_tokens", longest * group * training["per_device_eval_batch_size"]
    if not reward.get("use_kl_penalty", True):
        yield "loss.kl", None
    elif "kl_penalty_weight" in reward:
        yield "loss.kl.coefficient", reward["kl_penalty_weight"]


def rewards(reward: Tree) -> Tree:
    """What an environment pays, by the documented weights.

    Raises:
        ConfigError: with them a change that fails could earn more than one that passes.
    """
    tree = Tree()
    weights = IssueCredit().model_dump(exclude={"share"})
    if reward.keys() & {*CREDIT, "test_coverage_weight"}:
        weights |= {ours: reward[theirs] * CREDIT_SCALE for theirs, ours in CREDIT.items() if theirs in reward}
        weights["tests"] *= 1 + reward.get("test_coverage_weight", 0.0)
        total = sum(weights.values())
        weights = {name: round(weight / total, 4) for name, weight in weights.items()}
        weights["tests"] = round(1 - sum(weight for name, weight in weights.items() if name != "tests"), 4)
        tree["credit"] = weights
    soon = round(PART_SCALE * reward.get("completion_time_weight", 0.0), 4)
    if soon:
        part = {"reward": COMPLETION_TIME, "name": "completion_time", "scale": soon}
        tree["rewards"] = [{"reward": "environment"}, part]
    if 1 - weights["tests"] + soon >= weights["tests"] + weights["applied"]:
        told = ", ".join(f"{name} {value:g}" for name, value in reward.items() if name.endswith("_weight"))
        raise ConfigError(f"with {told} a change that fails could earn more than one that passes: lower some")
    return tree
