"""Games: every player has a conversation, a seed and a reward of its own."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from fettle.config import Limits, SamplingParams
from fettle.environments import GameStep, Observation
from fettle.errors import ContextError
from fettle.rollouts import Seat, games, match, to_datum
from fettle.types import Failed, Message, Task

from .conftest import Scripted

TASK = Task((Message("user", "Is 7 prime ?"),), {}, "test")
PARAMS = SamplingParams(max_tokens=8, seed=5)


class Full(Scripted):
    async def sample(self, prompt, n, params):
        raise ContextError("the prompt of request 0 has 64 tokens, which leaves no room")


class Argument:
    """Two players speak in turn, and hear each other; the first wins."""

    def __init__(self, rounds: int = 2) -> None:
        self.left, self.closed = 2 * rounds, 0

    async def reset(self, task: Task) -> tuple[Mapping[str, Observation], tuple[str, ...]]:
        side = {name: Observation((*task.prompt, Message("user", f"You are {name}."))) for name in ("pro", "con")}
        return side, ("pro",)

    async def step(self, actions: Mapping[str, Message]) -> GameStep:
        self.left -= 1
        (name, said), other = next(iter(actions.items())), {"pro": "con", "con": "pro"}
        if not self.left:
            return GameStep({}, (), {"pro": {"won": 1.0}, "con": {"won": -1.0}}, {"rounds": 2.0})
        return GameStep({other[name]: (Message("user", said.content),)}, (other[name],))

    async def close(self) -> None:
        self.closed += 1


def seats(template, **samplers):
    return {name: Seat(sampler, template, PARAMS) for name, sampler in samplers.items()}


async def test_each_player_has_its_own_conversation_and_reward(template):
    pro, con = Scripted([20], [22]), Scripted([30], [33])
    found = await match(TASK, Argument(), seats=seats(template, pro=pro, con=con), limits=Limits(), group="g")
    assert [found[name].reward for name in ("pro", "con")] == [1.0, -1.0]
    assert [found[name].group for name in ("pro", "con")] == ["g/pro", "g/con"]
    assert [found[name].player for name in ("pro", "con")] == ["pro", "con"]
    heard = found["con"].messages[1].content  # before its first words all that it hears is one message
    assert heard == f"You are con.\n{found['pro'].messages[2].content}"
    assert found["pro"].measured == {"rounds": 2.0, "won": 1.0}
    assert found["con"].measured == {"rounds": 2.0, "won": 0.0}
    datum = to_datum(found["con"])
    assert datum.tokens[datum.loss_mask > 0].tolist() == [30, 33]


async def test_what_fills_the_context_of_one_who_has_not_spoken_ends_the_game(template):
    found = await match(TASK, Argument(), seats=seats(template, pro=Scripted([20]), con=Full([30])), limits=Limits())
    assert {name: side.ending for name, side in found.items()} == {"pro": "context"}


async def test_a_task_that_fills_the_context_alone_is_an_error(template):
    with pytest.raises(ContextError, match="leaves no room"):
        await match(TASK, Argument(), seats=seats(template, pro=Full([20]), con=Scripted([30])), limits=Limits())


async def test_players_draw_from_seeds_of_their_own(template):
    pro, con = Scripted([20]), Scripted([20])
    await match(TASK, Argument(), seats=seats(template, pro=pro, con=con), limits=Limits())
    seeds = [params.seed for sampler in (pro, con) for params in sampler.params]
    assert len(set(seeds)) == 4


async def test_a_limit_of_one_ends_the_game_for_all(template):
    sides = seats(template, pro=Scripted([20]), con=Scripted([20]))
    found = await match(TASK, Argument(), seats=sides, limits=Limits(turns=1))
    assert {name: (side.ending, len(side.turns)) for name, side in found.items()} == {
        "pro": ("turns", 1),
        "con": ("turns", 1),
    }


async def test_a_game_that_names_a_stranger_has_failed_and_is_closed(template):
    class Strange(Argument):
        async def step(self, actions):
            return GameStep({"nobody": ()}, ("pro",))

    game = Strange()
    found = await match(TASK, game, seats=seats(template, pro=Scripted([20]), con=Scripted([20])), limits=Limits())
    assert isinstance(found, Failed)
    assert "a player 'nobody', and its players are pro, con" in found.reason
    assert game.closed == 1


@pytest.mark.parametrize(
    ("opening", "words"),
    [
        (({"pro": Observation(TASK.prompt)}, ()), "begins with something else"),
        (("pro", ("pro",)), "begins with something else"),
        (({"judge": Observation(TASK.prompt)}, ("judge",)), "a player 'judge', and its players are pro, con"),
        (({"pro": Observation(TASK.prompt)}, ("con",)), "a player 'con', and its players are pro"),
    ],
)
async def test_a_game_that_begins_with_nonsense_has_failed(template, opening, words):
    class Strange(Argument):
        async def reset(self, task):
            return opening

    sides = seats(template, pro=Scripted([20]), con=Scripted([20]))
    found = await match(TASK, Strange(), seats=sides, limits=Limits())
    assert isinstance(found, Failed)
    assert words in found.reason


async def test_of_every_player_there_is_a_group_and_a_seed_for_every_game(template):
    class Suite:
        name, players = "argument", ("pro", "con")

        def game(self):
            return Argument()

    pro = Scripted([20])
    found = await games(TASK, Suite(), size=3, seats=seats(template, pro=pro, con=Scripted([30])), name="argument/0")
    assert {player: len(group.trajectories) for player, group in found.items()} == {"pro": 3, "con": 3}
    assert {t.group for t in found["con"].trajectories} == {"argument/0/con"}
    assert len({params.seed for params in pro.params}) == 6


async def test_who_acts_later_need_not_be_told_anything_at_first(template):
    class Late(Argument):
        async def reset(self, task):
            return {"pro": Observation(task.prompt), "con": Observation(())}, ("pro",)

    found = await match(TASK, Late(), seats=seats(template, pro=Scripted([20]), con=Scripted([30])), limits=Limits())
    assert found["con"].messages[0] == Message("user", found["pro"].messages[1].content)
    assert found["con"].turns[0].observation == template.prompt(found["con"].messages[:1])


async def test_what_is_paid_before_a_player_spoke_is_not_lost(template):
    """The parts of a reward sum to it, whenever they were paid."""

    class Handicap(Argument):
        async def step(self, actions):
            step = await super().step(actions)
            return step if self.left < 3 else replace(step, components={"con": {"handicap": -0.25}})

    found = await match(
        TASK, Handicap(), seats=seats(template, pro=Scripted([20]), con=Scripted([30])), limits=Limits()
    )
    assert found["con"].components == {"handicap": -0.25, "won": -1.0}
    assert [turn.reward for turn in found["con"].turns] == [-0.25, -1.0]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (GameStep([Message("user", "Hm.")], ("con",)), "heard are a list of Message, and not by player"),
        (GameStep({"con": ("Hm.",)}, ("con",)), "messages are a tuple of str"),
        (GameStep({}, ("con",), {"pro": 1.0}), "paid a float, and not numbers by name"),
        (GameStep({}, ("con",), {}, {"moves": "many"}), "measured 'many' as moves"),
        (GameStep({}, (7,)), "players whose turn it is are a tuple of int"),
        (GameStep({}, (), {"pro": {"won": 10**400}}), "paid a number that is too large as won"),
    ],
)
async def test_a_step_that_is_none_fails_the_game(template, step, words):
    class Strange(Argument):
        async def step(self, actions):
            return step

    found = await match(TASK, Strange(), seats=seats(template, pro=Scripted([20]), con=Scripted([30])), limits=Limits())
    assert isinstance(found, Failed)
    assert words in found.reason


async def test_where_one_of_two_who_speak_at_once_breaks_off_the_other_does_not_go_on(template):
    class Waiting(Scripted):
        ended = False

        async def sample(self, prompt, n, params):
            try:
                await asyncio.sleep(600)
            finally:
                self.ended = True

    class Together(Argument):
        async def reset(self, task):
            first, _ = await super().reset(task)
            return first, ("pro", "con")

    game, waiting = Together(), Waiting([20])
    with pytest.raises(ContextError):
        await match(TASK, game, seats=seats(template, pro=waiting, con=Full([30])), limits=Limits())
    assert (waiting.ended, game.closed) == (True, 1)
