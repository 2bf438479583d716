"""What a policy says of a request is what its arrays say, and where it can be, why."""

import re

import numpy as np
import pytest

from fettle.errors import CheckpointError, DataError
from fettle.router.opinions import BIAS, opinion
from fettle.router.policy import RouterPolicy

LINEAR = {
    "policy_w": np.float32([[0, 1, 2, 3, 4], [1, 0, 0, 0, 0]]),
    "policy_b": np.float32([5, 0, 0, 0, 0]),
    "value_w": np.float32([2, 3]),
    "value_b": np.float32([1]),
}
HIDDEN = {
    f"{head}_hidden_{part}": np.float32(v)
    for head in ("policy", "value")
    for part, v in (("w", np.eye(2)), ("b", [0, 0]))
}


def policy(arrays):
    return RouterPolicy(arrays, {"features": ["difficulty", "stakes"]})


def test_a_linear_policy_says_what_each_feature_added():
    said = opinion(policy(LINEAR), {"stakes": 0.5, "difficulty": 2, "else": 9}, 4)
    assert (said.version, said.value) == (4, 6.5)
    assert dict(said.observation) == {"difficulty": 2.0, "stakes": 0.5}
    assert list(said.contributions["difficulty"].values()) == [0, 2, 4, 6, 8]
    assert list(said.contributions["stakes"].values()) == [0.5, 0, 0, 0, 0]
    assert list(said.contributions[BIAS].values()) == [5, 0, 0, 0, 0]
    assert sum(said.probabilities.values()) == pytest.approx(1)


def test_a_short_number_is_a_number():
    short, plain = (
        opinion(policy(LINEAR), {"stakes": kind(0.5), "difficulty": kind(2)}, 1) for kind in (np.float32, float)
    )
    assert short == plain
    assert {type(each) for each in short.observation.values()} == {float}


def test_a_policy_with_a_hidden_layer_gives_no_reasons():
    said = opinion(policy({**LINEAR, **HIDDEN}), {"stakes": 0.5, "difficulty": 2}, None)
    assert said.contributions is None
    assert said.value == pytest.approx(2 * np.tanh(2) + 3 * np.tanh(0.5) + 1)


def test_what_is_wrong_with_a_request_is_told_apart_from_what_is_wrong_with_a_policy():
    with pytest.raises(DataError, match="has no feature difficulty, which the policy reads; did you mean dificulty"):
        opinion(policy(LINEAR), {"stakes": 0.5, "dificulty": 2}, 1)
    for given, told in ((3e38, "3e+38"), ("high", "of type str"), (True, "of type bool"), (10**400, "of type int")):
        with pytest.raises(
            DataError, match=re.escape(f"feature stakes is {told}: it must be a number of at most 1e+06")
        ):
            opinion(policy(LINEAR), {"stakes": given, "difficulty": 2}, 1)
    with pytest.raises(CheckpointError, match="not finite"):
        opinion(policy({**LINEAR, "value_b": np.float32([np.inf])}), {"stakes": 0.5, "difficulty": 2}, 1)
