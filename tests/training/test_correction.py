"""A sampler that is not quite the trainer: the update is put right, and the ratio is the training's own."""

from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import PPO, AdamW, Correction, LocalEngine, PolicySpec
from fettle.engine import Policy
from fettle.engine.local import LocalBackend
from fettle.training.correction import corrected, reweighted
from fettle.training.learning import Learner
from fettle.types import Datum, ForwardResult, datum

from .conftest import drawer_of, small
from .games import Game, length
from .skewed import PROMPT, Skewed, every_reply, exact


@pytest.fixture
async def policy(tiny, tmp_path) -> AsyncIterator[Policy]:
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path))
    yield await engine.create_policy(PolicySpec(model=tiny))
    engine.close()


@pytest.fixture(scope="module")
def vocabulary(tiny) -> int:
    return len(load_tokenizer(tiny))


class Trainer:
    """Satisfies ``Policy`` as far as reading goes: every token has probability 1/4."""

    async def forward(self, data, loss) -> ForwardResult:
        return ForwardResult(0.0, {}, [np.log(0.25) * one.loss_mask for one in data], len(data))


def drawn_at(*probabilities: float) -> list[list[Datum]]:
    """One reply, whose tokens a sampler drew with these probabilities."""
    mask = [0.0, *[1.0] * len(probabilities)]
    logprobs = [0.0, *np.log(probabilities)]
    return [[datum([1] * len(mask), mask, sampling_logprobs=logprobs, advantages=mask)]]


@pytest.mark.parametrize(
    ("kind", "level", "weights"),
    [
        ("truncate", "token", [0.5, 1.0, 2.0, 2.0, 0.25]),
        ("mask", "token", [0.5, 1.0, 2.0, 0.0, 0.0]),
        ("truncate", "sequence", [1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
async def test_credit_is_multiplied_by_the_ratio_up_to_the_cap(kind, level, weights):
    """Ratios 1/2, 1, 2, 4 and 1/4, whose product is 1; the cap is 2."""
    settings = Correction(kind=kind, level=level, cap=2.0 + 1e-5)
    data, row = await corrected(drawn_at(0.5, 0.25, 0.125, 0.0625, 1.0), Trainer(), settings)
    [[found]] = reweighted(data)
    assert found.streams["advantages"].tolist() == pytest.approx([0.0, *weights], rel=1e-4)
    assert found.streams["sampling_logprobs"][1:].tolist() == pytest.approx([np.log(0.25)] * 5)
    assert found.weights.tolist() == [0, 1, 1, 1, 1, 1]  # what divides is made from the mask, whatever is dropped
    assert row["policy/mismatch"] == pytest.approx(np.log(2) * 6 / 5)
    assert row["policy/mismatch_max"] == pytest.approx(np.log(4))
    assert row["policy/mismatch_effective_sample_size"] == pytest.approx((7.75 / 5) ** 2 / (21.3125 / 5))


@pytest.mark.parametrize(("last", "kept"), [(0.124, 0.0), (0.126, 2.0)])
async def test_a_whole_sequence_is_dropped_where_its_ratio_is_beyond_the_cap(last, kept):
    data, _ = await corrected(drawn_at(0.25, last), Trainer(), Correction(kind="mask", level="sequence"))
    assert reweighted(data)[0][0].streams["advantages"][1:] == pytest.approx([kept, kept], rel=0.02)


async def test_without_a_correction_the_data_stay_what_they_are():
    data = drawn_at(0.5, 0.25)
    same, row = await corrected(data, Trainer(), None)
    assert (same, row) == (data, {})
    assert reweighted(same)[0][0] is data[0][0]


async def length_of_gradient(policy: Policy, *parts: Sequence[Datum]) -> float:
    """Of the sum of the parts' gradients."""
    for part in parts:
        await policy.forward_backward(part, PPO())
    return (await policy.optim_step(AdamW(learning_rate=1e-12))).grad_norm


async def test_it_restores_the_update_that_a_perturbed_sampler_spoils(policy, vocabulary):
    """The expected gradient of PPO's first update over all replies, less that of an exact sampler: nothing is left."""
    sampler = await policy.sampler()
    drawn_by = await Skewed(sampler, vocabulary=vocabulary, noise=0.7).distribution(PROMPT)
    true = every_reply(await exact(sampler, PROMPT, vocabulary), sign=-1.0)
    spoilt = every_reply(drawn_by)
    data, row = await corrected([spoilt], policy, Correction(cap=1e9))
    [restored] = reweighted(data)
    size = await length_of_gradient(policy, true)
    assert row["policy/mismatch"] > 0.3
    assert await length_of_gradient(policy, true, restored) < 1e-4 * size
    assert await length_of_gradient(policy, true, spoilt) > 0.1 * size


async def test_the_cap_leaves_some_bias_and_less_than_there_was(policy, vocabulary):
    sampler = await policy.sampler()
    drawn_by = await Skewed(sampler, vocabulary=vocabulary, noise=0.7).distribution(PROMPT)
    true, spoilt = every_reply(await exact(sampler, PROMPT, vocabulary), sign=-1.0), every_reply(drawn_by)
    [restored] = reweighted((await corrected([spoilt], policy, Correction(cap=2.0)))[0])
    left = await length_of_gradient(policy, true, restored)
    assert 0 < left < await length_of_gradient(policy, true, spoilt)


class SkewedPolicy:
    """Satisfies ``Policy`` as far as drawing goes."""

    def __init__(self, inner: Policy, vocabulary: int) -> None:
        self._inner, self._vocabulary = inner, vocabulary

    async def sampler(self) -> Skewed:
        return Skewed(await self._inner.sampler(), vocabulary=self._vocabulary, noise=0.7)


@pytest.mark.parametrize("correction", [None, {}])
async def test_in_a_step_of_the_loop_the_ratio_measures_only_what_training_moved(policy, tiny, vocabulary, correction):
    run = small(tiny, sampling={"max_tokens": 1}, correction=correction, advantage="group_centered", group_size=16)
    template = Template(load_tokenizer(tiny))
    drawer = drawer_of(run, [Game(length)], SkewedPolicy(policy, vocabulary), template)
    row = await Learner(run, policy).learn(0, await drawer.draw(0))
    if correction is None:
        assert abs(row["policy/ratio"] - 1) > 0.01
        assert row["policy/kl_sampler"] > 0.05
        assert "policy/mismatch" not in row
    else:
        assert row["policy/ratio"] == pytest.approx(1, abs=1e-5)
        assert row["policy/kl_sampler"] == pytest.approx(0, abs=1e-6)
        assert row["policy/mismatch_max"] >= row["policy/mismatch"] > 0.3
        assert row["policy/mismatch_effective_sample_size"] < 0.9


def test_it_speaks_of_what_was_drawn_for_the_step_only():
    with pytest.raises(ValueError, match="replay brings what was drawn long before"):
        small("unused", correction={}, replay={"groups": 1})
