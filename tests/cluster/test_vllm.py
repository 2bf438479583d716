"""Servers of vLLM as samplers, by a stand-in that speaks their HTTP API and computes by itself."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fettle.cluster.beside import SampledBeside
from fettle.cluster.parcel import Parcel
from fettle.cluster.parity import Parity
from fettle.cluster.pool import Pool
from fettle.cluster.vllm import VLLMSeat, joined
from fettle.config import (
    AdamW,
    CausalLM,
    LocalEngine,
    LoRA,
    PolicySpec,
    RayEngine,
    SamplingParams,
    TinyModel,
    VLLMSamplers,
)
from fettle.engine.base import SampleRequest
from fettle.engine.local import LocalBackend, make_tiny_model
from fettle.errors import ConfigError, ContextError, EngineError
from fettle.types import datum

from .standin import StandIn

ADAM = AdamW(learning_rate=0.05)
DATA = [datum([5, 9, 41, 7, 30, 12], [0, 1, 1, 1, 1, 1], weights=[1.0] * 6)]
ADAPTER, WHOLE = {"lora": LoRA(rank=4)}, {}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    settings = TinyModel(hidden=32, layers=2, heads=2, context=64)
    return make_tiny_model(settings, tmp_path_factory.mktemp("model") / "tiny", texts=["one two three"] * 9)


@pytest.fixture
def servers(model: str) -> Iterator[list[StandIn]]:
    """Two of them."""
    found = [StandIn(model), StandIn(model)]
    yield found
    for server in found:
        server.kill()


def beside(servers: list[StandIn], checkpoints: Path, *, parity: float = 1e-4) -> SampledBeside:
    seats = [VLLMSeat(server.url, key=None, silent_seconds=5) for server in servers]
    for seat in seats:
        seat.begin(5)
    trainer = LocalBackend(LocalEngine(threads=1), checkpoints=checkpoints)
    return SampledBeside(trainer, Pool(seats, look=0.05), Parity(parity))


def learned(backend: SampledBeside) -> str:
    """A step, and the weights after it."""
    backend.forward_backward("p", DATA, CausalLM())
    backend.optim_step("p", ADAM)
    return backend.pin("p")[0]


def asked(**params) -> list[SampleRequest]:
    return [
        SampleRequest([3 + place, 8], 2, SamplingParams(max_tokens=5, seed=place, end_tokens=False, **params))
        for place in range(4)
    ]


def tokens(drawn) -> list[list[int]]:
    return [completion.tokens for completions in drawn for completion in completions]


@pytest.mark.parametrize("kind", [ADAPTER, WHOLE], ids=["adapter", "whole weights"])
def test_what_servers_draw_is_drawn_from_the_policys_weights_and_says_so(model, servers, tmp_path, kind):
    backend = beside(servers, tmp_path)
    backend.create_policy("p", PolicySpec(model=model, **kind))
    first, _ = backend.pin("p")
    second = learned(backend)
    drawn = backend.sample([second] * 4, asked())
    assert {completion.policy_version for own in drawn for completion in own} == {1}
    for request, completions in zip(asked(), drawn, strict=True):
        for completion in completions:
            own = backend.logprobs(second, [[*request.prompt, *completion.tokens]], temperature=1.0)[0]
            np.testing.assert_allclose(completion.logprobs, own[2:], atol=1e-5)
    told = backend.statistics()
    assert 0 < told["parity/mean"] <= told["parity/max"] < 1e-5
    assert told["sync/bytes"] > 0 < told["sync/seconds"]
    older = backend.sample([first] * 4, asked())
    assert {completion.policy_version for own in older for completion in own} == {0}
    assert backend.statistics()["samplers/by_trainer"] == (0 if kind else 4), "of whole weights there is one version"
    backend.unpin(first)
    backend.unpin(second)
    backend.close()
    for server in servers:
        names = [body["lora_name"] for path, body in server.said if path == "/v1/load_lora_adapter"]
        assert len(set(names)) == len(names) == (2 if kind else 0)
        assert not server._adapters
        calls = [path for path, _ in server.said if not path.startswith(("/v1", "/health", "/weight_info"))]
        update = ["/pause", "/collective_rpc", "/reset_prefix_cache", "/update_weight_version", "/resume"]
        assert calls == ([] if kind else 2 * update)


def test_what_a_server_had_begun_when_it_died_another_draws_alike_and_it_comes_back_with_the_newest(
    model, servers, tmp_path
):
    backend = beside(servers, tmp_path)
    backend.create_policy("p", PolicySpec(model=model, lora=LoRA(rank=4)))
    pin = learned(backend)
    expected = tokens(backend.sample([pin] * 4, asked()))
    first, second = servers
    assert all(any(body.get("n") == 2 for _, body in server.said) for server in servers), "each has drawn some"

    def dies(path: str) -> None:
        if path == "/v1/completions":
            first.kill()

    first.fault = dies
    assert tokens(backend.sample([pin] * 4, asked())) == expected
    told = backend.statistics()
    assert (told["samplers/lost"], told["samplers/present"], told["samplers/by_trainer"]) == (1, 1, 0)

    first.fault = lambda path: None
    first.start()
    newest = learned(backend)
    assert backend.statistics()["samplers/present"] == 2
    assert len(first._adapters) == 1, "of the older version it has no need"
    alone = tokens(backend.sample([newest] * 4, asked()))
    second.kill()
    assert tokens(backend.sample([newest] * 4, asked())) == alone
    first.kill()
    assert len(tokens(backend.sample([newest] * 4, asked()))) == 8
    assert backend.statistics()["samplers/by_trainer"] == 4


@pytest.mark.parametrize("kind", [ADAPTER, WHOLE], ids=["adapter", "whole weights"])
def test_a_server_that_was_started_anew_draws_nothing_from_the_weights_it_began_with(model, servers, tmp_path, kind):
    backend = beside(servers[:1], tmp_path)
    backend.create_policy("p", PolicySpec(model=model, **kind))
    pin = learned(backend)
    servers[0].kill()
    servers[0].start()
    drawn = backend.sample([pin], asked()[:1])
    assert tokens(drawn) == tokens(backend._trainer.sample([pin], asked()[:1]))
    assert backend.statistics()["samplers/lost"] == 1


@pytest.mark.parametrize("kind", [ADAPTER, WHOLE], ids=["adapter", "whole weights"])
def test_a_server_with_stale_weights_stops_the_run(model, servers, tmp_path, kind):
    backend = beside(servers, tmp_path)
    backend.create_policy("p", PolicySpec(model=model, **kind))
    backend.pin("p")
    stale = servers[1]
    load = stale._controlled

    def forgets(path: str, body: dict, query: dict) -> object:
        """It says that it has taken the weights, and has not."""
        found = {} if path == "/collective_rpc" else load(path, body, query)
        stale._adapters = {name: {} for name in stale._adapters}
        return found

    stale._controlled = forgets
    with pytest.raises(
        EngineError,
        match=rf"the sampler {stale.url} and the trainer do not mean the same by version 1 of the policy: .* apart in "
        r"the mean and .* at most, and engine.samplers.parity allows 0.0001; see whether it runs policy.model",
    ):
        learned(backend)
    assert backend._trainer.pin("p")[1] == 1
    assert len(backend._pins) == 1


def test_log_probabilities_are_of_what_tokens_were_drawn_from(model, tmp_path):
    server = StandIn(model)
    backend = beside([server], tmp_path)
    backend.create_policy("p", PolicySpec(model=model, lora=LoRA(rank=4)))
    pin = learned(backend)
    warm = asked(temperature=2.0, untempered_logprobs=True, top_logprobs=2)[:1]
    [[one, _]] = backend.sample([pin], warm)
    sequence = [*warm[0].prompt, *one.tokens]
    own, raw = (backend.logprobs(pin, [sequence], temperature=heat)[0][2:] for heat in (2.0, 1.0))
    np.testing.assert_allclose(one.logprobs, own, atol=1e-5)
    np.testing.assert_allclose(one.untempered_logprobs, raw, atol=1e-5)
    assert [len(place) for place in one.top] == [2] * 5
    assert all(place[0][1] >= place[1][1] for place in one.top)
    for extra, fits in (({}, 14), ({"top_logprobs": 1}, 13)):
        long = SampleRequest([5] * 50, 1, SamplingParams(max_tokens=500, end_tokens=False, **extra))
        [[ended]] = backend.sample([pin], [long])
        assert (len(ended.tokens), ended.stop_reason) == (fits, "length")
    likeliest = SampleRequest([5, 9], 3, SamplingParams(max_tokens=2, temperature=0, end_tokens=False))
    [greedy] = backend.sample([pin], [likeliest])
    assert len(greedy) == 3
    assert len({tuple(each.tokens) for each in greedy}) == 1
    server.processed = False
    backend._pool._seats[server.url]._processed = False
    with pytest.raises(ConfigError, match="start it with --logprobs-mode processed_logprobs"):
        backend.sample([pin], warm)
    server.kill()


def test_servers_that_are_not_there_or_were_started_otherwise_are_told(model, servers, tmp_path):
    engine = RayEngine(start_seconds=0.2, silent_seconds=0.2)
    with pytest.raises(EngineError, match=r"no vLLM server answers at http://127.0.0.1:9 within 0.2 s: start it"):
        joined(VLLMSamplers(urls=("http://127.0.0.1:9",)), engine)
    with pytest.raises(ConfigError, match=r"engine.samplers.key_env is NO_SUCH_KEY"):
        joined(VLLMSamplers(urls=(servers[0].url,), key_env="NO_SUCH_KEY"), engine)
    backend = beside(servers, tmp_path)
    backend.create_policy("p", PolicySpec(model=model, lora=LoRA(rank=4)))
    for server in servers:
        server.answered = lambda path, body, query, own=server.answered: own(
            "/not/there" if path == "/v1/load_lora_adapter" else path, body, query
        )
    with pytest.raises(EngineError, match="has no /v1/load_lora_adapter: start it with VLLM_ALLOW_RUNTIME_LORA"):
        backend.pin("p")


def test_what_a_server_refuses_is_told_in_its_words_and_leaves_it_going(servers, tmp_path):
    server = servers[0]
    seat = VLLMSeat(server.url, key=None, silent_seconds=5)
    seat.begin(5)
    (tmp_path / "wide").mkdir()
    (tmp_path / "wide" / "adapter_config.json").write_text('{"r": 32, "lora_alpha": 32}')
    (tmp_path / "wide" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(EngineError, match=r"LoRA rank 32 is greater than max_lora_rank 16\.; it must see the folder"):
        seat.take(Parcel("wide", "p", 0, tmp_path / "wide"))
    with pytest.raises(EngineError, match=r"Repo id .*; it must see the folder .*, and has to be started anew"):
        seat.take(Parcel("away", "p", 0, tmp_path / "away"))
    assert server._going.is_set(), "what it failed over does not leave it paused"
    seat._remote = {"wide": "wide-1", "base": seat._base}
    seat.drop(Parcel("wide", "p", 0, tmp_path / "wide"))
    full = SampleRequest([5] * 64, 1, SamplingParams(end_tokens=False))
    with pytest.raises(ContextError, match="64 tokens, which leaves no room for more in the context of 64"):
        seat.draw([Parcel("base", "p", 0, tmp_path)], [full])
