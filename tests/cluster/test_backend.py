"""Loops on ranks that really run: their numbers against the local engine's, and ranks that die."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from benchmarks.cluster_faults import followed, killed, rows
from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.config import AdamW, CausalLM, LocalEngine, LoRA, PolicySpec, PreferenceRun, RLRun, SFTRun, TinyModel
from fettle.engine.local import LocalBackend, make_tiny_model
from fettle.environments import suite
from fettle.errors import EngineError
from fettle.tracking import RunFolder
from fettle.training import Session, preference, rl, sft
from fettle.types import Message
from tests.cli.conftest import furnished, typed
from tests.training.colours import HELDOUT, PAIRS
from tests.training.conftest import Memory

from .ranks import cleared, heard_and_cut, ranks, ray_here

SUMS = {"type": "arithmetic", "digits": 1, "heldout": 4, "system": None}
SUMS["rewards"] = [{"reward": "benchmarks.cluster_faults.paying:variety"}]
ADAM = {"learning_rate": 1e-3, "eps": 1e-5}
"""With a usual ``eps``, Adam makes whole steps of the rounding of gradients that are all but zero."""
USUAL = {"steps": 3, "optimizer": ADAM, "evaluation": {"every": 3}, "checkpoints": {"every": 3}}
DRAWN = {
    "environments": [SUMS],
    "groups_per_step": 2,
    "group_size": 3,
    "sampling": {"max_tokens": 6},
    "evaluation": {"every": 3, "tasks": 4},
}
TALK = [(Message("user", f"Paint {n} red"), Message("assistant", f"{n} is red" + " red" * (n % 3))) for n in range(8)]
RUNS = {
    "sft": (SFTRun, {"data": {"type": "conversations", "path": "-"}, "batch_size": 5}),
    "dpo": (PreferenceRun, {"data": {"type": "preferences", "path": "-"}, "batch_size": 6, "loss": {"type": "dpo"}}),
    "grpo": (RLRun, {**DRAWN, "preset": "grpo", "policy": {"lora": {"rank": 4}}}),
    "ppo with a critic": (RLRun, {**DRAWN, "preset": "ppo", "minibatches": 2}),
}

UNLIKE = ("time/", "speed/", "engine/", "policy/preference_accuracy")
"""What is of the machine; and what counts signs of differences that are zero, but for rounding, at the first step."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    texts = [message.content for talk in TALK for message in talk] + ["State the final answer 1 + 2 ="] * 9
    settings = TinyModel(hidden=32, layers=2, heads=2, context=128)
    return make_tiny_model(settings, tmp_path_factory.mktemp("model") / "tiny", texts=texts)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    with ray_here(), ranks(2, tmp_path_factory.mktemp("ranks"), sharded=True) as backend:
        yield backend


async def trained(run, broker: Broker, folder: Path) -> Memory:
    """The loop of the run, for real; the final weights are saved as ``final``."""
    memory = Memory()
    session = Session(RunFolder.at(folder), memory, checkpoints=run.checkpoints, steps=run.steps, stop=asyncio.Event())
    given = {"engine": broker, "session": session, "template": Template(load_tokenizer(str(run.policy.model)))}
    if isinstance(run, SFTRun):
        await sft.train(run, conversations=TALK, heldout=TALK, **given)
    elif isinstance(run, PreferenceRun):
        await preference.train(run, examples=PAIRS[:12], heldout=HELDOUT[:6], **given)
    else:
        await rl.train(run, suites=[suite(environment) for environment in run.environments], **given)
    broker.close()
    return memory


@pytest.mark.parametrize("name", RUNS)
async def test_two_ranks_come_to_the_numbers_of_one_process(two, model, tmp_path, name):
    kind, settings = RUNS[name]
    run = kind.model_validate({**USUAL, **settings, "policy": {"model": model, **settings.get("policy", {})}})
    alone = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path / "alone"))
    here = await trained(run, alone, tmp_path / "a")
    there = await trained(run, Broker(cleared(two)), tmp_path / "b")
    for one, other in zip(here.rows, there.rows, strict=True):
        assert one.keys() == other.keys() - {"engine/ranks", "engine/ranks_replaced"}
        for metric in [metric for metric in one if not metric.startswith(UNLIKE)]:
            close = 1e-4 if metric.endswith(("grad_norm", "explained_variance")) else 2e-6
            assert other[metric] == pytest.approx(one[metric], rel=close, abs=close), metric
    one, other = (weights(folder) for folder in (tmp_path / "alone", two._checkpoints))
    assert len(one) == len(other)
    assert np.linalg.norm(other - one) < 1e-6 * np.linalg.norm(one)


