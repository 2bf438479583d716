"""Each preset against its paper: its settings, an example by hand, and what ``docs/algorithms.md`` says of it."""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import yaml

from fettle.advantages import credit, normalized, token_gae
from fettle.config import PRESETS, Advantage, Frozen, PolicyLoss, RLRun
from fettle.losses import (
    KL_ESTIMATORS,
    LOSSES,
    REDUCTIONS,
    LossRow,
    evaluate,
    finished,
    required_inputs,
    required_scalars,
    reward_penalty,
    weights,
)

DOCUMENT = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8")

# Two completions of one task, of two tokens and of one, after a prompt of one token; the first was right.
REWARDS = [1.0, 0.0]
MASKS = [np.float32([0, 1, 1]), np.float32([0, 1])]
POLICY = [[1, 0.6, 0.5], [1, 0.2]]
SAMPLER = [[1, 0.4, 0.5], [1, 0.4]]  # so that the ratios are 1.5, 1 and 0.5
REFERENCE = [[1, 0.3, 0.5], [1, 0.4]]
VALUES = [np.float32([0, 0.5, 0.25]), np.float32([0, 0.75])]
"""What the critic says before each token, where there is one."""
MAX_TOKENS = 4

HALF = 1 / math.sqrt(2)
"""Of rewards 1 and 0 the mean is 1/2 and the unbiased standard deviation 1/√2, so the advantages are ±1/√2."""
K3_FIRST, K3_LAST = 0.5 - 1 + math.log(2), 2 - 1 - math.log(2)
SHAPED = 1 - 0.03 * math.log(4 / 3)
RETURNS = [1 - 0.01 * math.log(4 / 3), 1.0, 0.0]
MEAN = sum(RETURNS) / 3
STD = math.sqrt(sum((value - MEAN) ** 2 for value in RETURNS) / 3)


def ppo_by_hand(cost: float) -> float:
    """δ = (-cost + 0.25 - 0.5, 1 - 0.25, 0 - 0.75) and A = δ_t + 0.95 δ_{t+1}, normalised over three tokens.

    Clips: 1.5 to 1.2 under credit, 0.5 to 0.8 under blame.
    """
    raw = [-cost - 0.25 + 0.95 * 0.75, 0.75, -0.75]
    mean = sum(raw) / 3
    std = math.sqrt(sum((a - mean) ** 2 for a in raw) / 3)
    return -sum(r * (a - mean) / std for r, a in zip([1.2, 1, 0.8], raw, strict=True)) / 3


BY_HAND = {
    # Clips: 1.5 to 1.2 under credit, 0.5 to 0.8 under blame. Weights: 1/4, 1/4, 1/2.
    "grpo": ((-1.2 - 1) / 4 + 0.8 / 2) * HALF + 0.04 * (K3_FIRST / 4 + K3_LAST / 2),
    # Advantages ±1/2. Weights: 1/(2 · 4) each.
    "dr_grpo": (-1.2 - 1 + 0.8) / 2 / 8,
    # 1.5 is clipped to 1.28. Weights: 1/3 each.
    "dapo": (-1.28 - 1 + 0.8) * HALF / 3,
    # s = √1.5 and 1/2, clipped to 1.0004 and 0.9997. Each sequence weighs 1/2.
    "gspo": (-1.0004 + 0.9997) / 2 * HALF,
    # No ratio is clipped: -r A log π. Weights: 1/3 each.
    "cispo": (-1.5 * math.log(0.6) - math.log(0.5) + 0.5 * math.log(0.2)) * HALF / 3,
    # The first reward pays 0.03 log(4/3) for its first token; the advantages are ± what is left. Weights: 1/2 each.
    "rloo": (-1.5 - 1 + 0.5) * SHAPED / 2,
    # Normalised over three tokens; clipped as in GRPO. Weights: 1/3 each.
    "reinforce_pp": -sum(r * (a - MEAN) / STD for r, a in zip([1.2, 1, 0.8], RETURNS, strict=True)) / 3,
    # The first token pays 0.02 log(4/3) for its distance to the reference.
    "ppo": ppo_by_hand(0.02 * math.log(4 / 3)),
    "conservative_ppo": ppo_by_hand(0.0),
    # No ratio is above 2: -r A. Weights: 1/3 each.
    "off_policy": (-1.5 - 1 + 0.5) * HALF / 3,
    # A = log ρ/μ, with the reference for a teacher: it likes the first token less, and the others as much.
    "distill": -1.5 * math.log(3 / 4) / 3,
}


def run(preset: str) -> RLRun:
    settings: dict[str, Any] = {"policy": {"model": "m"}, "environments": [{"type": "arithmetic"}]}
    if preset == "distill":
        settings["teacher"] = {"model": "t"}
    return RLRun.model_validate({"preset": preset, "sampling": {"max_tokens": MAX_TOKENS}, **settings})


def padded(rows: list[Any]) -> torch.Tensor:
    return torch.tensor([[*map(float, row), *[0.0] * (3 - len(row))] for row in rows], dtype=torch.float64)


