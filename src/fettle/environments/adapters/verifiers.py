"""Tasksets of the verifiers package: a task is asked once, and its own rewards score the reply."""

import inspect
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

from pydantic import ValidationError
from verifiers.v1 import Env, Taskset
from verifiers.v1 import Task as VerifiersTask
from verifiers.v1.types import content_text
from verifiers.v1.utils.loaders import environment_class, import_taskset, taskset_class, taskset_config_type

from fettle.config import Verifiers
from fettle.config.document import Document
from fettle.config.explain import sentences
from fettle.environments.adapters.verifiers_scores import Scores, scores
from fettle.environments.base import Environment, StepResult, Suite
from fettle.environments.jsonl import ListedTasks
from fettle.environments.single_turn import SingleTurn
from fettle.errors import ConfigError, DataError, EnvironmentFault, FettleError
from fettle.sandbox import isolation, sandbox
from fettle.types import Message, Task

SCORE = "fettle.environments.adapters.verifiers_scores:score"
HOOKS = ("setup", "finalize", "stage_verifier", "runtime_env")
"""Methods with which a task works on the machine of an agent, and here there is none."""


def suite(config: Verifiers) -> Suite:
    """The tasks of a taskset.

    Raises:
        ConfigError: there is no such taskset, a setting of it is wrong, it fails, it asks for what cannot be had
            here (a machine, tools, turns of its own), or nothing here isolates its scoring.
        DataError: a task is not made of text, or there are too few different ones to hold some out.
    """
    if config.scoring == "sandbox":
        isolation(config.sandbox)
    return VerifiersSuite(config, [_task(config, task) for task in _loaded(config)])


class VerifiersSuite:
    """Satisfies ``Suite``."""

    def __init__(self, config: Verifiers, tasks: Sequence[Task]) -> None:
        self.name = config.taskset
        self._config = config
        self._tasks = ListedTasks(config.taskset, tasks, seed=config.seed, heldout=config.heldout)

    def training_task(self, index: int) -> Task:
        """Each task once in as many indices as there are tasks."""
        return self._tasks.training_task(index)

    def heldout_tasks(self) -> Sequence[Task]:
        """The tasks kept for evaluation, each prompt once."""
        return self._tasks.heldout_tasks()

    def environment(self) -> Environment:
        """A new environment, for one reply."""
        return SingleTurn(partial(_paid, self._config))


async def _paid(config: Verifiers, action: Message, task: Task) -> StepResult:
    """What the task's rewards come to.

    Raises:
        EnvironmentFault: a reward failed or took too long, or there is none.
    """
    found = await _scores(config, action, task)
    rewards = found["rewards"]
    if not rewards:
        raise EnvironmentFault(f"no reward of {config.taskset} scored task {task.id}: it needs one")
    return StepResult((), sum(rewards.values()), True, False, rewards, measured=found["metrics"])


async def _scores(config: Verifiers, action: Message, task: Task) -> Scores:
    said = [{"role": message.role, "content": message.content} for message in (*task.prompt, action)]
    given: tuple[Any, ...] = (config.taskset, dict(config.settings), task.data["task"], said)
    if config.scoring == "sandbox":
        packages = (import_taskset(config.taskset).__name__,)
        found: Any = await sandbox(config.sandbox).trusted(SCORE, *given, packages=packages)
        checked: Scores = found
        return checked
    try:
        return await scores(*given)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise EnvironmentFault(f"rewards of {config.taskset} failed on task {task.id} ({why})") from error


def _loaded(config: Verifiers) -> list[Any]:
    """The tasks of the taskset, which is somebody else's, and may fail in any way."""
    try:
        made = _taskset(config)
        return list(itertools.islice(made, config.most))
    except FettleError:
        raise
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"the taskset {config.taskset} of verifiers cannot be loaded ({why})") from error


def _taskset(config: Verifiers) -> Taskset[Any, Any]:
    kind = taskset_class(config.taskset)
    model = taskset_config_type(config.taskset)
    try:
        settings = model.model_validate({**config.settings, "id": config.taskset})
    except ValidationError as error:
        document = Document(dict(config.settings), {(): f"settings of {config.taskset}"})
        raise ConfigError("\n".join(sentences(error, model, document))) from error
    _check_playable(config, kind, settings)
    return kind(settings)


def _check_playable(config: Verifiers, kind: type[Taskset[Any, Any]], settings: Any) -> None:
    task = kind.task_type()
    environment = environment_class(config.taskset)
    wants = [
        *(f"a method {name} that works on an agent's machine" for name in HOOKS if _overrides(task, name)),
        *(["a container"] if task.NEEDS_CONTAINER else []),
        *(["tools"] if kind.toolsets(settings) or task.toolsets(settings.task) else []),
        *(["an Env with turns of its own"] if _overrides(environment, "run", Env) and _own(environment) else []),
    ]
    if wants:
        raise ConfigError(
            f"the taskset {config.taskset} of verifiers has {', '.join(wants)}: only tasks of one reply that are scored"
            " without a machine can be played here"
        )


def _overrides(kind: type, name: str, base: type = VerifiersTask) -> bool:
    return getattr(kind, name) is not getattr(base, name)


def _own(environment: type) -> bool:
    return not environment.__module__.startswith("verifiers.v1.envs.single_agent")


def _task(config: Verifiers, task: Any) -> Task:
    _check_scored(config, task)
    data = task.data.model_dump(mode="json")
    return Task(_prompt(config, task.data), {"task": data}, config.taskset)


def _check_scored(config: Verifiers, task: Any) -> None:
    for hook in (*task.hooks("reward"), *task.hooks("metric")):
        needed = inspect.signature(hook).parameters.get("runtime")
        if needed is not None and needed.default is inspect.Parameter.empty:
            raise ConfigError(
                f"{hook.__name__} of the taskset {config.taskset} scores what an agent left on its machine (runtime),"
                " and only replies can be scored here"
            )


def _prompt(config: Verifiers, data: Any) -> tuple[Message, ...]:
    place = f"task {data.idx} of {config.taskset}"
    if not data.prompt:
        raise DataError(f"{place} has no prompt: only tasks that ask something can be played here")
    said = [Message("user", data.prompt)] if isinstance(data.prompt, str) else data.prompt
    asked = [each if isinstance(each, Message) else _message(place, each) for each in said]
    system = data.system_prompt if data.system_prompt is not None else config.system
    if system is None or asked[0].role == "system":
        return tuple(asked)
    return (Message("system", system), *asked)


def _message(place: str, message: Any) -> Message:
    parts: Sequence[Any] = message.content if isinstance(message.content, list) else ()
    if message.role == "tool" or getattr(message, "tool_calls", None) or any(part.type != "text" for part in parts):
        raise DataError(f"{place} has a message that is not only text: only such can be played here")
    return Message(message.role, content_text(message.content))
