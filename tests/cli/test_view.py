"""``fettle view``: episodes listed where there is no terminal, and browsed with textual's own pilot."""

from pathlib import Path

import pytest
from textual.widgets import DataTable, Input, Static

from fettle.cli.browser import Browser, conversation
from fettle.cli.view import Episode, episodes
from fettle.rollouts.trajectories import line
from fettle.tracking import Search, Transcript
from fettle.types import Completion, Message, Task, ToolCall, Trajectory, Turn

from .conftest import typed

ASK = Message("user", "What is [bold]2 + 3[/bold]?")
CALLS = Message("assistant", "Let me see.", (ToolCall("call_0_0", "add", '{"a": 2, "b": 3}'),))
TOLD = Message("tool", "5", tool_call_id="call_0_0")


def episode(
    number: int, reward: float, said: str, *, task: str = "t", group: str = "g", ending="", player: str = ""
) -> Episode:
    messages = (ASK, CALLS, TOLD, Message("assistant", said))
    found = Transcript(
        task, messages, reward, {"right": reward, "short": 0.0}, "expected answer: 5", ending, player, group
    )
    return Episode(f"step {number}", found)


SOME = (
    episode(0, 0.0, "It is 4.", task="a", group="sums/1"),
    episode(0, 0.5, "It is 6.", task="b", group="sums/2", ending="turns"),
    episode(20, 1.0, "It is 5.", task="a", group="sums/1"),
    episode(20, 1.0, "Five, \x1b[2Jof course.", task="c", group="sums/1", player="pro"),
)


def rows(app: Browser) -> list[str]:
    table = app.query_one("#episodes", DataTable)
    return [
        str(table.get_row_at(number)[0]) + " " + str(table.get_row_at(number)[1]) for number in range(table.row_count)
    ]


def shown(app: Browser) -> str:
    return str(app.query_one("#said", Static).visual)


def counted(app: Browser) -> str:
    return str(app.query_one("#counted", Static).visual)


def browser(**search) -> Browser:
    return Browser(SOME, Search(**search), title="a run")


async def test_every_episode_is_listed_with_reward_components_and_ending():
    app = browser()
    async with app.run_test(size=(160, 40)) as pilot:
        await pilot.pause()
        assert rows(app) == ["step 0 0.000", "step 0 0.500", "step 20 1.000", "step 20 pro 1.000"]
        second = [str(cell) for cell in app.query_one("#episodes", DataTable).get_row_at(1)]
        assert second[2:] == ["right 0.5 + short 0", "turns", "2", "What is [bold]2 + 3[/bold]?"]
        assert counted(app) == "4 of 4 episodes"


async def test_the_conversation_of_the_chosen_one_is_beside_the_list():
    app = browser()
    async with app.run_test(size=(160, 40)) as pilot:
        await pilot.press("down", "down")
        await pilot.pause()
        assert "It is 5." in shown(app)
        assert "It is 4." not in shown(app)
        await pilot.press("enter")
        assert app.focused is app.query_one("#conversation")


async def test_text_and_rewards_are_searched_for():
    app = browser()
    async with app.run_test(size=(160, 40)) as pilot:
        await pilot.press("slash", *"FIVE")
        await pilot.pause()
        assert rows(app) == ["step 20 pro 1.000"]
        assert "of course" in shown(app)
        await pilot.press("enter")
        app.query_one("#text", Input).value = ""
        app.query_one("#least", Input).value = "0.5"
        app.query_one("#most", Input).value = "0.9"
        await pilot.pause()
        assert rows(app) == ["step 0 0.500"]
        app.query_one("#most", Input).value = "0."
        app.query_one("#least", Input).value = "much"
        await pilot.pause()
        assert rows(app) == ["step 0 0.000"]
        app.query_one("#text", Input).value = "nobody said this"
        await pilot.pause()
        assert rows(app) == []
        assert (counted(app), shown(app)) == ("0 of 4 episodes", "")


