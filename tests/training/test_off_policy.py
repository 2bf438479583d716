"""Groups learned from again: kept with the checkpoints, corrected for their age, and as good as fresh ones."""

from collections.abc import AsyncIterator

import numpy as np
import pytest

from fettle.broker import Broker
from fettle.chat import load_tokenizer
from fettle.config import AdamW, CausalLM, ImportanceSampling, LocalEngine, PolicySpec, Replay, TinyModel
from fettle.engine import Policy
from fettle.engine.local import LocalBackend, make_tiny_model
from fettle.errors import CheckpointError
from fettle.rollouts import Group
from fettle.training.off_policy import Memory
from fettle.types import Completion, Datum, Message, Task, Trajectory, Turn, datum

from .conftest import QUESTION, small, trained
from .games import Game, length
from .skewed import PROMPT, every_reply, exact

TASK = Task((Message("user", "?"),), {"answer": "!"}, "test")


def group(name: str, version: int) -> Group:
    turn = Turn([1], Completion([5], [-0.1], "stop", version), 1.0)
    return Group(TASK, (Trajectory(TASK, (turn,), (), True, False, group=name),), ())


def memory(folder, **settings) -> Memory:
    return Memory(Replay.model_validate({"capacity": 4, "groups": 2, **settings}), seed=0, checkpoints=folder)


def names(groups: list[Group]) -> set[str]:
    return {one.trajectories[0].group for one in groups}


def test_a_step_recalls_earlier_groups_and_never_its_own(tmp_path):
    kept = memory(tmp_path)
    found, row = kept.recalled([group("a", 0), group("b", 0)], step=0, policy_version=0)
    assert (found, row) == ([], {"replay/groups": 0.0, "replay/age_mean": 0.0})
    found, row = kept.recalled([group("c", 3)], step=1, policy_version=3)
    assert names(found) == {"a", "b"}
    assert row == {"replay/groups": 2.0, "replay/age_mean": 3.0}


async def test_what_was_saved_goes_on_as_if_it_had_not_been(tmp_path):
    kept, other = memory(tmp_path), memory(tmp_path)
    kept.recalled([group(name, 0) for name in "abcd"], step=0, policy_version=0)
    await kept.save("step-000001.replay")
    other.restore(tmp_path / "step-000001.replay")
    for step in (1, 2):
        one, two = (each.recalled([group(str(step), step)], step=step, policy_version=step) for each in (kept, other))
        assert names(one[0]) == names(two[0])


def test_a_checkpoint_without_its_groups_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"groups\.jsonl cannot be read .* or start the run anew"):
        memory(tmp_path).restore(tmp_path)


async def test_each_step_learns_from_new_groups_and_old_ones(tiny, tmp_path):
    run = small(
        tiny, preset="off_policy", replay={"groups": 3, "max_age": 2}, steps=5, optimizer={"learning_rate": 0.01}
    )
    rows = (await trained(run, tmp_path, [Game(length)])).memory
    assert rows.column("replay/groups") == [0.0, 2.0, 3.0, 3.0, 3.0]
    assert max(rows.column("replay/age_mean")) <= 2
    assert rows.column("policy/ratio")[0] == pytest.approx(1)
    assert all(spread > 0 for spread in rows.column("policy/ratio_std")[1:])
    shares = rows.column("policy/effective_sample_size")
    assert shares[0] == pytest.approx(1)
    assert all(0 < share < 1 for share in shares[1:])


async def test_what_is_told_of_a_batch_is_told_of_the_new_groups_alone(tiny, tmp_path):
    """Where nothing is learned, replay changes nothing of what is drawn, nor of what is told and follows of it."""
    other = make_tiny_model(TinyModel(hidden=32, layers=1, heads=2, seed=1), tmp_path / "other", texts=[QUESTION] * 20)
    frozen = {
        "optimizer": {"learning_rate": 1e-12}, "loss": {"kl": {"coefficient": 0.1}}, "reference": other,
        "kl_control": {"target": 1.0, "horizon": 50},
    }  # fmt: skip
    with_replay, without = [
        (await trained(small(tiny, replay=replay, **frozen), tmp_path / name, [Game(length)])).memory
        for name, replay in (("with", {"groups": 2}), ("without", None))
    ]
    told = ["reward/mean", "reward/std", "rollout/tokens_mean", "progress/step_tokens", "policy/kl"]
    for name in (*told, "policy/kl_coefficient"):
        assert with_replay.column(name) == without.column(name)
    assert len(set(without.column("policy/kl_coefficient"))) > 1


