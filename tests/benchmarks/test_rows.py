import importlib
from inspect import signature

import pytest

from benchmarks.page import ROWS, page, row_of

MEASURED = {
    "benchmark": "rollouts",
    "ratio": 6.25,
    "met": True,
    "not_applicable": "",
    "ours": {"tokens_per_second": {"median": 625.0, "q1": 600.0, "q3": 650.0, "n": 5}, "floor_multiple": 3.0},
    "peer": {"tokens_per_second": {"median": 100.0, "q1": 99.0, "q3": 101.0, "n": 5}},
    "floor": {"fp32_gflops": 200.0, "bf16_gflops": 400.0, "copy_gbps": 20.0},
    "versions": {"torch": "2"},
    "machine": {
        "cpu": "a processor",
        "cores": 2,
        "memory_gib": 8.0,
        "bf16": [],
        "gpu": None,
        "system": "Linux",
        "python": "3.11",
    },
    "load": {"before": 0.1, "after": 1.5},
    "settings": {"device": "cpu", "threads": 2, "dtype": "fp32", "repetitions": 5},
    "further": {"leaner": True},
    "notes": [],
    "date": "2026-01-02T03:04:05+00:00",
}


@pytest.mark.parametrize("name", ROWS)
def test_every_row_can_be_imported_and_describes_itself(name):
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.__doc__
    assert row_of(name).name == name
    assert list(signature(module.measured).parameters) == ["settings", "floor"]


def test_the_page_tells_what_was_measured_beside_its_target():
    told = page([MEASURED])
    assert "| ≥ 5 x | 6.25 x | yes |" in told
    assert "Every row that was measured is met." in told
    assert "625 [600, 650] of 5" in told
    assert "No GPU was at hand" in told


def test_the_page_tells_how_far_each_side_is_from_the_floor():
    assert "| `rollouts` | 3 x |  |" in page([MEASURED])


def test_a_row_that_is_not_met_has_a_sentence_of_its_own():
    slow = page([{**MEASURED, "ratio": 1234.5678 / 1000, "met": False}])
    assert "**`rollouts` is not met**: 1.23 x, where at least 5 was the target." in slow
    fat = page([{**MEASURED, "met": False, "further": {"leaner": False}}])
    assert '**`rollouts` is not met**: "leaner" does not hold.' in fat


def test_a_page_of_a_gpu_names_it_and_does_not_say_that_there_was_none():
    settings = {**MEASURED["settings"], "device": "cuda"}
    told = page([{**MEASURED, "settings": settings, "machine": {**MEASURED["machine"], "gpu": "a card"}}])
    assert "a card; a processor" in told
    assert "No GPU was at hand" not in told


def test_a_page_without_measurements_says_so():
    assert "Nothing was measured yet" in page([])
