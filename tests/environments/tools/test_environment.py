"""Episodes with tools: what earns, what is told, and where it ends."""

import asyncio
import json

import pytest

from fettle.config import Calculations, FileTasks, Lookups, Questions, SandboxSettings, Tools
from fettle.environments import Environment, StepResult
from fettle.environments.tools import Workspace, calculator, suite
from fettle.errors import ConfigError, DataError, EnvironmentFault
from fettle.types import Message, Task, ToolCall

CONFIG = Tools(tasks=Calculations(digits=2), call_cost=0.1, max_calls=3, heldout=5)


def call(name: str = "calculator", identity: str = "call_0_0", **arguments) -> ToolCall:
    return ToolCall(identity, name, json.dumps(arguments))


def calling(*calls: ToolCall) -> Message:
    return Message("assistant", "", calls)


def answering(task: Task, answer: str | None = None) -> Message:
    return Message("assistant", f"<answer>{task.data['answer'] if answer is None else answer}</answer>")


async def begun(config: Tools = CONFIG, index: int = 0) -> tuple[Environment, Task]:
    made = suite(config)
    task, environment = made.training_task(index), made.environment()
    await environment.reset(task)
    return environment, task


async def said(config: Tools, *calls: ToolCall) -> list[str]:
    """What tools answer."""
    environment, _ = await begun(config)
    messages = (await environment.step(calling(*calls))).messages
    await environment.close()
    return [message.content for message in messages]


async def test_calls_are_answered_one_by_one_and_the_answer_is_paid():
    environment, task = await begun()
    first = await environment.step(calling(call(expression="sqrt(16)"), call(identity="call_0_1", expression="2*3")))
    assert first.messages == (
        Message("tool", "4", tool_call_id="call_0_0"),
        Message("tool", "6", tool_call_id="call_0_1"),
    )
    assert (first.terminated, first.truncated, first.components) == (False, False, {"calls": -0.2})
    last = await environment.step(answering(task))
    assert (last.reward, last.terminated, last.components) == (1.0, True, {"number": 1.0})
    assert last.measured == {"tools/calls": 2.0, "tools/mistakes": 0.0}


ACTIONS = ("call", "repeat", "broken", "unknown", "two", "right", "wrong", "silence")


def message(action: str, task: Task) -> Message:
    return {
        "call": calling(call(expression=task.data["expression"])),
        "repeat": calling(call(expression="1+1")),
        "broken": calling(ToolCall("call_0_0", "", "{")),
        "unknown": calling(call("calculate", expression="1+1")),
        "two": calling(call(expression="1"), call(expression="2")),
        "right": answering(task),
        "wrong": answering(task, "x"),
        "silence": Message("assistant", ""),
    }[action]


async def total(policy: tuple[str, ...], config: Tools) -> tuple[float, StepResult]:
    """What a policy earns that does one thing after another until the episode is over."""
    environment, task = await begun(config)
    earned = 0.0
    for action in policy:
        result = await environment.step(message(action, task))
        earned += result.reward
        if result.terminated or result.truncated:
            break
    return earned, result


async def policies(longest: int) -> dict[tuple[str, ...], tuple[float, StepResult]]:
    """What each policy earns; one whose episode is over has none that begin as it does."""
    made, going = {}, [()]
    for _ in range(longest):
        longer = {(*policy, action): None for policy in going for action in ACTIONS}
        made |= {policy: await total(policy, CONFIG) for policy in longer}
        going = [policy for policy in longer if not (made[policy][1].terminated or made[policy][1].truncated)]
    return made


async def test_no_policy_earns_by_calling():
    """Every policy of up to four turns: without the right answer none earns anything, with it each earns something."""
    made = await policies(4)
    solved = {p: earned for p, (earned, end) in made.items() if end.components.get("number") == 1.0}
    others = [earned for p, (earned, _) in made.items() if p not in solved]
    assert max(others) <= 0 < min(solved.values())
    assert max(solved.values()) == solved[("right",)] == 1.0
    assert solved[("call", "right")] == pytest.approx(0.9)
    assert solved[("call", "repeat", "call", "right")] == pytest.approx(0.7)


