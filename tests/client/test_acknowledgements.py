"""A service keeps no answer that its client has read."""

import asyncio

import pytest

from fettle.client import HTTPEngine, ServiceClient
from fettle.client import acknowledgements as client_acknowledgements
from fettle.config import AdamW, CausalLM, LoRA, PolicySpec, SamplingParams
from fettle.types import datum
from tests.service.inside import until
from tests.service.served import NAME, PATIENCE_S

DATA = [datum([5, 9, 41, 7], [0, 1, 1, 1])]


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    """Nobody waits a second."""
    monkeypatch.setattr(client_acknowledgements, "TOGETHER_S", 0.02)


def kept(served) -> list[str]:
    """The kinds of the answers that the service keeps."""
    return sorted(promise.kind for promise in served.service.broker._ledger.promises())


async def settled(served, expected: list[str]) -> None:
    """Return once those are all that is kept."""
    await until(lambda: kept(served) == expected)


async def test_what_an_engine_has_read_is_let_go_and_what_others_may_ask_for_is_not(served):
    before = kept(served)
    engine = HTTPEngine(served.url, served.key)
    policy = await engine.create_policy(PolicySpec(model=NAME, lora=LoRA(rank=2)))
    await asyncio.gather(policy.forward_backward(DATA, CausalLM()), policy.optim_step(AdamW(learning_rate=0.01)))
    sampler = await policy.sampler()
    drawn = await sampler.sample([5, 9], 2, SamplingParams(max_tokens=4, seed=1))
    assert len(drawn) == 2
    await settled(served, sorted([*before, "create", "pin"]))
    again = await sampler.sample([5, 9], 2, SamplingParams(max_tokens=4, seed=1))
    assert [each.tokens for each in again] == [each.tokens for each in drawn]
    await engine.close()


async def test_the_last_answers_are_told_of_at_the_end(served, monkeypatch):
    monkeypatch.setattr(client_acknowledgements, "TOGETHER_S", PATIENCE_S)
    before = kept(served)
    async with ServiceClient(served.url, served.key) as client:
        sampling = await client.get_sampling_client(base_model=NAME)
        await sampling.sample([[5, 9]], max_tokens=2)
        assert kept(served) == sorted([*before, "draw"])
    assert kept(served) == before


async def test_a_client_that_shares_a_run_lets_nothing_go(served):
    async with ServiceClient(served.url, served.key) as client:
        run = await client.create_run(NAME, lora_r=2)
        before = kept(served)
        beside = client.get_training_client(run, take_over=False)
        await beside.forward(DATA, CausalLM())
    assert kept(served) == sorted([*before, "forward"])


async def test_a_foreign_answer_is_kept(served):
    owner, other = served.client(), served.client(served.other_key)
    sampler = owner.said("POST", "/v1/samplers", {"model": NAME})["id"]
    asked = {"requests": [{"prompt": [5, 9], "params": {"max_tokens": 2}}]}
    promise = owner.said("POST", f"/v1/samplers/{sampler}/sample?wait=30", asked)["id"]
    told = other.said("POST", "/v1/acknowledgements", {"ids": [promise, "no-such-promise"]})
    assert told == {"acknowledged": 0}
    assert owner.said("GET", f"/v1/futures/{promise}")["status"] == "completed"
    assert owner.said("POST", "/v1/acknowledgements", {"ids": [promise]}) == {"acknowledged": 1}
    owner.said("GET", f"/v1/futures/{promise}", status=404)
