"""Rewards of a verifiers task, of one reply. The sandbox imports this too, and there nothing may be imported later."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import verifiers.v1.tasksets  # noqa: F401  where verifiers looks for a taskset first
from verifiers import __version__
from verifiers.v1 import AgentConfig, Task, Trace
from verifiers.v1.graph import MessageNode
from verifiers.v1.state import state_cls
from verifiers.v1.trace import AgentInfo, TraceTask, VersionInfo
from verifiers.v1.utils.loaders import task_type, taskset_config_type

Scores = dict[str, dict[str, float]]
"""``rewards``, weighted, and ``metrics``, by name."""
AGENT = AgentInfo(config=AgentConfig())


def task_of(taskset: str, settings: Mapping[str, Any], data: Mapping[str, Any]) -> Any:
    """The task of these data, with its settings: what a taskset yields, without its loading anything."""
    kind = task_type(taskset)
    config = taskset_config_type(taskset).model_validate({**settings, "id": taskset})
    return kind(kind.data_type().model_validate(data), config.task)


async def scores(
    taskset: str, settings: Mapping[str, Any], data: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]
) -> Scores:
    """What the task's own rewards and metrics say of a conversation, of which the last message is the policy's."""
    task: Task[Any] = task_of(taskset, settings, data)
    trace = Trace(
        task=TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash),
        state=state_cls(type(task))(),
        agent=AGENT,
        verifiers=VersionInfo(version=__version__),
    )
    for index, message in enumerate(messages):
        node = {"parent": index - 1 if index else None, "message": message, "sampled": index == len(messages) - 1}
        trace.nodes.append(MessageNode.model_validate(node))
    trace.ok = True
    trace.stop("agent_completed")
    await task.score(trace)
    return {
        "rewards": {name: reward.value for name, reward in trace.rewards.items() if reward is not None},
        "metrics": {name: value for name, value in trace.metrics.items() if value is not None},
    }


def score(taskset: str, settings: dict[str, Any], data: dict[str, Any], messages: list[dict[str, Any]]) -> Scores:
    """As ``scores``, for whoever has no event loop."""
    return asyncio.run(scores(taskset, settings, data, messages))