async def test_one_call_too_many_cuts_the_episode_short():
    environment, _ = await begun()
    result = await environment.step(calling(*(call(expression="1") for _ in range(4))))
    assert (result.terminated, result.truncated, result.messages) == (False, True, ())
    assert result.reward == pytest.approx(-0.3)
    with pytest.raises(EnvironmentFault, match="no episode to step"):
        await environment.step(Message("assistant", "late"))


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (ToolCall("c", "", "oops"), "Error: that was no call: write one JSON object with a name and arguments."),
        (call("calculater", expression="1"), "Error: there is no tool 'calculater'; did you mean calculator?"),
        (call("zzz"), "Error: there is no tool 'zzz': use calculator."),
        (ToolCall("c", "calculator", "{"), "Error: the arguments of calculator are no JSON."),
        (
            ToolCall("c", "calculator", "[1]"),
            "Error: the arguments of calculator are no object: give each by its name.",
        ),
        (call(expression=3), "Error: expression: input should be a valid string."),
        (call(expression="1/0"), "Error: something is divided by zero."),
    ],
)
async def test_what_is_wrong_with_a_call_is_told_in_one_sentence_and_the_episode_goes_on(made, why):
    environment, task = await begun()
    result = await environment.step(calling(made))
    assert [message.content for message in result.messages] == [why]
    assert result.measured["tools/mistakes"] == 1
    assert str(task.data["answer"]) not in why
    assert (await environment.step(answering(task))).reward == 1.0


async def test_a_result_is_cut_and_holds_no_half_characters():
    files = CONFIG.model_copy(update={"tools": ("files",), "result_characters": 20})
    write = call("write_file", path="a", text="x" * 50)
    read = ToolCall("c", "read_file", '{"path": "a"}')
    half = ToolCall("c", "write_file", '{"path": "\\ud800", "text": "y"}')
    told = await said(files, write, read, half)
    assert told[1] == "x" * 20 + " (cut: 50 characters in all)"
    assert all(text.encode() for text in told)


async def slow(number: int) -> str:
    """Waits."""
    await asyncio.sleep(60)
    return str(number)


def bad(number: int) -> str:
    """Breaks."""
    raise ValueError(f"{number} is too much")


async def test_a_tool_that_hangs_is_a_fault():
    config = CONFIG.model_copy(update={"tools": (f"{__name__}:slow",), "call_seconds": 0.05})
    environment, _ = await begun(config)
    with pytest.raises(EnvironmentFault, match="the tool slow did not answer within"):
        await environment.step(calling(call("slow", number=1)))


def away(number: int) -> str:
    """Asks somebody who does not answer."""
    raise TimeoutError("the shop is closed")


async def test_a_time_out_of_the_tool_s_own_is_not_told_as_one_of_ours():
    environment, _ = await begun(CONFIG.model_copy(update={"tools": (f"{__name__}:away",)}))
    with pytest.raises(TimeoutError, match="the shop is closed"):
        await environment.step(calling(call("away", number=1)))


async def test_a_tool_that_breaks_is_a_fault_and_no_feedback():
    environment, _ = await begun(CONFIG.model_copy(update={"tools": (f"{__name__}:bad",)}))
    with pytest.raises(ValueError, match="too much"):
        await environment.step(calling(call("bad", number=1)))


async def test_an_environment_plays_one_episode():
    environment, task = await begun()
    with pytest.raises(EnvironmentFault, match="plays one episode"):
        await environment.reset(task)


# -- tasks


@pytest.mark.parametrize("digits", [1, 4])
def test_two_ways_of_working_out_a_calculation_agree(digits):
    made = suite(Tools(tasks=Calculations(digits=digits, terms=4), heldout=3))
    for task in (made.training_task(index) for index in range(50)):
        assert calculator(task.data["expression"]) == task.data["answer"]


@pytest.mark.parametrize("hops", [1, 2])
async def test_what_is_asked_about_a_place_can_be_looked_up(hops):
    config = Tools(tasks=Lookups(places=60, hops=hops), heldout=20)
    made = suite(config)
    for task in (made.training_task(index) for index in range(10)):
        environment = made.environment()
        offered = (await environment.reset(task)).tools
        assert [tool.name for tool in offered] == ["search", "calculator"]
        [found] = (await environment.step(calling(call("search", query=task.prompt[-1].content)))).messages
        if hops == 1:
            assert task.data["answer"] in found.content.splitlines()[0]
        numbers = [int(word.strip(".")) for word in found.content.split() if word.strip(".").isdigit()]
        pairs = {abs(a - b) for a in numbers for b in numbers} | {a + b for a in numbers for b in numbers}
        assert int(task.data["answer"]) in (pairs if hops == 2 else numbers)


async def test_files_are_read_and_what_must_be_written_is_checked():
    made = suite(Tools(tasks=FileTasks(files=2, lines=3), heldout=10))
    writing = next(t for t in map(made.training_task, range(50)) if "written" in t.data)
    for text, reward in ((str(writing.data["answer"]), 1.0), ("0 or so", 0.0), (None, 0.0)):
        environment = made.environment()
        await environment.reset(writing)
        if text is not None:
            await environment.step(calling(call("write_file", path="result.txt", text=text)))
        assert (await environment.step(answering(writing))).reward == reward


