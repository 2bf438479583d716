"""The documented batch formats: what each becomes, and every way to get one wrong."""

import warnings

import numpy as np
import pytest
import torch

from fettle.data import FORMATS, groups, pairs, sequences
from fettle.errors import LossInputError
from fettle.types import Datum

TOKENS = [[5, 6, 7, 8, 0], [5, 9, 4, 0, 0]]
REAL = [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]
LOGPROBS = [[0, -1, -2, -3, 9], [0, -4, -5, 9, 9]]
PADDED = {"input_ids": TOKENS, "attention_mask": REAL}
RESPONSE = {"response_mask": [[0, 0, 1, 1, 0], [0, 1, 1, 0, 0]]}
PPO = {**PADDED, "old_log_probs": LOGPROBS, "rewards": [[0, 0, 0, 1, 0], [0, 0, 0.5, 0, 0]]}
REPLAY = {**PADDED, "behavior_log_probs": [-6.0, -9.0], "rewards": [1.0, 0.0]}
PAIRS = {
    "chosen_input_ids": [[5, 6, 7, 8], [5, 6, 9, 0]],
    "chosen_attention_mask": [[1, 1, 1, 1], [1, 1, 1, 0]],
    "rejected_input_ids": [[5, 6, 1], [5, 6, 2]],
    "rejected_attention_mask": [[1, 1, 1], [1, 1, 1]],
}
GROUPS = {
    "prompt_ids": [[5, 6], [5, 7]],
    "response_ids": [[[1, 2, 3], [4, 0, 0], [0, 0, 0]], [[1, 0, 0], [2, 3, 0], [4, 4, 4]]],
    "rewards": [[1.0, 0.0, 7.0], [0.0, 1.0, 0.5]],
    "response_masks": [[[1, 1, 1], [1, 0, 0], [0, 0, 0]], [[1, 0, 0], [1, 1, 0], [1, 1, 1]]],
}
DOCUMENTED = {
    "causal_lm": PADDED,
    "enhanced_ppo": PPO,
    "conservative_ppo": PPO,
    "importance_sampling": REPLAY,
    "dpo": PAIRS,
    "reward_modeling": PAIRS,
    "grpo": GROUPS,
}


def said(data: list[Datum]) -> list[list[int]]:
    """The trained tokens of each."""
    return [one.tokens[one.loss_mask == 1].tolist() for one in data]


def flipped(batch):
    """The batch with its padding on the left."""
    order = np.array([[4, 0, 1, 2, 3], [3, 4, 0, 1, 2]])
    flip = {name: np.take_along_axis(np.array(value), order, 1) for name, value in batch.items() if np.ndim(value) == 2}
    return {**batch, **flip}


# -- what becomes of each format


@pytest.mark.parametrize("loss", DOCUMENTED)
@pytest.mark.parametrize("made_of", [list, np.array, torch.tensor], ids=["lists", "numpy", "torch"])
def test_every_documented_format_is_read_from_anything_that_is_an_array(same, loss, made_of):
    batch = {name: value if made_of is list else made_of(value) for name, value in DOCUMENTED[loss].items()}
    data = FORMATS[loss](batch)
    assert all(map(same, data, FORMATS[loss](DOCUMENTED[loss])))
    assert len(data) == {"grpo": 5, "dpo": 4, "reward_modeling": 4}.get(loss, 2)


def test_without_a_mask_every_token_but_the_first_is_trained_on():
    assert said(sequences(PADDED)) == [[6, 7, 8], [9, 4]]


@pytest.mark.parametrize(
    "mask",
    [
        RESPONSE,
        {"loss_mask": np.array(RESPONSE["response_mask"], bool)},
        {"labels": [[-100, -100, 7, 8, -100], [5, 9, 4, 0, 0]]},
    ],
    ids=["response_mask", "loss_mask", "labels"],
)
def test_what_is_trained_on_can_be_said_in_three_ways(mask):
    data = sequences({**PADDED, **mask})
    assert said(data) == [[7, 8], [9, 4]]


def test_padding_is_taken_off_either_side_with_all_that_stands_on_it(same):
    right, left = sequences({**PPO, **RESPONSE}), sequences(flipped({**PPO, **RESPONSE}))
    assert [one.tokens.tolist() for one in right] == [[5, 6, 7, 8], [5, 9, 4]]
    assert right[1].streams["sampling_logprobs"].tolist() == [0, -4, -5]
    assert right[1].streams["rewards"].tolist() == [0, 0, 0.5]
    assert all(map(same, left, right))


