"""What is said of runs in which somebody was killed."""

import pytest

pytest.importorskip("ray")

from benchmarks.cluster_faults.page import page
from benchmarks.cluster_faults.runs import Run, compared
from benchmarks.cluster_faults.struck import Told
from benchmarks.cluster_faults.trials import Found


def run(*told: tuple[str, str], reward: float = 0.5, weights: str = "w") -> Run:
    return Run([(1, {"reward": reward})], weights, [Told(*each, 1.0) for each in told], 9.0, ["sample"], [2.0])


def test_what_is_lost_doubled_or_different_is_counted_and_told():
    expected = run(("sample", "a"), ("optim_step", "b"), ("save", ""))
    assert not any(compared(expected, expected)[name] for name in compared(expected, expected) if name != "operations")
    other = compared(run(("sample", "c"), ("sample", "b"), ("save", ""), reward=0.5 + 1e-9, weights="v"), expected)
    assert (other["lost"], other["doubled"], other["answers_that_differ"]) == (1, 1, 1)
    assert (other["rows_that_differ"], other["weights_differ"]) == (1, 1)
    assert 0 < other["largest_difference"] < 2e-9

    found = Found("a rank")
    found.add(expected, expected)
    of_the_machine = {"load": [1, 2], "date": "2026-11-22", "machine": {"cpu": "A", "cores": 2}, "versions": {}}
    told = page({"ranks": {**found.told(), **of_the_machine}})
    assert "| a rank | 1 | 1 | 1 | 0 | 0 | 0 | 2.0 | 2.0 |" in told
    assert "- a rank: sample 1, 3 operations in all" in told
