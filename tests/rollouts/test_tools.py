"""Episodes with tools: calls reach the environment by name, and nothing of the history is written anew."""

import json

from fettle.chat import Template
from fettle.config import SamplingParams
from fettle.environments import Observation, StepResult
from fettle.rollouts import episode, to_datum
from fettle.types import Message, Task, ToolSpec

from .conftest import Scripted

TASK = Task((Message("user", "What is 1 + 2 ?"),), {"answer": "3"}, "test")
PARAMS = SamplingParams(max_tokens=64, seed=5)
ADD = ToolSpec("add", "Adds.", '{"type": "object", "properties": {"a": {}, "b": {}}}')


class Counting:
    """Answers every call with the number of calls so far; a reply without one ends the episode."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    async def reset(self, task: Task) -> Observation:
        return Observation(task.prompt, tools=(ADD,))

    async def step(self, action: Message) -> StepResult:
        self.heard.append(action)
        if not action.tool_calls:
            return StepResult((), 1.0, True, False, {"solved": 1.0})
        answers = (Message("tool", f"result of {call.id}", tool_call_id=call.id) for call in action.tool_calls)
        return StepResult(tuple(answers), 0.0, False, False, {})

    async def close(self) -> None:
        pass


def drawn(template: Template, text: str) -> list[int]:
    return template._encoded(text)


async def test_calls_are_named_by_their_turn_and_number_and_answered(template):
    call = "<tool_call>" + json.dumps({"name": "add", "arguments": {"a": 1, "b": 2}}) + "</tool_call>"
    replies = [drawn(template, f"{call}{call}<|end|>"), drawn(template, f"{call}"), drawn(template, "three<|end|>")]
    counting, sampler = Counting(), Scripted(*replies)
    trajectory = await episode(TASK, counting, sampler=sampler, template=template, params=PARAMS)
    calls = [[call.id for call in message.tool_calls] for message in counting.heard]
    assert calls == [["call_0_0", "call_0_1"], ["call_1_0"], []]
    assert counting.heard[0].tool_calls[0].arguments == '{"a": 1, "b": 2}'
    assert [message.content for message in trajectory.messages if message.role == "tool"][-1] == "result of call_1_0"
    datum = to_datum(trajectory)
    assert datum.tokens[datum.loss_mask > 0].tolist() == [token for reply in replies for token in reply]


async def test_a_broken_call_reaches_the_environment_as_one_of_no_name(template):
    counting = Counting()
    sampler = Scripted(drawn(template, "<tool_call>oops<|end|>"), drawn(template, "three<|end|>"))
    await episode(TASK, counting, sampler=sampler, template=template, params=PARAMS)
    [call] = counting.heard[0].tool_calls
    assert (call.id, call.name, call.arguments) == ("call_0_0", "", "oops")
