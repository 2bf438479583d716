"""Golden numbers, independent oracles of every metric, and what each loss is for."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fettle.losses.policy_gradient import cispo, dro, gspo, ppo


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def drawn(ratios: list[float], advantages: list[float], sampled: float = 0.2) -> tuple[Tensor, dict[str, Tensor]]:
    """One sequence whose tokens were drawn with probability ``sampled`` and now have these ratios to it."""
    sampling = row(*[math.log(sampled)] * len(ratios))
    logprobs = (sampling + torch.log(row(*ratios))).requires_grad_()
    return logprobs, {"sampling_logprobs": sampling, "advantages": row(*advantages)}


def slope(values: Tensor, logprobs: Tensor) -> list[float]:
    return torch.autograd.grad(values.sum(), logprobs)[0][0].tolist()


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective"), [(1.5, 1, 1.2), (0.5, -1, -0.8), (0.5, 1, 0.5), (1.5, -1, -1.5)]
)
def test_ppo_takes_the_worse_of_the_clipped_and_the_unclipped(ratio, advantage, objective):
    logprobs, inputs = drawn([ratio], [advantage])
    loss, _ = ppo(logprobs, **inputs)
    assert loss.item() == pytest.approx(-objective)


def test_ppo_bounds_each_side_on_its_own():
    logprobs, inputs = drawn([1.25, 1.35, 0.75, 0.85], [1, 1, -1, -1])
    loss, metrics = ppo(logprobs, **inputs, clip_low=0.2, clip_high=0.28)
    assert loss[0].tolist() == pytest.approx([-1.25, -1.28, 0.8, 0.85])
    assert metrics["clip_fraction_high"][0].tolist() == [0, 1, 0, 0]
    assert metrics["clip_fraction_low"][0].tolist() == [0, 0, 1, 0]
    assert slope(loss, logprobs) == pytest.approx([-1.25, 0, 0, 0.85])


def test_cispo_bounds_a_tokens_weight_and_still_learns_from_it():
    logprobs, inputs = drawn([8, 2, 0.5], [1, 1, -1], sampled=0.1)
    loss, metrics = cispo(logprobs, **inputs, ratio_low=1.0, ratio_high=4.0)
    assert loss[0].tolist() == pytest.approx([-4 * math.log(0.8), -2 * math.log(0.2), math.log(0.05)])
    assert slope(loss, logprobs) == pytest.approx([-4, -2, 1])
    assert metrics["clip_fraction"][0].tolist() == [1, 0, 1]
    assert slope(ppo(logprobs, **inputs)[0], logprobs) == [0, 0, 0]  # where PPO learns from none of them


def test_dro_pays_half_of_beta_times_the_squared_log_ratio():
    logprobs, inputs = drawn([2.0, 0.5], [1, -1])
    loss, _ = dro(logprobs, **inputs, beta=0.1)
    penalty = 0.05 * math.log(2) ** 2
    assert loss[0].tolist() == pytest.approx([-math.log(0.4) + penalty, math.log(0.1) + penalty])
    assert slope(loss, logprobs) == pytest.approx([-1 + 0.1 * math.log(2), 1 - 0.1 * math.log(2)])


def test_gspo_has_one_ratio_a_sequence_over_its_trained_tokens():
    logprobs, inputs = drawn([4.0, 9.0, 100.0], [1, 1, 1], sampled=0.001)
    loss, metrics = gspo(logprobs, **inputs, sequence_ratio_mask=row(1, 1, 0), clip_low=0.9, clip_high=9.0)
    assert metrics["ratio"][0].tolist() == pytest.approx([6.0, 6.0, 6.0])  # the geometric mean of 4 and 9
    assert loss[0].tolist() == pytest.approx([-6.0, -6.0, -6.0])


def test_gspo_under_sequence_mean_weights_has_the_gradient_of_its_paper():
    """arXiv:2507.18071, section 4.2: (1/G) Σ_i s_i A_i (1/|y_i|) Σ_t ∇ log π_t, where nothing is clipped."""
    ratios = torch.tensor([[1.2, 0.9, 1.1], [0.8, 1.3, 1.0]], dtype=torch.float64)
    mask = torch.tensor([[1.0, 1, 1], [1, 1, 0]], dtype=torch.float64)
    advantages = torch.tensor([[0.7], [-0.4]], dtype=torch.float64).expand(2, 3)
    sampling = torch.full((2, 3), math.log(0.3), dtype=torch.float64)
    logprobs = (sampling + ratios.log()).requires_grad_()
    loss, _ = gspo(
        logprobs,
        sampling_logprobs=sampling,
        advantages=advantages,
        sequence_ratio_mask=mask,
        clip_low=0.5,
        clip_high=0.5,
    )
    (got,) = torch.autograd.grad((loss * mask / (2 * mask.sum(-1, keepdim=True))).sum(), logprobs)
    s = [(1.2 * 0.9 * 1.1) ** (1 / 3), (0.8 * 1.3) ** (1 / 2)]
    expected = [[-s[0] * 0.7 / (2 * 3)] * 3, [s[1] * 0.4 / (2 * 2)] * 2 + [0.0]]
    np.testing.assert_allclose(got.numpy(), expected)


def test_gspo_clips_a_sequence_as_a_whole():
    logprobs, inputs = drawn([1.001, 1.001, 0.9995], [1, 1, 1])
    mask = torch.ones(1, 3, dtype=torch.float64)
    loss, metrics = gspo(logprobs, **inputs, sequence_ratio_mask=mask)  # the ratio is 1.0008, the bound 1.0004
    assert metrics["clip_fraction"][0].tolist() == [1, 1, 1]
    assert slope(loss, logprobs) == [0, 0, 0]
    assert loss[0].tolist() == pytest.approx([-1.0004] * 3)


def test_gspo_token_gives_each_token_the_sequences_ratio_and_its_own_gradient():
    """arXiv:2507.18071, eq. 14 and 16: s A_t ∇ log π_t, where nothing is clipped."""
    logprobs, inputs = drawn([1.2, 0.9, 1.1], [0.7, -0.4, 2.0])
    mask = row(1, 1, 1)
    loss, metrics = gspo(logprobs, **inputs, sequence_ratio_mask=mask, level="token", clip_low=0.5, clip_high=0.5)
    s = (1.2 * 0.9 * 1.1) ** (1 / 3)
    assert loss[0].tolist() == pytest.approx([-0.7 * s, 0.4 * s, -2.0 * s])
    assert slope(loss, logprobs) == pytest.approx([-0.7 * s, 0.4 * s, -2.0 * s])
    assert metrics["ratio"][0].tolist() == pytest.approx([s, s, s])


def test_gspo_token_is_clipped_by_the_sequences_ratio_token_by_token():
    logprobs, inputs = drawn([1.5, 1.5], [1.0, -1.0])
    loss, metrics = gspo(logprobs, **inputs, sequence_ratio_mask=row(1, 1), level="token", clip_low=0.2, clip_high=0.2)
    assert loss[0].tolist() == pytest.approx([-1.2, 1.5])
    assert slope(loss, logprobs) == pytest.approx([0.0, 1.5])
    assert metrics["clip_fraction"][0].tolist() == [1, 0]


@pytest.mark.parametrize("clip", [0.5, 3e-4], ids=["free", "clipped"])
def test_both_forms_of_gspo_have_one_gradient_where_a_sequence_has_one_advantage(clip):
    random = np.random.default_rng(0)
    mask = torch.tensor([[1.0, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    advantages = torch.tensor([[0.7], [-0.4], [1.3]], dtype=torch.float64).expand(3, 4)
    sampling = torch.tensor(-random.random((3, 4)))
    logprobs = (sampling + 0.1 * torch.tensor(random.normal(size=(3, 4)))).requires_grad_()
    found = []
    for level in ("sequence", "token"):
        values, _ = gspo(
            logprobs, sampling_logprobs=sampling, advantages=advantages, sequence_ratio_mask=mask, level=level,
            clip_low=clip, clip_high=clip,
        )  # fmt: skip
        weights = mask / mask.sum(-1, keepdim=True)
        found.append((values.detach(), torch.autograd.grad((values * weights).sum(), logprobs)[0]))
    torch.testing.assert_close(found[0], found[1])
    assert found[0][1].any()


def test_gspo_counts_the_tokens_of_its_own_mask():
    """A trained token beside them has the ratio, and no share in it."""
    logprobs, inputs = drawn([4.0, 9.0, 100.0], [1, 1, 1], sampled=0.001)
    wide = {"clip_low": 0.9, "clip_high": 9.0}
    loss, _ = gspo(logprobs, **inputs, sequence_ratio_mask=row(0.5, -1, 0), **wide)
    assert loss[0].tolist() == pytest.approx([-6.0, -6.0, -6.0])
    assert slope(loss, logprobs) == pytest.approx([-9.0, -9.0, 0.0])
    loss, _ = gspo(logprobs, **inputs, sequence_ratio_mask=row(0.5, -1, 0), level="token", **wide)
    assert slope(loss, logprobs) == pytest.approx([-6.0, -6.0, -6.0])


def test_every_metric_equals_its_numpy_oracle():
    random = np.random.default_rng(0)
    pi = random.uniform(0.05, 0.95, (6, 4))
    mu = np.clip(pi * random.uniform(0.4, 1.8, (6, 4)), 0.01, 0.99)
    advantages = random.normal(size=(6, 4))
    mask = np.array([[0, 1, 1, 1], [0, 0, 1, 1], [1, 0, 0, 0]] * 2)
    tensors = {"sampling_logprobs": torch.tensor(np.log(mu)), "advantages": torch.tensor(advantages)}
    logprobs = torch.tensor(np.log(pi))
    ratio = pi / mu
    sequence = np.array([np.prod(r[m == 1]) ** (1 / m.sum()) for r, m in zip(ratio, mask, strict=True)])
    sequence = np.broadcast_to(sequence[:, None], ratio.shape)
    far, blame = {"ratio": ratio, "kl_sampler": ratio - 1 - np.log(ratio)}, advantages < 0

    def clips(r, low, high):
        below, above = (r < low) & blame, (r > high) & ~blame
        return {"clip_fraction": below | above, "clip_fraction_low": below, "clip_fraction_high": above}

    cases = [
        (dro(logprobs, **tensors), far),
        (ppo(logprobs, **tensors), far | clips(ratio, 0.8, 1.2)),
        (
            cispo(logprobs, **tensors, ratio_low=0.7, ratio_high=1.1),
            far | {"clip_fraction": (ratio < 0.7) | (ratio > 1.1)},
        ),
        (
            gspo(logprobs, **tensors, sequence_ratio_mask=torch.tensor(mask)),
            far | clips(sequence, 0.9997, 1.0004) | {"ratio": sequence},
        ),
    ]
    for (_, metrics), oracle in cases:
        assert set(metrics) == set(oracle)
        for name, expected in oracle.items():
            np.testing.assert_allclose(metrics[name].numpy(), expected, err_msg=name)
            assert np.any(expected), f"{name} is 0 everywhere, and proves nothing"


def test_the_distance_to_the_sampler_is_never_negative_and_right_on_average():
    random = np.random.default_rng(1)
    mu, pi = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    tokens = random.choice(3, size=(1, 100_000), p=mu)
    inputs = {"sampling_logprobs": torch.tensor(np.log(mu)[tokens]), "advantages": torch.zeros(1, 100_000)}
    _, metrics = ppo(torch.tensor(np.log(pi)[tokens]), **inputs)
    assert (metrics["kl_sampler"] >= 0).all()
    assert metrics["kl_sampler"].mean().item() == pytest.approx(np.sum(mu * np.log(mu / pi)), rel=0.02)
