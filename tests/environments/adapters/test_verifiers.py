"""Tasksets of verifiers are played with their own rewards, and refused where one reply is not all they want."""

import asyncio
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from fettle.config import Verifiers
from fettle.environments import suite
from fettle.errors import ConfigError, DataError, EnvironmentFault
from fettle.types import Message
from tests.environments.adapters.installed import LETTERS, installed

TASKSET = "letters_taskset"
REWARD = "    @vf.reward(weight=0.75)\n    async def right(self, trace):\n"
CHILD = """
import asyncio, json, sys
from fettle.config import SandboxSettings, Verifiers
from fettle.environments import suite
from fettle.errors import EnvironmentFault
from fettle.types import Message

made = suite(Verifiers(taskset="letters_taskset", heldout=20, sandbox=SandboxSettings(memory_mib=2048, seconds=60)))
task = made.training_task(0)

async def paid(reply):
    environment = made.environment()
    await environment.reset(task)
    try:
        return dict((await environment.step(Message("assistant", reply))).components)
    except EnvironmentFault as fault:
        return fault.message

answer = str(task.data["task"]["answer"])
print(json.dumps([asyncio.run(paid(reply)) for reply in (answer, "__import__('os').getpid()")]))
"""


def stepped(config: Verifiers, reply) -> object:
    made = suite(config)
    task = made.training_task(0)

    async def played():
        environment = made.environment()
        await environment.reset(task)
        return await environment.step(Message("assistant", reply(task)))

    return asyncio.run(played())


def answer(task) -> str:
    return str(task.data["task"]["answer"])


def here(**settings) -> Verifiers:
    return Verifiers(taskset="letters-taskset", scoring="here", heldout=20, **settings)


def test_rewards_have_their_names_and_weights_and_metrics_are_measured(tmp_path):
    with installed(tmp_path / "packages", TASKSET, LETTERS):
        result = stepped(here(), answer)
        assert result.components == {"right": 0.75, "brief": 0.25}
        assert result.measured["characters"] in (1.0, 2.0, 3.0)
        assert stepped(here(), lambda _: "17 letters").components == {"right": 0.0, "brief": 0.0}


def test_the_system_message_is_the_tasks_or_else_the_recipes(tmp_path):
    with installed(tmp_path / "packages", TASKSET, LETTERS):
        assert suite(here(system="Count.")).training_task(0).prompt[0] == Message("system", "Count.")
    own = LETTERS.replace("Data(prompt=", 'Data(system_prompt="Own.", prompt=')
    with installed(tmp_path / "others", TASKSET, own):
        assert suite(here(system="Count.")).training_task(0).prompt[0] == Message("system", "Own.")


def test_a_taskset_that_never_ends_is_read_as_far_as_it_is_told(tmp_path):
    endless = LETTERS.replace("range(self.config.size)", "__import__('itertools').count()")
    with installed(tmp_path / "packages", TASKSET, endless):
        made = suite(here(most=30))
        assert len({made.training_task(index).id for index in range(50)}) == 10


def test_a_reward_that_fails_is_a_fault(tmp_path):
    failing = LETTERS.replace(REWARD, REWARD + "        1 / 0\n")
    told = r"rewards of letters-taskset failed on task .*division by zero"
    with installed(tmp_path / "packages", TASKSET, failing), pytest.raises(EnvironmentFault, match=told):
        stepped(here(), answer)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("import verifiers.v1 as vf", "import nothing_there", "cannot be loaded (ModuleNotFoundError"),
        ('["Letters"]', "[]", "exports no Taskset subclass"),
        ("range(self.config.size)", "1 / 0", "division by zero"),
        ("def right(self, trace)", "def right(self, trace, runtime)", "scores what an agent left on its machine"),
        ("    @vf.metric", "    async def setup(self, trace, runtime): ...\n\n    @vf.metric", "a method setup"),
        ("    @vf.metric", "    NEEDS_CONTAINER = True\n\n    @vf.metric", "a container"),
        ("prompt=f", "prompt=None and f", "has no prompt"),
    ],
)
def test_what_cannot_be_played_is_refused_in_a_sentence(tmp_path, old, new, sentence):
    assert old in LETTERS
    changed = LETTERS.replace(old, new)
    with installed(tmp_path / "packages", TASKSET, changed), pytest.raises((ConfigError, DataError)) as caught:
        suite(here())
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message


def test_a_setting_that_there_is_not_is_told_with_what_was_meant(tmp_path):
    told = "unknown key 'sise'; did you mean 'size'"
    with installed(tmp_path / "packages", TASKSET, LETTERS), pytest.raises(ConfigError, match=told):
        suite(here(settings={"sise": 3}))


def test_replies_are_scored_in_the_sandbox_by_a_taskset_that_is_installed(tmp_path):
    """An installation of its own, since the sandbox sees what is installed and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    place = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")}))
    (place / f"{TASKSET}.py").write_text(LETTERS)
    (place / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    ran = subprocess.run(
        [str(tmp_path / "venv" / "bin" / "python"), "-c", CHILD], capture_output=True, text=True, check=False
    )
    if "none that can be had here" in ran.stderr:
        pytest.skip("nothing here isolates code")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [{"right": 0.75, "brief": 0.25}, {"right": 0.0, "brief": 0.0}]
