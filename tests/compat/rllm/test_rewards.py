"""The documented rewards: what is soon done, and weights that are an environment's credit."""

import pytest

from fettle.compat.rllm import RewardCalculator, RLLMRewardConfig
from fettle.compat.rllm.places import rewards
from fettle.compat.rllm.rewards import COMPLETION_TIME, completion_time
from fettle.config import IssueCredit, Issues
from fettle.errors import ConfigError
from fettle.rewards import reward
from fettle.types import Message, Task

TASK = Task((Message("user", "mend it"),), {}, "issues")
EDIT = '<edit path="a.py">\nold\n=======\nnew\n</edit>'


def test_saying_the_same_again_earns_less():
    assert 0 < completion_time(EDIT * 5, TASK) < completion_time(EDIT, TASK) < 1


@pytest.mark.parametrize("reply", ["All tests are passing.", "fix " * 20, "<edit>", ""])
def test_words_without_an_edit_earn_nothing(reply):
    assert completion_time(reply, TASK) == 0.0


async def test_the_calculator_is_handed_on_and_pays_the_documented_weight():
    calculator = RewardCalculator()
    calculator.add("completion_time", completion_time, weight=RLLMRewardConfig().completion_time_weight)
    calculator.add("mine", lambda reply, task: 0.5)
    assert await calculator.total(EDIT, TASK) == pytest.approx(0.2 * completion_time(EDIT, TASK) + 0.5)
    calculator.remove("mine")
    assert list(await calculator.breakdown(EDIT, TASK)) == ["completion_time"]


def test_it_is_found_by_its_name():
    assert reward(COMPLETION_TIME) is completion_time


def test_the_documented_weights_are_an_environment_s_credit_and_parts():
    made = Issues(path="p", repository="r", **rewards({"code_quality_weight": 0.3, "completion_time_weight": 0.2}))
    assert made.credit == IssueCredit()
    assert [(part.name, part.scale) for part in made.rewards] == [(None, 1.0), ("completion_time", 0.04)]
    assert Issues(path="p", repository="r", **rewards({"readability_weight": 0.6})).credit.readability == 0.0909
    assert rewards({}) == {}


def test_weights_by_which_failing_could_pay_more_are_refused():
    with pytest.raises(ConfigError, match="completion_time_weight 5 a change that fails could earn more"):
        rewards({"completion_time_weight": 5.0})
    with pytest.raises(ConfigError, match="readability_weight 9 a change that fails could earn more"):
        rewards({"readability_weight": 9.0})
