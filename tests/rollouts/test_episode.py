"""Episodes: token-in and token-out, faults apart from zeros, every draw with a seed of its own."""

import asyncio

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fettle.config import Arithmetic, SamplingParams
from fettle.environments import Environment, Observation, StepResult, suite
from fettle.errors import EnvironmentFault, ModelError
from fettle.rollouts import episode, group, shifted, to_datum
from fettle.rollouts.group import prompt_hash
from fettle.types import Failed, Message, Task, Trajectory

from .conftest import Scripted

TASK = Task((Message("user", "What is 1 + 2 ?"),), {"answer": "3"}, "test")
PARAMS = SamplingParams(max_tokens=8, temperature=0.7, seed=5)


class Talk:
    """An environment of several turns: each reply is answered, and the last one is rewarded."""

    def __init__(self, turns: int = 3, *, truncated: bool = False) -> None:
        self.left, self.truncated, self.closed = turns, truncated, 0

    async def reset(self, task: Task) -> Observation:
        return Observation(task.prompt)

    async def step(self, action: Message) -> StepResult:
        self.left -= 1
        if self.left:
            return StepResult((Message("user", f"{self.left} to go"),), 0.25, False, False, {})
        return StepResult((), 1.0, not self.truncated, self.truncated, {"solved": 1.0})

    async def close(self) -> None:
        self.closed += 1


class Broken(Talk):
    async def step(self, action: Message) -> StepResult:
        raise EnvironmentFault("the checker of task x broke: division by zero")


async def played(template, *replies, environment: Environment | None = None, **sampler) -> Trajectory | Failed:
    talk = environment or Talk()
    return await episode(TASK, talk, sampler=Scripted(*replies, **sampler), template=template, params=PARAMS, group="g")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(10, 270), min_size=1, max_size=9), min_size=3, max_size=3))
async def test_trained_ids_equal_sampled_ids_always(template, replies):
    """Any ids, also those that no text would be tokenised to, in every turn of the conversation."""
    sampler = Scripted(*replies)
    trajectory = await episode(TASK, Talk(), sampler=sampler, template=template, params=PARAMS)
    datum = to_datum(trajectory)
    trained = datum.tokens[datum.loss_mask > 0].tolist()
    assert trained == [token for reply in replies for token in reply]
    assert sampler.prompts[-1] == datum.tokens[: len(sampler.prompts[-1])].tolist()


async def test_each_prompt_is_the_whole_history_and_begins_with_the_one_before(template):
    sampler = Scripted([20, 21], [22], [23, 24])
    await episode(TASK, Talk(), sampler=sampler, template=template, params=PARAMS)
    first, second, third = sampler.prompts
    assert second[: len(first) + 2] == [*first, 20, 21]
    assert third[: len(second) + 1] == [*second, 22]


async def test_environment_tokens_are_masked_and_sampled_ones_carry_their_log_probabilities(template):
    trajectory = await played(template, [20, 21], [22], [23, 24])
    datum = to_datum(trajectory)
    expected = [-0.1, -0.2, -0.1, -0.1, -0.2]
    np.testing.assert_allclose(datum.streams["sampling_logprobs"][datum.loss_mask > 0], expected, rtol=1e-6)
    assert not datum.streams["sampling_logprobs"][datum.loss_mask == 0].any()
    assert datum.temperature == 0.7
    assert datum.group == "g"


async def test_rewards_of_turns_add_up(template):
    trajectory = await played(template, [20])
    assert [turn.reward for turn in trajectory.turns] == [0.25, 0.25, 1.0]
    assert trajectory.reward == 1.5
    assert trajectory.policy_version == 7


async def test_terminated_and_truncated_are_different_things(template):
    done = await played(template, [20])
    limited = await played(template, [20], environment=Talk(truncated=True))
    cut = await played(template, [20], stop_reason="length")
    assert [(t.terminated, t.truncated) for t in (done, limited, cut)] == [(True, False), (False, True), (False, True)]


async def test_a_fault_of_the_environment_is_failed_with_its_reason_and_never_a_zero(template):
    broken = Broken()
    outcome = await played(template, [20], environment=broken)
    assert isinstance(outcome, Failed)
    assert outcome.reason == "the checker of task x broke: division by zero"
    assert outcome.group == "g"
    assert broken.closed == 1


async def test_a_fault_of_the_engine_is_raised_and_the_environment_closed(template):
    class Out(Scripted):
        async def sample(self, prompt, n, params):
            raise ModelError("the prompt has 600 tokens, and the context is 512")

    talk = Talk()
    with pytest.raises(ModelError, match="600 tokens"):
        await episode(TASK, talk, sampler=Out([1]), template=template, params=PARAMS)
    assert talk.closed == 1


async def test_every_turn_of_every_member_draws_from_a_seed_of_its_own(template):
    sums = suite(Arithmetic(heldout=1))
    sampler = Scripted([20, 21])
    drawn = await group(
        sums.training_task(0), sums, size=6, sampler=sampler, template=template, params=PARAMS, name="g"
    )
    assert len(set(sampler.seeds)) == 6
    assert len(drawn.trajectories) == 6
    assert len({tuple(prompt) for prompt in sampler.prompts}) == 1


async def test_failures_stand_apart_from_the_rewards_of_a_group(template):
    class Sometimes:
        name = "sometimes"
        made = 0

        def environment(self) -> Environment:
            self.made += 1
            return Broken() if self.made == 2 else Talk()

    drawn = await group(TASK, Sometimes(), size=4, sampler=Scripted([20]), template=template, params=PARAMS, name="g")
    assert drawn.rewards == [1.5, 1.5, 1.5]
    assert [failure.reason for failure in drawn.failures] == ["the checker of task x broke: division by zero"]


async def test_a_shifted_reward_has_a_name_and_still_sums(template):
    trajectory = await played(template, [20])
    moved = shifted(trajectory, -0.5, "overlong")
    assert moved.reward == trajectory.reward - 0.5
    assert moved.components == {"reward": 0.5, "solved": 1.0, "overlong": -0.5}


class Fickle(Talk):
    """An environment whose reset depends on more than the task."""

    made = 0

    async def reset(self, task: Task) -> Observation:
        Fickle.made += 1
        said = "What is 2 + 2 ?" if Fickle.made == 2 else task.prompt[0].content
        return Observation((Message("user", said),))


class Suite:
    name = "fickle"

    def environment(self) -> Environment:
        return Fickle(1)


async def test_nothing_is_compared_that_began_with_another_prompt(template):
    """Members of a group are told apart by the hash of what the policy first saw."""
    Fickle.made = 0
    found = await group(TASK, Suite(), size=4, sampler=Scripted([20]), template=template, params=PARAMS, name="g")
    assert len(found.trajectories) == 3
    assert len({prompt_hash(each) for each in found.trajectories}) == 1
    [failed] = found.failures
    assert failed.group == "g"
    assert failed.reason.startswith("the episode began with another prompt than the first of its group")


async def test_where_the_engine_fails_in_one_episode_those_beside_it_end_and_are_closed(template):
    """Nobody would take what they draw."""
    made = []

    class Talks:
        def environment(self):
            made.append(Talk())
            return made[-1]

    class Failing(Scripted):
        async def sample(self, prompt, n, params):
            self.prompts.append(prompt)
            if len(self.prompts) < 4:
                await asyncio.sleep(600)
            raise ModelError("the engine is gone")

    with pytest.raises(ModelError, match="the engine is gone"):
        await group(TASK, Talks(), size=4, sampler=Failing([20]), template=template, params=PARAMS, name="g")
    assert [talk.closed for talk in made] == [1, 1, 1, 1]