def harsh(answer: str, task: Task) -> float:
    return 1.0 if answer == task.data["answer"] else -1.0


async def test_what_must_be_written_is_found_however_its_path_is_spelt(tmp_path):
    rows = [{"prompt": f"Write {n}.", "answer": str(n), "written": {"./a.txt": f"{n}\n"}} for n in range(9)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = Tools(tasks=Questions(path=str(tmp_path / "q.jsonl")), tools=("files",), heldout=2, system=None)
    environment, task = await begun(config)
    await environment.step(calling(call("write_file", path="a.txt", text=task.data["answer"])))
    assert (await environment.step(answering(task))).reward == 1.0


async def test_who_leaves_unwritten_what_must_be_written_never_earns_more_by_it(tmp_path):
    """A wrong answer costs something here, and leaving the file out is no way round that."""
    rows = [{"prompt": f"Write {n}.", "answer": str(n), "written": {"a.txt": str(n)}} for n in range(9)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    asked = Questions(path=str(tmp_path / "q.jsonl"), reward=f"{__name__}:harsh")
    for answer, earned in ((None, 0.0), ("wrong", -1.0)):
        environment, task = await begun(Tools(tasks=asked, tools=("files",), heldout=2, system=None))
        assert (await environment.step(answering(task, answer))).components == {asked.reward: earned}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"files": ["a.txt"]}, "files must be an object of texts by path"),
        ({"files": {"a.txt": 7}}, "files must be an object of texts by path"),
        ({"files": {"../a.txt": "7"}}, r"files: '\.\./a\.txt' leads out of the workspace"),
        ({"written": "2024-05-01"}, "written must be an object of texts by path"),
        ({"written": {"": "7"}}, "written: '' is no path"),
    ],
)
def test_files_of_a_row_that_cannot_be_are_refused_by_its_line(tmp_path, row, why):
    rows = [{"prompt": f"What is {n}?", "answer": str(n), **(row if n == 3 else {})} for n in range(9)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=rf"q\.jsonl:4: {why}"):
        suite(Tools(tasks=Questions(path=str(tmp_path / "q.jsonl")), tools=("files",), heldout=2))


async def test_each_episode_has_files_of_its_own():
    made = suite(Tools(tasks=FileTasks(), heldout=10))
    task = made.training_task(0)
    first, second = made.environment(), made.environment()
    await first.reset(task)
    await second.reset(task)
    await first.step(calling(call("write_file", path="mine.txt", text="x")))
    [listed] = (await second.step(calling(call("list_files")))).messages
    assert listed.content.split() == sorted(Workspace(task.data["files"]).files)


async def test_questions_come_from_a_file(tmp_path):
    rows = [{"prompt": f"What is in {n}?", "answer": f"it {n}", "files": {"a.txt": f"it {n}"}} for n in range(9)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = Tools(tasks=Questions(path=str(tmp_path / "q.jsonl")), tools=("files",), heldout=2, system=None)
    environment, task = await begun(config)
    [read] = (await environment.step(calling(call("read_file", path="a.txt")))).messages
    assert (await environment.step(answering(task, read.content))).components == {"exact_match": 1.0}


async def test_programs_run_in_the_sandbox():
    config = CONFIG.model_copy(update={"tools": ("python",), "sandbox": SandboxSettings(workers=1, seconds=2.0)})
    told = await said(
        config, call("python", code="print(6*7)"), call("python", code="1/0"), call("python", code="x = 1")
    )
    assert told == ["42", "ZeroDivisionError: division by zero", "Nothing was printed."]


# -- settings


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"call_cost": 0.5, "max_calls": 2}, "cost all that a right answer earns"),
        ({"tools": ("search",)}, "nothing to look through"),
        ({"servers": {"x": {"type": "http", "url": "http://example.org/mcp", "token_variable": "T"}}}, "in the clear"),
        ({"servers": {"x": {"type": "process", "command": []}}}, "at least 1"),
    ],
)
def test_settings_that_cannot_be(settings, why):
    with pytest.raises(ValueError, match=why):
        Tools.model_validate(settings)


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        (("calculater",), "did you mean calculator"),
        (("nowhere_at_all:tool",), "cannot be imported"),
        ((f"{__name__}:slaw",), "did you mean slow"),
    ],
)
def test_a_tool_that_is_not_there_is_named(tools, why):
    with pytest.raises(ConfigError, match=why):
        suite(CONFIG.model_copy(update={"tools": tools}))


def test_a_file_of_questions_that_is_not_there_is_named():
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        suite(Tools(tasks=Questions(path="gone.jsonl")))
