"""An actor that samples beside a trainer: a loop, weights that arrive altered, and its death."""

import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from fettle.broker import Broker
from fettle.cluster.actors import SamplerActor, begun
from fettle.cluster.beside import SampledBeside
from fettle.cluster.parcel import Parcel
from fettle.cluster.parity import Parity
from fettle.cluster.pool import Pool
from fettle.config import ActorSamplers, LocalEngine, LoRA, PolicySpec, RayEngine, RLRun, SamplingParams
from fettle.engine.base import SampleRequest
from fettle.engine.local import LocalBackend

from .ranks import TRAINERS, heard_and_cut, ray_here
from .test_backend import RUNS, UNLIKE, USUAL, model, trained, weights

__all__ = ["model"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("beside")


@pytest.fixture(scope="module")
def beside(checkpoints: Path) -> Iterator[object]:
    """One, and a trainer in this process: what several do is the pool's, and in ``test_vllm``."""
    settings = ActorSamplers(labels=TRAINERS)
    trainer = LocalBackend(LocalEngine(threads=1, sampling_threads=1), checkpoints=checkpoints)
    with ray_here():
        backend = SampledBeside(trainer, Pool(begun(settings, RayEngine())), Parity(settings.parity))
        yield backend
        backend.close()


async def test_a_loop_whose_samples_come_from_actors_comes_to_the_numbers_of_one_process(
    beside, checkpoints, model, tmp_path
):
    kind, settings = RUNS["grpo"]
    run: RLRun = kind.model_validate({**USUAL, **settings, "policy": {**settings["policy"], "model": model}})
    here = await trained(run, Broker(LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path / "a")), tmp_path / "x")
    there = await trained(run, Broker(beside), tmp_path / "y")
    for one, other in zip(here.rows, there.rows, strict=True):
        own = {metric for metric in other if metric.startswith(("parity/", "samplers/", "sync/"))}
        assert one.keys() == other.keys() - own
        for metric in [metric for metric in one if not metric.startswith(UNLIKE)]:
            assert other[metric] == pytest.approx(one[metric], rel=1e-4, abs=1e-5), metric
        if own:
            assert other["parity/max"] < 1e-5
            assert (other["samplers/present"], other["samplers/by_trainer"]) == (1, 0)
            assert min(other["sync/bytes"], other["sync/seconds"]) > 0
    one, other = weights(tmp_path / "a"), weights(checkpoints)
    assert np.linalg.norm(other - one) < 1e-5 * np.linalg.norm(one)


def asked() -> list[SampleRequest]:
    params = [SamplingParams(max_tokens=24, seed=place, end_tokens=False) for place in range(6)]
    return [SampleRequest([place + 1, 7], 2, own) for place, own in enumerate(params)]


def tokens(drawn) -> list[list[int]]:
    return [completion.tokens for completions in drawn for completion in completions]


def test_what_arrives_altered_is_refused_by_its_name_and_sent_again(beside, model, tmp_path, caplog):
    local = LocalBackend(LocalEngine(threads=1), checkpoints=tmp_path)
    local.create_policy("p", PolicySpec(model=model, lora=LoRA(rank=4)))
    saved = Path(local.save("p", "saved", optimizer=False).result().path)
    parcel = Parcel("altered-v0", "p", 0, saved)
    sent, sums = dict(parcel.pieces), parcel.sums
    [first] = [name for name in sent if name.endswith("layers.0.self_attn.q_proj.lora_A.weight")]
    actor = SamplerActor(LocalEngine(threads=1))
    assert actor.receive("early", sums, {**sent, first: sent[first] ^ 1}) == [first]
    assert actor.receive("early", sums, {first: sent[first]}) == []
    pin, _ = local.pin("p")
    assert tokens(actor.draw(["early"] * 6, asked())) == tokens(local.sample([pin] * 6, asked()))
    actor.end()

    file = saved / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    seat = next(iter(beside._pool._seats.values()))
    seat._settings, before = seat._settings.model_copy(update={"transfer": "files"}), seat._settings
    with caplog.at_level(logging.WARNING):
        seat.take(parcel)
    seat._settings = before
    assert f"{seat.name} refuses adapter_model.safetensors: base_model.model.model.layers" in caplog.text
    assert tokens(seat.draw([parcel] * 6, asked())) == tokens(local.sample([pin] * 6, asked()))
    seat.drop(parcel)


def test_tokens_are_heard_of_as_an_actor_draws_them_and_a_draw_can_be_ended(beside, tmp_path):
    heard_and_cut(beside, tmp_path)


def test_an_actor_that_is_killed_is_drawn_for_and_comes_back(beside, model):
    beside.create_policy("q", PolicySpec(model=model, lora=LoRA(rank=4)))
    pin, _ = beside.pin("q")
    expected = tokens(beside.sample([pin] * 6, asked()))
    killed, *_ = on_ray()
    told = [[] for _ in expected]

    def watch(place, index, token, logprob):
        told[2 * place + index].append(token)
        if killed.is_running():
            os.kill(killed.pid, signal.SIGKILL)
        return True

    watched = [replace(each, watch=partial(watch, place)) for place, each in enumerate(asked())]
    assert tokens(beside.sample([pin] * 6, watched)) == expected
    assert told == expected
    killed.wait(10)
    assert tokens(beside.sample([pin] * 6, asked())) == expected
    assert beside.statistics()["samplers/lost"] == 1
    assert beside.statistics()["samplers/by_trainer"] >= 6
    beside._pool._seats["sampler 0"].wait()
    beside.unpin(pin)
    pin, _ = beside.pin("q")
    assert beside.statistics()["samplers/present"] == 1
    before = beside.statistics()["samplers/by_trainer"]
    assert tokens(beside.sample([pin] * 6, asked())) == expected
    assert beside.statistics()["samplers/by_trainer"] == before


def on_ray() -> list[psutil.Process]:
    """Processes of samplers."""
    children = psutil.Process().children(recursive=True)
    return [each for each in children if each.is_running() and "ray::SamplerActor" in " ".join(each.cmdline())]
