"""Servers that die, drain or stay away: one sentence, a ``Failed`` episode, and training that goes on."""

import asyncio
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fettle.chat import Template, load_tokenizer
from fettle.config import Limits, Remote, SamplingParams, TinyModel
from fettle.engine.local import make_tiny_model
from fettle.environments import suite as suite_of
from fettle.environments.remote import environment_pb2 as pb
from fettle.environments.remote import wire
from fettle.environments.remote.client import RemoteSuite
from fettle.errors import ConfigError, EnvironmentFault, UnreachableError
from fettle.rollouts import episode
from fettle.types import Completion, Failed, Message, Trajectory
from tests.environments.remote.conftest import serving
from tests.environments.remote.counting import CountingSuite, flood
from tests.environments.remote.processes import Process, process
from tests.environments.remote.proxy import proxy
from tests.environments.remote.raw import Raw
from tests.training.conftest import small, trained

ONE = "session-number-one"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    texts = ["State the final answer to the following arithmetic problem: 1 + 2 =", "Count. training 0/0"] * 20
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return make_tiny_model(TinyModel(hidden=32, layers=1, heads=2, context=256), folder, texts=texts)


class Halting:
    """Satisfies ``Sampler``: what a test does comes before the turn that it names."""

    policy_version = 0

    def __init__(self, tokens: list[int], before: dict[int, object]) -> None:
        self._tokens, self._before, self._turn = tokens, before, 0

    async def sample(self, prompt, n, params) -> list[Completion]:
        self._turn += 1
        if self._turn in self._before:
            await asyncio.to_thread(self._before[self._turn])
        return [Completion(self._tokens, [0.0] * len(self._tokens), "stop", 0)]


async def played(suite, tiny: str, before: dict[int, object]) -> Trajectory | Failed:
    template = Template(load_tokenizer(tiny))
    tokens = [*template.prompt([Message("user", "hello")])[:3], next(iter(template.end_token_ids))]
    return await episode(
        suite.training_task(0),
        suite.environment(),
        sampler=Halting(tokens, before),
        template=template,
        params=SamplingParams(max_tokens=8),
        limits=Limits(step_seconds=60),
    )


def remote(server: Process, **settings) -> RemoteSuite:
    return RemoteSuite(Remote(address=server.address, environment="counting", **settings))


async def test_a_server_killed_in_mid_episode_fails_that_episode_and_the_next_one_goes_on_once_it_is_back(tiny):
    servers: list[Process] = []
    with process() as first:
        suite = remote(first, settings={"turns": 3})

        def killed_and_begun_anew() -> None:
            first.kill()
            servers.append(Process(first.port))

        try:
            failed = await played(suite, tiny, {3: killed_and_begun_anew})
            assert isinstance(failed, Failed)
            assert re.fullmatch(
                r"the server at \S+: there is no such session: its lease .* was started anew", failed.reason
            )
            again = await played(suite, tiny, {})
            assert isinstance(again, Trajectory)
            assert len(again.turns) == 3
        finally:
            for server in servers:
                server.kill()


async def test_an_episode_that_has_only_begun_goes_on_at_the_server_that_is_started_anew(tiny):
    servers: list[Process] = []
    with process() as first:
        suite = remote(first, settings={"turns": 2})

        def killed_and_begun_anew() -> None:
            first.kill()
            servers.append(Process(first.port))

        try:
            assert isinstance(await played(suite, tiny, {1: killed_and_begun_anew}), Trajectory)
        finally:
            for server in servers:
                server.kill()


async def test_a_server_that_stays_dead_is_told_after_the_patience(tiny):
    with process() as server:
        suite = remote(server, patience=0.5)
        failed = await played(suite, tiny, {2: server.kill})
        assert isinstance(failed, Failed)
        assert re.match(r"the server at 127.0.0.1:\d+ cannot be reached: ", failed.reason)
        began = time.monotonic()
        assert isinstance(await played(suite, tiny, {}), Failed)
        assert time.monotonic() - began < 30


