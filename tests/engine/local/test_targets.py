"""Targets apart from the tokens: what is said of them, and that unlike targets of the same tokens share one pass."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fettle.config import PPO, CausalLM, LocalEngine, LoRA, PolicySpec, Value
from fettle.engine.local import LocalBackend, logprobs
from fettle.engine.local.model import load_model
from fettle.engine.local.policy import LocalPolicy
from fettle.errors import LossInputError, ModelError
from fettle.types import Datum, datum

from .conftest import capped

CPU = torch.device("cpu")


def batch(n: int = 5) -> list[Datum]:
    """Sequences that begin alike, some of them with targets of their own."""
    random = np.random.default_rng(0)
    rows = []
    for i in range(n):
        length = int(random.integers(14, 20))
        tokens = [*range(10, 22), *random.integers(5, 300, length - 12).tolist()]
        one = datum(
            tokens,
            [0, *random.integers(0, 2, length - 2).tolist(), 1],
            weights=random.normal(size=length),
            sampling_logprobs=-5 - random.random(length),
            advantages=random.normal(size=length),
            temperature=float(random.choice([1.0, 0.7])),
        )
        rows.append(one if i % 3 == 0 else with_targets(one, random))
    return rows


def likeliest(k: int) -> list[Datum]:
    """The same sequence k times, and one that begins with half of it, with unlike targets and weights."""
    random = np.random.default_rng(0)
    one = datum(range(20, 80), [0, *[1] * 59], temperature=0.7)
    other = datum(range(20, 50), [0, *[1] * 29], temperature=0.7)
    return [with_targets(row, random) for row in [*[one] * k, other]]


def with_targets(one: Datum, random: np.random.Generator) -> Datum:
    length = len(one.tokens)
    streams = {**one.streams, "weights": random.normal(size=length).astype(np.float32)}
    return replace(one, targets=random.integers(5, 300, length).astype(np.int32), streams=streams)


def plain_logprobs(module: torch.nn.Module, one: Datum) -> torch.Tensor:
    """Of each target after the tokens before it [T], in float64, by transformers alone."""
    logits = module(input_ids=torch.tensor(one.tokens)[None, :-1].long()).logits[0] / one.temperature
    targets = torch.tensor(one.tokens if one.targets is None else one.targets)[1:].long()
    return torch.cat([logits.new_zeros(1), torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]])


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("architecture", ["tiny", "llama", "gpt2", "capped"])
@pytest.mark.parametrize("data", [batch(), likeliest(4)], ids=["unlike sequences", "one sequence"])
def test_loss_log_probabilities_and_gradients_are_those_of_a_plain_forward(
    data: Sequence[Datum],
    architecture: str,
    layout: str,
    tiny: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    doubled: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In chunks of so few states that there are several."""
    monkeypatch.setattr(logprobs, "CHUNK_ROWS", 7)
    source = capped(0.5, tiny, tmp_path / "m") if architecture == "capped" else request.getfixturevalue(architecture)
    model = load_model(source, device=CPU, precision="float32", trained=True)
    model.module.double()
    model.packed = layout == "packed" and architecture != "capped"
    held = LocalPolicy(PolicySpec(model=""), model)
    result = held.forward_backward(data, CausalLM(), budget=4096)
    found = {name: p.grad.clone() for name, p in model.parameters.items() if p.grad is not None}

    model.module.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for one, found_here in zip(data, result.logprobs, strict=True):
        wanted = plain_logprobs(model.module, one)
        np.testing.assert_allclose(found_here, wanted.detach().numpy() * one.loss_mask, atol=1e-6)
        total = total - (wanted * torch.tensor(one.weights * one.loss_mask, dtype=torch.float64)).sum()
    total.backward()
    assert result.loss == pytest.approx(float(total.detach()), rel=1e-6)
    for name, parameter in model.parameters.items():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("loss", [PPO(entropy_coefficient=0.1), PPO(value=Value())], ids=["entropy", "critic"])
def test_targets_equal_to_the_tokens_change_no_bit(loss: PPO, tiny: str, tmp_path: Path) -> None:
    """Whatever else the loss reads."""
    data = [replace(one, targets=None) for one in batch()]
    data = [replace(one, streams={**one.streams, "returns": one.weights, "old_values": one.weights}) for one in data]
    found = []
    for rows in (data, [replace(one, targets=one.tokens) for one in data]):
        backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
        backend.create_policy("p", PolicySpec(model=tiny, lora=LoRA(rank=2), head="value" if loss.value else None))
        told = backend.forward_backward("p", rows, loss)
        found.append((told.loss, told.metrics, backend._policies["p"]._flat.gradients))
    assert found[0][:2] == found[1][:2]
    assert torch.equal(found[0][2], found[1][2])


def computed(rows: Sequence[Datum], source: str) -> tuple[int, int]:
    """Tokens that the layers are run on, and states whose logits are made."""
    model = load_model(source, device=CPU, precision="float32", trained=True)
    model.packed = True
    run: list[int] = []
    made: list[int] = []
    model.module.get_input_embeddings().register_forward_hook(lambda _, inputs, __: run.append(inputs[0].numel()))
    model.module.get_output_embeddings().register_forward_hook(lambda _, inputs, __: made.append(len(inputs[0])))
    LocalPolicy(PolicySpec(model=""), model).forward(rows, CausalLM(), budget=4096)
    return sum(run), sum(made)


def test_the_likeliest_k_of_a_teacher_are_distilled_in_one_pass(tiny: str) -> None:
    """As many data as tokens are asked about at a place: neither the layers nor the head are run again for them."""
    assert computed(likeliest(8)[:8], tiny) == (59, 59)
    with_entropy = PPO(entropy_coefficient=0.1)
    drawn = [replace(one, streams={**one.streams, **drawn_by(one)}) for one in likeliest(8)]
    backend = LocalBackend(LocalEngine(), checkpoints=Path())
    backend.create_policy("p", PolicySpec(model=tiny, lora=LoRA(rank=2)))
    together = backend.forward_backward("p", drawn, with_entropy)
    apart = [backend.forward_backward("p", [one], with_entropy) for one in drawn]
    assert together.loss == pytest.approx(sum(each.loss for each in apart), rel=1e-4)


def drawn_by(one: Datum) -> dict[str, np.ndarray]:
    return {"sampling_logprobs": np.full(len(one.tokens), -6.0, np.float32), "advantages": one.weights}


def test_targets_outside_the_vocabulary_are_named(tiny: str, tmp_path: Path) -> None:
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    backend.create_policy("p", PolicySpec(model=tiny, lora=LoRA(rank=2)))
    for wrong in (512, -1):
        one = replace(datum([5, 6, 7], [0, 1, 1]), targets=np.array([-7, 5, wrong], np.int32))
        with pytest.raises(LossInputError, match=f"targets of datum 0 holds token id {wrong}, and the vocabulary"):
            backend.forward("p", [one], CausalLM())


def test_with_targets_the_context_may_be_full(tiny: str, tmp_path: Path) -> None:
    """Its last place is predicted after as many tokens as the context has."""
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    backend.create_policy("p", PolicySpec(model=tiny, lora=LoRA(rank=2)))
    full = datum([5] * 129, [0, *[1] * 128])
    assert backend.forward("p", [replace(full, targets=full.tokens)], CausalLM()).num_tokens == 128
    with pytest.raises(ModelError, match=r"datum 0 has 129 tokens, and the context of .* is 128"):
        backend.forward("p", [full], CausalLM())
