"""``ModelService``: what a real model draws, whole, in batches and as it is written."""

import asyncio
import threading
from pathlib import Path

import grpc
import pytest

from fettle.broker import Broker
from fettle.chat import Template, load_tokenizer
from fettle.cli.generation import SampledReplies
from fettle.config import Arithmetic, EnvironmentServerConfig, LocalEngine, SamplingParams, TinyModel
from fettle.engine.local import LocalBackend, make_tiny_model
from fettle.environments.remote import environment_pb2 as pb
from fettle.environments.remote.server import EnvironmentServer
from fettle.types import Message
from tests.environments.remote.raw import Raw, refused


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return make_tiny_model(TinyModel(hidden=32, layers=1, heads=2, context=128), folder, texts=["Say it."] * 20)


@pytest.fixture(scope="module")
def raw(tiny) -> Raw:
    ports: list[int] = []
    started, over = threading.Event(), threading.Event()

    async def served() -> None:
        broker = Broker(LocalBackend(LocalEngine(threads=1), checkpoints=Path("none")))
        generator = await SampledReplies.of(broker, tiny)
        settings = EnvironmentServerConfig(environments={"arithmetic": Arithmetic(heldout=4)}, port=0)
        server = EnvironmentServer(settings, generator=generator)
        ports.append(await server.start())
        started.set()
        await asyncio.to_thread(over.wait)
        await server.stop()
        broker.close()

    thread = threading.Thread(target=asyncio.run, args=(served(),))
    thread.start()
    assert started.wait(120)
    yield Raw(f"127.0.0.1:{ports[0]}", service="ModelService")
    over.set()
    thread.join(60)


def asked(text: str = "Say it.", *, logprobs: bool = True, model: str = "", **settings) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        model_id=model,
        messages=[pb.Message(role="user", content=text)],
        settings=pb.GenerationSettings(**{"max_new_tokens": 12, "seed": 3, **settings}),
        return_log_probs=logprobs,
    )


async def test_a_reply_is_what_the_engine_draws_of_the_same_prompt_and_seed(raw, tiny):
    found = await asyncio.to_thread(raw.Generate, asked())
    broker, template = (
        Broker(LocalBackend(LocalEngine(threads=1), checkpoints=Path("none"))),
        Template(load_tokenizer(tiny)),
    )
    try:
        ends = tuple(sorted(template.end_token_ids))
        params = SamplingParams(max_tokens=12, seed=3, stop_token_ids=ends)
        prompt = template.prompt([Message("user", "Say it.")])
        (drawn,) = await (await broker.sampler(tiny)).sample(prompt, 1, params)
    finally:
        broker.close()
    assert list(found.tokens) == drawn.tokens
    assert list(found.log_probs) == pytest.approx(drawn.logprobs, abs=1e-5)
    assert found.response.content == template.reply(drawn.tokens).content
    assert (found.response.role, found.stop_reason, found.model_id) == ("assistant", drawn.stop_reason, "tiny")


def test_batches_and_streams_say_what_single_calls_say(raw):
    texts = ["one", "two", "three"]
    single = [raw.Generate(asked(text, logprobs=False)).response.content for text in texts]
    batch = raw.BatchGenerate(pb.BatchGenerateRequest(requests=[asked(text, logprobs=False) for text in texts]))
    assert [each.response.content for each in batch.responses] == single
    frames = [pb.StreamGenerateRequest(call=n, request=asked(text)) for n, text in enumerate(texts)]
    frames.append(pb.StreamGenerateRequest(call=9, request=asked(top_p=7.0)))
    pieces: dict[int, str] = {}
    whole, faults = {}, {}
    for each in raw.StreamGenerate(iter(frames)):
        pieces[each.call] = pieces.get(each.call, "") + each.text
        if each.HasField("whole"):
            whole[each.call] = each.whole.response.content
        if each.HasField("fault"):
            faults[each.call] = each.fault.code
    assert [whole[n] for n in range(3)] == single
    assert all(single[n].startswith(pieces[n]) and pieces[n] for n in range(3))
    assert faults == {9: pb.FAULT_CODE_INVALID}


def test_without_sampling_the_likeliest_is_said_whatever_the_seed(raw):
    first, second = [raw.Generate(asked(do_sample=False, seed=seed)).response.content for seed in (1, 2)]
    assert first == second


@pytest.mark.parametrize(
    ("request_", "status", "sentence"),
    [
        (asked(model="gpt-17"), "NOT_FOUND", "there is no model 'gpt-17' here, only tiny"),
        (
            asked(temperature=-1.0),
            "INVALID_ARGUMENT",
            "settings.temperature: Input should be greater than",
        ),
        (asked(max_new_tokens=0), "INVALID_ARGUMENT", "settings.max_new_tokens: "),
        (asked("x " * 500), "INVALID_ARGUMENT", "context"),
        (pb.GenerateRequest(), "INVALID_ARGUMENT", "there is no message to answer"),
    ],
)
def test_what_makes_no_sense_is_refused(raw, request_, status, sentence):
    with pytest.raises(grpc.RpcError) as error:
        raw.Generate(request_)
    code, details, _ = refused(error.value)
    assert (code.name, sentence in details) == (status, True), details


def test_the_model_is_well(raw):
    found = raw.HealthCheck(pb.HealthCheckRequest())
    assert (found.status, found.info["model_id"]) == (pb.HealthCheckResponse.STATUS_SERVING, "tiny")
