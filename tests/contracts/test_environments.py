"""What every row of ``ENVIRONMENTS`` promises. Whoever adds an environment adds one row to ``SUITES`` or ``GAMES``."""

import functools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fettle.config import (
    JSONL,
    Arithmetic,
    Code,
    Debate,
    Dialogue,
    EnvironmentConfig,
    Gymnasium,
    Issues,
    Mathematics,
    OpenEnv,
    Plugin,
    ReasoningGym,
    Remote,
    Tools,
    Verifiers,
)
from fettle.environments import ENVIRONMENTS, GameSuite, Suite, suite
from fettle.errors import EnvironmentFault
from fettle.types import Message, Task
from tests.environments.adapters.installed import COUNTING, LETTERS, installed
from tests.environments.adapters.openenv_server import kept_openenv_server
from tests.issues.made import settings, solution

MANY = 40
"""Replies after which an episode has to be over, whatever they say."""
PLANTED = "a-secret-that-was-planted"
GARBAGE = ("", "no idea", "<answer></answer>", "<answer>nan</answer>", "```python\n```", '""', "\x00\ud800", "9" * 3000)


def tagged(task: Task) -> Sequence[str]:
    """What earns everything, where the answer stands in tags."""
    return (f"Well. <answer>{task.data['answer']}</answer>",)


def none(_: Task) -> Sequence[str]:
    """Where a test cannot know what earns everything."""
    return ()


@dataclass(frozen=True)
class Row:
    """One environment."""

    config: Callable[[Path], AbstractContextManager[EnvironmentConfig]]
    """Its settings, with files in a folder of the test's, while the block lasts; 40 tasks are held out."""
    right: Callable[[Task], Sequence[str]] = none
    """The replies that earn 1 in all."""
    plant: str = "planted"
    """Under which name a task can hold a text of ours, without being another task."""


def fixed(config: EnvironmentConfig) -> Callable[[Path], AbstractContextManager[EnvironmentConfig]]:
    return lambda _: nullcontext(config)


def written(name: str, rows: Sequence[object], config: Callable[[str], EnvironmentConfig]):
    """Settings that read a file."""

    @contextmanager
    def made(folder: Path) -> Iterator[EnvironmentConfig]:
        (folder / name).write_text("\n".join(map(json.dumps, rows)))
        yield config(str(folder / name))

    return made


@contextmanager
def served(_: Path) -> Iterator[EnvironmentConfig]:
    """An environment of a server on this machine."""
    from tests.environments.remote.conftest import serving  # noqa: PLC0415  needs the extra that it speaks through

    with serving() as found:
        yield found.remote("arithmetic", heldout=40)


@contextmanager
def taskset(folder: Path) -> Iterator[EnvironmentConfig]:
    """A taskset of verifiers, installed."""
    with installed(folder / "packages", "letters_taskset", LETTERS):
        yield Verifiers(taskset="letters-taskset", settings={"size": 400}, scoring="here", heldout=40)


@contextmanager
def plugged_in(folder: Path) -> Iterator[EnvironmentConfig]:
    """An environment of another package, installed."""
    with installed(folder / "packages", "counting_world", COUNTING, {"counting": "counting_world:suite"}):
        yield Plugin(name="counting", heldout=40)


@contextmanager
def held(_: Path) -> Iterator[EnvironmentConfig]:
    """An environment that an OpenEnv server holds, in a process of its own."""
    yield OpenEnv(url=kept_openenv_server(), observation_field="shown", heldout=40, turns=20)


@functools.cache
def corpus() -> tuple[TemporaryDirectory[str], EnvironmentConfig, dict[str, str]]:
    """A folder until the process ends, problems of a repository that is made there, and the replies that solve them."""
    folder = TemporaryDirectory()
    config, instances = settings(Path(folder.name) / "corpus", training=4, heldout=40)
    return folder, config, {id: solution(one) for id, one in instances.items()}


@contextmanager
def mined(_: Path) -> Iterator[EnvironmentConfig]:
    yield corpus()[1]


def reply_of_solutions(task: Task) -> Sequence[str]:
    return (corpus()[2][task.data["instance"]],)


def reply_of_letters(task: Task) -> Sequence[str]:
    return (str(task.data["task"]["answer"]),)


PRODUCTS = [{"prompt": f"{a} * {b} =", "answer": a * b} for a in range(2, 30) for b in range(2, 30)]
NUMBERS = [{"assistant": "Find out the number.", "user": f"It is {n}.", "answer": n} for n in range(2000)]

