"""Sampling from several weights in one call of the backend."""

from pathlib import Path

import numpy as np
import pytest

from fettle.config import AdamW, CausalLM, LocalEngine, LoRA, PolicySpec, SamplingParams
from fettle.engine.base import SampleRequest
from fettle.engine.local import LocalBackend
from fettle.errors import ModelError
from fettle.types import Completion, datum

PROMPTS = [[8, 9, 10], [11, 12, 13, 14, 15]]


def learn(backend: LocalBackend, policy: str, token: int) -> None:
    data = [datum([5, 6, token, token], [0, 0, 1, 1])]
    backend.forward_backward(policy, data, CausalLM())
    backend.optim_step(policy, AdamW(learning_rate=0.03))


def drawn(backend: LocalBackend, weights: list[str], *, continued: bool = False) -> list[list[Completion]]:
    params = SamplingParams(max_tokens=8, seed=3, continued=continued)
    return backend.sample(weights, [SampleRequest(PROMPTS[i % 2], 3, params) for i in range(len(weights))])


@pytest.mark.parametrize("lora", [LoRA(rank=4, alpha=16), None], ids=["adapters", "whole models"])
def test_each_request_is_drawn_from_the_weights_it_names(lora: LoRA | None, tiny: str, tmp_path: Path) -> None:
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    for number, name in enumerate(("a", "b")):
        backend.create_policy(name, PolicySpec(model=tiny, lora=lora, seed=number))
        learn(backend, name, 20 + number)
    past, _ = backend.pin("a")
    alone = {past: drawn(backend, [past, past])}
    learn(backend, "a", 30)
    names = [past, backend.pin("a")[0], backend.pin("b")[0], tiny]
    for name in names[1:]:
        alone[name] = drawn(backend, [name, name])
    mixed = [name for name in names for _ in PROMPTS]
    for name, i, together in zip(mixed, [0, 1] * len(names), drawn(backend, mixed), strict=True):
        for row, single in zip(together, alone[name][i], strict=True):
            assert row.tokens == single.tokens
            assert row.policy_version == single.policy_version
            np.testing.assert_allclose(row.logprobs, single.logprobs, atol=1e-5)
    assert len({tuple(alone[name][0][0].logprobs) for name in names}) == len(names)


def test_a_conversation_goes_on_under_a_pin_whose_policy_has_learned(tiny: str, tmp_path: Path) -> None:
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    backend.create_policy("a", PolicySpec(model=tiny, lora=LoRA(rank=4, alpha=16)))
    learn(backend, "a", 20)
    name, _ = backend.pin("a")
    (first,) = drawn(backend, [name], continued=True)
    learn(backend, "a", 30)
    prompt = [*PROMPTS[0], *first[0].tokens, 40, 41]
    going_on, anew = SamplingParams(max_tokens=6, continued=True), SamplingParams(max_tokens=6)
    ((found,),) = backend.sample([name], [SampleRequest(prompt, 1, going_on)])
    other = LocalBackend(LocalEngine(), checkpoints=tmp_path / "other")
    other.create_policy("a", PolicySpec(model=tiny, lora=LoRA(rank=4, alpha=16)))
    learn(other, "a", 20)
    ((expected,),) = other.sample([other.pin("a")[0]], [SampleRequest(prompt, 1, anew)])
    assert found.tokens == expected.tokens
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-5)


def test_a_closed_policy_leaves_no_conversations(tiny: str, tmp_path: Path) -> None:
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    kept = {}
    for name in ("a", "b"):
        backend.create_policy(name, PolicySpec(model=tiny, lora=LoRA(rank=4, alpha=16)))
        drawn(backend, [backend.pin(name)[0]], continued=True)
        kept[name] = backend._decoder(backend._policies[name].model)._memory.kept
    assert kept["a"] is kept["b"]
    both = kept["a"].nbytes
    backend.close_policy("a")
    assert 0 < kept["a"].nbytes < both
    backend.close_policy("b")
    assert kept["b"].nbytes == 0


def test_a_request_that_cannot_be_drawn_is_refused_before_another_model_has_drawn(
    tiny: str, llama: str, tmp_path: Path
) -> None:
    """Else who watches would be told the same tokens again when the others are drawn without it."""
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    told: list[int] = []

    def watch(index: int, token: int, logprob: float) -> bool:
        told.append(token)
        return True

    good = SampleRequest([5, 6], 1, SamplingParams(max_tokens=3), watch)
    with pytest.raises(ModelError, match="holds token id 100000"):
        backend.sample([tiny, llama], [good, SampleRequest([100_000], 1, SamplingParams())])
    assert not told
    backend.sample([tiny, llama], [good, good])
    assert len(told) == 6