@pytest.fixture
async def policy(tiny, tmp_path) -> AsyncIterator[Policy]:
    engine = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path))
    yield await engine.create_policy(PolicySpec(model=tiny))
    engine.close()


async def moved(policy: Policy) -> None:
    """Train it away from where it was."""
    shown = datum([*PROMPT, 9, 8, 7], [0, 0, 0, 1, 1, 1])
    for _ in range(20):
        await policy.forward_backward([shown], CausalLM())
        await policy.optim_step(AdamW(learning_rate=3e-3))


@pytest.mark.parametrize("form", ["truncated", "cispo"])
async def test_corrected_for_their_age_old_replies_teach_what_new_ones_would(policy, tiny, form):
    """Drawn by an earlier policy, value and gradient are those of the policy's own draws; uncorrected, they are not."""
    vocabulary, loss = len(load_tokenizer(tiny)), ImportanceSampling(form=form)
    old = await exact(await policy.sampler(), PROMPT, vocabulary)
    await moved(policy)
    new = await exact(await policy.sampler(), PROMPT, vocabulary)
    rewards = np.random.default_rng(1).normal(size=vocabulary)
    value = float(np.exp(new) @ rewards)
    assert abs(np.exp(old) @ rewards - value) > 0.05 * abs(value)
    result = await policy.forward(every_reply(old), ImportanceSampling())
    assert -result.loss == pytest.approx(value, rel=1e-3)

    async def gradient(*parts: list[Datum]) -> float:
        for part in parts:
            await policy.forward_backward(part, loss)
        return (await policy.optim_step(AdamW(learning_rate=1e-12))).grad_norm

    size = await gradient(every_reply(new))
    assert await gradient(every_reply(new, sign=-1.0), every_reply(old)) < 1e-3 * size
    as_if_new = [
        datum(one.tokens, one.loss_mask, **{**one.streams, "sampling_logprobs": other.streams["sampling_logprobs"]})
        for one, other in zip(every_reply(old), every_reply(new), strict=True)
    ]
    assert await gradient(every_reply(new, sign=-1.0), as_if_new) > 0.05 * size


def arm(reply: str, task: Task) -> float:
    """A bandit of four arms, and nothing for what is none of them."""
    return {"a": 0.2, "b": 0.4, "c": 0.6, "d": 1.0}.get(reply, 0.0)


async def test_with_half_of_it_replayed_a_run_ends_where_an_on_policy_run_does(babbler, tmp_path):
    """Both learn the best of four arms from as many groups a step; of the one's, half are old."""
    shared = {
        "preset": "off_policy", "steps": 30, "group_size": 4, "sampling": {"max_tokens": 1}, "minibatches": 2,
        "optimizer": {"learning_rate": 0.002, "beta2": 0.99}, "evaluation": {"every": 30, "tasks": 4},
        "checkpoints": {"every": 30},
    }  # fmt: skip
    runs = {
        "on-policy": small(babbler, groups_per_step=16, **{**shared, "replay": None}),
        "replayed": small(babbler, groups_per_step=8, **{**shared, "replay": {"groups": 8, "max_age": 16}}),
    }
    ends = {}
    for name, run in runs.items():
        rewards = (await trained(run, tmp_path / name, [Game(arm)])).memory.column("reward/mean")
        assert np.mean(rewards[:2]) < 0.65
        ends[name] = np.mean(rewards[-5:])
    assert ends["on-policy"] > 0.9
    assert ends["replayed"] == pytest.approx(ends["on-policy"], abs=0.05)


@pytest.mark.parametrize("other", [{"max_staleness": 1}, {"advantage": "batch_normalized"}, {"dynamic_sampling": {}}])
def test_what_compares_a_batch_or_ages_it_otherwise_is_refused(other):
    with pytest.raises(ValueError, match=r"replay (learns from groups of earlier steps|already learns)"):
        small("unused", preset="off_policy", **other)