async def test_what_is_compared_and_what_was_asked_again_is_found():
    app = browser()
    async with app.run_test(size=(160, 40)) as pilot:
        await pilot.press("g")
        await pilot.pause()
        assert rows(app) == ["step 0 0.000", "step 20 1.000"]
        assert counted(app) == "2 of 4 episodes, of task a"
        await pilot.press("escape", "G")
        await pilot.pause()
        assert len(rows(app)) == 3
        assert counted(app) == "3 of 4 episodes, of group sums/1"
        await pilot.press("escape")
        await pilot.pause()
        assert len(rows(app)) == 4


async def test_a_search_may_be_given_from_outside():
    app = browser(min_reward=1.0, text="it is")
    async with app.run_test(size=(160, 40)) as pilot:
        await pilot.pause()
        assert rows(app) == ["step 20 1.000"]
        assert app.query_one("#least", Input).value == "1"
        await pilot.press("q")
    assert app.return_code == 0


def test_a_conversation_reads_well_and_acts_on_nothing():
    text = conversation(SOME[3])
    assert text.plain == (
        "step 20, task c\n"
        "reward 1 = right 1 + short 0\n"
        "the side of pro\n"
        "expected answer: 5\n"
        "\nuser\nWhat is [bold]2 + 3[/bold]?\n"
        '\nassistant\nLet me see.\nadd({"a": 2, "b": 3})\n'
        "\ntool, to call_0_0\n5\n"
        "\nassistant\nFive, ␛[2Jof course.\n"
    )


def test_a_run_is_listed_where_there_is_no_terminal(run):
    done = typed("view", run.folder, into=run.desk)
    assert done.code == 0, done.err
    head, *lines, last = done.out.splitlines()
    assert head.split() == ["episode", "reward", "components", "ending", "turns", "asked"]
    assert last == "18 of 18 episodes"
    assert len(lines) == 18
    assert lines[0].startswith("step 0 ")
    assert lines[-1].startswith("step 8 ")
    by_name = typed("view", run.folder.name, into=run.desk)
    assert by_name.out == done.out


def test_the_listing_is_searched_too(run):
    everything = list(episodes(str(run.folder)))
    least = max(each.transcript.reward for each in everything)
    done = typed("view", run.folder, "--min-reward", least, "--text", "WHAT IS", into=run.desk)
    count = sum(each.transcript.reward >= least for each in everything)
    assert done.out.splitlines()[-1] == f"{count} of 18 episodes"


def test_the_stages_of_a_pipeline_are_told_apart(pipeline):
    done = typed("view", pipeline.folder, into=pipeline.desk)
    assert done.code == 0, done.err
    assert {text.split("  ")[0] for text in done.out.splitlines()[1:-1]} == {"grpo step 0", "grpo step 2"}


def test_a_collected_file_is_listed(tmp_path):
    completion = Completion([1, 2], [-0.5, -0.5], "stop", 3)
    task = Task((ASK,), {"answer": "5"}, "sums")
    played = Trajectory(
        task,
        (Turn([7], completion, 1.0),),
        (ASK, CALLS, TOLD),
        False,
        True,
        {"right": 1.0},
        ending="turns",
        player="pro",
    )
    (tmp_path / "all.jsonl").write_bytes(line(played, episode="sums/3/0"))
    done = typed("view", "all.jsonl", into=tmp_path)
    assert done.code == 0, done.err
    cells = [cell.strip() for cell in done.out.splitlines()[1].split("  ") if cell.strip()]
    assert cells == ["sums/3/0 pro", "1.000", "right 1", "turns", "1", "What is [bold]2 + 3[/bold]?"]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("nowhere", "there is no nowhere: give a run folder (see fettle runs), or a file that was collected"),
        ("empty", "empty holds no episodes: give a run of type rl that has been evaluated"),
        ("other.jsonl", "other.jsonl:1: is no trajectory, for its schema is not fettle.trajectory"),
        ("broken", "step-000000.jsonl:1: is no episode"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, place, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.jsonl").write_text('{"mine": 1}\n')
    (tmp_path / "broken" / "evaluations").mkdir(parents=True)
    (tmp_path / "broken" / "evaluations" / "step-000000.jsonl").write_text('{"task": "a"}\n')
    done = typed("view", place, into=tmp_path)
    assert done.code == 1
    assert says in done.complaint
