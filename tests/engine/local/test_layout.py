"""Micro-batches: every sequence once, like lengths together, never over the budget."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import MambaConfig, MambaForCausalLM

from fettle.config import DPO, PPO, LocalEngine, PolicySpec, Reading, Value
from fettle.engine.local import LocalBackend
from fettle.engine.local.layout import bins, micro_batch
from fettle.engine.local.model import load_model
from fettle.engine.local.policy import LocalPolicy
from fettle.errors import ConfigError
from fettle.types import Datum, datum

from .conftest import saved


@given(st.lists(st.integers(2, 50), max_size=40), st.integers(50, 300))
def test_bins_hold_every_sequence_once_within_the_budget(lengths, budget):
    groups = bins(lengths, budget=budget)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert all(len(group) * max(lengths[i] for i in group) <= budget for group in groups)


@given(st.lists(st.tuples(st.integers(2, 50), st.integers(2, 50)), max_size=20), st.integers(100, 300))
def test_pairs_share_a_bin_in_their_order_within_the_budget(pairs, budget):
    lengths = [length for pair in pairs for length in pair]
    together = [(2 * n + 1, 2 * n) for n in range(len(pairs))]
    groups = bins(lengths, budget=budget, together=together)
    assert sorted(zip(*[iter(index for group in groups for index in group)] * 2, strict=True)) == together
    assert all(len(group) % 2 == 0 for group in groups)
    assert all(len(group) * max(lengths[i] for i in group) <= budget for group in groups)


def test_a_sequence_over_the_budget_is_named_with_the_setting():
    with pytest.raises(ConfigError, match=r"datum 1 has 9 tokens, and engine.train_tokens allows 8"):
        bins([3, 9], budget=8)


def test_padding_is_zero_and_untrained():
    data = [
        datum([1, 2], [0, 1], advantages=[0, 5]),
        datum([3, 4, 5], [0, 1, 1], advantages=[0, 6, 7], temperature=0.5),
    ]
    batch = micro_batch(data, [0, 1], ["advantages"], "cpu")
    assert batch.tokens.tolist() == [[1, 2, 0], [3, 4, 5]]
    assert batch.loss_mask.tolist() == [[0, 1, 0], [0, 1, 1]]
    assert batch.streams["advantages"].tolist() == [[0, 5, 0], [0, 6, 7]]
    assert batch.temperature.tolist() == [1.0, 0.5]


def test_weights_do_not_reach_masked_tokens():
    batch = micro_batch([datum([1, 2, 3], [0, 1, 0], weights=[9, 9, 9])], [0], [], "cpu")
    assert batch.weights.tolist() == [[0, 9, 0]]


@pytest.mark.parametrize("architecture", ["tiny", "llama", "gpt2"])
@pytest.mark.parametrize("loss", [PPO(value=Value()), DPO()], ids=lambda c: c.type)
def test_packed_and_padded_sequences_give_the_same_gradient(architecture, loss, request):
    source = request.getfixturevalue(architecture)
    found = []
    for packed in (False, True):
        model = load_model(source, device=torch.device("cpu"), precision="float32", trained=True)
        model.packed = packed
        held = LocalPolicy(PolicySpec(model=source, head="value"), model)
        result = held.forward_backward(of_several_lengths(), loss, budget=256)
        gradient = torch.cat([p.grad.flatten() for p in held._parameters.values() if p.grad is not None])
        found.append((result.loss, gradient))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], atol=2e-6, rtol=1e-4)


def test_packed_scores_are_padded_scores(tiny):
    model = load_model(tiny, device=torch.device("cpu"), precision="float32", trained=True)
    held = LocalPolicy(PolicySpec(model=tiny, head="reward"), model)
    held.head.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    read = []
    for packed in (False, True):
        model.packed = packed
        read.append(held.forward(of_several_lengths(), Reading(of="scores"), budget=256).scores)
    assert read[0] == pytest.approx(read[1], abs=1e-4)


def test_a_model_that_mixes_packed_sequences_is_refused(tmp_path: Path, tiny: str):
    torch.manual_seed(0)
    module = MambaForCausalLM(MambaConfig(vocab_size=512, hidden_size=32, num_hidden_layers=1, eos_token_id=3))
    source = saved(module, tiny, tmp_path / "mamba")
    backend = LocalBackend(LocalEngine(layout="packed"), checkpoints=tmp_path)
    backend.open(tiny)
    with pytest.raises(ConfigError, match="does not keep packed sequences apart: use padded"):
        backend.open(source)


def of_several_lengths() -> list[Datum]:
    random = np.random.default_rng(0)
    rows = []
    for i, length in enumerate((4, 9, 6, 15)):
        streams = {name: random.normal(size=length) for name in ("advantages", "returns", "old_values")}
        streams |= {name: -random.random(length) for name in ("sampling_logprobs", "reference_logprobs")}
        scalars = {"preferred": float(i % 2)}
        mask = [0, 0, *[1] * (length - 2)]
        rows.append(datum(random.integers(5, 300, length), mask, group=str(i // 2), scalars=scalars, **streams))
    return rows
