"""Settings of runs on given data that nobody would read are refused."""

import pytest
from pydantic import ValidationError

from fettle.config import RewardWeighting


def test_a_temperature_needs_weights_that_have_one():
    assert RewardWeighting(kind="advantage", temperature=0.5).temperature == 0.5
    with pytest.raises(ValidationError, match=r"temperature is 0\.5, and weights .*: use kind: advantage"):
        RewardWeighting(temperature=0.5)
