"""Every metric that is documented, against NumPy on the same numbers; every setting under its documented name."""

import warnings

import numpy as np
import pytest
import safetensors.numpy
import torch
from transformers import AutoModel, AutoModelForCausalLM

from fettle.broker.columnar import forward_backward
from fettle.broker.documented import DOCUMENTED, settings_of
from fettle.config import AdamW, TinyModel, documented
from fettle.engine.local import make_tiny_model
from fettle.errors import ConfigError, LossInputError, ModelError

random = np.random.default_rng(0)
B, T, G, P, R = 3, 8, 4, 3, 4
IDS = random.integers(7, 250, (B, T))
MASK = np.array([[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1, 1]])
RESPONSE = np.array([[0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]])
TRAINED = RESPONSE > 0
LAST = [7, 4, 7]
"""The last response token of each row."""
REWARDS = np.array([1.0, -0.5, 2.0])
VALUES = random.normal(size=(B, T))
EPS = 0.2

SEQUENCES = {"input_ids": IDS, "attention_mask": MASK, "response_mask": RESPONSE}
OTHER = np.where(np.arange(T) < 3, IDS, random.integers(7, 250, (B, T)))
PAIRS = {
    "chosen_input_ids": IDS,
    "chosen_attention_mask": MASK,
    "chosen_loss_mask": RESPONSE,
    "rejected_input_ids": OTHER,
    "rejected_attention_mask": MASK,
    "rejected_loss_mask": RESPONSE,
}
GROUPS = {
    "prompt_ids": random.integers(7, 250, (2, P)),
    "response_ids": random.integers(7, 250, (2, G, R)),
    "rewards": np.array([[1.0, 0.0, 0.0, 99.0], [2.0, 2.0, 2.0, 2.0]]),
    "response_masks": np.ones((2, G, R), int),
}
GROUPS["response_masks"][0, 3] = 0  # not there, so that its reward of 99 enters nothing
GROUPS["response_masks"][0, 1, 2:] = 0

