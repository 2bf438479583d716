"""Problems solved through tools: what may be seen and done, and what the files earn as they were left."""

import asyncio
import json

import pytest

from fettle.config import Issues, ToolUse
from fettle.config.issues import CHANGES_BY_TOOLS
from fettle.environments import suite
from fettle.environments.base import StepResult
from fettle.issues.instances import Instance
from fettle.issues.patches import files_of
from fettle.types import Message, ToolCall
from tests.issues.made import settings

PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Issues, Instance]:
    """An environment with tools, and the problem of its first training task."""
    config, instances = settings(tmp_path_factory.mktemp("tools") / "corpus", training=1, heldout=1)
    config = config.model_copy(update={"tools": ToolUse(call_cost=0.01, max_calls=6)})
    return config, instances[suite(config).training_task(0).data["instance"]]


async def played(config: Issues, *said: str | tuple[str, dict[str, object]]) -> list[StepResult]:
    """What came of replies, each of which calls a tool or is the last word."""
    world = suite(config)
    environment = world.environment()
    await environment.reset(world.training_task(0))
    results = []
    async with asyncio.timeout(PATIENCE_S):
        for reply in said:
            message = Message("assistant", reply) if isinstance(reply, str) else called(*reply)
            results.append(await environment.step(message))
    await environment.close()
    return results


def called(name: str, arguments: dict[str, object]) -> Message:
    return Message("assistant", "", (ToolCall("1", name, json.dumps(arguments)),))


def told(result: StepResult) -> str:
    return result.messages[0].content


async def test_what_is_found_mended_and_tested_by_tools_earns_what_one_reply_does(made):
    config, instance = made
    (file,) = files_of(instance.patch)
    old, new = "\n".join(file.removed), "\n".join(file.added)
    tests = instance.PASS_TO_PASS[0].partition("::")[0]
    found, seen, before, changed, after, end = await played(
        config,
        ("search", {"text": file.removed[0].strip()}),
        ("view", {"path": file.path}),
        ("run_tests", {"path": tests}),
        ("edit", {"path": file.path, "old": old, "new": new}),
        ("run_tests", {"path": tests}),
        "It is mended.",
    )
    assert f"{file.path}:" in told(found)
    assert told(seen).startswith("1 def ")
    assert old.strip() in told(seen)
    assert told(before) == told(after) == f"{len(instance.PASS_TO_PASS)} passed, 0 failed"  # others are not seen
    assert told(changed) == f"{file.path} is changed"
    assert end.measured["issue/resolved"] == 1.0
    assert end.reward == sum(end.components.values()) == pytest.approx(1.0)
    assert [step.reward for step in (found, seen, before, changed, after)] == [-0.01] * 5


async def test_what_the_prompt_shows_is_the_statement_and_no_file(made):
    config, instance = made
    prompt = suite(config).training_task(0).prompt
    assert prompt[-1].content == instance.problem_statement
    assert prompt[0].content == CHANGES_BY_TOOLS


async def test_neither_history_nor_hidden_tests_can_be_read(made):
    config, instance = made
    hidden = sorted({name.rpartition("::")[2] for name in instance.FAIL_TO_PASS})
    asked = [("list_files", {"folder": "."}), ("view", {"path": ".git/HEAD"}), ("list_files", {"folder": ".git"})]
    listed, head, git = await played(config, *asked)
    assert ".git" not in told(listed)
    assert "there is no file" in told(head)
    assert told(git) == "there are no such files"
    path = instance.FAIL_TO_PASS[0].partition("::")[0]
    (seen,) = await played(config, ("view", {"path": path}))
    assert told(seen).startswith("1 ")
    assert not any(f"def {name}(" in told(seen) for name in hidden)


@pytest.mark.parametrize(
    "mend",
    [True, False],
)
async def test_whoever_changes_tests_earns_nothing(made, mend):
    config, instance = made
    (file,) = files_of(instance.patch)
    path = instance.FAIL_TO_PASS[0].partition("::")[0]
    right = ("edit", {"path": file.path, "old": "\n".join(file.removed), "new": "\n".join(file.added)})
    cheat = ("edit", {"path": path, "old": "assert", "new": "assert True or"})
    *_, tried, end = await played(config, *([right] if mend else []), cheat, "All tests are passing.")
    assert "not to be changed" in told(tried)
    assert (end.reward, end.measured["issue/resolved"]) == (0.0, 0.0)


async def test_saying_that_all_is_well_earns_nothing(made):
    (end,) = await played(made[0], "I have mended it, and all tests are passing.")
    assert (end.terminated, end.reward) == (True, 0.0)
    assert set(end.components.values()) == {0.0}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (("view", {"path": "../out.py"}), "leads out of the workspace"),
        (("view", {"path": "README.md", "first_line": 99}), "README.md has 3 lines, and none of number 99"),
        (("view", {"path": "none.py"}), "there is no file none.py with text in it: list_files names them"),
        (("search", {"text": " "}), "text is empty"),
        (("search", {"text": "no such words at all"}), "there are no such lines"),
        (("edit", {"path": "README.md", "old": "no such line", "new": "x"}), "holds the old lines of an edit 0 times"),
        (("edit", {"path": "README.md", "old": "", "new": "x"}), "old is empty"),
        (("edit", {"path": "parts/new.py", "old": "", "new": "x = 1"}), "parts/new.py is changed"),
        (("run_tests", {"path": "nowhere"}), "holds 0 files of tests"),
        (("rerun", {}), "there is no tool 'rerun'"),
    ],
)
async def test_a_mistake_is_told_and_ends_nothing(made, call, says):
    (result,) = await played(made[0], call)
    assert says in told(result)
    assert (result.terminated, result.truncated) == (False, False)


async def test_one_call_too_many_cuts_the_episode_short(made):
    *_, last = await played(made[0], *[("search", {"text": "def"})] * 7)
    assert (last.truncated, last.messages) == (True, ())