def test_what_stands_on_padding_is_never_read(same):
    nowhere = np.where(np.array(REAL) == 1, np.array(PPO["rewards"], float), np.nan)
    ids = np.where(np.array(REAL) == 1, TOKENS, -100)
    assert all(map(same, sequences({**PPO, "rewards": nowhere, "input_ids": ids}), sequences(PPO)))


def test_numbers_of_a_sequence_are_scalars_and_those_of_a_token_are_streams():
    whole = sequences(REPLAY)
    assert [dict(one.scalars) for one in whole] == [
        {"reward": 1.0, "behavior_logprob": -6.0},
        {"reward": 0.0, "behavior_logprob": -9.0},
    ]
    assert [list(one.streams) for one in whole] == [[], []]
    each = sequences({**PADDED, "behavior_log_probs": LOGPROBS, "rewards": PPO["rewards"], "values": LOGPROBS})
    assert [sorted(one.streams) for one in each] == [["rewards", "sampling_logprobs", "values"]] * 2


def test_an_advantage_of_a_sequence_stands_on_its_trained_tokens():
    data = sequences({**REPLAY, **RESPONSE, "advantages": [0.5, -2.0]})
    assert [one.streams["advantages"].tolist() for one in data] == [[0, 0, 0.5, 0.5], [0, -2, -2]]


def test_values_and_old_values_are_two_things_and_two_names_of_one_thing_must_agree():
    [first, _] = sequences({**PPO, "values": LOGPROBS, "old_values": PPO["rewards"]})
    assert first.streams["values"].tolist() == [0, -1, -2, -3]
    assert first.streams["old_values"].tolist() == first.streams["rewards"].tolist()
    with pytest.raises(LossInputError, match="old_log_probs and behavior_log_probs say the same thing, and here they"):
        sequences({**PPO, "behavior_log_probs": np.asarray(PPO["old_log_probs"]) - 1})


def test_a_log_probability_may_be_lifted_above_0_by_rounding_as_far_as_the_losses_let_it():
    lifted = np.asarray(PPO["old_log_probs"], np.float32).copy()
    lifted[0, 2] = 5e-5
    assert sequences({**PPO, "old_log_probs": lifted})
    lifted[0, 2] = 2e-4
    with pytest.raises(LossInputError, match=r"old_log_probs\[0, 2\] is .*: the log of a probability is never above 0"):
        sequences({**PPO, "old_log_probs": lifted})


def test_one_reward_copied_to_every_token_is_warned_about():
    with pytest.warns(
        UserWarning, match=r"every token of a sequence has the reward 1\.0.*give rewards the shape \[batch\]"
    ):
        sequences({**PPO, "rewards": np.ones((2, 5))})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sequences(PPO)
        assert not any(one.streams["rewards"].any() for one in sequences({**PPO, "rewards": np.zeros((2, 5))}))


def test_a_pair_is_two_data_of_one_group():
    data = pairs({**PAIRS, "margin": [0.0, 1.5]})
    assert [(one.group, one.scalars["preferred"], one.scalars["margin"]) for one in data] == [
        ("0", 1.0, 0.0),
        ("0", 0.0, 0.0),
        ("1", 1.0, 1.5),
        ("1", 0.0, 1.5),
    ]


@pytest.mark.parametrize(
    ("prompt", "trained"),
    [
        ({}, [[7, 8], [1], [9], [2]]),
        ({"prompt_length": [1, 2]}, [[6, 7, 8], [6, 1], [9], [2]]),
        (
            {
                "chosen_loss_mask": [[1, 1, 0, 1], [0, 0, 1, 1]],
                "rejected_loss_mask": [[0, 0, 1], [0, 1, 1]],
            },
            [[6, 8], [1], [9], [6, 2]],
        ),
    ],
    ids=["common prefix", "prompt_length", "loss masks"],
)
def test_the_prompt_of_a_pair_is_not_trained_on(prompt, trained):
    assert said(pairs({**PAIRS, **prompt})) == trained


def test_a_pair_with_nothing_in_common_is_trained_on_from_its_second_token():
    apart = {**PAIRS, "rejected_input_ids": [[1, 2, 3], [1, 2, 3]]}
    assert said(pairs(apart)) == [[6, 7, 8], [2, 3], [6, 9], [2, 3]]