def credited(settings: RLRun, sampled: list[Any], reference: list[Any], penalties: list[Any] | None) -> list[Any]:
    if settings.teacher is not None:
        return [settings.teacher.coefficient * (rho - mu) for mu, rho in zip(sampled, reference, strict=True)]
    if settings.critic is None:
        return credit(settings.advantage, groups=["g", "g"], rewards=REWARDS, loss_masks=MASKS, penalties=penalties)
    at_the_end = [np.float32([0, 0, REWARDS[0]]), np.float32([0, REWARDS[1]])]
    costs = penalties or [0 * mask for mask in MASKS]
    raw = [
        token_gae(
            (reward - cost) * mask,
            values,
            mask,
            bootstrap=0.0,
            gamma=settings.critic.gamma,
            lam=settings.critic.gae_lambda,
        )[0]
        for reward, cost, values, mask in zip(at_the_end, costs, VALUES, MASKS, strict=True)
    ]
    return normalized(raw, MASKS, ["g", "g"], scope=settings.critic.normalize)


def batch_loss(settings: RLRun) -> float:
    """The example through credit, weights and loss, as a training step takes it."""
    sampled, reference = ([np.log(np.float32(row)) for row in rows] for rows in (SAMPLER, REFERENCE))
    kl = settings.loss.kl
    penalties = None
    if kl is not None and kl.place == "reward":
        penalties = [
            reward_penalty(mu, rho, estimator=kl.estimator, coefficient=kl.coefficient)
            for mu, rho in zip(sampled, reference, strict=True)
        ]
    advantages = credited(settings, sampled, reference, penalties)
    streams = {"sampling_logprobs": sampled, "reference_logprobs": reference, "advantages": advantages}
    inputs = {name: padded(streams[name]) for name in required_inputs(settings.loss)} | {"loss_mask": padded(MASKS)}
    values, _ = evaluate(settings.loss, {"logprobs": padded([np.log(row) for row in POLICY])}, inputs)
    return (values * padded(weights(settings.reduction, MASKS, max_tokens=MAX_TOKENS))).sum().item()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_gives_the_loss_that_its_paper_gives_by_hand(preset):
    assert batch_loss(run(preset)) == pytest.approx(BY_HAND[preset], rel=1e-5)


def test_the_examples_tell_the_presets_apart():
    assert [round(BY_HAND[preset], 6) for preset in PRESETS] == [
        -0.097997,
        -0.0875,
        -0.348839,
        -0.000247,
        0.154306,
        -0.99137,
        -0.141217,
        -0.123936,
        -0.124354,
        -0.471405,
        0.143841,
    ]


def table(section: str) -> dict[str, list[str]]:
    """The rows of a section's table in the document, by the name in their first cell."""
    text = DOCUMENT.split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {name: cells for name, *cells in rows}


def knobs(settings: Frozen) -> str:
    """What is its own: not the terms that any policy's loss may carry."""
    return ", ".join(f"{name} {value}" for name, value in settings if name not in {"type", *PolicyLoss.model_fields})


def reported(row: LossRow) -> list[str]:
    """The names of a loss's metrics as an engine gives them."""
    return list(finished(dict.fromkeys(row.metrics, 1.0)))


def beside(name: str, asked: Any, set_to: Any) -> str:
    """What a preset sets besides: a number, or some fields of a group of settings."""
    if not isinstance(asked, Mapping):
        return f"{name} {set_to}"
    return f"{name}: " + ", ".join(f"{field} {getattr(set_to, field)}" for field in asked)


def joined(*parts: str) -> str:
    return ": ".join(part for part in parts if part)


def quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def test_the_documents_recipe_lays_one_setting_over_a_preset():
    recipe = yaml.safe_load(DOCUMENT.split("```yaml\n")[1].split("```")[0])
    settings = RLRun.model_validate({**recipe, "policy": {"model": "m"}, "environments": [{"type": "arithmetic"}]})
    dapo = run("dapo")
    assert settings.loss == dapo.loss.model_copy(update={"clip_high": 0.3})
    assert (settings.reduction, settings.overlong) == (dapo.reduction, dapo.overlong)


def test_the_document_lists_every_preset_with_what_it_expands_to():
    expected = {}
    for preset in PRESETS:
        settings = run(preset)
        kl = settings.loss.kl
        besides = [name for name in PRESETS[preset] if name not in {"loss", "advantage", "reduction"}]
        expected[f"`{preset}`"] = [
            joined(f"`{settings.loss.type}`", knobs(settings.loss)),
            f"{kl.coefficient} × `{kl.estimator}` in the {kl.place}" if kl else "none",
            f"`{settings.advantage}`",
            f"`{settings.reduction.type}`",
            "; ".join(beside(name, PRESETS[preset][name], getattr(settings, name)) for name in besides),
        ]
    assert table("Presets") == expected


def test_the_document_lists_every_loss_with_what_it_reads_is_set_by_and_reports():
    documented = {name: cells[1:] for name, cells in table("Losses").items()}
    expected = {}
    for name, row in LOSSES.items():
        settings = row.settings()
        reads = [*required_inputs(settings), *required_scalars(settings)]
        expected[f"`{name}`"] = [quoted(reads), knobs(settings), quoted(reported(row))]
    assert documented == expected


def test_the_document_lists_every_advantage_and_reduction():
    assert set(table("Advantages")) == {f"`{name}`" for name in get_args(Advantage)}
    assert set(table("Reductions")) == {f"`{name}`" for name in REDUCTIONS}


def test_the_document_explains_every_metric():
    explained = ", ".join(table("Metrics, and what to do about them"))
    metrics = [metric for row in LOSSES.values() for metric in reported(row)]
    assert set(explained.split(", ")) == {f"`{name}`" for name in [*metrics, *(f"kl_{name}" for name in KL_ESTIMATORS)]}
