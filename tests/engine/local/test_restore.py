"""A checkpoint taken up in place, steps with no gradient, and names for what is pinned."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fettle.config import AdamW, CausalLM, LocalEngine, LoRA, PolicySpec, SamplingParams
from fettle.engine.base import SampleRequest
from fettle.engine.local import LocalBackend
from fettle.errors import CheckpointError, EngineError, NotFoundError, StateError
from fettle.types import datum

DATA = [datum([5, 6, 7, 8, 9], [0, 1, 1, 1, 1]), datum([8, 9, 10, 11], [0, 0, 1, 1])]
ADAM = AdamW(learning_rate=0.05)
SPECS = {"adapter": LoRA(rank=4, dropout=0.2), "whole weights": None}


def learn(backend: LocalBackend, times: int = 1) -> None:
    for _ in range(times):
        backend.forward_backward("p", DATA, CausalLM())
        backend.optim_step("p", ADAM)


def losses(backend: LocalBackend, times: int = 3) -> list[float]:
    """Of further steps: without dropout, so that they do not depend on the version."""
    found = []
    for _ in range(times):
        found.append(backend.forward("p", DATA, CausalLM()).loss)
        learn(backend)
    return found


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    return LocalBackend(LocalEngine(), checkpoints=tmp_path)


@pytest.mark.parametrize("head", [None, "value"])
@pytest.mark.parametrize("lora", [LoRA(rank=4), None], ids=["adapter", "whole weights"])
def test_with_its_optimizer_it_goes_on_as_it_would_have(
    lora: LoRA | None, head: str | None, tiny: str, backend: LocalBackend
) -> None:
    backend.create_policy("p", PolicySpec.model_validate({"model": tiny, "lora": lora, "head": head}))
    learn(backend, 2)
    saved = backend.save("p", "two", optimizer=True).result()
    onwards = losses(backend)
    assert backend.restore("p", saved.path, optimizer=True) == 6
    assert losses(backend) == onwards


def test_without_its_optimizer_the_moments_begin_anew(tiny: str, backend: LocalBackend, tmp_path: Path) -> None:
    backend.create_policy("p", PolicySpec(model=tiny, lora=LoRA(rank=4)))
    learn(backend, 2)
    saved = backend.save("p", "two", optimizer=False).result()
    learn(backend)
    backend.restore("p", saved.path, optimizer=False)
    other = LocalBackend(LocalEngine(), checkpoints=tmp_path / "other")
    other.load_policy("p", saved.path, optimizer=False)
    assert losses(backend) == losses(other)
    with pytest.raises(CheckpointError, match="was saved without its optimizer"):
        backend.restore("p", saved.path, optimizer=True)


def test_gradients_that_wait_are_dropped_and_no_step_can_be_undone(tiny: str, backend: LocalBackend) -> None:
    backend.create_policy("p", PolicySpec(model=tiny, lora=LoRA(rank=4)))
    saved = backend.save("p", "zero", optimizer=True).result()
    backend.forward_backward("p", DATA, CausalLM())
    backend.optim_step("p", ADAM, undoable=True)
    backend.forward_backward("p", DATA, CausalLM())
    assert backend.restore("p", saved.path, optimizer=True) == 2
    with pytest.raises(StateError, match="no gradient to apply"):
        backend.optim_step("p", ADAM)
    with pytest.raises(StateError, match="no step to undo"):
        backend.undo("p")


@pytest.mark.parametrize("kind", SPECS)
def test_what_is_pinned_stays_as_it_was(kind: str, tiny: str, backend: LocalBackend) -> None:
    backend.create_policy("p", PolicySpec(model=tiny, lora=SPECS[kind]))
    saved = backend.save("p", "zero", optimizer=True).result()
    learn(backend)
    backend.pin("p", "one")
    before = backend.logprobs("one", [[5, 6, 7, 8]], temperature=1.0)[0]
    backend.restore("p", saved.path, optimizer=True)
    backend.pin("p", "zero again")
    assert np.array_equal(backend.logprobs("one", [[5, 6, 7, 8]], temperature=1.0)[0], before)
    found = backend.logprobs("zero again", [[5, 6, 7, 8]], temperature=1.0)[0]
    assert np.array_equal(found, backend.logprobs(tiny, [[5, 6, 7, 8]], temperature=1.0)[0])


@pytest.mark.parametrize(
    ("other", "word"),
    [
        (PolicySpec(model="", lora=LoRA(rank=8)), "rank 8, here 4"),
        (PolicySpec(model="", lora=LoRA(rank=4, alpha=8)), r"alpha 8\.0, here 32\.0"),
        (PolicySpec(model="", lora=LoRA(rank=4, targets=("q_proj",))), "targets .*q_proj"),
        (PolicySpec(model="", lora=LoRA(rank=4), head="reward"), "head reward, here None"),
        (PolicySpec(model="", lora=LoRA(rank=4), quantization="int8"), "quantization int8, here None"),
        (PolicySpec(model=""), "weights whole, here adapter"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_checkpoint_of_another_kind_is_refused_and_changes_nothing(
    other: PolicySpec, word: str, tiny: str, backend: LocalBackend
) -> None:
    backend.create_policy("p", PolicySpec(model=tiny, lora=LoRA(rank=4)))
    learn(backend)
    backend.create_policy("other", other.model_copy(update={"model": tiny}))
    saved = backend.save("other", "other", optimizer=True).result()
    before = backend.forward("p", DATA, CausalLM()).loss
    with pytest.raises(CheckpointError, match=f"of another kind of policy .*{word}"):
        backend.restore("p", saved.path, optimizer=True)
    assert backend.forward("p", DATA, CausalLM()).loss == before
    assert backend.optim_step("p", ADAM, empty=True).policy_version == 2


def test_a_checkpoint_of_another_base_model_is_refused(tiny: str, llama: str, backend: LocalBackend) -> None:
    backend.create_policy("p", PolicySpec(model=tiny, lora=LoRA(rank=4)))
    backend.create_policy("other", PolicySpec(model=llama, lora=LoRA(rank=4)))
    saved = backend.save("other", "other", optimizer=True).result()
    with pytest.raises(CheckpointError, match=f"model {llama}, here {tiny}"):
        backend.restore("p", saved.path, optimizer=True)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("steps_before", [0, 2])
def test_a_step_with_no_gradient_is_adamws_with_a_gradient_of_zero(
    kind: str, steps_before: int, tiny: str, backend: LocalBackend
) -> None:
    backend.create_policy("p", PolicySpec(model=tiny, lora=SPECS[kind]))
    learn(backend, steps_before)
    held = backend._policies["p"]
    adam = torch.optim.AdamW([w := torch.nn.Parameter(held._flat.values.clone())], fused=True)
    adam.state[w] = held._optimizer.copy()
    adam.param_groups[0].update(lr=0.1, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.3)
    w.grad = torch.zeros_like(w)
    adam.step()
    result = backend.optim_step("p", AdamW(learning_rate=0.1, weight_decay=0.3), empty=True)
    assert (result.policy_version, result.grad_norm, result.skipped) == (steps_before + 1, 0.0, False)
    assert torch.equal(held._flat.values, w)
    assert all(torch.equal(value, adam.state[w][name]) for name, value in held._optimizer.held.items())


def test_a_step_that_finds_gradients_takes_no_notice_of_empty(tiny: str, backend: LocalBackend, tmp_path: Path) -> None:
    other = LocalBackend(LocalEngine(), checkpoints=tmp_path / "other")
    for each, empty in ((backend, True), (other, False)):
        each.create_policy("p", PolicySpec(model=tiny))
        each.forward_backward("p", DATA, CausalLM())
        each.optim_step("p", ADAM, empty=empty)
    assert losses(backend) == losses(other)


def test_a_pin_has_the_name_it_is_given_and_is_known_for_released_by_it(tiny: str, backend: LocalBackend) -> None:
    request = [SampleRequest([5, 6], 1, SamplingParams(max_tokens=2))]
    backend.create_policy("p", PolicySpec(model=tiny, lora=LoRA(rank=4)))
    assert backend.pin("p", "run_ab12.0.17") == ("run_ab12.0.17", 0)
    with pytest.raises(EngineError, match=r"pinned as 'run_ab12\.0\.17' already"):
        backend.pin("p", "run_ab12.0.17")
    assert len(backend.sample(["run_ab12.0.17"], request)[0]) == 1
    backend.unpin("run_ab12.0.17")
    with pytest.raises(NotFoundError, match=r"the sampler run_ab12\.0\.17 was released"):
        backend.sample(["run_ab12.0.17"], request)
    backend.pin("p", "run_ab12.0.18")
    backend.close_policy("p")
    with pytest.raises(NotFoundError, match=r"the sampler run_ab12\.0\.18 was released, or its policy was closed"):
        backend.sample(["run_ab12.0.18"], request)
