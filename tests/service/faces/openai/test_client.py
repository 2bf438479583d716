"""What is served, through OpenAI's own client, over a real socket."""

import asyncio
import json
import time

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from fettle.calls import OptimStep, Pin
from fettle.config import AdamW, LoRA, PolicySpec, ServedModel
from tests.service.faces.openai.conftest import CONTEXT
from tests.service.served import PATIENCE_S, Served, serving

HELLO = [{"role": "user", "content": "what is two?"}]
PROMPT = "what is two and"
LOOK_UP = {
    "type": "function",
    "function": {"name": "look_up", "description": "Meanings", "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture(scope="module")
def served(tmp_path_factory, folder, tools_folder):
    paths = {"tiny": folder, "tools": tools_folder}
    models = tuple(ServedModel(name=name, path=path, aliases=(f"also-{name}",)) for name, path in paths.items())
    with serving(tmp_path_factory.mktemp("service") / "state", folder, models=models) as server:
        yield server


@pytest.fixture(scope="module")
def client(served):
    with OpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def run(served) -> str:
    """A run that has made a step, with a sampler and two checkpoints."""
    service, caller = served.service, caller_of(served, served.key)

    async def trained() -> None:
        spec = PolicySpec(model="tiny", lora=LoRA(rank=4))
        await (await service.create_run(caller, spec, run_id="a-run")).result()
        await service.submit(caller, "a-run", 0, 0, OptimStep(AdamW(), empty=True)).result()
        await service.submit(caller, "a-run", 0, 1, Pin()).result()
        for seq, kind in ((2, "weights"), (3, "sampler_weights")):
            await (await service.save(caller, "a-run", 0, seq, kind=kind, name="first")).result()

    served.call(trained())
    return "a-run"


def there(served: Served, act):
    """What a function gives on the service's own loop."""

    async def done():
        return act()

    return served.call(done())


def caller_of(served: Served, key: str):
    return served.call(served.service.doors.caller_with(key, "127.0.0.1"))


def tokens_of(served: Served, text: str) -> list[int]:
    return served.service.models.named("tiny").tokens_of(text)


def test_everything_that_is_listed_can_be_drawn_from(client, run):
    listed = client.models.list().data
    assert {model.id for model in listed} == {
        *("tiny", "also-tiny", "tools", "also-tools"),
        *("run:a-run", "a-run/weights/first", "a-run/sampler_weights/first"),
    }
    for model in listed:
        answer = client.completions.create(model=model.id, prompt=PROMPT, max_tokens=2)
        assert answer.usage.completion_tokens <= 2
        assert answer.model == model.id
        assert model.context == CONTEXT
        assert client.models.retrieve(model.id) == model


def test_a_checkpoint_goes_by_its_address_too(client, run):
    for scheme in ("fettle://", "tinker://"):
        assert client.completions.create(model=f"{scheme}{run}/weights/first", prompt=PROMPT, max_tokens=1).choices


def test_drawing_from_a_run_takes_no_number_of_its_line(served, client, run):
    before = there(served, lambda: served.service.broker.policies()[run].next_seq)
    client.completions.create(model=f"run:{run}", prompt=PROMPT, max_tokens=2)
    assert there(served, lambda: served.service.broker.policies()[run].next_seq) == before


def test_weights_are_told_apart_by_their_fingerprint(client, run):
    names = ("tiny", "also-tiny", f"{run}/weights/first", f"run:{run}")
    prints = [client.completions.create(model=name, prompt=PROMPT, max_tokens=1).system_fingerprint for name in names]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


@pytest.mark.parametrize("kind", ["text", "texts", "tokens", "tokens of several"])
def test_prompts_are_texts_or_tokens(served, client, kind):
    tokens = tokens_of(served, PROMPT)
    prompt = {"text": PROMPT, "texts": [PROMPT] * 2, "tokens": tokens, "tokens of several": [tokens] * 2}[kind]
    answer = client.completions.create(model="tiny", prompt=prompt, n=2, max_tokens=3, seed=5)
    count = 2 if "s" in kind.split()[0][-1:] and kind != "tokens" else 1
    assert [choice.index for choice in answer.choices] == list(range(2 * count))
    assert answer.usage.prompt_tokens == count * len(tokens)
    assert (
        answer.choices[0].text
        == client.completions.create(model="tiny", prompt=PROMPT, n=2, max_tokens=3, seed=5).choices[0].text
    )


def test_the_same_seed_draws_the_same_and_no_seed_does_not(client):
    def text(**more):
        return client.completions.create(model="tiny", prompt=PROMPT, max_tokens=16, **more).choices[0].text

    assert text(seed=7) == text(seed=7)
    assert text() != text()


@pytest.mark.parametrize("more", [{"temperature": 0}, {"seed": 3, "n": 3}, {"seed": 4, "logprobs": 2}])
def test_a_stream_of_a_completion_adds_up_to_it(client, more):
    asked = {"model": "tiny", "prompt": [PROMPT, "three"], "max_tokens": 40, **more}
    whole = client.completions.create(**asked)
    texts = ["" for _ in whole.choices]
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in whole.choices]
    assert chunks[-1].usage == whole.usage
    reasons = {c.index: c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason}
    assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}


