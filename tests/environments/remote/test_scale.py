"""Two thousand sessions at once, in memory that has a bound."""

import asyncio

from fettle.config import Remote
from fettle.environments.remote.client import RemoteSuite, connection
from fettle.types import Message
from tests.environments.remote.processes import process

SESSIONS = 2000
SERVER_MIB = 160
"""What the server's process may take: about 70 of it are Python and its packages."""


async def test_two_thousand_sessions_at_once_are_played_to_their_ends_in_bounded_memory():
    with process() as server:
        config = Remote(address=server.address, environment="counting", settings={"turns": 3})
        suite = RemoteSuite(config)
        meeting = asyncio.Barrier(SESSIONS)

        async def played(index: int) -> float:
            environment = suite.environment()
            await environment.reset(suite.training_task(index))
            await meeting.wait()  # every one of them has begun before any goes on
            steps = [await environment.step(Message("assistant", "x" * (index % 5))) for _ in range(3)]
            await environment.close()
            assert [step.terminated for step in steps] == [False, False, True]
            return sum(step.reward for step in steps)

        rewards = await asyncio.gather(*map(played, range(SESSIONS)))
        assert all(abs(reward - (index % 5 + 0.3)) < 1e-9 for index, reward in enumerate(rewards))
        assert len(connection(config).lines) == SESSIONS // 500
        server.terminate()
        code, peak = server.ended()
        assert code == 0
        assert int(peak) < SERVER_MIB
