"""Limits cut an episode short, and say which did; whatever an environment does wrong fails its episode only."""

import asyncio
import math

import pytest

from fettle.config import Limits, SamplingParams
from fettle.environments import Observation, StepResult
from fettle.errors import ContextError, DataError, ModelError
from fettle.rollouts import episode, to_datum
from fettle.types import Failed, Message, Task, ToolSpec

from .conftest import Scripted

TASK = Task((Message("user", "What is 1 + 2 ?"),), {"answer": "3"}, "test")
PARAMS = SamplingParams(max_tokens=8, temperature=0.7, seed=5)


class Endless:
    """An environment that pays a quarter for every reply, and never ends."""

    async def reset(self, task: Task) -> Observation:
        return Observation(task.prompt)

    async def step(self, action: Message) -> StepResult:
        return StepResult((Message("user", "Go on."),), 0.25, False, False, {"patience": 0.25}, {"heard": 1.0})

    async def close(self) -> None:
        pass


class Full(Scripted):
    """A sampler whose context is full at the third turn."""

    async def sample(self, prompt, n, params):
        if len(self.prompts) == 2:
            raise ContextError("the prompt of request 0 has 64 tokens, which leaves no room")
        return await super().sample(prompt, n, params)


async def played(template, limits=None, environment=None, sampler=None):
    return await episode(
        TASK,
        environment or Endless(),
        sampler=sampler or Scripted([20, 21, 22]),
        template=template,
        params=PARAMS,
        limits=limits or Limits(),
    )


@pytest.mark.parametrize(
    ("limits", "turns", "ending"),
    [(Limits(turns=3), 3, "turns"), (Limits(tokens=6), 2, "tokens"), (Limits(seconds=1e-9), 1, "seconds")],
)
async def test_a_limit_truncates_and_what_was_earned_stays(template, limits, turns, ending):
    found = await played(template, limits)
    assert (len(found.turns), found.ending, found.truncated, found.terminated) == (turns, ending, True, False)
    assert found.reward == 0.25 * turns == found.components["patience"]
    assert found.measured == {"heard": 1.0}
    assert to_datum(found).scalars["unfinished"] == 1


async def test_the_last_reply_gets_the_tokens_that_are_left(template):
    sampler = Scripted([20, 21, 22])
    await played(template, Limits(tokens=4), sampler=sampler)
    assert [params.max_tokens for params in sampler.params] == [4, 1]


async def test_an_episode_that_outgrows_the_context_ends_there(template):
    found = await played(template, sampler=Full([20]))
    assert (len(found.turns), found.ending, found.reward) == (2, "context", 0.5)


async def test_a_task_that_fills_the_context_alone_is_an_error_that_names_it(template):
    sampler = Full([20])
    sampler.prompts += [[], []]
    with pytest.raises(ModelError, match=f"task {TASK.id} of test"):
        await played(template, sampler=sampler)


class Wrong(Endless):
    def __init__(self, answer) -> None:
        self.answer, self.closed = answer, False

    async def step(self, action: Message) -> StepResult:
        return await self.answer() if callable(self.answer) else self.answer

    async def close(self) -> None:
        self.closed = True


async def raising():
    raise KeyError("board")


async def away():
    raise TimeoutError("the board is away")


async def hanging():
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (raising, "raised KeyError: 'board'"),
        (hanging, "did not answer within 0.05 s"),
        ("done", "answered with str, and not with StepResult"),
        (StepResult((), math.nan, True, False, {"a": math.nan}), "paid nan as reward"),
        (StepResult((), 1.0, True, False, {"a": True}), "paid True as a"),
        (StepResult((), 1.0, True, False, {"a": 0.5}), "paid 1, and its components sum to 0.5"),
        (StepResult((), 10**400, True, False, {"a": 10**400}), "paid a number that is too large as reward"),
        (StepResult((), "1", True, False, {}), "paid '1' as reward"),
        (StepResult((), 1.0, True, False, ["a"]), "paid a list of str, and not numbers by name"),
        (StepResult((), 1.0, True, False, {"a": 1.0}, {"moves": "many"}), "measured 'many' as moves"),
        (StepResult((), 1.0, True, False, {"a": 1.0}, [1]), "measured a list of int, and not numbers by name"),
        (StepResult(None, 0.0, False, False, {}), "messages are a NoneType"),
        (StepResult(("Go on.",), 0.0, False, False, {}), "messages are a tuple of str, and must be"),
        (StepResult((Message("user", None),), 0.0, False, False, {}), "a message whose content is a NoneType"),
        (StepResult((Message("alien", "Go on."),), 0.0, False, False, {}), "a message of 'alien'"),
        (away, "raised TimeoutError: the board is away"),
    ],
)
async def test_what_an_environment_does_wrong_fails_its_episode(template, answer, reason):
    environment = Wrong(answer)
    found = await played(template, Limits(step_seconds=0.05), environment)
    assert isinstance(found, Failed)
    assert reason in found.reason
    assert environment.closed


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (Observation(()), "a player is to speak that was told nothing"),
        (Observation(({"role": "user", "content": "Go."},)), "messages are a tuple of dict"),
        (Observation(TASK.prompt, tools=("calculator",)), "tools are a tuple of str"),
        (Observation(TASK.prompt, tools=(ToolSpec("add", "Adds.", "{"),)), "tool add has a schema that is no JSON"),
        (None, "answered with NoneType, and not with Observation"),
    ],
)
async def test_a_beginning_that_is_none_fails_its_episode(template, first, reason):
    class Strange(Endless):
        async def reset(self, task):
            return first

    found = await played(template, environment=Strange())
    assert isinstance(found, Failed)
    assert reason in found.reason


@pytest.mark.parametrize("close", [raising, hanging])
async def test_an_environment_that_cannot_be_closed_has_failed(template, close):
    class Open(Endless):
        async def close(self):
            await close()

    found = await played(template, Limits(turns=1, step_seconds=0.05), Open())
    assert isinstance(found, Failed)
    assert found.reason.startswith("when it was closed, the environment ")


async def test_what_ended_an_episode_is_told_and_not_how_its_environment_was_closed(template):
    class Lost(Wrong):
        async def close(self):
            raise KeyError("door")

    found = await played(template, environment=Lost(raising))
    assert isinstance(found, Failed)
    assert found.reason == "the environment raised KeyError: 'board'"
    full = Full([20])
    full.prompts += [[], []]
    with pytest.raises(ModelError, match="leaves no room"):
        await played(template, environment=Lost(raising), sampler=full)


async def test_a_reply_that_the_context_cut_is_told_apart_from_one_that_reached_its_own_limit(template):
    once = Wrong(StepResult((), 1.0, True, False, {"a": 1.0}))
    for drawn, ending in ((3, "context"), (PARAMS.max_tokens, "tokens")):
        found = await played(template, environment=once, sampler=Scripted([20] * drawn, stop_reason="length"))
        assert (found.ending, found.truncated, found.reward) == (ending, True, 1.0)


async def test_what_a_template_refuses_fails_the_episode_in_which_it_is_said(template):
    class Choosy:
        def __getattr__(self, name):
            return getattr(template, name)

        def continuation(self, sampled, new):
            raise DataError("the chat template of this model refuses a conversation of user, assistant, system")

    found = await played(Choosy())
    assert isinstance(found, Failed)
    assert "refuses a conversation of user, assistant, system" in found.reason
