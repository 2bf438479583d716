"""Environments played by processes of a Ray cluster: the same numbers, and processes that are killed."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from fettle.cluster.environments import EnvironmentWorkers
from fettle.cluster.joining import Joining
from fettle.config import Debate, RayWorkers, Remote, TinyModel
from fettle.engine.local import make_tiny_model
from fettle.environments import suite
from fettle.errors import EngineError, EnvironmentFault
from fettle.types import Message
from tests.environments.remote.conftest import serving
from tests.training.conftest import small, trained

from .ranks import TRAINERS, ray_here

REPLY = Message("assistant", "seven")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_here():
        yield


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Say {n} e", "answer": str(n)}) + "\n" for n in range(40)))
    reward = {"reward": "tests.cluster.paying:soon", "answer_in": "text"}
    return {"type": "jsonl", "path": str(path), "heldout": 4, "system": None, **reward}


@asynccontextmanager
async def workers(worlds, **settings) -> AsyncIterator[EnvironmentWorkers]:
    found = EnvironmentWorkers(RayWorkers(**settings), worlds)
    try:
        yield found
    finally:
        found.close()


async def killed(found: EnvironmentWorkers, place: int) -> None:
    """Kill the process in that place while it plays."""
    worker = found.workers[place]
    ready = await found.asked(worker, "ready")
    await until(lambda: worker.episodes > 0)
    await asyncio.sleep(0.05)  # within the reward
    os.kill(ready.pid, signal.SIGKILL)
    await until(lambda: worker.lost)


async def until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not so():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.005)


def told(done) -> list[dict[str, float]]:
    """What does not depend on how fast the machine was."""
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "speed/"))} for row in done.memory.rows]


async def test_workers_come_to_the_numbers_of_one_process_though_two_are_killed(cluster, questions, tmp_path):
    """Nothing is lost or doubled: every metric of every step is the undisturbed run's, to the bit."""
    model = make_tiny_model(TinyModel(hidden=32, layers=1, heads=2), tmp_path / "tiny", texts=["Say 1 e"] * 20)
    run = small(model, environments=[questions], max_staleness=0)
    alone = await trained(run, tmp_path / "alone")
    async with workers(run.environments, joined_seconds=60) as found:
        suites = [found.suite(0, suite(run.environments[0]))]
        going = asyncio.ensure_future(trained(run, tmp_path / "played", suites))
        await killed(found, 0)
        await killed(found, 1)
        played = await going
        assert found.replaced == 2
        assert [worker.episodes for worker in found.workers] == [0, 0]
    assert told(played) == told(alone)
    assert max(alone.memory.column("reward/std")) > 0


async def test_a_step_that_may_have_been_made_is_not_made_again(cluster, questions):
    """At a gRPC server, which does not say that episodes can be repeated: that one fails, and the others go on."""
    with serving(more={"slow": {**questions, "reward": "tests.cluster.paying:late"}}) as served:
        config = Remote(address=served.address, environment="slow", heldout=4)
        async with workers([config], count=2) as found:
            tasks = suite(config)
            played = found.suite(0, tasks)
            episodes = [played.environment() for _ in range(4)]
            for episode in episodes:
                assert (await episode.reset(tasks.training_task(0))).one_reply
            steps = [asyncio.ensure_future(episode.step(REPLY)) for episode in episodes[:2]]
            await killed(found, 0)
            ends = await asyncio.gather(*steps, return_exceptions=True)
            others = [await episode.step(REPLY) for episode in episodes[2:]]
    [lost] = [end for end in ends if isinstance(end, EnvironmentFault)]
    assert "during a step, which may have been made" in lost.message
    assert all(end is lost or end.reward == others[0].reward > 0 for end in (*ends, *others))


async def test_games_go_as_they_do_here_and_one_that_was_stepped_is_not_played_again(cluster):
    config = Debate(heldout=2, rounds=1)
    games = suite(config)
    task, here = games.training_task(0), games.game()
    async with workers([config], count=1, labels=TRAINERS) as found:
        stepped, fresh = (found.suite(0, games).game() for _ in range(2))
        assert await here.reset(task) == await stepped.reset(task) == await fresh.reset(task)
        first = await here.step({"pro": REPLY})
        assert await stepped.step({"pro": REPLY}) == first
        os.kill((await found.asked(found.workers[0], "ready")).pid, signal.SIGKILL)
        with pytest.raises(EnvironmentFault, match="ended during a step, which may have been made"):
            await stepped.step({"con": REPLY})
        assert await fresh.step({"pro": REPLY}) == first
        assert await fresh.step({"con": REPLY}) == await here.step({"con": REPLY})


async def test_no_room_for_workers_is_told_after_the_stated_wait(cluster):
    with pytest.raises(
        EngineError, match=r"after 0.2 s not all of 1 environment workers .* takes 100 CPU: \d of 5 CPU "
    ):
        EnvironmentWorkers(RayWorkers(count=1, cpus=100, start_seconds=0.2), [])
    with pytest.raises(EngineError, match=r"takes 0 CPU on machines labelled zone=elsewhere: \d of 5 CPU are free"):
        EnvironmentWorkers(RayWorkers(count=1, labels={"zone": "elsewhere"}, start_seconds=0.2), [])


async def test_answers_that_were_asked_for_together_come_together_and_late_ones_by_themselves():
    joining, order, late = Joining(0.05), [], asyncio.Event()

    async def asked(name: str, wait) -> str:
        await wait
        return name

    async def went(name: str, wait) -> None:
        order.append(await joining.run(asked(name, wait)))

    calls = [went("late", late.wait()), went("soon", asyncio.sleep(0.01)), went("now", asyncio.sleep(0))]
    going = [asyncio.ensure_future(call) for call in calls]
    await asyncio.wait(going[1:])
    assert order == ["soon", "now"]
    late.set()
    await asyncio.gather(*going)
    assert order == ["soon", "now", "late"]
