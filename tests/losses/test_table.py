"""What a loss asks of its data, and how it says what is missing."""

import numpy as np
import pytest

from fettle.config import CISPO, DPO, DRO, GSPO, KL, KTO, ORPO, PPO, CausalLM, ImportanceSampling, RewardModeling, SimPO
from fettle.errors import LossInputError
from fettle.losses import check_inputs, required_inputs
from fettle.types import Datum, datum


def example(**streams: list[float]) -> Datum:
    return datum([5, 6, 7], [0, 1, 1], **streams)


DRAWN = example(sampling_logprobs=[0, -1, -2], advantages=[0, 1, 1])


@pytest.mark.parametrize("config", [ImportanceSampling(), PPO(), CISPO(), GSPO(), DRO()], ids=lambda c: c.type)
def test_losses_of_a_policy_need_what_was_drawn_and_what_it_was_worth(config):
    assert required_inputs(config) == ("sampling_logprobs", "advantages")
    check_inputs(config, [DRAWN])


def test_supervised_learning_needs_tokens_alone():
    assert required_inputs(CausalLM()) == ()
    check_inputs(CausalLM(), [example()])


def test_a_penalty_in_the_loss_needs_the_reference_and_one_in_the_reward_does_not():
    assert required_inputs(PPO(kl=KL())) == ("sampling_logprobs", "advantages", "reference_logprobs")
    assert required_inputs(PPO(kl=KL(estimator="k1", place="reward"))) == ("sampling_logprobs", "advantages")


def test_a_missing_stream_is_named_with_its_datum_and_with_what_is_there():
    message = "datum 1 has no advantages, which the loss ppo reads: it has reference_logprobs, sampling_logprobs"
    with pytest.raises(LossInputError, match=message):
        check_inputs(PPO(), [DRAWN, example(sampling_logprobs=[0, -1, -1], reference_logprobs=[0, 0, 0])])
    with pytest.raises(LossInputError, match=r"datum 0 has no sampling_logprobs, .* it has no streams"):
        check_inputs(GSPO(), [example()])
    with pytest.raises(LossInputError, match="datum 0 has no reference_logprobs"):
        check_inputs(PPO(kl=KL()), [DRAWN])


@pytest.mark.parametrize("name", ["sampling_logprobs", "reference_logprobs"])
def test_a_probability_given_for_its_logarithm_is_refused_with_its_value(name):
    streams = {"sampling_logprobs": [0, -1, -1], "reference_logprobs": [0, -1, -1], "advantages": [0, 1, 1]}
    wrong = example(**{**streams, name: [0, -1, 0.25]})
    with pytest.raises(LossInputError, match=rf"datum 1: {name}\[2\] is 0.25, and a log-probability is never above 0"):
        check_inputs(PPO(kl=KL()), [example(**streams), wrong])


def test_rounding_and_masked_tokens_are_let_pass():
    assert check_inputs(PPO(), [example(sampling_logprobs=[3.0, 1e-6, -1], advantages=[0, 1, 1])]) is None


def test_a_stream_of_the_wrong_length_never_becomes_a_datum():
    with pytest.raises(LossInputError, match=r"advantages has shape \[2\] beside 3 tokens"):
        Datum(np.int32([1, 2, 3]), np.float32([0, 1, 1]), {"advantages": np.float32([1, 1])})


def reply(preferred: float, mask: tuple[int, ...] = (0, 1, 1), **scalars: float) -> Datum:
    """One of a pair."""
    scalars = {"preferred": preferred, "kl_baseline": 0.0, **scalars}
    return datum([5, 6, 7], mask, group="a", scalars=scalars, reference_logprobs=[0, -1, -1])


@pytest.mark.parametrize("config", [DPO(), SimPO(), ORPO(), KTO()], ids=lambda c: c.type)
def test_an_empty_reply_is_named_before_anything_is_divided_by_its_length(config):
    with pytest.raises(LossInputError, match=f"datum 1 has no token to train on, .* the loss {config.type} compares"):
        check_inputs(config, [reply(1), reply(0, mask=(0, 0, 0))])


def test_a_reward_model_scores_a_sequence_whatever_of_it_is_trained_on():
    assert check_inputs(RewardModeling(), [reply(1), reply(0, mask=(0, 0, 0))]) is None


@pytest.mark.parametrize("config", [DPO(), RewardModeling(), KTO()], ids=lambda c: c.type)
def test_a_reply_is_preferred_or_it_is_not(config):
    with pytest.raises(LossInputError, match=r"datum 1: preferred is 0\.7: it must be 1 for the chosen .*, or 0 for"):
        check_inputs(config, [reply(0), reply(0.7)])


@pytest.mark.parametrize("name", ["margin", "weight"])
def test_what_is_said_of_a_pair_stands_on_both(name):
    assert check_inputs(DPO(), [reply(0, **{name: 2.0}), reply(1, **{name: 2.0})]) is None
    with pytest.raises(LossInputError, match=f"data 1 and 0 are a pair, and {name} is 2 on the one and 3 on the other"):
        check_inputs(DPO(), [reply(0, **{name: 3.0}), reply(1, **{name: 2.0})])
    with pytest.raises(LossInputError, match=f"{name} is 2 on the one"):
        check_inputs(DPO(), [reply(0), reply(1, **{name: 2.0})])
