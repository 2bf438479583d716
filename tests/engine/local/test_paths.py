"""How a batch closes up."""

import numpy as np

from fettle.engine.local.paths import closed_up


def test_a_batch_closes_up_with_as_few_moves_as_there_are_gaps() -> None:
    finished = np.array([False, True, False, True, False, True, False])
    assert closed_up(finished).tolist() == [0, 4, 2, 6]
    assert closed_up(np.array([False, False])).tolist() == [0, 1]
    assert closed_up(np.array([True, True])).tolist() == []
    random = np.random.default_rng(0)
    for _ in range(50):
        finished = random.random(20) < 0.4
        order = closed_up(finished)
        assert sorted(order) == np.flatnonzero(~finished).tolist()
        assert (order != np.arange(len(order))).sum() == finished[: len(order)].sum()
