import importlib
from inspect import signature

import pytest

from benchmarks.page import ROWS, page, row_of

MEASURED = {
    "benchmark": "rollouts",
    "ratio": 6.25,
    "met": True,
    "not_applicable": "",
    "ours": {"tokens_per_second": {"median": 625.0, "q1": 600.0, "q3": 650.0, "n": 5}},
    "peer": {"tokens_per_second": {"median": 100.0, "q1": 99.0, "q3": 101.0, "n": 5}},
    "floor": {"fp32_gflops": 200.0, "bf16_gflops": 400.0, "copy_gbps": 20.0},
    "versions": {"torch": "2"},
    "machine": {"cpu": "a processor", "cores": 2, "memory_gib": 8.0, "bf16": [], "system": "Linux", "python": "3.11"},
    "load": {"before": 0.1, "after": 1.5},
    "settings": {"threads": 2, "dtype": "fp32", "repetitions": 5},
    "further": {"leaner": False},
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
    assert "| `rollouts` |" in told
    assert "| ≥ 5 x | 6.25 x; leaner: **no** | yes |" in told
    assert "625 [600, 650]" in told
    assert "No GPU was at hand" in told


def test_a_page_without_measurements_says_so():
    assert "Nothing was measured yet" in page([])