async def test_training_goes_on_after_the_server_was_killed_and_is_back(tiny, tmp_path):
    servers: list[Process] = []
    with process() as first:
        run = small(
            tiny, steps=6, groups_per_step=6, evaluation={"every": 6, "tasks": 4}, limits={"failed_share": 0.9},
            environments=[
                {"type": "arithmetic", "digits": 1, "heldout": 4, "system": None},
                {"type": "remote", "address": first.address, "environment": "counting", "settings": {"turns": 3}},
            ],
        )  # fmt: skip
        suites = [RemoteSuite(run.environments[1])]
        kill = Killing(suites[0], after=20, act=lambda: (first.kill(), servers.append(Process(first.port))))
        try:
            done = await trained(run, tmp_path, [suite_of(run.environments[0]), kill])
        finally:
            for server in servers:
                server.kill()
    assert kill.done
    assert len(done.memory.column("reward/mean")) == 6
    failed = done.memory.column("rollout/failed")
    assert sum(failed) > 0
    assert failed[-1] == 0


class Killing:
    """Satisfies ``Suite``: another one, during whose episodes something happens once, after so many steps."""

    def __init__(self, suite, *, after: int, act) -> None:
        self.name, self._suite, self._left, self._act = suite.name, suite, after, act
        self.training_task, self.heldout_tasks = suite.training_task, suite.heldout_tasks
        self.done = False

    def environment(self) -> "KillingEnvironment":
        return KillingEnvironment(self._suite.environment(), self)

    async def stepped(self) -> None:
        self._left -= 1
        if self._left == 0:
            await asyncio.to_thread(self._act)
            self.done = True


class KillingEnvironment:
    def __init__(self, environment, suite: Killing) -> None:
        self._suite = suite
        self.reset, self.close, self._step = environment.reset, environment.close, environment.step

    async def step(self, action: Message):
        result = await self._step(action)
        await self._suite.stepped()
        return result


async def test_a_run_on_a_served_environment_has_the_numbers_of_a_local_one(served, tiny, tmp_path):
    """Held-out draws are keyed by what only the server knows of a task; the likeliest token needs no draw."""
    there = served.remote(settings={"turns": 2}, heldout=10)
    evaluation = {"every": 3, "tasks": 6, "temperature": 0.0}
    run = small(tiny, environments=[there.model_dump()], evaluation=evaluation)

    def numbers(done) -> list[dict[str, float]]:
        return [{k: v for k, v in row.items() if not k.startswith(("time", "speed"))} for row in done.memory.rows]

    def said(done) -> list[object]:
        return [(page.messages, page.reward) for pages in done.memory.pages.values() for page in pages]

    here = await trained(run, tmp_path / "here", [CountingSuite(turns=2)])
    away = await trained(run, tmp_path / "away")
    assert said(here) == said(away)
    # What shares a batch with a call shows in its last bits, and here turns meet as the wire lets them.
    assert [pytest.approx(row, rel=1e-3, abs=1e-6) for row in numbers(here)] == numbers(away)
    assert sum(here.memory.column("advantage/nonzero")) > 0