SUITES = {
    Arithmetic: Row(fixed(Arithmetic(digits=1, max_terms=3, heldout=40)), tagged),
    ReasoningGym: Row(fixed(ReasoningGym(settings={"max_terms": 3, "max_digits": 1}, heldout=40)), tagged),
    JSONL: Row(written("products.jsonl", PRODUCTS, lambda path: JSONL(path=path, reward="number", heldout=40)), tagged),
    Mathematics: Row(fixed(Mathematics(heldout=40)), tagged),
    Code: Row(fixed(Code(heldout=40)), plant="answer"),
    Issues: Row(mined, reply_of_solutions),
    Remote: Row(served),
    Tools: Row(fixed(Tools(heldout=40)), tagged),
    Verifiers: Row(taskset, reply_of_letters),
    Gymnasium: Row(fixed(Gymnasium(environment="Taxi-v4", heldout=40, turns=20))),
    OpenEnv: Row(held),
    Plugin: Row(plugged_in, tagged),
}

GAMES = {
    Debate: Row(fixed(Debate(heldout=40))),
    Dialogue: Row(written("numbers.jsonl", NUMBERS, lambda path: Dialogue(path=path, reward="number", heldout=40))),
}


def test_every_environment_signs():
    assert set(ENVIRONMENTS) <= {*SUITES, *GAMES}, "add a row for the new environment"


@dataclass
class Signed:
    """One row, made."""

    config: EnvironmentConfig
    suite: Suite | GameSuite
    row: Row


@contextmanager
def signed(row: Row, folder: Path) -> Iterator[Signed]:
    with row.config(folder) as config:
        yield Signed(config, suite(config), row)


@pytest.fixture(params={**SUITES, **GAMES}.items(), ids=lambda item: item[0].__name__)
def any_signed(request, tmp_path):
    with signed(request.param[1], tmp_path) as found:
        yield found


@pytest.fixture(params=SUITES.items(), ids=lambda item: item[0].__name__)
def one(request, tmp_path):
    with signed(request.param[1], tmp_path) as found:
        yield found


@pytest.fixture(params=GAMES.items(), ids=lambda item: item[0].__name__)
def game(request, tmp_path):
    with signed(request.param[1], tmp_path) as found:
        yield found


# --- tasks ----------------------------------------------------------------------------------------


def test_one_config_makes_the_same_tasks_again(any_signed):
    made, again = any_signed.suite, suite(any_signed.config)
    assert list(again.heldout_tasks()) == list(made.heldout_tasks())
    assert [again.training_task(index) for index in (5, 3, 4)] == [made.training_task(index) for index in (5, 3, 4)]


def test_another_seed_makes_other_tasks(any_signed):
    config, made = any_signed.config, any_signed.suite
    other = suite(config.model_copy(update={"seed": (config.seed or 0) + 1}))
    assert [task.prompt for task in other.heldout_tasks()] != [task.prompt for task in made.heldout_tasks()]
    assert [other.training_task(index).prompt for index in range(20)] != [
        made.training_task(index).prompt for index in range(20)
    ]


def test_nothing_held_out_is_trained_on(any_signed):
    made = any_signed.suite
    held = {task.prompt for task in made.heldout_tasks()}
    assert len(held) == len(made.heldout_tasks()) == any_signed.config.heldout
    assert not held & {made.training_task(index).prompt for index in range(300)}


def test_tasks_are_json_and_say_which_suite_they_are_of(any_signed):
    made = any_signed.suite
    for task in (made.training_task(0), made.heldout_tasks()[0]):
        assert task.source == made.name
        assert json.loads(json.dumps(dict(task.data))) is not None
        assert task.id == replace(task).id


# --- episodes of one player -----------------------------------------------------------------------


async def episode(made: Suite, task: Task, replies: Iterator[str]):
    """An episode to its end: what was first seen, and what came of each reply."""
    environment = made.environment()
    first = await environment.reset(task)
    results = []
    for reply, _ in zip(replies, range(MANY), strict=False):
        results.append(await environment.step(Message("assistant", reply)))
        if results[-1].terminated or results[-1].truncated:
            break
    await environment.close()
    await environment.close()
    return first, results


def repeated(reply: str) -> Iterator[str]:
    while True:
        yield reply


async def test_one_task_is_seen_the_same_by_every_environment(one):
    task = one.suite.training_task(3)
    first, second = [await one.suite.environment().reset(task) for _ in range(2)]
    assert first == second
    assert first.messages
    assert all(isinstance(message, Message) for message in first.messages)


