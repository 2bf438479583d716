"""Tools of real MCP servers: over standard input and output, and over HTTP."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from fettle.config import Calculations, HTTPServer, ProcessServer, Tools
from fettle.environments.tools import suite
from fettle.errors import ConfigError, EnvironmentFault
from fettle.types import Message, ToolCall

SERVED = str(Path(__file__).with_name("served_tools.py"))
PATIENCE = 120.0
"""Seconds: a busy machine takes its time to start a process."""
PROCESS = ProcessServer(command=(sys.executable, SERVED), seconds=PATIENCE)


def config(server: ProcessServer | HTTPServer, **settings) -> Tools:
    return Tools(tasks=Calculations(digits=2), servers={"test": server}, heldout=2, system=None, **settings)


def calling(name: str, **arguments) -> Message:
    return Message("assistant", "", (ToolCall("call_0_0", name, json.dumps(arguments)),))


async def told(environment, name: str, **arguments) -> str:
    [message] = (await environment.step(calling(name, **arguments))).messages
    return message.content


async def test_tools_of_a_process_are_offered_checked_and_called():
    made = suite(config(PROCESS))
    environment = made.environment()
    offered = {tool.name: tool for tool in (await environment.reset(made.training_task(0))).tools}
    assert list(offered) == ["calculator", "add", "remember", "refuse", "die", "sleep"]
    assert offered["add"].description == "Adds two numbers."
    assert json.loads(offered["add"].schema)["properties"]["a"]["minimum"] == 0
    assert await told(environment, "add", a=2, b=40) == "42"
    assert "-1 is less than the minimum of 0" in await told(environment, "add", a=-1, b=1)
    assert "'b' is a required property" in await told(environment, "add", a=1)
    assert "not today" in await told(environment, "refuse")
    await environment.close()


async def test_each_episode_has_a_server_of_its_own_which_ends_with_it():
    made = suite(config(PROCESS))
    first, second = made.environment(), made.environment()
    task = made.training_task(0)
    await asyncio.gather(first.reset(task), second.reset(task))
    assert await told(first, "remember", word="one") == "one"
    assert await told(second, "remember", word="two") == "two"
    before = children()
    await first.close()
    await second.close()
    await first.close()
    assert len(before) - len(children()) == 2


async def test_a_shared_server_serves_all_episodes():
    made = suite(config(PROCESS.model_copy(update={"shared": True})))
    for word, all_words in (("one", "one"), ("two", "one two")):
        environment = made.environment()
        await environment.reset(made.training_task(0))
        assert await told(environment, "remember", word=word) == all_words
        await environment.close()


async def test_a_dying_server_is_a_fault_and_a_shared_one_is_started_anew():
    made = suite(config(PROCESS.model_copy(update={"shared": True})))
    environment = made.environment()
    await environment.reset(made.training_task(0))
    with pytest.raises(EnvironmentFault, match="the MCP server test broke off"):
        await environment.step(calling("die"))
    await environment.close()
    another = made.environment()
    await another.reset(made.training_task(0))
    assert await told(another, "add", a=1, b=1) == "2"
    await another.close()


async def test_a_shared_server_that_hangs_is_ended_once_another_takes_its_place():
    before = set(children())
    made = suite(config(PROCESS.model_copy(update={"shared": True})))
    environment = made.environment()
    await environment.reset(made.training_task(0))
    environment._tools["sleep"].run.func.__self__._config = PROCESS.model_copy(update={"seconds": 0.3})
    with pytest.raises(EnvironmentFault, match=r"did not send the answer of sleep within 0\.3 s"):
        await environment.step(calling("sleep", seconds=600))
    [hanging] = set(children()) - before
    another = made.environment()
    await another.reset(made.training_task(0))
    assert await told(another, "add", a=1, b=1) == "2"
    end = time.monotonic() + PATIENCE
    while hanging in children():
        assert time.monotonic() < end, "the server that hangs is still there"
        await asyncio.sleep(0.1)
    assert len(set(children()) - before) == 1


@pytest.mark.parametrize(
    ("command", "seconds", "why"),
    [
        (("no-such-program-here",), PATIENCE, "cannot be spoken to"),
        ((sys.executable, "-c", "import sys; sys.exit('no tools today')"), PATIENCE, "no tools today"),
        ((sys.executable, "-c", "import time; time.sleep(60)"), 1.0, "did not send its greeting within"),
    ],
)
async def test_a_server_that_cannot_be_spoken_to_is_a_fault(command, seconds, why):
    made = suite(config(ProcessServer(command=command, seconds=seconds)))
    environment = made.environment()
    with pytest.raises(EnvironmentFault, match=why):
        await environment.reset(made.training_task(0))
    await environment.close()


async def test_two_tools_of_one_name_are_refused():
    made = suite(config(PROCESS).model_copy(update={"servers": {"one": PROCESS, "two": PROCESS}}))
    environment = made.environment()
    with pytest.raises(ConfigError, match="two tools are called add"):
        await environment.reset(made.training_task(0))
    await environment.close()


@pytest.fixture
def url():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, SERVED, str(port)], stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/mcp"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            httpx.get(address)
            break
        except httpx.TransportError:
            time.sleep(0.1)
    yield address
    process.kill()
    process.wait()


async def test_tools_are_called_over_http(url):
    made = suite(config(HTTPServer(url=url, seconds=PATIENCE)))
    environment = made.environment()
    await environment.reset(made.training_task(0))
    assert await told(environment, "add", a=2, b=40) == "42"
    with pytest.raises(EnvironmentFault, match="the MCP server test"):
        await environment.step(calling("die"))
    await environment.close()


async def test_a_server_that_is_not_there_is_a_fault():
    made = suite(config(HTTPServer(url="http://127.0.0.1:9/mcp", seconds=PATIENCE)))
    environment = made.environment()
    with pytest.raises(EnvironmentFault, match="the MCP server test"):
        await environment.reset(made.training_task(0))
    await environment.close()


def test_a_token_that_is_not_there_is_missed_at_once(monkeypatch):
    monkeypatch.delenv("TOOLS_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="TOOLS_TOKEN holds no token"):
        suite(config(HTTPServer(url="http://127.0.0.1:9/mcp", token_variable="TOOLS_TOKEN")))


def children() -> list[str]:
    mine = str(os.getpid())
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == mine and fields[0] != "Z":
            found.append(stat.parent.name)
    return found
