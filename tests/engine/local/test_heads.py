"""Heads, pairs, entropy and steps that are undone: what critics, reward models and preferences need of an engine."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fettle.config import (
    DPO,
    KTO,
    PPO,
    AdamW,
    CausalLM,
    LocalEngine,
    LoRA,
    PolicySpec,
    Reading,
    RewardModeling,
    SamplingParams,
    Value,
)
from fettle.engine.base import SampleRequest
from fettle.engine.local import LocalBackend
from fettle.engine.local.copied import saved_state
from fettle.engine.local.model import load_model
from fettle.engine.local.policy import LocalPolicy
from fettle.errors import CheckpointError, ConfigError, LossInputError, ModelError, StateError
from fettle.types import Datum, datum

CPU = torch.device("cpu")
BUDGET = 64
LORA = LoRA(rank=4)


def policy(source: str, *, head: str | None = None, lora: LoRA | None = None) -> LocalPolicy:
    spec = PolicySpec(model=source, lora=lora, head=head)
    return LocalPolicy(spec, load_model(source, device=CPU, precision="float32", trained=lora is None))


def sequence(length: int, seed: int, *, prompt: int = 2, group: str = "", preferred: float | None = None) -> Datum:
    random = np.random.default_rng(seed)
    mask = [0.0] * prompt + [1.0] * (length - prompt)
    streams = {
        "sampling_logprobs": -random.random(length),
        "reference_logprobs": -random.random(length),
        "advantages": random.normal(size=length),
        "returns": random.normal(size=length),
        "old_values": random.normal(size=length),
    }
    scalars = {} if preferred is None else {"preferred": preferred, "weight": 0.5, "kl_baseline": 0.1}
    return datum(random.integers(5, 300, length).tolist(), mask, group=group, scalars=scalars, **streams)


def pairs(n: int = 3) -> list[Datum]:
    """Chosen and rejected of several lengths, in no helpful order."""
    data = [
        sequence(5 + 3 * i + 2 * w, 10 * i + w, group=f"pair {i}", preferred=float(w)) for i in range(n) for w in (0, 1)
    ]
    return [data[i] for i in np.random.default_rng(0).permutation(len(data))]


def gradients(held: LocalPolicy) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in held._parameters.values() if p.grad is not None])


def opinionated(held: LocalPolicy) -> LocalPolicy:
    """With a head that has learned something."""
    assert held.head is not None
    held.head.weight.data.normal_(generator=torch.Generator().manual_seed(1))
    held.head.bias.data.fill_(0.5)
    return held


@pytest.mark.parametrize("architecture", ["tiny", "llama", "gpt2"])
def test_values_and_scores_are_the_head_on_the_hidden_states_of_a_plain_forward(architecture, request):
    source = request.getfixturevalue(architecture)
    data = [sequence(length, length) for length in (4, 9, 6)]
    critic, scorer = (opinionated(policy(source, head=head)) for head in ("value", "reward"))
    values = critic.forward(data, Reading(of="values"), budget=BUDGET)
    scores = scorer.forward(data, Reading(of="scores"), budget=BUDGET)
    assert values.logprobs == []
    for one, of_tokens, score in zip(data, values.values, scores.scores, strict=True):
        with torch.no_grad():
            hidden = critic.model.module.base_model(torch.tensor(one.tokens)[None].long()).last_hidden_state[0]
        said = (hidden @ critic.head.weight[0] + 0.5).detach().numpy()
        expected = np.where(one.loss_mask > 0, np.concatenate([[0], said[:-1]]), 0)
        np.testing.assert_allclose(of_tokens, expected, atol=2e-5)
        assert score == pytest.approx(said[-1], abs=2e-5)


def test_a_new_head_says_nothing_of_anything(tiny):
    read = policy(tiny, head="reward").forward([sequence(6, 0)], Reading(of="scores"), budget=BUDGET)
    assert read.scores == [0.0]


def test_the_score_of_a_sequence_does_not_depend_on_what_is_scored_beside_it(tiny, tmp_path):
    scorer = opinionated(policy(tiny, head="reward"))
    scorer.save(tmp_path / "rm", optimizer=False)
    backend = LocalBackend(LocalEngine(train_tokens=BUDGET), checkpoints=tmp_path)
    sequences = [list(sequence(length, length).tokens) for length in (4, 16, 9, 5)]
    together = backend.scores(str(tmp_path / "rm"), sequences)
    alone = [backend.scores(str(tmp_path / "rm"), [one])[0] for one in sequences]
    assert together == pytest.approx(alone, abs=1e-5)
    read = scorer.forward([sequence(length, length) for length in (4, 16, 9, 5)], Reading(of="scores"), budget=BUDGET)
    assert together == pytest.approx(read.scores, abs=1e-5)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_head_is_trained_saved_and_taken_up_again(tiny, tmp_path, lora):
    held = policy(tiny, head="reward", lora=lora)
    for _ in range(3):
        held.forward_backward(pairs(), RewardModeling(), budget=BUDGET)
        held.optim_step(AdamW(learning_rate=1e-2))
    before = held.forward(pairs(), Reading(of="scores"), budget=BUDGET).scores
    assert np.ptp(before) > 0
    held.save(tmp_path / "saved", optimizer=True)
    spec, version = saved_state(tmp_path / "saved")
    source = tiny if lora else str(tmp_path / "saved")
    again = LocalPolicy(
        spec, load_model(source, device=CPU, precision="float32", trained=lora is None), version=version
    )
    again.load(tmp_path / "saved", optimizer=True)
    assert again.forward(pairs(), Reading(of="scores"), budget=BUDGET).scores == before
    for one in (held, again):
        one.forward_backward(pairs(), RewardModeling(), budget=BUDGET)
        one.optim_step(AdamW(learning_rate=1e-2))
    for mine, theirs in zip(held._parameters.values(), again._parameters.values(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_critic_begins_with_the_head_of_the_reward_model_it_starts_from(tiny, tmp_path):
    scorer = opinionated(policy(tiny, head="reward"))
    scorer.save(tmp_path / "rm", optimizer=False)
    critic = policy(str(tmp_path / "rm"), head="value")
    assert torch.equal(critic.head.weight, scorer.head.weight)


def test_a_critics_values_come_to_the_returns(tiny):
    data = [sequence(8, seed) for seed in range(4)]
    held = policy(tiny, head="value")
    losses = []
    for _ in range(60):
        losses.append(held.forward_backward(data, Value(clip=None), budget=BUDGET).metrics["value_loss"])
        held.optim_step(AdamW(learning_rate=1e-2))
    assert losses[-1] < 0.1 * losses[0]


def test_one_pass_serves_policy_and_critic_and_their_gradients_add_up(tiny):
    data = [sequence(8, seed) for seed in range(4)]
    both = PPO(value=Value(coefficient=0.3), entropy_coefficient=0.02)
    parts = (PPO(entropy_coefficient=0.02), Value(coefficient=0.3))
    joint, apart = (opinionated(policy(tiny, head="value")) for _ in range(2))
    joint.forward_backward(data, both, budget=BUDGET)
    for part in parts:
        apart.forward_backward(data, part, budget=BUDGET)
    torch.testing.assert_close(gradients(joint), gradients(apart), atol=5e-5, rtol=1e-3)


def test_the_entropy_bonus_moves_the_entropy(tiny):
    data = [sequence(8, seed) for seed in range(4)]
    data = [datum(d.tokens, d.loss_mask, sampling_logprobs=d.loss_mask * 0, advantages=d.loss_mask * 0) for d in data]
    held = policy(tiny)
    before = held.forward(data, CausalLM(), budget=BUDGET).metrics["entropy"]
    for _ in range(5):
        held.forward_backward(data, PPO(entropy_coefficient=1.0), budget=BUDGET)
        held.optim_step(AdamW(learning_rate=1e-3))
    after = held.forward(data, CausalLM(), budget=BUDGET).metrics["entropy"]
    assert before < after <= math.log(held.model.vocabulary) + 1e-3


@pytest.mark.parametrize("loss", [DPO(), DPO(variant="ipo", length_normalized=True)], ids=lambda c: c.variant)
def test_pairs_stay_together_whatever_the_micro_batches(tiny, loss):
    narrow, wide = policy(tiny), policy(tiny)
    small = narrow.forward_backward(pairs(), loss, budget=26)
    large = wide.forward_backward(pairs(), loss, budget=4096)
    assert small.loss == pytest.approx(large.loss, rel=1e-5)
    assert small.metrics == pytest.approx(large.metrics, rel=1e-4)
    torch.testing.assert_close(gradients(narrow), gradients(wide), atol=1e-6, rtol=1e-4)


def test_the_loss_of_pairs_is_the_formula_on_sums_over_the_reply(tiny):
    data, held = pairs(2), policy(tiny)
    logprobs = held.forward(data, CausalLM(), budget=BUDGET).logprobs
    ratios = [
        float((own - one.streams["reference_logprobs"])[one.loss_mask > 0].sum())
        for own, one in zip(logprobs, data, strict=True)
    ]
    by = {(one.group, one.scalars["preferred"]): ratio for one, ratio in zip(data, ratios, strict=True)}
    h = [0.1 * (by[f"pair {i}", 1.0] - by[f"pair {i}", 0.0]) for i in range(2)]
    result = held.forward(data, DPO(), budget=BUDGET)
    assert result.loss == pytest.approx(sum(0.5 * math.log1p(math.exp(-x)) for x in h), rel=1e-4)
    assert result.metrics["reward_margin"] == pytest.approx(np.mean(h), rel=1e-4)


def test_rated_replies_need_no_partner(tiny):
    data = [sequence(6, seed, group=str(seed), preferred=float(seed % 2)) for seed in range(3)]
    result = policy(tiny).forward_backward(data, KTO(), budget=BUDGET)
    assert math.isfinite(result.loss)


def test_pairs_without_a_partner_are_refused_by_name(tiny):
    data, held = pairs(), policy(tiny)
    lonely = [one for one in data if not (one.group == "pair 1" and one.scalars["preferred"])]
    with pytest.raises(LossInputError, match=r"group 'pair 1' has no partner: a pair is two data of one group"):
        held.forward(lonely, DPO(), budget=BUDGET)
    with pytest.raises(LossInputError, match="of group 'pair 0' are both the"):
        held.forward([*data, data[[d.group for d in data].index("pair 0")]], DPO(), budget=BUDGET)
    with pytest.raises(LossInputError, match="datum 0 has no preferred"):
        held.forward([sequence(6, 0)], DPO(), budget=BUDGET)
    with pytest.raises(ConfigError, match="a micro-batch, which holds both of its pair"):
        held.forward(data, DPO(), budget=16)


@pytest.mark.parametrize(
    ("loss", "wants"), [(Value(), "value"), (PPO(value=Value()), "value"), (RewardModeling(), "reward")]
)
def test_a_head_that_is_not_there_is_asked_for_by_name(tiny, loss, wants):
    with pytest.raises(ConfigError, match=f"has no {wants} head: create it with head: {wants}"):
        policy(tiny).forward(pairs(), loss, budget=BUDGET)


def test_reading_is_no_loss_to_learn_from(tiny):
    with pytest.raises(ConfigError, match="reading is no loss, and has no gradient: use forward"):
        policy(tiny).forward_backward([sequence(5, 0)], Reading(of="logprobs"), budget=BUDGET)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("steps_before", [0, 2])
def test_a_step_that_is_undone_leaves_weights_and_moments_as_they_were(tiny, lora, steps_before):
    data, adam = [sequence(8, seed) for seed in range(3)], AdamW(learning_rate=1e-2)
    undone, plain = policy(tiny, lora=lora), policy(tiny, lora=lora)
    for held in (undone, plain):
        for _ in range(steps_before):
            held.forward_backward(data, PPO(), budget=BUDGET)
            held.optim_step(adam)
    undone.forward_backward(data[:1], CausalLM(), budget=BUDGET)
    assert undone.optim_step(adam, undoable=True).policy_version == steps_before + 1
    assert undone.undo().policy_version == steps_before + 2
    for held in (undone, plain):
        held.forward_backward(data, PPO(), budget=BUDGET)
        held.optim_step(adam)
    for mine, theirs in zip(undone._parameters.values(), plain._parameters.values(), strict=True):
        assert torch.equal(mine, theirs)
    assert all(torch.equal(value, plain._optimizer.state()[name]) for name, value in undone._optimizer.state().items())


def test_a_sampler_taken_between_a_step_and_its_undoing_keeps_what_it_saw(tiny, tmp_path):
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    backend.create_policy("p", PolicySpec(model=tiny))
    request = SampleRequest([5, 6, 7], 4, SamplingParams(max_tokens=12, seed=3))

    def drawn(weights: str) -> list[list[int]]:
        return [completion.tokens for completion in backend.sample([weights], [request])[0]]

    before, _ = backend.pin("p")
    first = drawn(before)
    backend.forward_backward("p", [sequence(8, 1)], CausalLM())
    backend.optim_step("p", AdamW(learning_rate=0.05), undoable=True)
    stepped, _ = backend.pin("p")
    second = drawn(stepped)
    assert second != first
    backend.undo("p")
    undone, _ = backend.pin("p")
    assert (drawn(before), drawn(stepped), drawn(undone)) == (first, second, first)


def test_only_the_last_undoable_step_can_be_undone(tiny):
    held = policy(tiny)
    with pytest.raises(StateError, match="there is no step to undo"):
        held.undo()
    for undoable in (True, False):
        held.forward_backward([sequence(8, 1)], CausalLM(), budget=BUDGET)
        held.optim_step(AdamW(), undoable=undoable)
    with pytest.raises(StateError, match="make it with undoable=True"):
        held.undo()


def test_a_step_is_undone_once(tiny):
    held = policy(tiny)
    held.forward_backward([sequence(8, 1)], CausalLM(), budget=BUDGET)
    held.optim_step(AdamW(), undoable=True)
    held.undo()
    with pytest.raises(StateError, match="there is no step to undo"):
        held.undo()


def test_a_step_is_not_undone_under_the_gradients_of_the_next(tiny):
    held = policy(tiny)
    held.forward_backward([sequence(8, 1)], CausalLM(), budget=BUDGET)
    held.optim_step(AdamW(), undoable=True)
    held.forward_backward([sequence(8, 2)], CausalLM(), budget=BUDGET)
    with pytest.raises(StateError, match="undo it before the next call"):
        held.undo()


def test_a_head_computes_in_float32_whatever_the_model_does(tiny):
    spec = PolicySpec(model=tiny, head="value", precision="bfloat16")
    held = opinionated(LocalPolicy(spec, load_model(tiny, device=CPU, precision="bfloat16", trained=True)))
    assert held.head is not None
    hidden = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    with held.model.arithmetic():
        said = held.head(hidden)
    assert said.dtype == torch.float32
    torch.testing.assert_close(said, hidden @ held.head.weight[0] + held.head.bias)


def test_weights_without_a_reward_head_cannot_score(tiny, tmp_path):
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    opinionated(policy(tiny, head="value")).save(tmp_path / "critic", optimizer=False)
    with pytest.raises(ModelError, match="has no reward head"):
        backend.scores(str(tmp_path / "critic"), [[5, 6]])
    with pytest.raises(ModelError, match="has no reward head to score with: name a model that a reward_model run"):
        backend.scores(tiny, [[5, 6]])
    backend.create_policy("critic", PolicySpec(model=tiny, head="value"))
    with pytest.raises(ModelError, match="has no reward head"):
        backend.scores(backend.pin("critic")[0], [[5, 6]])


def test_a_head_of_another_width_is_refused(tiny, tmp_path):
    wide = policy(tiny, head="reward")
    wide.head.weight = torch.nn.Parameter(torch.zeros(1, 7))
    wide.save(tmp_path / "odd", optimizer=False)
    with pytest.raises(CheckpointError, match="made for hidden states of width 7, and the model's are 32 wide"):
        policy(str(tmp_path / "odd"), head="reward")


def test_a_head_of_other_names_is_refused(tiny, tmp_path):
    save_file({"score.weight": torch.zeros(1, 32)}, tmp_path / "head.safetensors")
    with pytest.raises(CheckpointError, match=r"holds score.weight, and a head is head.weight and head.bias: take the"):
        policy(tiny, head="reward").head.read(tmp_path)


def test_a_pair_s_weight_and_margin_reach_its_loss(tiny):
    """Two pairs, of which the heavy one asks for a margin."""
    data = pairs(2)
    told = {"pair 0": {"weight": 2.0, "margin": 0.7}, "pair 1": {"weight": 0.25, "margin": 0.0}}
    weighed = [replace(one, scalars={**one.scalars, **told[one.group]}) for one in data]
    held = opinionated(policy(tiny, head="reward"))
    result = held.forward(weighed, RewardModeling(), budget=BUDGET)
    expected = 0.0
    for group, said in told.items():
        better, worse = (
            next(
                score
                for score, one in zip(result.scores, data, strict=True)
                if one.group == group and one.scalars["preferred"] == preferred
            )
            for preferred in (1.0, 0.0)
        )
        expected += said["weight"] * math.log1p(math.exp(-(better - worse - said["margin"])))
    assert result.loss == pytest.approx(expected, rel=1e-5)