async def test_components_are_finite_and_sum_to_the_reward_and_every_episode_ends(one):
    for reply in GARBAGE[:4]:
        first, results = await episode(one.suite, one.suite.training_task(1), repeated(reply))
        assert results[-1].terminated or results[-1].truncated
        assert not first.one_reply or len(results) == 1
        for result in results:
            assert math.isclose(sum(result.components.values()), result.reward, abs_tol=1e-9)
            assert all(map(math.isfinite, (result.reward, *result.components.values(), *result.measured.values())))
            assert bool(result.messages) != (result.terminated or result.truncated)


@pytest.mark.parametrize("reply", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_earns_nothing_and_breaks_nothing(one, reply):
    for index in range(2):
        _, results = await episode(one.suite, one.suite.training_task(index), repeated(reply))
        assert sum(result.reward for result in results) <= 0


async def test_the_right_answer_earns_everything_once(one):
    for task in (one.suite.training_task(0), one.suite.heldout_tasks()[0]):
        for reply in one.row.right(task):
            _, results = await episode(one.suite, task, repeated(reply))
            assert sum(result.reward for result in results) == pytest.approx(1.0)
            _, results = await episode(one.suite, task, repeated(f"{reply} {reply}"))
            assert sum(result.reward for result in results) <= 0


async def test_an_environment_plays_one_episode(one):
    environment = one.suite.environment()
    with pytest.raises(EnvironmentFault):
        await environment.step(Message("assistant", "too early"))
    environment, task = one.suite.environment(), one.suite.training_task(0)
    await environment.reset(task)
    with pytest.raises(EnvironmentFault):
        await environment.reset(task)
    await environment.close()
    with pytest.raises(EnvironmentFault):
        await environment.step(Message("assistant", "too late"))


async def test_what_a_task_holds_is_never_shown(one):
    if isinstance(one.config, Remote):
        pytest.skip("a task of a server holds nothing but where it is to be found")
    task = one.suite.training_task(0)
    planted = replace(task, data={**task.data, one.row.plant: PLANTED})
    first, results = await episode(one.suite, planted, repeated("no idea"))
    seen = [*first.messages, *(message for result in results for message in result.messages)]
    assert not any(PLANTED in message.content for message in seen)


# --- games ----------------------------------------------------------------------------------------


async def played(made: GameSuite, task: Task, words: str):
    """A game in which everybody always says the same: what each saw first, and the steps."""
    one_game = made.game()
    first, turn = await one_game.reset(task)
    steps = []
    for _ in range(MANY):
        steps.append(await one_game.step({player: Message("assistant", words) for player in turn}))
        turn = steps[-1].turn
        if not turn or steps[-1].truncated:
            break
    await one_game.close()
    await one_game.close()
    return first, steps


async def test_one_task_is_seen_the_same_in_every_game(game):
    task = game.suite.training_task(3)
    first, second = [await game.suite.game().reset(task) for _ in range(2)]
    assert first == second
    assert set(first[0]) == set(game.suite.players)
    assert all(observation.messages for observation in first[0].values())


@pytest.mark.parametrize("words", GARBAGE, ids=range(len(GARBAGE)))
async def test_every_game_ends_and_speaks_of_its_own_players_only(game, words):
    _, steps = await played(game.suite, game.suite.training_task(1), words)
    assert not steps[-1].turn
    known = set(game.suite.players)
    for step in steps:
        assert {*step.heard, *step.turn, *step.components} <= known
        assert all(math.isfinite(value) for parts in step.components.values() for value in parts.values())
        assert all(step.heard.get(player) for player in step.turn)  # nobody acts who has heard nothing new


async def test_a_game_is_played_once(game):
    with pytest.raises(EnvironmentFault):
        await game.suite.game().step({game.suite.players[0]: Message("assistant", "too early")})
    begun, task = game.suite.game(), game.suite.training_task(0)
    _, turn = await begun.reset(task)
    with pytest.raises(EnvironmentFault):
        await begun.reset(task)
    strangers = {player: Message("assistant", "out of turn") for player in game.suite.players if player not in turn}
    with pytest.raises(EnvironmentFault):
        await begun.step(strangers)


async def test_what_a_task_of_a_game_holds_is_never_shown(game):
    task = game.suite.training_task(0)
    planted = replace(task, data={**task.data, game.row.plant: PLANTED})
    first, steps = await played(game.suite, planted, "no idea")
    seen = [message for observation in first.values() for message in observation.messages]
    seen += [message for step in steps for messages in step.heard.values() for message in messages]
    assert not any(PLANTED in message.content for message in seen)