def test_a_reply_that_begins_the_other_keeps_its_last_token():
    longer = {**PAIRS, "rejected_input_ids": [[5, 6, 7], [5, 6, 9]], "chosen_input_ids": [[5, 6, 7, 8], [5, 6, 2, 0]]}
    assert said(pairs(longer)) == [[7, 8], [7], [2], [9]]


def test_a_response_that_is_not_there_enters_nothing_with_its_reward(same):
    data = groups(GROUPS)
    assert [(one.group, one.scalars["reward"]) for one in data] == [("0", 1), ("0", 0), ("1", 0), ("1", 1), ("1", 0.5)]
    assert [one.tokens.tolist() for one in data[:2]] == [[5, 6, 1, 2, 3], [5, 6, 4]]
    assert said(data) == [[1, 2, 3], [4], [1], [2, 3], [4, 4, 4]]
    unpaid = [[1.0, 0.0, np.nan], GROUPS["rewards"][1]]
    assert all(map(same, groups({**GROUPS, "rewards": unpaid}), data))


def test_prompts_may_be_padded_and_responses_carry_their_logprobs():
    batch = {**GROUPS, "prompt_masks": [[0, 1], [1, 1]], "old_log_probs": -np.array(GROUPS["response_ids"], float)}
    first = groups(batch)[0]
    assert first.tokens.tolist() == [6, 1, 2, 3]
    assert first.streams["sampling_logprobs"].tolist() == [0, -1, -2, -3]


# -- every way to get one wrong


@pytest.mark.parametrize("loss", DOCUMENTED)
def test_a_key_that_is_missing_or_misspelt_is_named(loss):
    batch = DOCUMENTED[loss]
    for name in batch:
        with pytest.raises(LossInputError, match=f"^{name} is missing: a batch must hold .*{name}"):
            FORMATS[loss]({key: value for key, value in batch.items() if key != name})
        with pytest.raises(
            LossInputError, match=f"nothing here reads {name}s: a batch may hold .*; did you mean {name}"
        ):
            FORMATS[loss]({f"{key}s" if key == name else key: value for key, value in batch.items()})


@pytest.mark.parametrize("loss", DOCUMENTED)
def test_a_shape_that_disagrees_is_named_with_the_other(loss):
    batch = DOCUMENTED[loss]
    for name in batch:
        array = np.array(batch[name])
        short = {**batch, name: array[:-1] if name == "prompt_ids" else array[..., :-1]}
        with pytest.raises(LossInputError, match=r"\[\d.*\].*\[\d.*\]"):
            FORMATS[loss](short)


def changed(batch, name, at, value):
    array = np.array(batch[name], float if isinstance(value, float) else None)
    array[at] = value
    return {**batch, name: array}