@pytest.mark.parametrize("more", [{"temperature": 0}, {"seed": 3, "n": 2}, {"seed": 4, "logprobs": True}])
def test_a_stream_of_a_chat_adds_up_to_it(client, more):
    asked = {"model": "tools", "messages": HELLO, "max_tokens": 40, "tools": [LOOK_UP], **more}
    whole = client.chat.completions.create(**asked)
    texts = ["" for _ in whole.choices]
    for chunk in client.chat.completions.create(**asked, stream=True):
        assert chunk.usage is None
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content or "" for choice in whole.choices]


def test_a_chat_counts_the_tokens_that_the_template_writes(served, client):
    model = served.service.models.named("tools")
    for tools in (None, [LOOK_UP]):
        written = model.tokenizer.apply_chat_template(HELLO, tools=tools, tokenize=False, add_generation_prompt=True)
        more = {} if tools is None else {"tools": tools}
        answer = client.chat.completions.create(model="tools", messages=HELLO, max_completion_tokens=3, **more)
        assert answer.usage.prompt_tokens == len(model.tokens_of(written))
        assert answer.usage.completion_tokens <= 3


def test_a_chat_without_a_limit_may_fill_the_context(client):
    answer = client.chat.completions.create(model="tiny", messages=HELLO, seed=1, stop=["zzzz"])
    choice = answer.choices[0]
    assert choice.finish_reason == "stop" or answer.usage.total_tokens == CONTEXT


def test_log_probabilities_are_the_models_own(served, client):
    """Those of a drawn text are those that are read of it as a prompt, whatever it was drawn at."""
    drawn = client.completions.create(
        model="tiny", prompt=PROMPT, max_tokens=8, temperature=1.7, top_p=0.9, seed=2, logprobs=3, echo=True
    ).choices[0]
    assert drawn.logprobs.token_logprobs[0] is None
    assert len(drawn.logprobs.tokens) == len(tokens_of(served, PROMPT)) + 8
    for top, token, value in zip(
        drawn.logprobs.top_logprobs[1:], drawn.logprobs.tokens[1:], drawn.logprobs.token_logprobs[1:], strict=True
    ):
        assert 3 <= len(top) <= 4
        assert top[token] == pytest.approx(value, abs=1e-4)
    caller = caller_of(served, served.key)
    sampler = served.call(served.service.open_sampler(caller, model="tiny"))
    tokens = tokens_of(served, PROMPT)
    expected = served.call(sampler.live.logprobs(tokens))
    assert drawn.logprobs.token_logprobs[1 : len(tokens)] == pytest.approx(expected[1:], abs=1e-4)
    assert drawn.logprobs.text_offset[: len(tokens)] == sorted(drawn.logprobs.text_offset[: len(tokens)])


def test_a_prompt_can_be_read_without_drawing(client):
    answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=0, echo=True, logprobs=1)
    assert answer.choices[0].text == PROMPT
    assert "".join(answer.choices[0].logprobs.tokens) == PROMPT
    assert answer.usage.completion_tokens == 0


def test_a_chat_tells_the_bytes_of_each_token(client):
    choice = client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=12, seed=8, logprobs=True, top_logprobs=2
    ).choices[0]
    rows = choice.logprobs.content
    assert all(len(row.top_logprobs) == 2 for row in rows)
    said = b"".join(bytes(row.bytes) for row in rows).decode(errors="replace")
    assert said.startswith(choice.message.content)


def test_a_stop_string_ends_a_text_and_is_not_in_it(client):
    asked = {"model": "tiny", "prompt": PROMPT, "max_tokens": 60, "seed": 11}
    text = client.completions.create(**asked).choices[0].text
    stop = text[5:7]
    stopped = client.completions.create(**asked, stop=[stop, "never"], logprobs=0)
    assert stopped.choices[0].text == text[: text.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.usage.completion_tokens < 60
    assert stop not in "".join(stopped.choices[0].logprobs.tokens)


async def test_the_async_client_draws_and_streams(served):
    async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0) as client:
        answers = await asyncio.gather(
            *(client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=4, seed=i) for i in range(8))
        )
        stream = await client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=4, seed=3, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == answers[3].choices[0].message.content


