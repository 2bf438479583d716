"""Two clients interleaved get what two local instances give, turn by turn."""

from fettle.types import Message
from tests.environments.remote.counting import CALLS, CountingSuite


async def test_two_clients_interleaved_for_1000_steps_equal_two_local_instances(served):
    local = CountingSuite(turns=1000)
    suites = [served.suite(settings={"turns": 1000}) for _ in range(2)]
    assert suites[0].training_task(3).prompt == local.training_task(3).prompt
    remote = [suite.environment() for suite in suites]
    here = [local.environment() for _ in remote]
    for place, (theirs, ours) in enumerate(zip(remote, here, strict=True)):
        first = await theirs.reset(suites[place].training_task(place))
        assert first == await ours.reset(local.training_task(place))
    for turn in range(1000):
        for place in (0, 1) if turn % 3 else (1, 0):
            action = Message("assistant", f"{place} " * (turn % 11)) if turn % 7 else CALLS
            theirs, ours = await remote[place].step(action), await here[place].step(action)
            assert theirs == ours
            assert list(theirs.components) == list(ours.components)
    assert theirs.terminated
    for each in remote:
        await each.close()
