"""One episode: a policy and an environment take turns, token-in and token-out."""

from dataclasses import replace

from fettle.chat import Template
from fettle.config import SamplingParams
from fettle.engine import Sampler
from fettle.environments import Environment
from fettle.errors import EnvironmentFault, ModelError
from fettle.randomness import key
from fettle.types import Failed, Message, Task, Trajectory, Turn


async def episode(
    task: Task,
    environment: Environment,
    *,
    sampler: Sampler,
    template: Template,
    params: SamplingParams,
    group: str = "",
) -> Trajectory | Failed:
    """Play ``task`` to its end. What was sampled is what will be trained on: nothing is re-tokenised.

    ``params.seed`` names the episode; each turn draws from a seed of its own. A fault of the environment makes
    the episode ``Failed``; a fault of the engine is raised.
    """
    try:
        return await _played(task, environment, sampler, template, params, group)
    except EnvironmentFault as fault:
        return Failed(task, fault.message, group)
    finally:
        await environment.close()


async def _played(
    task: Task, environment: Environment, sampler: Sampler, template: Template, params: SamplingParams, group: str
) -> Trajectory:
    first = await environment.reset(task)
    messages: list[Message] = list(first.messages)
    observation = template.prompt(messages)
    history: list[int] = []
    turns: list[Turn] = []
    components: dict[str, float] = {}
    while True:
        history += observation
        seed = key(params.seed, "turn", len(turns))
        drawing = params.model_copy(update={"seed": seed, "continued": not first.one_reply})
        try:
            completion = (await sampler.sample(history, 1, drawing))[0]
        except ModelError as error:
            raise ModelError(f"task {task.id} of {task.source}, {_beginning(task)}: {error.message}") from error
        action = template.reply(completion.tokens)
        result = await environment.step(action)
        turns.append(Turn(observation, completion, result.reward))
        components = {**components, **{n: components.get(n, 0.0) + value for n, value in result.components.items()}}
        messages += [action, *result.messages]
        if result.terminated or result.truncated:
            break
        observation = template.continuation(completion.tokens, result.messages)
        history += completion.tokens
    cut_short = result.truncated or completion.stop_reason == "length"
    return Trajectory(
        task=task,
        turns=tuple(turns),
        messages=tuple(messages),
        terminated=not cut_short,
        truncated=cut_short,
        components=components,
        temperature=params.temperature,
        group=group,
    )


def _beginning(task: Task) -> str:
    return f"which begins {task.prompt[-1].content[:60]!r}"


def shifted(trajectory: Trajectory, amount: float, component: str) -> Trajectory:
    """The trajectory with ``amount`` added to its last turn's reward, under a name of its own."""
    last = trajectory.turns[-1]
    turns = (*trajectory.turns[:-1], replace(last, reward=last.reward + amount))
    return replace(trajectory, turns=turns, components={**trajectory.components, component: amount})
