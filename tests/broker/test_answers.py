"""Who is told of answers, and what they are worth while the journal cannot be written."""

import asyncio

from fettle.calls import Forward
from fettle.config import CausalLM
from tests.broker.processes import REQUEST, STEP, call, data, done, opened


async def test_everything_that_is_answered_from_here_on_is_told_once_also_what_was_taken_up(started):
    one = await started()
    opened(one)
    await done(one, call(1), STEP)
    one.backend.open_gate.clear()
    one.broker.submit("run", 0, 2, Forward(data(5), CausalLM()))
    one.broker.submit("run", 0, 3, call(2)).acknowledge()
    two = await started()
    await two.broker.drained()
    two.backend.open_gate.clear()
    under_way = two.broker.submit("run", 0, 4, Forward(data(6), CausalLM()))
    told: list[str] = []
    two.broker.when_answered(lambda promise: told.append(promise.id))
    two.broker.draw("drawn", "model", [REQUEST])
    two.backend.open_gate.set()
    await asyncio.gather(under_way.settled(), two.broker.promise("drawn").settled())
    await two.broker.drained()
    assert sorted(told) == ["drawn", "run.0.2", "run.0.3", "run.0.4"]
