"""Episodes with tools: calls are answered, and a reply without any is the answer."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

from fettle.environments.base import Observation, StepResult
from fettle.environments.tools.tool import Tool, ToolMistake, check_names
from fettle.environments.tools.workspace import Workspace
from fettle.errors import EnvironmentFault, did_you_mean
from fettle.types import Message, Task, ToolCall

CALLS = "calls"
"""The component of what calls cost."""
Scored = Callable[[str, Task], Awaitable[dict[str, float]]]
Brought = Callable[[Workspace], Awaitable[Sequence[Tool]]]


class ToolEnvironment:
    """Shows a task and tools, runs what is called, and pays the answer.

    A call costs ``call_cost``, whatever comes of it, and nothing but the answer earns: so no calls, however many, earn
    more than none. One call more than ``max_calls``, and the episode is cut short.
    """

    def __init__(
        self,
        brought: Brought,
        scored: Scored,
        *,
        call_cost: float,
        max_calls: int,
        call_seconds: float,
        result_characters: int,
        closed: Callable[[], Awaitable[None]],
    ) -> None:
        """``brought`` makes the tools of this episode around its files, and ``closed`` gives them back."""
        self._brought, self._scored, self._closed = brought, scored, closed
        self._call_cost, self._max_calls = call_cost, max_calls
        self._call_seconds, self._result_characters = call_seconds, result_characters
        self._workspace = Workspace()
        self._tools: dict[str, Tool] = {}
        self._task: Task | None = None
        self._over = False
        self._calls = self._mistakes = 0

    async def reset(self, task: Task) -> Observation:
        """The prompt of ``task``, and what may be called."""
        if self._task is not None:
            raise EnvironmentFault(
                f"an environment plays one episode, and this one has begun task {self._task.id}: make another"
            )
        self._task = task
        self._workspace = Workspace(task.data.get("files"))
        tools = await self._brought(self._workspace)
        check_names(tools)
        self._tools = {tool.name: tool for tool in tools}
        return Observation(task.prompt, tools=tuple(tool.spec for tool in tools))

    async def step(self, action: Message) -> StepResult:
        """What the calls came to; or, where there are none, what the answer earns, and the episode is over.

        Raises:
            EnvironmentFault: a tool or the reward broke, or took too long; or there is no episode to step.
        """
        if self._task is None or self._over:
            raise EnvironmentFault("there is no episode to step: reset a new environment with a task first")
        if not action.tool_calls:
            return await self._answered(action.content, self._task)
        allowed = action.tool_calls[: self._max_calls - self._calls]
        messages = [Message("tool", await self._result(call), tool_call_id=call.id) for call in allowed]
        self._calls += len(allowed)
        self._over = len(allowed) < len(action.tool_calls)
        costs = {CALLS: -self._call_cost * len(allowed)} if allowed and self._call_cost else {}
        return StepResult(
            () if self._over else tuple(messages),
            sum(costs.values()),
            terminated=False,
            truncated=self._over,
            components=costs,
            measured=self._measured(),
        )

    async def close(self) -> None:
        """Give the tools back."""
        self._over = True
        await self._closed()

    async def _answered(self, reply: str, task: Task) -> StepResult:
        self._over = True
        components = await self._scored(reply, task)
        written = Workspace(task.data.get("written")).files
        if any(self._workspace.files.get(name, "").strip() != text.strip() for name, text in written.items()):
            components = {name: min(value, 0.0) for name, value in components.items()}
        return StepResult((), sum(components.values()), True, False, components, measured=self._measured())

    async def _result(self, call: ToolCall) -> str:
        try:
            text = await self._ran(call)
        except ToolMistake as mistake:
            self._mistakes += 1
            told = str(mistake)
            text = f"Error: {told}" if told.endswith("?") else f"Error: {told}."
        text = text.encode(errors="replace").decode()  # half a surrogate pair is nothing that a template can write
        cut = self._result_characters
        return text if len(text) <= cut else f"{text[:cut]} (cut: {len(text)} characters in all)"

    async def _ran(self, call: ToolCall) -> str:
        if not call.name:
            raise ToolMistake("that was no call: write one JSON object with a name and arguments")
        if call.name not in self._tools:
            near = did_you_mean(call.name, self._tools) or f": use {', '.join(self._tools)}"
            raise ToolMistake(f"there is no tool {call.name[:64]!r}{near}")
        try:
            arguments = json.loads(call.arguments)
        except (ValueError, RecursionError) as error:
            raise ToolMistake(f"the arguments of {call.name} are no JSON") from error
        if not isinstance(arguments, dict):
            raise ToolMistake(f"the arguments of {call.name} are no object: give each by its name")
        time = asyncio.timeout(self._call_seconds)
        try:
            async with time:
                return await self._tools[call.name].run(arguments)
        except TimeoutError as error:
            if not time.expired():  # it is the tool's own
                raise
            raise EnvironmentFault(
                f"the tool {call.name} did not answer within {self._call_seconds:g} s: raise call_seconds, or mend it"
            ) from error

    def _measured(self) -> dict[str, float]:
        return {"tools/calls": float(self._calls), "tools/mistakes": float(self._mistakes)}
