"""What is told of a run: a row a step, once, whatever happened in between."""

import sys

import numpy as np
import pytest

from fettle.broker.promises import Keeping, Promise
from fettle.errors import StorageError
from fettle.service.clock import now
from fettle.service.later import Later
from fettle.service.told import Told
from fettle.types import ForwardResult, OptimResult


async def kept(promise):
    return None


def done(kind: str, answer: object) -> Promise:
    keeping = Keeping(kept, lambda promise: False, lambda promise: None)
    promise = Promise(f"run.0.{kind}", policy="run", tenant="one", kind=kind, tokens=1, said="", keeping=keeping)
    promise.seconds = 0.5
    promise.settle(answer)
    return promise


def loss(value: float, tokens: int, **metrics: float) -> ForwardResult:
    return ForwardResult(value, metrics, [], tokens)


async def step(told: Told, later: Later, version: int, *losses: ForwardResult) -> None:
    for each in losses:
        told.worked("run", done("forward_backward", each))
    told.worked("run", done("optim_step", OptimResult(version, 0.25)))
    await later.close(patience_s=5)


async def test_the_calls_of_a_step_are_one_row(tmp_path):
    later = Later()
    told = Told(tmp_path, later, now)
    await step(told, later, 1, loss(1.0, 10, nll=2.0, ratio_max=1.5), loss(3.0, 30, nll=1.0, ratio_max=1.2))
    [row] = await told.metrics("run")
    assert (row["step"], row["loss"], row["tokens/trained"]) == (1, 4.0, 40)
    assert row["loss/nll"] == pytest.approx(1.25)
    assert row["loss/ratio_max"] == 1.5
    assert (row["policy/grad_norm"], row["time/step"]) == (0.25, 1.5)
    told.close()


async def test_the_seconds_of_a_step_are_those_of_its_draws_as_well(tmp_path):
    later = Later()
    told = Told(tmp_path, later, now)
    for version in (1, 2):
        told.drew("run", [], done("draw", []))
        await step(told, later, version, loss(1.0, 10))
    assert [row["time/step"] for row in await told.metrics("run")] == [1.5, 1.5]
    told.close()


async def test_a_step_carried_out_again_after_a_restart_is_told_once(tmp_path):
    for _ in range(2):
        later = Later()
        told = Told(tmp_path, later, now)
        for version in (1, 2):
            await step(told, later, version, loss(version, 1))
        told.close()
    told = Told(tmp_path, Later(), now)
    assert [row["step"] for row in await told.metrics("run")] == [1, 2]
    assert [row["step"] for row in await told.metrics("run", after=1)] == [2]
    told.close()


async def test_a_line_that_was_cut_short_is_taken_out(tmp_path):
    told = Told(tmp_path, Later(), now)
    await told.add_metrics("run", [{"step": 1, "reward": 1.0}])
    told.close()
    file = tmp_path / "runs" / "run" / "metrics.jsonl"
    file.write_bytes(file.read_bytes() + b'{"step": 2, "rew')
    told = Told(tmp_path, Later(), now)
    await told.add_metrics("run", [{"step": 3, "reward": 0.5}])
    assert await told.metrics("run") == [{"step": 1, "reward": 1.0}, {"step": 3, "reward": 0.5}]
    told.close()


async def test_a_disk_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "runs").write_text("no folder")
    told = Told(tmp_path, Later(), now)
    with pytest.raises(StorageError, match="written"):
        await told.add_episodes("run", [{"step": 1}])
    told.close()


async def test_of_calls_before_a_step_only_figures_are_kept(tmp_path):
    told = Told(tmp_path, Later(), now)
    logprobs = np.zeros(1000, np.float32)
    result, kept = ForwardResult(1.0, {"nll": 1.0}, [logprobs], 10), sys.getrefcount(logprobs)
    told.worked("run", done("forward_backward", result))
    del result
    assert sys.getrefcount(logprobs) < kept
    told.close()


async def test_of_a_run_that_is_over_nothing_is_kept_in_memory(tmp_path):
    told = Told(tmp_path, Later(), now)
    told.drew("run", [], done("draw", []))
    assert len(told.draws("run")) == 1
    told.forget("run")
    assert told.draws("run") == []
    told.close()
