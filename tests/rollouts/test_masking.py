"""What the environment said is context and never a target: its mask is 0, and so, in a real engine, is its gradient."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fettle.config import PPO, LocalEngine, LoRA, PolicySpec, TinyModel
from fettle.engine.local import LocalBackend, make_tiny_model
from fettle.rollouts import to_datum
from fettle.types import Completion, Datum, Message, Task, Trajectory, Turn

TASK = Task((Message("user", "one"),), {"answer": "2"}, "test")
TOKENS = st.lists(st.integers(5, 250), min_size=1, max_size=9)


def trajectory(*turns: tuple[list[int], list[int]]) -> Trajectory:
    made = (Turn(seen, Completion(drawn, [-1.5] * len(drawn), "stop", 0), 1.0) for seen, drawn in turns)
    return Trajectory(TASK, tuple(made), (), True, False)


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=4))
def test_the_mask_is_one_on_what_was_drawn_and_nowhere_else(turns):
    whole = trajectory(*turns)
    found = to_datum(whole)
    expected = [mark for seen, drawn in turns for mark in [0.0] * len(seen) + [1.0] * len(drawn)]
    assert found.loss_mask.tolist() == expected
    assert found.tokens.tolist() == whole.tokens
    assert found.streams["sampling_logprobs"][found.loss_mask == 0].tolist() == [0.0] * expected.count(0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    settings = TinyModel(hidden=32, layers=2, heads=2, context=64)
    return make_tiny_model(settings, tmp_path_factory.mktemp("model") / "tiny", texts=["one two three"] * 9)


def gradient(model: str, folder, data: list[Datum]) -> torch.Tensor:
    backend = LocalBackend(LocalEngine(threads=1), checkpoints=folder)
    backend.create_policy("p", PolicySpec(model=model, lora=LoRA(rank=4)))
    backend.forward_backward("p", data, PPO(kl=None))
    return backend._policies["p"]._flat.gradients.clone()


def talk() -> Datum:
    """Two turns with something between them, and an advantage on every token, the environment's as well."""
    datum = to_datum(trajectory(([5, 6, 7, 8], [20, 21, 22]), ([30, 31, 32, 33, 34], [40, 41])))
    advantages = np.linspace(0.5, 1.5, len(datum.tokens), dtype=np.float32)
    return replace(datum, streams={**datum.streams, "advantages": advantages})


def elsewhere(datum: Datum) -> Datum:
    """The same, but that other tokens would have been right wherever the environment speaks."""
    other = np.where(datum.loss_mask > 0, datum.tokens, (datum.tokens * 7 + 3) % 250 + 5).astype(np.int32)
    assert (other != datum.tokens).sum() == (datum.loss_mask == 0).sum()
    return replace(datum, targets=other)


def test_the_gradient_does_not_know_what_the_environment_said_next(model, tmp_path):
    """To the bit: whichever token is asked for in an environment's place, nothing changes."""
    plain = gradient(model, tmp_path, [replace(talk(), targets=talk().tokens)])
    assert plain.abs().sum() > 0
    assert torch.equal(plain, gradient(model, tmp_path, [elsewhere(talk())]))


def test_it_would_know_if_the_environment_were_trained_on(model, tmp_path):
    """The proof above can fail: with a mask of 1 on every token the same change is seen."""
    ones = np.array([0.0, *[1.0] * (len(talk().tokens) - 1)], np.float32)
    every = replace(talk(), loss_mask=ones)
    first = gradient(model, tmp_path, [replace(every, targets=every.tokens)])
    targets = elsewhere(talk()).targets
    assert not torch.equal(first, gradient(model, tmp_path, [replace(every, targets=targets)]))


def test_the_gradient_is_the_sum_of_the_policys_own_tokens(model, tmp_path):
    """Each drawn token alone, with all that came before it as context."""
    whole = talk()
    alone = []
    for place in np.flatnonzero(whole.loss_mask):
        mask = np.zeros_like(whole.loss_mask)
        mask[place] = 1.0
        alone.append(gradient(model, tmp_path, [replace(whole, loss_mask=mask)]))
    torch.testing.assert_close(gradient(model, tmp_path, [whole]), torch.stack(alone).sum(0), atol=1e-5, rtol=1e-4)
