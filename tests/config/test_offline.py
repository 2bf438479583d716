"""Settings of runs on given data that nobody would read are refused."""

import pytest
from pydantic import ValidationError

from fettle.config import PolicySpec, PreferenceRun, RewardModelRun, RewardWeighting, SFTRun, WorkedPairs, WorkedSums


def test_a_temperature_needs_weights_that_have_one():
    assert RewardWeighting(kind="advantage", temperature=0.5).temperature == 0.5
    with pytest.raises(ValidationError, match=r"temperature is 0\.5, and weights .*: use kind: advantage"):
        RewardWeighting(temperature=0.5)


@pytest.mark.parametrize(
    ("kind", "data", "head", "why"),
    [
        (SFTRun, WorkedSums(), "value", "policy.head is value, and nothing in this run trains it"),
        (PreferenceRun, WorkedPairs(), "reward", "policy.head is reward, and nothing in this run trains it"),
        (RewardModelRun, WorkedPairs(), "value", "a reward model's is its own"),
    ],
)
def test_a_head_that_nothing_trains_is_refused(kind, data, head, why):
    with pytest.raises(ValidationError, match=why):
        kind(policy=PolicySpec(model="m", head=head), data=data)
