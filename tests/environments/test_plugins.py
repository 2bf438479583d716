"""Environments of other packages are found by name, are given their own settings, and fail in one sentence."""

import pytest

from fettle.config import Plugin
from fettle.environments import suite
from fettle.errors import ConfigError
from tests.environments.adapters.installed import COUNTING, installed

POINT = {"counting": "counting_world:suite"}


@pytest.fixture
def counting(tmp_path):
    with installed(tmp_path / "packages", "counting_world", COUNTING, POINT):
        yield


def refusal(**settings) -> str:
    with pytest.raises(ConfigError) as caught:
        suite(Plugin(**settings))
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_package_is_given_its_settings_and_the_recipes(counting):
    made = suite(Plugin(name="counting", settings={"most": 10}, heldout=5, system="Count.", seed=3))
    assert made.heldout_tasks()[0].prompt[0].content == "Count."
    assert len(made.heldout_tasks()) == 5
    assert max(made.training_task(index).data["answer"] for index in range(200)) <= 10
    assert made.heldout_tasks() != suite(Plugin(name="counting", settings={"most": 10}, heldout=5)).heldout_tasks()


def test_rewards_can_be_laid_over_it(counting):
    made = suite(Plugin(name="counting", rewards=({"reward": "environment", "scale": 2.0},)))
    assert type(made).__name__ == "RewardedSuite"


ARGUING = """
from pydantic import BaseModel
class Settings(BaseModel): pass
class Arguing:
    name, players = "arguing", ("pro", "con")
    def training_task(self, index): ...
    def heldout_tasks(self): return []
    def game(self): ...
def suite(settings: Settings, *, seed, heldout, system): return Arguing()
"""


def test_rewards_that_would_be_of_no_effect_are_refused(tmp_path):
    """Of a game every player earns its own, and a reward of parts is of one."""
    with installed(tmp_path / "packages", "arguing_world", ARGUING, {"arguing": "arguing_world:suite"}):
        assert suite(Plugin(name="arguing")).players == ("pro", "con")
        with pytest.raises(ConfigError, match=r"arguing is a game, .* leave rewards out"):
            suite(Plugin(name="arguing", rewards=({"reward": "environment", "scale": 2.0},)))


def test_slips_are_told_with_what_was_meant(counting):
    assert "no installed package brings an environment 'countin'" in refusal(name="countin")
    assert "did you mean counting?" in refusal(name="countin")
    assert refusal(name="counting", settings={"mots": 1}) == (
        "the environment counting has no setting 'mots'; did you mean most?"
    )
    assert "settings of counting: 'most'" in refusal(name="counting", settings={"most": "many"})


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("import nothing_of_that_name", "cannot be imported (ModuleNotFoundError: No module named 'nothing_of_that"),
        ("1 / 0", "cannot be imported (ZeroDivisionError: division by zero)"),
        ("def suite(x): ...", "is no function of the form `def suite(settings: Settings, *, seed: int"),
        ("suite = 3", "is no function of the form"),
        (
            COUNTING.replace("def draw(rng):", "1 / 0\n    def draw(rng):"),
            "failed (ZeroDivisionError: division by zero)",
        ),
        (COUNTING.replace("return GeneratedSuite", "return list"), "failed (TypeError"),
        (
            COUNTING.replace("return GeneratedSuite(", "return str and (lambda *a, **k: 3)("),
            "returned a int, which is no",
        ),
    ],
)
def test_a_package_that_fails_is_named_with_what_it_said(tmp_path, source, sentence):
    with installed(tmp_path / "packages", "broken_world", source, {"broken": "broken_world:suite"}):
        said = refusal(name="broken")
    assert "the environment broken of the package broken_world, broken_world:suite, " in said
    assert sentence in said


def test_two_packages_of_one_name_are_told_apart_by_nobody(counting, tmp_path):
    with installed(tmp_path / "others", "other_world", COUNTING, {"counting": "other_world:suite"}):
        assert "counting_world and other_world both bring an environment 'counting'" in refusal(name="counting")
