"""OpenEnv servers: real ones, over their own protocol, and what is said of those that are full, broken or no such."""

import asyncio

import pytest
from websockets.asyncio.server import serve

from fettle.config import OpenEnv
from fettle.environments import suite
from fettle.environments.adapters.openenv import OpenEnvWorld
from fettle.errors import ConfigError, EnvironmentFault
from fettle.types import Message
from tests.environments.adapters.openenv_server import openenv_server


@pytest.fixture(scope="module")
def url():
    with openenv_server() as found:
        yield found


async def answers(config: OpenEnv, *replies: str):
    """What comes of each reply, in one episode."""
    made = suite(config)
    environment, task = made.environment(), made.training_task(0)
    try:
        await environment.reset(task)
        return [await environment.step(Message("assistant", each.format(task.data["seed"] % 1000))) for each in replies]
    finally:
        await environment.close()


async def test_a_real_server_is_played_to_its_end(url):
    config = OpenEnv(url=url, observation_field="shown", heldout=20)
    missed, found = await answers(config, "<answer>no</answer>", "<answer>{}</answer>")
    assert missed.components == {"reward": -0.5}
    assert missed.messages[0].content == "A number, please."
    assert (found.reward, found.terminated) == (1.0, True)


async def test_an_observation_is_shown_as_json_where_no_field_is_named(url):
    made = suite(OpenEnv(url=url, heldout=5, instructions="Find it."))
    shown = made.training_task(0).prompt[0].content
    assert shown.startswith('Find it.\n\n{"shown": "It ends with ')


async def test_a_reply_is_read_as_json_where_actions_are(url):
    config = OpenEnv(url=url, observation_field="shown", reply_as="json", heldout=5)
    illegal, refused, number = await answers(
        config, "<answer>[</answer>", "<answer>[1]</answer>", "<answer>{}</answer>"
    )
    assert illegal.components == refused.components == {"illegal": -1.0}
    assert "is no JSON" in illegal.messages[0].content
    assert "is no action here" in refused.messages[0].content
    assert number.reward == 1.0


async def test_episodes_at_once_are_sessions_of_their_own(url):
    made = suite(OpenEnv(url=url, observation_field="shown", heldout=5))
    tasks = [made.training_task(index) for index in range(20)]

    async def played(task):
        environment = made.environment()
        await environment.reset(task)
        result = await environment.step(Message("assistant", f"<answer>{task.data['seed'] % 1000}</answer>"))
        await environment.close()
        return result.reward

    assert await asyncio.gather(*map(played, tasks)) == [1.0] * 20


@pytest.mark.parametrize(
    ("settings", "reply", "sentence"),
    [
        ({}, "break", "failed: EXECUTION_ERROR: the world is out of order"),
        ({"action_field": "massage"}, "1", "takes no action {massage: TEXT}"),
    ],
)
async def test_a_world_that_breaks_is_a_fault_and_no_reward(url, settings, reply, sentence):
    with pytest.raises(EnvironmentFault) as caught:
        await answers(OpenEnv(url=url, heldout=5, **settings), f"<answer>{reply}</answer>")
    assert sentence in caught.value.message


def test_a_field_that_is_not_there_is_told_with_what_was_meant(url):
    with pytest.raises(ConfigError, match=r"have no field 'show', only shown; did you mean shown\?"):
        suite(OpenEnv(url=url, observation_field="show"))


async def test_a_full_server_is_waited_for_and_then_told_of():
    with openenv_server(sessions=2) as url:
        made = suite(OpenEnv(url=url, observation_field="shown", heldout=5, patience=0.5))
        first, second = made.environment(), made.environment()
        await first.reset(made.training_task(0))
        with pytest.raises(EnvironmentFault, match=r"no room within 0\.5 s: allow one session more"):
            await second.reset(made.training_task(1))
        await first.close()
        third = made.environment()
        await third.reset(made.training_task(1))  # the room that the first gave back
        await third.close()


async def test_a_server_that_dies_is_a_fault():
    with openenv_server() as url:
        made = suite(OpenEnv(url=url, observation_field="shown", heldout=5, patience=0.2))
        environment = made.environment()
        await environment.reset(made.training_task(0))
    with pytest.raises(EnvironmentFault, match="cannot be reached"):
        await environment.step(Message("assistant", "<answer>1</answer>"))
    await environment.close()


def test_a_server_that_is_not_there_is_told_of():
    with pytest.raises(ConfigError, match=r"ws://127\.0\.0\.1:9/ws cannot be reached .*; it was asked for 0\.3 s"):
        suite(OpenEnv(url="ws://127.0.0.1:9/ws", patience=0.3))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("no json", "nothing that OpenEnv servers say"),
        ("[]", "nothing that OpenEnv servers say"),
        ('{"type": "observation", "data": {"observation": 3}}', "nothing that OpenEnv servers say"),
        ('{"type": "observation", "data": {"observation": {}, "reward": "much"}}', "nothing that OpenEnv servers say"),
        (
            '{"type": "observation", "data": {"observation": {}, "reward": 1' + "0" * 400 + "}}",
            "nothing that OpenEnv servers say",
        ),
        ('{"type": "error", "data": {"code": "FACTORY_ERROR", "message": "no disk"}}', "FACTORY_ERROR: no disk"),
        ("x" * (2 << 20), "cannot be reached"),
        (None, "did not answer within 0.3 s"),
    ],
    ids=range(8),
)
async def test_what_is_no_answer_is_a_fault(said, sentence):
    async def other(connection):
        async for _ in connection:
            if said is not None:
                await connection.send(said)

    async with serve(other, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        seconds = 0.3 if said is None else 60
        config = OpenEnv(url=f"ws://127.0.0.1:{port}/ws", patience=0.2, call_seconds=seconds, max_message_mib=1)
        world = OpenEnvWorld(config)
        with pytest.raises(EnvironmentFault) as caught:
            await world.begin(1)
        assert sentence in caught.value.message
        await world.close()
