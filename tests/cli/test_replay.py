"""``fettle replay``: one recorded step, carried out once more from the journal alone."""

import asyncio
import shutil
from pathlib import Path

import pytest

from fettle.broker import Broker
from fettle.broker.replay import Recording
from fettle.config import AdamW, CausalLM, JournalSettings, LocalEngine, LoRA, PolicySpec, TinyModel
from fettle.engine.local import LocalBackend, make_tiny_model
from fettle.types import datum

from .conftest import Ended, typed

STEPS = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    settings = TinyModel(hidden=32, layers=2, heads=2, context=64)
    return make_tiny_model(settings, tmp_path_factory.mktemp("model") / "tiny", texts=["one two three"] * 9)


async def trained(folder: Path, model: str, *names: str) -> None:
    """Runs of six steps, written down after every seventh operation."""
    backend = LocalBackend(LocalEngine(threads=1), checkpoints=folder / "checkpoints")
    broker = await Broker.recovered(backend, folder / "journal", JournalSettings(snapshot_operations=7))
    for name in names:
        policy = await broker.create_policy(PolicySpec(model=model, lora=LoRA(rank=4, dropout=0.2)), name=name)
        for step in range(STEPS):
            for first in (4, 20):
                data = [datum([*range(first + step, first + step + 12)], [0] + [1] * 11)]
                await policy.forward_backward(data, CausalLM())
            await policy.optim_step(AdamW(learning_rate=0.01))
    broker.close()


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory, model: str) -> Path:
    folder = tmp_path_factory.mktemp("state")
    asyncio.run(trained(folder, model, "run"))
    return folder


def replayed(state: Path, *arguments: object) -> Ended:
    return typed("replay", state, *arguments, into=state.parent)


def test_the_last_step_comes_to_the_same_bits(state):
    done = replayed(state, "--step", STEPS)
    assert done.code == 0, done.err
    for word in ("forward_backward", "optim_step", "loss", "grad_norm", "every figure is the same"):
        assert word in done.out
    assert "DIFFERS" not in done.out


def test_every_step_that_the_journal_holds_can_be_replayed_from_a_copy(state, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(state / "journal", copy)
    steps = Recording(copy).steps("run")
    assert steps[-2:] == [STEPS - 1, STEPS]
    for step in steps:
        assert replayed(copy, "--step", step).code == 0


def test_weights_that_were_altered_show_in_the_figures(state, tmp_path, model):
    """Snapshots of another seed are put in the place of the run's own."""
    copy, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(state / "journal", copy)
    backend = LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path)
    backend.create_policy("run", PolicySpec(model=model, lora=LoRA(rank=4, dropout=0.2), seed=9))
    backend.forward_backward("run", [datum([*range(4, 16)], [0] + [1] * 11)], CausalLM())
    backend.snapshot("run", other)
    for folder in (copy / "snapshots" / "run").iterdir():
        shutil.rmtree(folder)
        shutil.copytree(other, folder)
    done = replayed(copy, "--step", STEPS)
    assert done.code == 1
    assert "DIFFERS" in done.out
    assert "figures differ" in done.out


def test_a_step_that_is_not_there_is_refused_with_those_that_are(state):
    done = replayed(state, "--step", 40)
    assert done.code == 1
    assert "step 40 of run cannot be replayed" in done.complaint
    assert str(STEPS) in done.complaint


def test_one_of_several_runs_must_be_named(tmp_path, model):
    asyncio.run(trained(tmp_path / "two", model, "first", "second"))
    done = replayed(tmp_path / "two", "--step", STEPS)
    assert done.code == 2
    assert "say which with --run" in done.complaint
    assert (
        "there is no run 'frist'; did you mean first?"
        in replayed(tmp_path / "two", "--run", "frist", "--step", 1).complaint
    )
    assert replayed(tmp_path / "two", "--run", "second", "--step", STEPS).code == 0


def test_a_folder_without_a_journal_is_refused(tmp_path):
    assert "holds no journal" in replayed(tmp_path, "--step", 1).complaint