def weights(checkpoints: Path) -> np.ndarray:
    """Of the newest checkpoint, end to end."""
    [*_, newest] = sorted(checkpoints.glob("**/policy.json"), key=lambda path: path.stat().st_mtime)
    [file] = [path for path in newest.parent.glob("*.safetensors") if "model" in path.name]
    return np.concatenate([each.ravel() for _, each in sorted(load_file(file).items())])


def test_one_rank_trains_to_the_bits_of_this_process_and_leaves_nothing_running(two, tmp_path):
    desk = furnished(tmp_path / "desk")
    others = set(on_ray())
    for engine in ("local", "ray"):
        ended = typed("train", "tiny.yaml", "engine.threads=1", "--engine", engine, "--runs", engine, into=desk)
        assert ended.code == 0, ended.err
    one, other = (next((desk / engine).glob("*/checkpoints")) for engine in ("local", "ray"))
    files = {path.relative_to(one) for path in one.rglob("*.safetensors")}
    assert files == {path.relative_to(other) for path in other.rglob("*.safetensors")}
    assert all((one / file).read_bytes() == (other / file).read_bytes() for file in files)
    assert set(on_ray()) <= others
    assert [path.name for path in other.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)], ids=["whole", "adapter"])
def test_what_two_ranks_wrote_one_process_goes_on_with_and_the_other_way_round(two, model, tmp_path, lora):
    ranks, alone = cleared(two), LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path / "alone")

    def stepped(backend) -> None:
        backend.forward_backward("p", rows(1), CausalLM())
        backend.optim_step("p", AdamW(**ADAM))

    def read(backend, policy: str) -> np.ndarray:
        return np.concatenate(backend.forward(policy, rows(3), CausalLM()).logprobs)

    ranks.create_policy("p", PolicySpec(model=model, lora=lora))
    stepped(ranks)
    for first, second, name in ((ranks, alone, "there"), (alone, ranks, "back")):
        writing = first.save("p", name, optimizer=True)
        stepped(first)
        first.snapshot("p", tmp_path / name)
        expected = read(first, "p")
        first.close_policy("p")
        second.load_policy("p", writing.result().path, optimizer=True)
        stepped(second)
        second.revive("snapshot", tmp_path / name)
        for policy in ("p", "snapshot"):
            np.testing.assert_allclose(read(second, policy), expected, atol=2e-6)


def test_tokens_are_heard_of_as_ranks_draw_them_and_a_draw_can_be_ended(two, tmp_path):
    heard_and_cut(cleared(two), tmp_path)


def on_ray() -> list[psutil.Process]:
    """Processes of ranks."""
    children = psutil.Process().children(recursive=True)
    return [each for each in children if each.is_running() and "ray::Rank" in " ".join(each.cmdline())]


def test_a_rank_that_is_killed_changes_no_number_and_fewer_go_on_where_there_is_no_room(two, model, tmp_path):
    adapter = PolicySpec(model=model, lora=LoRA(rank=4))
    backend = cleared(two)
    expected = followed(backend, "undisturbed", adapter)
    survivor = backend.facts()[0].pid
    found, operation = killed(backend, "killed", adapter, at=6, rank=1, after=0.002)
    assert (operation, backend.replaced, backend.facts()[0].pid) == ("forward_backward", 1, survivor)
    assert repr(found) == repr(expected)

    whole = PolicySpec(model=model)
    local = LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path)
    patient, backend._ranks._settings = (
        backend._ranks._settings,
        backend._ranks._settings.model_copy(update={"start_seconds": 0.01}),
    )
    os.kill(backend.facts()[0].pid, signal.SIGKILL)
    assert repr(followed(backend, "fewer", whole)) == repr(followed(local, "fewer", whole))
    assert len(backend.facts()) == 1
    backend._ranks._settings = patient


def test_room_that_there_is_none_of_is_told(two, tmp_path):
    with (
        pytest.raises(EngineError, match=r"after 0.5 s the cluster has no room for 2 ranks that need 64 CPU each: "),
        ranks(2, tmp_path, threads=64, start_seconds=0.5),
    ):
        pass