DOCUMENTED_DEFAULTS = {
    "causal_lm": {},
    "enhanced_ppo": {
        "use_gae": True, "gamma": 0.99, "gae_lambda": 0.95, "clip_epsilon": 0.2, "value_loss_coef": 0.5,
        "entropy_coef": 0.01, "beta": 0.01, "clip_value_loss": True, "reference_model": None,
    },
    "dpo": {"beta": 0.1, "reference_model": None, "label_smoothing": 0.0},
    "grpo": {"beta": 0.01, "clip_epsilon": 0.2, "reference_model": None},
    "importance_sampling": {"beta": 0.1, "clip_ratio": 10.0, "reference_model": None},
    "conservative_ppo": {
        "conservative_coef": 0.1, "max_kl_divergence": 0.01, "clip_epsilon": 0.2, "reference_model": None,
    },
    "reward_modeling": {"margin": 1.0, "temperature": 0.1},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _known_warnings():
    """They are told once in a process, and are asserted on where they are spoken of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@pytest.fixture
def old(model, said):
    """Log-probabilities of a sampler that was near the policy, some clipped and some not."""
    noise = 0.25 * np.random.default_rng(1).normal(size=(B, T))
    return np.minimum(said(model, IDS, MASK).logprobs + noise, 0)


@pytest.mark.parametrize("name", DOCUMENTED_DEFAULTS)
def test_settings_have_the_documented_names_and_defaults(name):
    assert settings_of(name, {}).model_dump() == DOCUMENTED_DEFAULTS[name]


@pytest.mark.parametrize("rewards", ["of sequences", "of tokens"])
@pytest.mark.parametrize("old_values", [None, VALUES + random.normal(size=(B, T))], ids=["values", "old_values too"])
async def test_enhanced_ppo(trainee, model, reference, said, old, rewards, old_values):
    by_token = np.zeros((B, T))
    by_token[range(B), LAST] = REWARDS
    batch = SEQUENCES | {"old_log_probs": old, "values": VALUES}
    batch["rewards"] = REWARDS if rewards == "of sequences" else by_token
    batch |= {} if old_values is None else {"old_values": old_values}
    result = await forward_backward(await trainee(), batch, "enhanced_ppo", {"reference_model": reference})

    ours, theirs = said(model, IDS, MASK), said(reference, IDS, MASK)
    A, returns = gae_by_sum(by_token, VALUES, gamma=0.99, lam=0.95)
    normal = (A - A[TRAINED].mean()) / A[TRAINED].std()
    ratio = np.exp(ours.logprobs - old)
    surrogate = -np.minimum(ratio * normal, ratio.clip(1 - EPS, 1 + EPS) * normal)
    clipped = ((ratio > 1 + EPS) & (normal > 0)) | ((ratio < 1 - EPS) & (normal < 0))
    value = 0.0  # of a head that has learned nothing
    before = VALUES if old_values is None else old_values
    held = before + (value - before).clip(-EPS, EPS)
    critic = np.maximum((value - returns) ** 2, (held - returns) ** 2) / 2
    R, V = returns[TRAINED], VALUES[TRAINED]
    expected = {
        "policy_loss": surrogate[TRAINED].mean(),
        "value_loss": critic[TRAINED].mean(),
        "entropy": ours.entropy[TRAINED].mean(),
        "kl_divergence": k3(ours.logprobs, theirs.logprobs)[TRAINED].mean(),
        "approx_kl": k3(old, ours.logprobs)[TRAINED].mean(),
        "clip_fraction": clipped[TRAINED].mean(),
        "advantage_mean": A[TRAINED].mean(),
        "advantage_std": A[TRAINED].std(),
        "explained_variance": 1 - (R - V).var() / R.var(),
        "value_mean": V.mean(),
        "return_mean": R.mean(),
        "reward_mean": REWARDS.mean(),
    }
    assert 0 < expected["clip_fraction"] < 1
    assert result.metrics == pytest.approx(expected, rel=1e-4, abs=1e-6)
    terms = 0.5 * expected["value_loss"] - 0.01 * expected["entropy"] + 0.01 * expected["kl_divergence"]
    assert result.loss == pytest.approx(expected["policy_loss"] + terms, rel=1e-4)


async def test_ppo_needs_no_critic(trainee, model, reference, said, old):
    batch = SEQUENCES | {"old_log_probs": old, "rewards": REWARDS}
    result = await forward_backward(await trainee(head=None), batch, "ppo", {"reference_model": reference})
    A = np.broadcast_to((REWARDS - REWARDS.mean())[:, None], (B, T))
    normal = (A - A[TRAINED].mean()) / A[TRAINED].std()
    ratio = np.exp(said(model, IDS, MASK).logprobs - old)
    surrogate = -np.minimum(ratio * normal, ratio.clip(1 - EPS, 1 + EPS) * normal)
    assert result.metrics["policy_loss"] == pytest.approx(surrogate[TRAINED].mean(), rel=1e-4)
    assert result.metrics["advantage_std"] == pytest.approx(A[TRAINED].std(), rel=1e-5)
    assert set(result.metrics) == set(DOCUMENTED["ppo"].metrics)


async def test_conservative_ppo_costs_the_square_of_the_excess(trainee, model, reference, said, old):
    batch = SEQUENCES | {"old_log_probs": old, "rewards": REWARDS}
    settings = {"reference_model": reference, "conservative_coef": 50.0}
    trained = await trainee(head=None)
    result = await forward_backward(trained, batch, "conservative_ppo", settings)
    stepped = await trained.policy.optim_step(AdamW())

    module = AutoModelForCausalLM.from_pretrained(model)
    logprobs = torch.cat([of_row(module, row) for row in range(B)])
    A = np.repeat(REWARDS - REWARDS.mean(), RESPONSE.sum(1))
    normal = torch.tensor((A - A.mean()) / A.std())
    ratio = (logprobs - torch.tensor(old[TRAINED])).exp()
    surrogate = -torch.minimum(ratio * normal, ratio.clamp(1 - EPS, 1 + EPS) * normal).mean()
    apart = torch.tensor(said(reference, IDS, MASK).logprobs[TRAINED]) - logprobs
    measured = (apart.exp() - 1 - apart).mean()
    penalty = 50.0 * (measured - 0.01).clamp(min=0) ** 2
    (surrogate + penalty).backward()
    norm = torch.stack([p.grad.square().sum() for p in module.parameters()]).sum().sqrt()

    expected = {"kl_violation": 1.0, "kl_penalty": float(penalty.detach()), "max_kl_threshold": 0.01}
    assert {name: result.metrics[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert result.metrics["kl_divergence"] == pytest.approx(float(measured.detach()), rel=1e-4)
    assert result.loss == pytest.approx(float((surrogate + penalty).detach()), rel=1e-4)
    assert stepped.grad_norm == pytest.approx(float(norm), rel=1e-4)
    assert set(result.metrics) == set(DOCUMENTED["conservative_ppo"].metrics) - {"value_loss"}


async def test_conservative_ppo_costs_nothing_within_the_limit(trainee, old):
    batch = SEQUENCES | {"old_log_probs": old, "rewards": REWARDS}
    result = await forward_backward(await trainee(), batch, "conservative_ppo", {})
    assert result.metrics["kl_violation"] == result.metrics["kl_penalty"] == 0
    assert result.loss == result.metrics["policy_loss"]


async def test_grpo(trainee, model, reference, said):
    settings = {"reference_model": reference}
    result = await forward_backward(await trainee(head=None), GROUPS, "grpo", settings)
    ids = np.concatenate([np.repeat(GROUPS["prompt_ids"], G, 0), GROUPS["response_ids"].reshape(-1, R)], 1)
    there = np.concatenate([np.ones((2 * G, P), int), GROUPS["response_masks"].reshape(-1, R)], 1)
    answered = np.flatnonzero(there[:, P:].any(1))
    trained = (there * (np.arange(P + R) >= P) > 0)[answered]
    ours, theirs = (said(folder, ids[answered], there[answered]) for folder in (model, reference))
    first = np.array([1.0, 0.0, 0.0])
    by_response = np.concatenate([(first - first.mean()) / first.std(ddof=1), np.zeros(G)])
    A = np.broadcast_to(by_response[:, None], trained.shape)[trained]
    lengths = trained.sum(1)
    shares = np.repeat(1 / (len(lengths) * lengths), lengths)
    expected = {
        "policy_loss": -(shares * A).sum(),  # on policy, so every ratio is 1
        "entropy": ours.entropy[trained].mean(),
        "kl_divergence": k3(ours.logprobs, theirs.logprobs)[trained].mean(),
        "approx_kl": 0.0,
        "clip_fraction": 0.0,
        "advantage_mean": A.mean(),
        "advantage_std": A.std(),
        "reward_mean": np.array([1.0, 0, 0, 2, 2, 2, 2]).mean(),
        "zero_variance_groups": 1.0,
    }
    assert result.metrics == pytest.approx(expected, rel=1e-4, abs=1e-6)
    penalty = 0.01 * (shares * k3(ours.logprobs, theirs.logprobs)[trained]).sum()
    assert result.loss == pytest.approx(expected["policy_loss"] + penalty, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("level", ["sequence", "token"])
async def test_importance_sampling(trainee, model, reference, said, old, level):
    behavior = (old * TRAINED).sum(1) if level == "sequence" else old
    batch = SEQUENCES | {"behavior_log_probs": behavior, "rewards": REWARDS}
    ours, theirs = said(model, IDS, MASK), said(reference, IDS, MASK)
    log_ratio = (ours.logprobs - old) * TRAINED
    w = np.exp(log_ratio.sum(1)) if level == "sequence" else np.exp(log_ratio[TRAINED])
    cap = float(w.mean())
    settings = {"reference_model": reference, "clip_ratio": cap}
    result = await forward_backward(await trainee(), batch, "importance_sampling", settings)
    by_row = REWARDS - REWARDS.mean()
    tokens = np.repeat(by_row, RESPONSE.sum(1))
    A = by_row if level == "sequence" else tokens
    expected = {
        "is_ratio_mean": w.mean(),
        "is_ratio_max": w.max(),
        "is_ratio_min": w.min(),
        "clipped_fraction": (w > cap).mean(),
        "effective_sample_size": w.sum() ** 2 / (len(w) * (w**2).sum()),
        "policy_loss": -(np.minimum(w, cap) * A).mean(),
        "entropy": ours.entropy[TRAINED].mean(),
        "kl_divergence": k3(ours.logprobs, theirs.logprobs)[TRAINED].mean(),
        "advantage_mean": tokens.mean(),
        "advantage_std": tokens.std(),
        "reward_mean": REWARDS.mean(),
    }
    assert 0 < expected["clipped_fraction"] < 1
    assert result.metrics == pytest.approx(expected, rel=1e-4, abs=1e-6)


async def test_importance_sampling_takes_the_advantages_that_it_is_given(trainee, model, said, old):
    advantages = np.array([0.3, -2.0, 1.0])
    batch = SEQUENCES | {"behavior_log_probs": (old * TRAINED).sum(1), "rewards": REWARDS, "advantages": advantages}
    result = await forward_backward(await trainee(), batch, "importance_sampling", {})
    w = np.exp(((said(model, IDS, MASK).logprobs - old) * TRAINED).sum(1))
    assert result.metrics["policy_loss"] == pytest.approx(-(w * advantages).mean(), rel=1e-4)


async def test_dpo(trainee, model, reference, said):
    settings = {"reference_model": reference, "label_smoothing": 0.1}
    result = await forward_backward(await trainee(), PAIRS, "dpo", settings)
    chosen, rejected = (
        ((said(model, ids, MASK).logprobs - said(reference, ids, MASK).logprobs) * TRAINED).sum(1) * 0.1
        for ids in (IDS, OTHER)
    )
    h = chosen - rejected
    expected = {
        "implicit_reward": h.mean(),
        "chosen_reward": chosen.mean(),
        "rejected_reward": rejected.mean(),
        "reward_margin": h.mean(),
        "preference_accuracy": (h > 0).mean(),
    }
    assert result.metrics == pytest.approx(expected, rel=1e-4)
    assert result.loss == pytest.approx((0.9 * np.log1p(np.exp(-h)) + 0.1 * np.log1p(np.exp(h))).mean(), rel=1e-4)


async def test_reward_modeling(trainee):
    trained = await trainee(head="reward")
    await forward_backward(trained, PAIRS, "reward_modeling", {})
    await trained.policy.optim_step(AdamW(learning_rate=0.01))
    saved = await trained.policy.save("taught")
    result = await forward_backward(trained, PAIRS, "reward_modeling", {})

    module = AutoModel.from_pretrained(saved.path)
    head = safetensors.numpy.load_file(f"{saved.path}/head.safetensors")
    chosen, rejected = (
        np.array([score(module, head, ids[row][MASK[row] > 0]) for row in range(B)]) for ids in (IDS, OTHER)
    )
    d = chosen - rejected
    expected = {
        "preference_accuracy": (d > 0).mean(),
        "reward_margin": d.mean(),
        "chosen_reward_mean": chosen.mean(),
        "rejected_reward_mean": rejected.mean(),
        "chosen_reward_std": chosen.std(),
        "rejected_reward_std": rejected.std(),
    }
    assert abs(expected["reward_margin"]) > 1e-3
    assert result.metrics == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert result.loss == pytest.approx(np.log1p(np.exp(-(d / 0.1 - 1.0))).mean(), rel=1e-3)


async def test_causal_lm(trainee, model, said):
    batch = {"input_ids": IDS, "attention_mask": MASK, "loss_mask": RESPONSE}
    result = await forward_backward(await trainee(), batch, "causal_lm", {})
    found = said(model, IDS, MASK)
    expected = {"nll": -found.logprobs[TRAINED].mean(), "entropy": found.entropy[TRAINED].mean()}
    assert result.metrics == pytest.approx(expected, rel=1e-5)
    assert result.loss == pytest.approx(expected["nll"], rel=1e-5)


def test_a_reward_copied_to_every_token_warns_and_pays_the_response_alone():
    batch = SEQUENCES | {"old_log_probs": -np.ones((B, T)), "rewards": np.ones((B, T))}
    row = DOCUMENTED["ppo"]
    with pytest.warns(UserWarning, match="longer ones earn more"):
        data = row.batch(batch)
    lowered = row.prepare(documented.PPO(), data)
    assert lowered.metrics["reward_mean"] == RESPONSE.sum() / B


def test_a_reward_on_an_untrained_token_was_earned_by_the_trained_one_before_it():
    rewards = np.array([[9.0, 9, 0, 0, 1, 0, 0, 4]] * B)
    trained = np.array([[0, 0, 1, 1, 0, 0, 1, 0]] * B)
    batch = SEQUENCES | {"attention_mask": np.ones((B, T), int), "response_mask": trained, "rewards": rewards}
    row = DOCUMENTED["ppo"]
    lowered = row.prepare(documented.PPO(), row.batch(batch | {"old_log_probs": -np.ones((B, T))}))
    assert lowered.data[0].streams["returns"].tolist() == [0, 0, 5, 5, 0, 0, 4, 0]


@pytest.mark.parametrize(("name", "sane"), [("enhanced_ppo", "gamma 1.0"), ("reward_modeling", "temperature 1.0")])
def test_harmful_defaults_warn_once_and_name_the_sane_value(name, sane):
    documented._warn_once.cache_clear()
    with pytest.warns(UserWarning, match=sane):
        settings_of(name, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert settings_of(name, {}) == DOCUMENTED[name].settings()


async def test_values_are_read_from_the_head_or_asked_for(trainee, old):
    batch = SEQUENCES | {"old_log_probs": old, "rewards": REWARDS}
    result = await forward_backward(await trainee(), batch, "enhanced_ppo", {})
    assert result.metrics["value_mean"] == 0
    headless = await trainee(head=None)
    with pytest.raises(ConfigError, match=r"head: value, or give the batch values and set value_loss_coef to 0"):
        await forward_backward(headless, batch, "enhanced_ppo", {})
    given = batch | {"values": VALUES}
    await forward_backward(headless, given, "enhanced_ppo", {"value_loss_coef": 0.0})
    await forward_backward(headless, batch, "enhanced_ppo", {"use_gae": False})


async def test_a_reference_is_there_and_speaks_of_the_same_tokens(trainee, tmp_path):
    settings = TinyModel(hidden=32, layers=1, heads=2)
    stranger = make_tiny_model(settings, tmp_path / "stranger", texts=["quite other words"] * 9)
    trained = await trainee()
    with pytest.raises(ModelError, match="is not that of"):
        await forward_backward(trained, PAIRS, "dpo", {"reference_model": stranger})
    with pytest.raises(ModelError, match="there is no model folder"):
        await forward_backward(trained, PAIRS, "dpo", {"reference_model": str(tmp_path / "nowhere")})


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("enhanced_pop", {}, "did you mean enhanced_ppo"),
        ("dpo", {"betta": 1.0}, "it takes reference_model, beta, label_smoothing; did you mean beta"),
        ("causal_lm", {"beta": 1.0}, "it takes none"),
        ("dpo", {"label_smoothing": 0.5}, "label_smoothing .* less than 0.5"),
    ],
)
def test_unknown_names_and_settings_are_told_the_known_ones(name, settings, said):
    with pytest.raises(ConfigError, match=said):
        settings_of(name, settings)


async def test_a_missing_column_is_named(trainee):
    with pytest.raises(LossInputError, match="rewards is missing"):
        await forward_backward(await trainee(), SEQUENCES | {"old_log_probs": -np.ones((B, T))}, "enhanced_ppo", {})


def gae_by_sum(rewards, values, *, gamma, lam):
    """Eq. 16 of Schulman et al., 2015, as the sum that it is, over the response tokens of each row."""
    advantages, returns = np.zeros((B, T)), np.zeros((B, T))
    for row in range(B):
        at = np.flatnonzero(TRAINED[row])
        r, V = rewards[row, at], np.append(values[row, at], 0.0)
        delta = r + gamma * V[1:] - V[:-1]
        A = [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, len(at))) for t in range(len(at))]
        advantages[row, at], returns[row, at] = A, A + V[:-1]
    return advantages, returns


def k3(p, q):
    """Of KL(p‖q) at tokens drawn from p."""
    return np.exp(q - p) - 1 - (q - p)


def of_row(module, row):
    """Log-probabilities of a row's response tokens, with their gradient."""
    real = np.flatnonzero(MASK[row])
    tokens = torch.tensor(IDS[row, real])
    logs = module(tokens[None]).logits[0, :-1].double().log_softmax(-1)
    return logs.gather(-1, tokens[1:, None])[:, 0][torch.tensor(TRAINED[row, real][1:])]


@torch.no_grad()
def score(module, head, tokens):
    hidden = module(torch.tensor(tokens)[None]).last_hidden_state[0, -1].numpy()
    return float(hidden @ head["head.weight"][0] + head["head.bias"][0])
