"""``fettle collect``: episodes kept without loss, gone on with, chosen from, and learned from."""

import io
import json
import shutil
import signal
import sys
import time
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from fettle.cli.collect import progress
from fettle.config import TinyModel
from fettle.config.load import load
from fettle.engine.local import make_tiny_model
from fettle.environments import suite
from fettle.rollouts.trajectories import recorded
from fettle.types import Completion, Failed, Message, Task, Trajectory, Turn
from tests.forked import Forked

from .conftest import Ended, furnished, typed

UNSTEADY = """
import itertools

calls = itertools.count(1)


def reward(reply, task):
    if next(calls) in (3, 7):
        raise KeyError("no such column")
    return 1.0
"""

WAITING = """
import itertools
import time
from pathlib import Path

calls = itertools.count(1)


def reward(reply, task):
    if next(calls) == 270:
        Path("waiting").touch()
        while not Path("go").exists():
            time.sleep(0.01)
    return 1.0
"""

LEARN = """\
type: sft
policy: {model: tiny}
engine: {threads: 1}
data: {type: %s, path: good.jsonl, heldout: 1}
steps: 1
batch_size: 2
"""


def with_model(desk: Path) -> Path:
    settings = TinyModel(hidden=32, layers=1, heads=2, context=128)
    make_tiny_model(settings, desk / "tiny", texts=["What is 1 and 2?"] * 9)
    return desk


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A desk with a model, at which eight episodes were collected. To be read, never written."""
    desk = with_model(furnished(tmp_path_factory.mktemp("collected") / "desk"))
    done = collected(desk, "--tasks", 4, "--samples", 2)
    assert done.code == 0, done.err
    assert done.out == "8 of 8 episodes are in all.jsonl\n"
    return desk


def collected(desk: Path, *options: object, recipe: str = "tiny.yaml") -> Ended:
    return typed("collect", recipe, "--model", "tiny", "--out", "all.jsonl", *options, into=desk)


def drawn(path: Path) -> dict[str, list[int]]:
    return {each.episode: each.trajectory.tokens for each in recorded(path)}


def test_every_episode_is_in_the_file(room):
    found = list(recorded(room / "all.jsonl"))
    assert len({each.episode for each in found}) == 8
    assert len({each.trajectory.task.id for each in found}) == len({each.trajectory.group for each in found}) == 4
    for each in found:
        assert each.trajectory.reward == pytest.approx(sum(each.trajectory.components.values()))
        assert each.trajectory.turns[0].completion.logprobs


def test_what_is_collected_is_never_held_out(room):
    recipe = load(room / "tiny.yaml", [f"environments.0.path={room / 'questions.jsonl'}"])
    heldout = {task.prompt for task in suite(recipe.environments[0]).heldout_tasks()}
    assert heldout
    assert heldout.isdisjoint({each.trajectory.task.prompt for each in recorded(room / "all.jsonl")})


def test_collecting_goes_on_to_the_same_episodes(room, tmp_path):
    """Two tasks and then four are the four; of the last episode half a line was written when the machine went down."""
    desk = with_model(furnished(tmp_path / "desk"))
    assert collected(desk, "--tasks", 2, "--samples", 2).code == 0
    path = desk / "all.jsonl"
    first = path.read_bytes()
    path.write_bytes(first[:-40])
    done = collected(desk, "--tasks", 4, "--samples", 2)
    assert done.code == 0, done.err
    assert drawn(path) == drawn(room / "all.jsonl")
    assert path.read_bytes().startswith(b"".join(first.splitlines(keepends=True)[:3]))


def test_other_settings_are_refused(room):
    done = collected(room, "--tasks", 4, "--samples", 2, "--seed", 5)
    assert done.code == 2
    assert done.complaint == (
        "all.jsonl was collected with other settings (seed: 0 there, 5 here): name another file, "
        "or leave them as they were to go on with this one"
    )


def test_a_file_that_was_not_collected_is_left_alone(room, tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"mine": 1}\n')
    out = tmp_path / "mine.jsonl"
    done = typed("collect", "tiny.yaml", "--model", "tiny", "--out", out, into=room)
    assert done.code == 2
    assert "is there already, and mine.jsonl.about.json" in done.complaint
    assert out.read_text() == '{"mine": 1}\n'


@pytest.mark.parametrize(("option", "kind"), [("--messages", "conversations"), ("--episodes", "episodes")])
def test_what_is_chosen_can_be_trained_on(room, tmp_path, option, kind):
    desk = tmp_path / "desk"
    desk.mkdir()
    rewards = sorted(each.trajectory.reward for each in recorded(room / "all.jsonl"))
    least = rewards[3]
    exported = desk / "good.jsonl"
    done = collected(room, "--tasks", 4, "--samples", 2, "--min-reward", least, option, exported)
    assert done.code == 0, done.err
    kept = len(exported.read_text().splitlines())
    assert 2 <= kept <= sum(reward >= least for reward in rewards)
    assert done.out.splitlines()[1].startswith(f"{kept} of 8 are in {exported}; ")
    (desk / "learn.yaml").write_text((LEARN % kind).replace("tiny}", f"{room / 'tiny'}}}", 1))
    trained = typed("train", "learn.yaml", into=desk)
    assert trained.code == 0, trained.err


def test_failures_are_counted_told_and_tried_again(tmp_path):
    desk = with_model(furnished(tmp_path / "desk"))
    (desk / "unsteady.py").write_text(UNSTEADY)
    fickle = ("environments.0.reward=unsteady:reward", "--tasks", 5, "--samples", 2)
    first = collected(desk, *fickle)
    assert first.code == 0, first.err
    counted, told = first.out.splitlines()
    assert counted == "8 of 10 episodes are in all.jsonl"
    assert told.startswith("2 failed, and are tried again by the same command; the first, questions/")
    assert "KeyError" in told
    about = json.loads((desk / "all.jsonl.about.json").read_text())
    assert len(about["failures"]) == 2
    assert about["failures"][0].keys() == {"episode", "task", "reason"}
    again = collected(desk, *fickle)
    assert again.code == 0, again.err
    assert again.out == "10 of 10 episodes are in all.jsonl\n"
    assert len(drawn(desk / "all.jsonl")) == 10


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_told_how_it_goes():
    """Of four episodes one was there already; of the others one fails."""
    task = Task((Message("user", "?"),), {}, "test")
    turn = Turn([1], Completion([5], [-0.5], "stop", 0), 0.25)
    screen = Terminal()
    with redirect_stderr(screen), progress(4, 1) as told:
        told([Trajectory(task, (turn,), (), True, False)])
        told(Failed(task, "it broke"))
    assert "3/4" in screen.getvalue()
    assert "reward 0.250, 1 failed" in screen.getvalue()


def test_nobody_is_told_where_there_is_no_terminal():
    screen = io.StringIO()
    with redirect_stderr(screen), progress(4, 1) as told:
        told(Failed(Task((), {}, "test"), "it broke"))
    assert screen.getvalue() == ""


def test_what_was_over_is_told_also_where_the_rest_cannot_be_played(tmp_path):
    """The second start finds no model any more."""
    desk = with_model(furnished(tmp_path / "desk"))
    assert collected(desk, "--tasks", 2).code == 0
    shutil.move(desk / "tiny", desk / "elsewhere")
    done = collected(desk, "--tasks", 3)
    assert done.code == 1
    assert done.out == "2 of 3 episodes are in all.jsonl\n"
    assert "tiny" in done.complaint
    assert collected(desk, "--tasks", 1).out == "2 of 2 episodes are in all.jsonl\n"  # and nothing need be loaded


def test_where_everything_fails_it_has_failed(tmp_path):
    desk = with_model(furnished(tmp_path / "desk"))
    done = collected(desk, "environments.0.reward=beside:broken", "--tasks", 2)
    assert done.code == 1
    assert "2 failed" in done.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["arithmatic"], "arithmatic is neither a recipe nor an environment"),
        (["arithmatic"], "; did you mean arithmetic?"),
        (["arithmetic", "digitz=3"], "unknown key 'digitz'; did you mean 'digits'?"),
        (["arithmetic", "--ending", "finishd"], "--ending finishd is none: use finished, turns, "),
        (["nowhere.yaml"], "nowhere.yaml: cannot be read: No such file or directory"),
    ],
)
def test_what_cannot_be_is_told_at_once(desk, arguments, says):
    done = typed("collect", *arguments, "--model", "tiny", "--out", "x.jsonl", into=desk)
    assert done.code == 2
    assert says in done.complaint
    assert not (desk / "x.jsonl").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_nothing_that_was_over_is_lost_when_it_is_interrupted(tmp_path):
    """The 270th reward waits; the first 256 episodes, which were played at once, are in the file and stay there."""
    desk = with_model(furnished(tmp_path / "desk"))
    (desk / "patient.py").write_text(WAITING)
    options = ("--model", "tiny", "--out", "all.jsonl", "--tasks", "140", "--samples", "2")
    command = ["collect", "tiny.yaml", "environments.0.reward=patient:reward", *options]
    with Forked(*command, cwd=desk) as process:
        while not (desk / "waiting").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert out == "256 of 280 episodes are in all.jsonl\nstopped; the same command goes on from here\n"
    (desk / "go").touch()
    before = drawn(desk / "all.jsonl")
    assert len(before) == 256
    again = typed(*command, into=desk)
    assert again.code == 0, again.err
    assert again.out == "280 of 280 episodes are in all.jsonl\n"
    after = drawn(desk / "all.jsonl")
    assert len(after) == 280
    assert {name: after[name] for name in before} == before
