"""Conversations that go on: only what is new of a prompt is run, and nothing that is drawn changes."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from fettle.config import SamplingParams
from fettle.engine.base import SampleRequest
from fettle.engine.local.forward import Voice
from fettle.engine.local.kept import Kept, Stretch
from fettle.types import Completion

from .decoding import PROMPTS, decoder, make, watched

OWNED = Voice(3, owner="policy")


def turn(prompts: Sequence[Sequence[int]], n: int = 1, *, seed: int = 0, continued: bool = True) -> list[SampleRequest]:
    params = SamplingParams(max_tokens=12, seed=seed, stop_token_ids=(5, 9), continued=continued)
    return [SampleRequest(prompt, n, params) for prompt in prompts]


def same(found: list[list[Completion]], expected: list[list[Completion]]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.tokens == other.tokens
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def after(requests: Sequence[SampleRequest], found: list[list[Completion]], *more: int) -> list[list[int]]:
    """The prompts of the next turn."""
    return [[*r.prompt, *c.tokens, *more] for r, completions in zip(requests, found, strict=True) for c in completions]


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_each_turn_runs_only_what_is_new(name: str) -> None:
    model = make(name)
    keeping, forgetting = decoder(model), decoder(model)
    assert keeping.path == forgetting.path == "driven"
    requests = turn(PROMPTS, n=3)
    for number in range(4):
        with watched(model) as seen:
            found = keeping.complete(requests, [OWNED] * len(requests))
        same(found, forgetting.complete(requests, [Voice(3)] * len(requests)))
        # Of what was drawn the last token was not run, so it is new besides the two of the next turn.
        expected = sum(map(len, PROMPTS)) if number == 0 else 3 * len({tuple(r.prompt) for r in requests})
        assert seen.prompt_tokens == expected
        requests = turn(after(requests, found, 40, number), seed=number)


def test_a_group_shares_the_conversation_that_it_goes_on_from() -> None:
    model = make("qwen3")
    keeping = decoder(model)
    first = turn(PROMPTS[:1])
    found = keeping.complete(first, [OWNED])
    following = turn(after(first, found, 7, 8), n=6)
    with watched(model) as seen:
        group = keeping.complete(following, [OWNED])
    assert seen.prompt_tokens == 3
    same(group, decoder(model).complete(following, [Voice(0)]))


def test_nothing_is_kept_that_was_not_asked_for_and_nothing_of_other_weights_is_used() -> None:
    model = make("qwen3")
    sampling = decoder(model)
    first = turn(PROMPTS[1:2])
    found = sampling.complete(first, [OWNED])
    plain = turn(PROMPTS[3:], continued=False)
    shorter = sampling.complete(plain, [OWNED])
    for requests, voice, run in (
        (turn(after(plain, shorter, 4)), OWNED, "all"),
        (turn(after(first, found, 4)), Voice(3, owner="another"), "all"),
        (turn([[*PROMPTS[1][:-1], 44, *found[0][0].tokens]]), OWNED, "all"),
        (turn(after(first, found, 4)), OWNED, "new"),
        (turn(after(first, found, 4)), Voice(4, owner="policy"), "all"),
        (turn(after(first, found, 4)), OWNED, "all"),  # it went when the next version came
    ):
        with watched(model) as seen:
            sampling.complete(requests, [voice])
        assert seen.prompt_tokens == (len(requests[0].prompt) if run == "all" else 2)


def test_what_is_kept_is_bounded_and_the_least_recently_used_goes_first() -> None:
    memory = Kept(most_bytes=3 * 800)
    for number in range(3):
        memory.add(OWNED, np.arange(10) + number, stretch(10))
    assert memory.longest(OWNED, np.arange(12)) is not None
    memory.add(OWNED, np.arange(10) + 5, stretch(10))
    assert memory.nbytes == 3 * 800
    held = {number: memory.longest(OWNED, np.arange(12) + number) is not None for number in (0, 1, 2, 5)}
    assert held == {0: True, 1: False, 2: True, 5: True}


def test_what_conversations_share_is_counted_once() -> None:
    memory = Kept(most_bytes=10_000)
    common = stretch(20)
    for number in range(4):
        memory.add(OWNED, np.append(np.arange(25), number), stretch(6, common))
    assert memory.nbytes == 80 * (20 + 4 * 6)
    memory.outgrown([Voice(4, owner="policy")])
    assert memory.nbytes == 0


def test_an_owner_that_is_gone_leaves_nothing() -> None:
    memory = Kept(most_bytes=10_000)
    common = stretch(20)
    for number, owner in enumerate(("policy", "another", "policy")):
        memory.add(Voice(number, owner=owner), np.append(np.arange(25), number), stretch(6, common))
    memory.forget("policy")
    assert memory.nbytes == 80 * (20 + 6)
    assert memory.longest(Voice(1, owner="another"), np.array([*range(25), 1, 0])) is not None
    memory.forget("another")
    assert memory.nbytes == 0


def test_one_call_keeps_no_more_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("qwen3")
    sampling = decoder(model)
    monkeypatch.setattr(sampling._memory.kept, "most_bytes", 4000)
    sampling.complete(turn(PROMPTS, n=5), [OWNED] * 4)
    assert 0 < sampling._memory.kept.nbytes <= 4000


def stretch(tokens: int, before: Stretch | None = None) -> Stretch:
    """Of 80 bytes a token."""
    return Stretch(before, *torch.zeros(2, 1, tokens, 2, 5).unbind())
