"""``profile=true``: the run folder says where the seconds went, and which operators one step was spent on."""

import asyncio
import json
import threading

import pytest
import torch

from fettle.broker import Broker
from fettle.cli.build import new_folder, run
from fettle.cli.profiler import StepProfiler, middle_step
from fettle.config import LocalEngine
from fettle.config.load import load
from fettle.engine.local import LocalBackend
from fettle.engine.local.profiling import OperatorProfile
from fettle.tracking import RunFolder

RECIPE = """
type: rl
name: profiled
policy: {model: {type: tiny, hidden: 32, layers: 1, heads: 2}}
environments: [{type: arithmetic, digits: 1, heldout: 4, system: null}]
steps: 5
groups_per_step: 2
group_size: 3
loss: {kl: null}
sampling: {max_tokens: 6}
engine: {threads: 1}
evaluation: {every: 5, tasks: 4}
"""


def carried_out(tmp_path, *overrides: str) -> RunFolder:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    config = load(recipe, overrides)
    folder = new_folder(tmp_path / "runs", config)
    asyncio.run(run(config, folder))
    return folder


def test_a_profiled_run_leaves_the_parts_of_its_steps_and_the_operators_of_the_middle_one(tmp_path):
    folder = carried_out(tmp_path, "profile=true")
    profile = json.loads(folder.profile_path.read_text())
    assert list(profile["totals"]) == ["sample", "score", "forward", "backward", "optimizer", "wait"]
    assert sum(profile["shares"].values()) == pytest.approx(1.0)
    assert profile["profiled_step"] == 3
    assert {"aten::addmm", "aten::mm"} & {each["name"] for each in profile["operators"]}
    assert folder.profile_chart_path.is_file()
    assert "## Where the time went" in folder.report_path.read_text()


def test_a_run_that_is_not_profiled_leaves_nothing_of_it(tmp_path):
    folder = carried_out(tmp_path)
    assert not folder.profile_path.exists()
    assert not folder.profile_chart_path.exists()
    assert "Where the time went" not in folder.report_path.read_text()


def test_the_step_is_from_the_middle_and_has_no_evaluation_before_it_where_that_can_be():
    assert middle_step(60, evaluated_every=20) == 30
    assert middle_step(61, evaluated_every=30) == 32
    assert middle_step(2, evaluated_every=1) == 2
    assert middle_step(1, evaluated_every=1) == 0


async def test_a_run_that_ends_within_the_step_leaves_no_profiler_at_work(tmp_path):
    broker, profiler = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path)), StepProfiler(2)
    async with profiler.of(broker):
        profiler.after_step(1, {})
        await asyncio.sleep(0)  # what a step issues comes after a turn of the loop
        await broker.run(lambda: torch.ones(3, 3) @ torch.ones(3, 3))
    again = StepProfiler(2)
    async with again.of(broker):
        again.after_step(1, {})
        await asyncio.sleep(0)
        await broker.run(lambda: torch.ones(3, 3) @ torch.ones(3, 3))
        again.after_step(2, {})
    broker.close()
    for found in (profiler, again):
        assert "aten::mm" in {each.name for each in found.operators}


async def test_a_profiler_that_fails_does_not_hide_what_the_run_failed_of(tmp_path, monkeypatch):
    def fails(self: OperatorProfile) -> None:
        raise RuntimeError("no profiler")

    monkeypatch.setattr(OperatorProfile, "start", fails)
    monkeypatch.setattr(OperatorProfile, "stop", lambda self: [])
    broker = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path))

    async def profiled(fault: str) -> None:
        profiler = StepProfiler(2)
        async with profiler.of(broker):
            profiler.after_step(1, {})
            if fault:
                raise ValueError(fault)

    with pytest.raises(ValueError, match="of the run"):
        await profiled("of the run")
    with pytest.raises(RuntimeError, match="no profiler"):
        await profiled("")
    broker.close()


def test_operators_are_those_of_the_thread_that_was_looked_at_the_most_expensive_first():
    operators = OperatorProfile()
    operators.start()
    torch.ones(300, 300) @ torch.ones(300, 300)
    other = threading.Thread(target=lambda: torch.ones(3).cos())
    other.start()
    other.join()
    found = operators.stop()
    assert found == sorted(found, key=lambda each: -each.seconds)
    assert {each.name: each.calls for each in found}["aten::mm"] == 1
    assert "aten::cos" not in {each.name for each in found}