async def test_a_server_told_to_end_begins_nothing_lets_episodes_end_and_says_so_to_who_asks():
    with process() as server:
        raw = Raw(server.address)
        raw.begin(ONE)
        health = health_pb2_grpc.HealthStub(raw.channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        server.terminate()
        await until(lambda: health.Check(health_pb2.HealthCheckRequest()).status == 2)
        assert raw.HealthCheck(pb.HealthCheckRequest()).status == pb.HealthCheckResponse.STATUS_NOT_SERVING
        with pytest.raises(grpc.RpcError, match="the server is ending and begins no episode") as error:
            raw.begin("session-number-two")
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        for turn in range(1, 6):
            assert raw.say(ONE, turn, "on").terminated == (turn == 5)
        assert server.ended()[0] == 0


def test_what_is_no_server_of_environments_is_told_in_one_sentence():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
    with pytest.raises(UnreachableError, match=f"the server at {address} cannot be reached"):
        RemoteSuite(Remote(address=address, environment="counting", patience=0.3))
    with serving() as served:
        other = grpc.server(ThreadPoolExecutor(1))
        port = other.add_insecure_port("127.0.0.1:0")
        other.start()
        with pytest.raises(ConfigError, match=r"does not speak fettle\.environment\.v1"):
            RemoteSuite(Remote(address=f"127.0.0.1:{port}", environment="counting"))
        other.stop(0)
        assert served.suite().heldout_tasks()


def test_a_port_that_is_taken_is_told(served):
    sentence = rf"127.0.0.1:{served.port} cannot be listened on: is another server there"
    with pytest.raises(ConfigError, match=sentence), serving(port=served.port):
        pass


async def test_a_message_larger_than_the_server_takes_fails_its_episode_and_no_other():
    with serving(max_message_mib=1) as served:
        suite = served.suite()
        loud, quiet = suite.environment(), suite.environment()
        await loud.reset(suite.training_task(0))
        await quiet.reset(suite.training_task(1))
        with pytest.raises(
            EnvironmentFault, match=r"what was said takes 20\d+ bytes, and the server at \S+ takes 1048576"
        ):
            await loud.step(Message("assistant", "x" * 2_000_000))
        assert (await quiet.step(Message("assistant", "x"))).reward > 0
        await loud.close()
        await quiet.close()
        raw = Raw(served.address)
        raw.begin(ONE)
        with pytest.raises(grpc.RpcError) as error:
            raw.say(ONE, 1, "x" * 2_000_000)
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_turn_whose_answer_was_lost_on_the_way_is_asked_for_again_and_played_once(served):
    with proxy(served.port) as middle:
        suite = RemoteSuite(Remote(address=middle.address, environment="counting"))
        environment = suite.environment()
        await environment.reset(suite.training_task(0))
        first = await environment.step(Message("assistant", "abc"))
        middle.losing = True
        waiting = asyncio.create_task(environment.step(Message("assistant", "slow")))
        direct = Raw(served.address)
        await until(lambda: turn_of(direct, environment) == 2)
        middle.cut()
        middle.losing = False
        second = await waiting
        assert second.measured["sum"] == pytest.approx(first.measured["sum"] + 4 / 3)
        third = await environment.step(Message("assistant", "abc"))
        assert third.measured["sum"] == pytest.approx(second.measured["sum"] + 1)
        await environment.close()


def turn_of(raw: Raw, environment) -> int:
    """How many turns the server has answered, as it says to who asks for one that is far ahead."""
    with pytest.raises(grpc.RpcError) as error:
        raw.say(environment._session, 1000, "far ahead")
    return int(re.search(r"does not follow turn (\d+)", error.value.details())[1])


@pytest.mark.parametrize(("beyond", "arrives"), [(0, True), (1, False), (60, False)])
async def test_an_answer_as_large_as_a_message_disturbs_nobody_beside_it(beyond, arrives):
    most = 2**20
    room = most - wire.FRAMING
    size = next(n for n in range(room, 0, -1) if wire.step_out(flood(n)).ByteSize() <= room) + beyond
    with serving(max_message_mib=1) as served:
        suite = served.suite()
        loud, quiet = suite.environment(), suite.environment()
        await loud.reset(suite.training_task(0))
        await quiet.reset(suite.training_task(1))
        waiting = asyncio.create_task(quiet.step(Message("assistant", "slow")))
        if arrives:
            assert len((await loud.step(Message("assistant", f"flood{size}"))).messages[0].content) == size
        else:
            with pytest.raises(EnvironmentFault, match="what the environment says takes 104"):
                await loud.step(Message("assistant", f"flood{size}"))
        assert (await waiting).reward > 0
        await loud.close()
        await quiet.close()


async def test_who_asks_and_does_not_listen_is_made_to_wait_and_holds_up_nobody(served):
    asked = 0

    def frames():
        nonlocal asked
        for asked in range(200_000):
            action = pb.Message(role="assistant", content="x" * 2000)
            missing = pb.StepRequest(session_id="session-that-never-was", turn=1, action=action)
            yield pb.StreamStepRequest(call=asked, step=missing)

    call = Raw(served.address).StreamStep(frames())
    before = -1
    while before != asked or not asked:
        before = asked
        await asyncio.sleep(0.5)
    assert asked < 150_000
    suite = served.suite()
    environment = suite.environment()
    await environment.reset(suite.training_task(0))
    assert (await environment.step(Message("assistant", "abc"))).reward > 1
    await environment.close()
    call.cancel()


async def test_a_server_whose_tasks_have_become_others_refuses_the_old_ones(served):
    suite = served.suite(seed=1)
    task = suite.training_task(0)
    other = served.suite(seed=2)
    with pytest.raises(EnvironmentFault, match="the server's tasks are others than when they were listed"):
        await other.environment().reset(task)


async def until(holds, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)