@pytest.mark.parametrize(
    ("loss", "batch", "why"),
    [
        ("causal_lm", {**PADDED, "rewards": [1, 0]}, "nothing here reads rewards: a batch may hold input_ids"),
        (
            "causal_lm",
            changed(PADDED, "attention_mask", (1, 2), 2),
            r"attention_mask\[1, 2\] is 2: a mask holds only 0",
        ),
        ("causal_lm", changed(PADDED, "attention_mask", (0, 1), 0), r"attention_mask\[0\] has 0 between 1s"),
        ("causal_lm", changed(PADDED, "attention_mask", 1, 0), "row 1 of input_ids has no token to train on"),
        ("causal_lm", {**PADDED, "loss_mask": np.zeros((2, 5))}, "row 0 of input_ids has no token to train on"),
        ("causal_lm", {**PADDED, "labels": TOKENS, "loss_mask": REAL}, "the batch has loss_mask and labels"),
        ("causal_lm", {**PADDED, "labels": np.roll(TOKENS, -1, 1)}, r"labels\[0, 0\] is 6 where input_ids has 5"),
        ("causal_lm", {**PADDED, "input_ids": np.array(TOKENS, float)}, "input_ids holds float64: whole numbers"),
        ("causal_lm", {**PADDED, "input_ids": [5, 6]}, r"input_ids has shape \[2\]: \[batch, seq_len\] is needed"),
        (
            "causal_lm",
            {**PADDED, "input_ids": np.zeros((0, 5), int)},
            r"input_ids has shape \[0, 5\]: .*none of them 0",
        ),
        ("causal_lm", {**PADDED, "input_ids": [[5, 6], [5]]}, "input_ids cannot be read as an array"),
        ("causal_lm", {**PADDED, "input_ids": [["5", "6"]]}, "input_ids holds <U1: numbers are needed"),
        ("causal_lm", {**PADDED, "attention_mask": None}, "attention_mask holds object: numbers are needed"),
        (
            "causal_lm",
            changed(PADDED, "input_ids", (0, 3), -1),
            r"input_ids\[0, 3\] is -1, and no token has that number",
        ),
        ("causal_lm", changed(PADDED, "input_ids", (0, 3), 2**31), r"input_ids\[0, 3\] is 2147483648"),
        (
            "enhanced_ppo",
            changed(PPO, "rewards", (0, 3), np.nan),
            r"rewards\[0, 3\] is nan: every value must be a finite number",
        ),
        (
            "enhanced_ppo",
            changed(PPO, "old_log_probs", (1, 2), 0.1),
            r"old_log_probs\[1, 2\] is 0\.1: .* never above 0",
        ),
        (
            "enhanced_ppo",
            {**PPO, "rewards": torch.ones(2, 5, requires_grad=True)},
            "rewards cannot be read as an array",
        ),
        ("enhanced_ppo", {**PPO, "advantages": [1, 2]}, "nothing here reads advantages"),
        ("importance_sampling", {**REPLAY, "behavior_log_probs": [-1.0, 0.5]}, r"behavior_log_probs\[1\] is 0\.5"),
        ("importance_sampling", {**REPLAY, "rewards": [np.inf, 0]}, r"rewards\[0\] is inf"),
        (
            "importance_sampling",
            {**REPLAY, "rewards": [1]},
            r"rewards has shape \[1\], and input_ids of shape \[2, 5\]",
        ),
        (
            "dpo",
            {
                **PAIRS,
                "rejected_input_ids": PAIRS["chosen_input_ids"],
                "rejected_attention_mask": PAIRS["chosen_attention_mask"],
            },
            "row 0: chosen and rejected are the same",
        ),
        (
            "dpo",
            changed(PAIRS, "rejected_attention_mask", (1, [1, 2]), 0),
            "row 1 of rejected_input_ids has no token after",
        ),
        ("dpo", {**PAIRS, "prompt_length": [2, 3]}, r"prompt_length\[1\] is 3, and the sequences have 3 and 3 tokens"),
        ("dpo", {**PAIRS, "prompt_length": [0, 2]}, r"prompt_length\[0\] is 0"),
        ("dpo", {**PAIRS, "chosen_loss_mask": PAIRS["chosen_attention_mask"]}, "chosen_loss_mask has no partner"),
        ("dpo", {**PAIRS, "margin": [0, np.nan]}, r"margin\[1\] is nan"),
        (
            "dpo",
            {name: value[:1] if "rejected" in name else value for name, value in PAIRS.items()},
            r"chosen_input_ids has shape \[2, 4\] and rejected_input_ids \[1, 3\]: each chosen needs a rejected",
        ),
        ("grpo", changed(GROUPS, "response_masks", (0, 1), 0), "group 0 has 1 responses, and only two or more"),
        (
            "grpo",
            {
                name: np.array(value)[:, :1] if np.ndim(value) > 1 and name != "prompt_ids" else value
                for name, value in GROUPS.items()
            },
            "group 0 has 1 responses",
        ),
        ("grpo", changed(GROUPS, "rewards", (1, 2), np.nan), r"rewards\[1, 2\] is nan"),
        ("grpo", changed(GROUPS, "response_masks", (1, 2, 1), 0), r"response_masks\[1, 2\] has 0 between 1s"),
        ("grpo", changed(GROUPS, "prompt_ids", (0, 1), -100), r"prompt_ids\[0, 1\] is -100, and no token"),
        ("grpo", {**GROUPS, "prompt_masks": [[0, 0], [1, 1]]}, "row 0 of prompt_ids is empty"),
        ("grpo", {**GROUPS, "old_log_probs": np.ones((2, 3, 3))}, r"old_log_probs\[0, 0, 0\] is 1\.0"),
        ("grpo", {**GROUPS, "rewards": [1, 0]}, r"rewards has shape \[2\], and response_ids of shape \[2, 3, 3\] asks"),
    ],
)
def test_a_batch_that_cannot_be_is_one_sentence_that_names_the_place(loss, batch, why):
    with pytest.raises(LossInputError, match=why) as caught:
        FORMATS[loss](batch)
    assert "\n" not in caught.value.message
