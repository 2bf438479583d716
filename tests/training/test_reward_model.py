"""Reward models on a real engine: they learn which reply is chosen, and are saved as scorers."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import LocalEngine, RewardModelRun
from fettle.data import Preference
from fettle.engine.local import LocalBackend
from fettle.errors import ModelError
from fettle.losses import calibration_error
from fettle.training import compared

from .colours import HELDOUT, PAIRS, Trained, painter, small, trained


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return painter(tmp_path_factory.mktemp("models") / "painter")


@pytest.fixture(scope="module", params=["all weights", "adapters"])
def done(request: pytest.FixtureRequest, model: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A finished run, to be read."""
    spec = {"model": model, "lora": {"rank": 8} if request.param == "adapters" else None}
    rate = 1e-2 if request.param == "adapters" else 3e-3
    run = small(
        RewardModelRun,
        model,
        policy=spec,
        steps=50,
        optimizer={"learning_rate": rate},
        evaluation={"every": 10},
        checkpoints={"every": 10},
    )
    return asyncio.run(trained(run, tmp_path_factory.mktemp("run")))


async def scores(weights: str, sequences, **settings) -> list[float]:
    """What a saved model says of sequences, all asked for at once."""
    engine = Broker(LocalBackend(LocalEngine(threads=1, **settings), checkpoints=Path()))
    try:
        sampler = await engine.sampler(weights)
        return list(await asyncio.gather(*(sampler.score(tokens) for tokens in sequences)))
    finally:
        engine.close()


def sequences(model: str, pairs: list[Preference]) -> list[list[int]]:
    """Chosen and rejected in turn, as tokens."""
    template = Template(load_tokenizer(model))
    found = compared.encoded(template, dict(enumerate(pairs)))
    return [reply.tokens.tolist() for replies in found.values() for reply in replies]


def test_held_out_accuracy_goes_from_chance_to_nearly_all(done):
    """T5, first half."""
    assert done.first["heldout/accuracy"] == 0.5
    assert done.last["heldout/accuracy"] > 0.9
    assert done.last["heldout/accuracy_low"] > done.first["heldout/accuracy_high"]


async def test_the_best_checkpoint_is_a_scorer_with_the_run_s_own_numbers(done, model):
    """Everything that the run said of its held-out pairs follows from scores of a model that was loaded anew."""
    said = np.array(await scores(done.summary.best_checkpoint, sequences(model, HELDOUT)), np.float32)
    margins = said[0::2] - said[1::2]
    evaluations = [row for row in done.memory.rows if "heldout/accuracy" in row]
    best = max(reversed(evaluations), key=lambda row: row["heldout/accuracy"])  # of equals the newest
    assert best["heldout/accuracy"] == np.mean(margins > 0)
    assert best["heldout/margin"] == pytest.approx(margins.mean(), abs=1e-4)
    assert best["heldout/loss"] == pytest.approx(np.log1p(np.exp(-margins)).mean(), abs=1e-4)
    certainty = 1 / (1 + np.exp(-np.abs(margins)))
    expected = calibration_error(certainty, (margins > 0).astype(np.float32))
    assert best["heldout/calibration_error"] == pytest.approx(expected, abs=1e-4)


async def test_a_score_does_not_depend_on_what_is_scored_beside_it(done, model):
    """L13: neither on padding nor on the batch."""
    asked = sequences(model, HELDOUT[:4])
    asked[0] = asked[0] * 3  # of another length than the others, which are then padded
    together = await scores(done.summary.best_checkpoint, asked)
    alone = [(await scores(done.summary.best_checkpoint, [tokens]))[0] for tokens in asked]
    narrow = await scores(done.summary.best_checkpoint, asked, train_tokens=len(asked[0]))
    assert together == pytest.approx(alone, abs=1e-5)
    assert narrow == pytest.approx(alone, abs=1e-5)
    assert len({round(score, 3) for score in alone}) > 1


async def test_a_model_that_no_run_made_a_scorer_does_not_score(model):
    with pytest.raises(ModelError, match="has no reward head to score with"):
        await scores(model, [[1, 2, 3]])


async def test_pairs_that_cannot_be_told_apart_leave_accuracy_at_chance(model, tmp_path):
    """Every held-out pair is there twice, once swapped: what is right of one is wrong of the other."""
    swapped = [Preference(each.prompt, each.rejected, each.chosen) for each in HELDOUT]
    done = await trained(small(RewardModelRun, model, steps=5), tmp_path, PAIRS, [*HELDOUT, *swapped])
    assert done.last["heldout/accuracy"] == 0.5
    assert done.last["heldout/margin"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("head", [None, "reward"])
async def test_a_reward_model_has_its_head_whether_or_not_the_recipe_names_it(model, tmp_path, head):
    run = small(RewardModelRun, model, policy={"model": model, "head": head}, steps=1)
    done = await trained(run, tmp_path)
    assert len(await scores(done.summary.checkpoint, [[1, 2, 3]])) == 1


async def test_what_a_pair_asks_for_as_a_margin_is_part_of_the_loss(model, tmp_path):
    """A new head says 0 of everything: the loss is then -log σ(-m)."""
    heldout = [Preference(each.prompt, each.chosen, each.rejected, margin=2.0) for each in HELDOUT]
    done = await trained(small(RewardModelRun, model, steps=1), tmp_path, PAIRS, heldout)
    assert done.first["heldout/loss"] == pytest.approx(np.log1p(np.exp(2.0)))