def test_who_goes_away_is_not_drawn_for(served, client):
    """The draw would take minutes; nothing of it is left soon after the connection is closed."""
    endless = {"model": "tiny", "prompt": PROMPT, "max_tokens": CONTEXT - 16, "n": 128, "stop": ["zzzz"]}
    with client.completions.create(**endless, stream=True) as stream:
        next(iter(stream))
        assert under_way(served)
    wait_until(lambda: not under_way(served))
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{served.url}/v1/completions", json=endless, headers={"X-API-Key": served.key}, timeout=1.0)
    wait_until(lambda: not under_way(served))


def under_way(served: Served) -> float:
    return there(served, lambda: served.service.broker.counts()["draws_waiting"])


def wait_until(true) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("fields", "error", "param", "code"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "model", "model_not_found"),
        ({"model": "run:nobody"}, openai.NotFoundError, "model", "model_not_found"),
        ({"model": "nobody/weights/x"}, openai.NotFoundError, "model", "model_not_found"),
        ({"prompt": "two " * CONTEXT}, openai.BadRequestError, "prompt", "context_length_exceeded"),
        ({"prompt": [10**6]}, openai.BadRequestError, "prompt", "invalid_value"),
        ({"prompt": [-1]}, openai.BadRequestError, "prompt", "invalid_value"),
        ({"prompt": ""}, openai.BadRequestError, "prompt", "invalid_value"),
        ({"best_of": 4}, openai.BadRequestError, "best_of", "invalid_value"),
        ({"temperature": 3}, openai.BadRequestError, "temperature", "invalid_value"),
        ({"n": 0}, openai.BadRequestError, "n", "invalid_value"),
        ({"extra_body": {"top_n": 4}}, openai.BadRequestError, "top_n", "invalid_value"),
    ],
)
def test_errors_have_the_shape_that_clients_read(client, fields, error, param, code):
    with pytest.raises(error) as caught:
        client.completions.create(**{"model": "tiny", "prompt": PROMPT, "max_tokens": 4} | fields)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.body["message"]


def test_what_is_anothers_is_as_if_it_were_not(served, run):
    with OpenAI(base_url=f"{served.url}/v1", api_key=served.other_key, max_retries=0) as stranger:
        assert {model.id for model in stranger.models.list()} == {"tiny", "also-tiny", "tools", "also-tools"}
        for foreign in (f"run:{run}", f"{run}/weights/first"):
            with pytest.raises(openai.NotFoundError) as caught:
                stranger.completions.create(model=foreign, prompt=PROMPT)
            with pytest.raises(openai.NotFoundError) as unknown:
                stranger.completions.create(model=foreign.replace("a-run", "no-run"), prompt=PROMPT)
            assert caught.value.body["message"].replace("a-run", "no-run") == unknown.value.body["message"]


def test_a_wrong_key_is_told_so(served):
    stranger = OpenAI(base_url=f"{served.url}/v1", api_key="tml-wrong-key", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_tools_that_a_template_would_leave_out_are_refused(client):
    with pytest.raises(openai.BadRequestError, match="takes no tools"):
        client.chat.completions.create(model="tiny", messages=HELLO, tools=[LOOK_UP])
    assert client.chat.completions.create(
        model="tiny", messages=HELLO, tools=[LOOK_UP], tool_choice="none", max_tokens=2
    ).choices


def test_the_wire_is_events_of_json_and_an_end(served):
    body = {"model": "tiny", "prompt": "日本", "max_tokens": 30, "seed": 1, "stream": True, "echo": True}
    with httpx.stream("POST", f"{served.url}/v1/completions", json=body, headers={"X-API-Key": served.key}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [line for line in answer.iter_lines() if line]
    assert events[-1] == "data: [DONE]"
    texts = [json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events[:-1]]
    assert texts[0] == "日本"


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b"\xff"])
def test_a_body_that_is_none_is_told_so(served, body):
    answer = httpx.post(
        f"{served.url}/v1/chat/completions",
        content=body,
        headers={"X-API-Key": served.key, "Content-Type": "application/json"},
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body",
    [
        '{"\\ud800": [[]]}',
        '{"model": "tiny", "prompt": "a", "max_tokens": 2, "\\ud800": 1}',
        '{"model": "tiny", "messages": [{"role": "user", "content": "a\\udfffb"}]}',
    ],
)
@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_half_a_character_is_no_json(served, path, body):
    headers = {"X-API-Key": served.key, "Content-Type": "application/json"}
    answer = httpx.post(f"{served.url}/v1/{path}", content=body.encode(), headers=headers, timeout=PATIENCE_S)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_json"
