"""Gymnasium environments are read, acted on in words, and refused where no words will do."""

import gymnasium
import pytest
from gymnasium import spaces

from fettle.config import Gymnasium
from fettle.environments import suite
from fettle.errors import ConfigError, EnvironmentFault
from fettle.types import Message

ACTIONS = ("south", "north", "east", "west", "pick up", "drop off")
TAXI = Gymnasium(environment="Taxi-v4", actions=ACTIONS, heldout=40, turns=6)


class Spell(gymnasium.Env):
    """A word is to be said backwards, a letter of it at a time."""

    observation_space = spaces.Text(20)
    action_space = spaces.Text(1, charset="abc")

    def __init__(self, length=6, seeded=True, breaks=None):
        self.length, self.seeded, self.breaks = length, seeded, breaks

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed if self.seeded else None)
        self.left = "".join(self.np_random.choice(list("abc"), self.length))
        return self.left, {}

    def step(self, action):
        if self.breaks is not None:
            return self.breaks
        right = action == self.left[-1]
        self.left = self.left[:-1]
        return self.left or "-", float(right), not self.left, False, {}


gymnasium.register("tests/Spell-v0", Spell)


class Held(Spell):
    """Counts those that were made and not closed."""

    open = 0

    def __init__(self):
        super().__init__()
        Held.open += 1

    def close(self):
        Held.open -= 1


gymnasium.register("tests/Held-v0", Held)


async def episode(config, replies):
    made = suite(config)
    environment, task = made.environment(), made.training_task(0)
    first = await environment.reset(task)
    results = [await environment.step(Message("assistant", reply)) for reply in replies(task)]
    await environment.close()
    return first, results


async def test_a_picture_of_text_is_shown_with_its_colours_in_words():
    first, results = await episode(TAXI, lambda _: ["<answer>South</answer>", "<answer>9</answer>", "east"])
    assert "(yellow  )" in first.messages[0].content
    assert first.messages[0].content.endswith(f"one of {', '.join(ACTIONS)}.")
    assert "(South)" in results[0].messages[0].content
    assert results[0].components == {"reward": -1.0}
    assert results[1].components == results[2].components == {"illegal": -1.0}
    assert results[1].messages[0].content.startswith("'9' is no action: say one of south")


async def test_what_was_made_is_closed():
    made = suite(Gymnasium(environment="tests/Held-v0", heldout=2, turns=2))
    assert Held.open == 1  # the one that tells how tasks begin
    environment = made.environment()
    await environment.reset(made.training_task(0))
    assert Held.open == 2
    await environment.close()
    assert Held.open == 1


async def test_turns_cut_it_short():
    _, results = await episode(TAXI, lambda _: ["<answer>north</answer>"] * 6)
    assert [result.truncated for result in results] == [False] * 5 + [True]
    assert not results[-1].messages


async def test_texts_are_actions_as_they_are():
    config = Gymnasium(environment="tests/Spell-v0", answer_in="text", heldout=40)
    word = suite(config).training_task(0).prompt[0].content.split()[0]
    _, results = await episode(config, lambda _: ["z", *reversed(word)])
    assert results[0].components == {"illegal": -1.0}
    assert [result.reward for result in results[1:]] == [1.0] * 6
    assert results[-1].terminated
    assert [result.messages[0].content for result in results[1:-1]] == [word[:n] for n in range(5, 0, -1)]


async def test_whole_numbers_are_shown_as_json():
    first, _ = await episode(Gymnasium(environment="Blackjack-v1", heldout=10), lambda _: [])
    assert first.messages[0].content.startswith("[")


@pytest.mark.parametrize("answer", [(0, 1), ("a", None, False, False, {}), ("a", "much", False, False, {})])
async def test_an_environment_that_breaks_is_a_fault_and_no_reward(answer):
    config = Gymnasium(environment="tests/Spell-v0", settings={"breaks": list(answer)}, answer_in="text")
    with pytest.raises(EnvironmentFault, match=r"tests/Spell-v0 of Gymnasium failed \("):
        await episode(config, lambda _: ["a"])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"environment": "Taxy-v4"}, "Gymnasium has no environment 'Taxy-v4'; did you mean Taxi-v4?"),
        ({"environment": "nothing_there:Taxi-v4"}, "needs the module nothing_there, which is not there"),
        ({"environment": "FrozenLake-v1"}, "its settings make only 1 tasks"),
        ({"environment": "CartPole-v1"}, "which no words say"),
        ({"environment": "Pendulum-v1"}, "which no words say"),
        ({"environment": "Taxi-v4", "actions": ["left", "right"]}, "Taxi-v4 has 6 of them"),
        ({"environment": "Taxi-v4", "settings": {"rain": 1}}, "unexpected keyword argument 'rain'"),
        ({"environment": "tests/Spell-v0", "settings": {"seeded": False}}, "begins in two ways with one seed"),
        ({"environment": "tests/Spell-v0", "actions": ["a"]}, "actions of tests/Spell-v0 are texts"),
    ],
)
def test_what_cannot_be_played_is_refused_in_a_sentence(settings, sentence):
    with pytest.raises(ConfigError) as caught:
        suite(Gymnasium.model_validate(settings))
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message
