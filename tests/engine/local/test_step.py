"""What a call reports of its micro-batches: sums that are means in the end, the greatest, and the least."""

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from fettle.config import GSPO, CausalLM, ImportanceSampling, PolicySpec
from fettle.engine.local.model import load_model
from fettle.engine.local.policy import LocalPolicy
from fettle.types import Datum, datum

from .conftest import saved


def policy(source: str) -> LocalPolicy:
    return LocalPolicy(
        PolicySpec(model=source),
        load_model(source, device=torch.device("cpu"), precision="float32", trained=True),
    )


def sequence(length: int, seed: int) -> Datum:
    random = np.random.default_rng(seed)
    drawn = {"sampling_logprobs": -6 * random.random(length), "advantages": random.normal(size=length)}
    return datum(random.integers(5, 300, length).tolist(), [0, 0, *[1] * (length - 2)], **drawn)


def test_greatest_and_least_are_of_trained_tokens_over_all_micro_batches(tiny):
    """The longest sequence, which comes last, has neither the greatest ratio nor the least."""
    data = [sequence(6 + 6 * index, index) for index in range(3)]
    told = policy(tiny).forward(data, ImportanceSampling(), budget=20)
    ratios = np.concatenate(
        [
            np.exp(said - one.streams["sampling_logprobs"])[one.loss_mask > 0]
            for said, one in zip(told.logprobs, data, strict=True)
        ]
    )
    assert told.metrics["ratio_max"] == pytest.approx(ratios.max(), rel=1e-4)
    assert told.metrics["ratio_min"] == pytest.approx(ratios.min(), rel=1e-4)
    assert told.metrics["ratio"] == pytest.approx(ratios.mean(), rel=1e-4)


def test_where_nothing_is_trained_on_there_is_no_greatest_and_no_least(tiny):
    one = sequence(6, 0)
    masked = replace(one, loss_mask=np.zeros_like(one.loss_mask))
    told = policy(tiny).forward([masked], ImportanceSampling(), budget=64)
    assert told.metrics.keys() & {"ratio_max", "ratio_min"} == set()
    assert all(math.isfinite(number) for number in told.metrics.values())
    both = policy(tiny).forward([masked, sequence(12, 1)], ImportanceSampling(), budget=13)
    assert both.metrics == policy(tiny).forward([sequence(12, 1)], ImportanceSampling(), budget=13).metrics


def test_twenty_pads_change_neither_loss_nor_gradient(tiny):
    """The mean over a sequence's tokens, alone and beside one of twenty more on which nothing is trained."""
    one, longer = sequence(8, 0), sequence(28, 1)
    one = replace(one, streams={"weights": one.loss_mask / one.loss_mask.sum()})
    longer = replace(longer, loss_mask=np.zeros_like(longer.loss_mask))

    def trained(data: list[Datum]) -> tuple[float, torch.Tensor]:
        held = policy(tiny)
        loss = held.forward_backward(data, CausalLM(), budget=64).loss
        return loss, torch.cat([p.grad.flatten() for p in held.model.parameters.values() if p.grad is not None])

    (alone, gradient), (padded, same) = trained([one]), trained([one, longer])
    assert padded == pytest.approx(alone, rel=1e-6)
    torch.testing.assert_close(same, gradient, rtol=0, atol=1e-6)
    assert gradient.abs().max() > 1e-2


def test_a_mask_is_the_datums_own_where_it_has_one_and_its_loss_mask_elsewhere(tiny):
    """Two in one micro-batch, of which one names the tokens that its ratio is over."""
    one, other = sequence(8, 0), sequence(8, 1)
    counted = np.array([0, 0, 1, 0, 0, 1, 0, 0], np.float32)
    own = replace(one, streams={**one.streams, "sequence_ratio_mask": counted})
    said = policy(tiny).forward([own, other], GSPO(), budget=64)
    ratios = [
        math.exp(np.mean((logprobs - datum.streams["sampling_logprobs"])[mask > 0]))
        for logprobs, datum, mask in zip(said.logprobs, (own, other), (counted, other.loss_mask), strict=True)
    ]
    assert said.metrics["ratio"] == pytest.approx(np.mean(ratios), rel=1e-4)  # as many trained tokens in each
    assert said.metrics != policy(tiny).forward([one, other], GSPO(), budget=64).metrics


def test_time_is_told_by_where_it_went(tiny):
    assert policy(tiny).forward([sequence(8, 0)], CausalLM(), budget=64).seconds.keys() == {"forward"}
    told = policy(tiny).forward_backward([sequence(8, 0)], CausalLM(), budget=64).seconds
    assert told.keys() == {"forward", "backward"}
    assert min(told.values()) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process cannot be kept short of memory")
def test_out_of_memory_names_the_setting_and_leaves_the_policy_as_it_was(tiny, tmp_path):
    torch.manual_seed(0)
    wide = Qwen3Config(
        vocab_size=512, hidden_size=64, intermediate_size=8192, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=128, eos_token_id=3,
    )  # fmt: skip
    source = saved(Qwen3ForCausalLM(wide), tiny, tmp_path / "wide")
    driver = Path(__file__).with_name("short_of_memory.py")
    done = subprocess.run([sys.executable, driver, source], capture_output=True, text=True, check=True)
    packed, padded = done.stdout.splitlines()[:3], done.stdout.splitlines()[3:]
    for *refused, last in (packed, padded):
        for said in refused:
            size = re.fullmatch(r"there is not enough memory for a micro-batch of (\d+) tokens: (.*)", said)
            assert size is not None, said
            assert int(size[1]) <= 2048
            assert size[2] == f"lower engine.train_tokens below {size[1]}"
        assert (len(refused), last) == (2, "and goes on")
