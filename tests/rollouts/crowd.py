"""Two thousand episodes at once, in a process of their own, which prints what they took as JSON."""

import asyncio
import json
import resource
import sys
from collections.abc import Sequence

from fettle.chat import Template, load_tokenizer
from fettle.config import SamplingParams
from fettle.environments import Observation, StepResult
from fettle.rollouts import episode
from fettle.types import Completion, Message, Task

TURNS = 4
REPLY = list(range(20, 84))


class Gate:
    """Satisfies ``Sampler``: nobody's first turn is answered before everybody has asked for theirs."""

    policy_version = 0

    def __init__(self, size: int) -> None:
        self.size, self.here, self.most, self.drawn = size, 0, 0, 0
        self.open = asyncio.Event()

    async def sample(self, prompt: Sequence[int], n: int, params: SamplingParams) -> list[Completion]:
        self.here += 1
        self.most = max(self.most, self.here)
        if self.most == self.size:
            self.open.set()
        await self.open.wait()
        await asyncio.sleep(0)
        self.here -= 1
        self.drawn += 1
        return [Completion(list(REPLY), [-0.5] * len(REPLY), "stop", 0)]


class Talk:
    """Every reply is answered at some length, and the last one is paid."""

    open = 0

    def __init__(self) -> None:
        self.left = TURNS

    async def reset(self, task: Task) -> Observation:
        Talk.open += 1
        return Observation(task.prompt)

    async def step(self, action: Message) -> StepResult:
        self.left -= 1
        await asyncio.sleep(0)
        if self.left:
            return StepResult((Message("user", f"{self.left} to go " * 8),), 0.0, False, False, {})
        return StepResult((), 1.0, True, False, {"patience": 1.0})

    async def close(self) -> None:
        Talk.open -= 1


async def main(model: str, size: int) -> None:
    template, gate = Template(load_tokenizer(model)), Gate(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tasks = (
        Task((Message("user", f"What is {number} + 2 ?"),), {"answer": str(number)}, "crowd") for number in range(size)
    )
    params = SamplingParams(max_tokens=len(REPLY))
    found = await asyncio.gather(
        *(episode(task, Talk(), sampler=gate, template=template, params=params) for task in tasks)
    )
    told = {
        "at_once": gate.most,
        "draws": gate.drawn,
        "left_open": Talk.open,
        "reward": sum(each.reward for each in found),
        "tokens": sum(len(each.tokens) for each in found),
        "mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
