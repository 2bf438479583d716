"""Collecting: which episodes there are to be, whose sides of a game are kept, and what is a failure."""

import asyncio
from collections.abc import Sequence

import pytest

from fettle.chat import Template, load_tokenizer
from fettle.config import Arithmetic, FrozenPlayer, PolicySpec, RLRun, SamplingParams
from fettle.environments import Game as Play
from fettle.errors import ContextError, ModelError
from fettle.rollouts import Seat
from fettle.rollouts.collection import Collection
from fettle.rollouts.trajectories import recorded
from fettle.training.collecting import collect, planned, played
from fettle.types import Failed, Task
from tests.rollouts.conftest import Scripted
from tests.rollouts.test_match import Argument

from .games import Game, length

PARAMS = SamplingParams(max_tokens=8, temperature=0.5)
RUN = RLRun(policy=PolicySpec(model="tiny"), environments=(Arithmetic(),), seed=4)


class Arguments(Game):
    """Satisfies ``GameSuite``."""

    players = ("pro", "con")

    def __init__(self) -> None:
        self.name = "argument"

    def heldout_tasks(self) -> Sequence[Task]:
        return []

    def game(self) -> Play:
        return Argument()


@pytest.fixture
def template(tiny) -> Template:
    return Template(load_tokenizer(tiny))


def plan(*suites, tasks: int = 4, samples: int = 1, weights=None):
    return list(planned(suites, weights or [1.0] * len(suites), tasks=tasks, samples=samples, seed=0))


async def outcome(template, suite, sampler, *, run=RUN, opponents=None):
    [each] = plan(suite, tasks=1)
    return await played(run, each, sampler=sampler, template=template, params=PARAMS, opponents=opponents or {})


def test_episodes_have_names_and_more_tasks_change_none_of_them():
    two, four = plan(Game(length), tasks=2, samples=3), plan(Game(length), tasks=4, samples=3)
    assert [each.name for each in two] == [f"game/{task}/{sample}" for task in (0, 1) for sample in (0, 1, 2)]
    assert [(each.name, each.task) for each in four[:6]] == [(each.name, each.task) for each in two]


def test_suites_are_mixed_by_weight_and_those_of_one_name_are_numbered():
    some = plan(Game(length, "a"), Game(length, "b"), tasks=400, weights=[3.0, 1.0])
    assert 60 < sum(each.group.startswith("b/") for each in some) < 140
    assert {each.group.partition("/")[0] for each in plan(Game(length), Game(length), tasks=20)} == {"game-1", "game-2"}


async def test_every_episode_draws_by_a_seed_of_its_own(template):
    sampler = Scripted([20])
    for each in plan(Game(length), tasks=2, samples=2):
        await played(RUN, each, sampler=sampler, template=template, params=PARAMS, opponents={})
    assert len(set(sampler.seeds)) == 4


async def test_of_a_game_both_sides_are_kept_where_the_model_plays_both(template):
    found = await outcome(template, Arguments(), Scripted([20]))
    assert [(side.player, side.reward) for side in found] == [("pro", 1.0), ("con", -1.0)]


async def test_what_an_opponent_said_is_not_the_models(template):
    run = RUN.model_copy(update={"players": {"con": FrozenPlayer(model="other")}})
    own, other = Scripted([20]), Scripted([30])
    seat = Seat(other, template, SamplingParams(stop_token_ids=(7,)))
    [found] = await outcome(template, Arguments(), own, run=run, opponents={"con": seat})
    assert found.player == "pro"
    assert len(other.params) == 2
    assert (other.params[0].stop_token_ids, other.params[0].temperature) == ((7,), 0.5)


async def test_sides_that_are_the_models_are_played_by_nobody_else(template):
    own, other = Scripted([20]), Scripted([30])
    seat = Seat(other, template, SamplingParams(stop_token_ids=(7,)))
    assert len(await outcome(template, Arguments(), own, opponents={"pro": seat, "con": seat})) == 2
    assert other.params == []


class Full(Scripted):
    error: type[ModelError] = ContextError

    async def sample(self, prompt, n, params):
        raise self.error("no room")


class Gone(Full):
    error = ModelError


async def test_a_task_that_fills_the_context_has_failed_and_a_model_that_fails_ends_everything(template):
    found = await outcome(template, Game(length), Full([20]))
    assert isinstance(found, Failed)
    assert "no room" in found.reason
    with pytest.raises(ModelError):
        await outcome(template, Game(length), Gone([20]))


async def test_what_was_over_is_kept_when_it_is_cancelled(template, tmp_path):
    """Two of three are at once: the third waits for ever."""
    collection, waiting = Collection(tmp_path / "all.jsonl", {}), asyncio.Event()
    heard = []

    async def play(each):
        if each.index == 2:
            waiting.set()
            await asyncio.Event().wait()
        return await played(RUN, each, sampler=Scripted([20]), template=template, params=PARAMS, opponents={})

    work = asyncio.ensure_future(collect(plan(Game(length), tasks=6), collection, play, told=heard.append, at_once=1))
    await waiting.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    collection.close()
    assert [each.episode for each in recorded(tmp_path / "all.jsonl")] == ["game/0/0", "game/1/0"]
    assert len(heard) == 2


async def test_what_ends_everything_leaves_what_was_over(template, tmp_path):
    collection = Collection(tmp_path / "all.jsonl", {})

    async def play(each):
        sampler = Gone([20]) if each.index == 3 else Scripted([20])
        return await played(RUN, each, sampler=sampler, template=template, params=PARAMS, opponents={})

    with pytest.raises(ModelError):
        await collect(plan(Game(length), tasks=6), collection, play, told=lambda _: None, at_once=1)
    collection.close()
    assert len(list(recorded(tmp_path / "all.jsonl"))) == 3


async def test_no_more_are_played_at_once_than_may_be(template, tmp_path):
    collection, here, most = Collection(tmp_path / "all.jsonl", {}), 0, 0

    async def play(each):
        nonlocal here, most
        here, most = here + 1, max(most, here + 1)
        await asyncio.sleep(0)
        here -= 1
        return Failed(each.task, "never mind", each.group)

    await collect(plan(Game(length), tasks=40), collection, play, told=lambda _: None, at_once=7)
    collection.close()
    assert most == 7
    assert len(collection.failures) == 40
