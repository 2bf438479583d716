"""The predictor's container, as a process: ready once it is, in three protocols, and ended in order."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from fettle.config import TinyModel
from fettle.engine.local import make_tiny_model

from .apart import Apart

PAGE = (Path(__file__).parents[3] / "docs" / "deploy.md").read_text()
TINY = TinyModel(hidden=32, layers=2, heads=2, context=256)
PATIENCE_S = 200


class Predicting:
    """A predictor, and what it has printed."""

    def __init__(self, apart: Apart, model: str, folder: Path) -> None:
        self.log = folder / "log"
        self.process, port = apart.predictor(self.log, "--model", model, "--name", "sums", "engine.threads=1")
        self.url = f"http://127.0.0.1:{port}"
        self._apart = apart
        self.client = httpx.Client(base_url=self.url, timeout=60)
        self.before_ready: list[int] = []
        """What it answered as long as it was not ready."""
        self.first = 0
        """What it answered to a prompt as soon as it said that it is."""

    def ended(self, *, wait: bool = False) -> int | None:
        return self._apart.code(self.process, wait=wait)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self.ended() is None:
            try:
                status = self.client.get("/v2/models/sums/ready").status_code
            except httpx.TransportError:
                status = 0
            if status == 200:
                self.first, _ = self.post("/v1/models/sums:predict", {"instances": ["1 + 2 ="]})
                return
            self.before_ready.append(status)
            time.sleep(0.05)
        pytest.fail(self.log.read_text()[-3000:])

    def post(self, path: str, body: dict) -> tuple[int, dict]:
        answer = self.client.post(path, json=body)
        return answer.status_code, answer.json()


@pytest.fixture(scope="module")
def predicting(apart, tmp_path_factory) -> Iterator[Predicting]:
    folder = tmp_path_factory.mktemp("predicting")
    model = make_tiny_model(TINY, folder / "model", texts=["1 + 2 = 3"])
    started = Predicting(apart, model, folder)
    try:
        started.wait_until_ready()
        yield started
    finally:
        with suppress(ProcessLookupError):
            os.kill(started.process, signal.SIGKILL)


def drawn(predicting: Predicting, prompt: str, **settings: object) -> str:
    """By OpenAI's protocol, whose answers are compared with those of the others."""
    client = OpenAI(base_url=f"{predicting.url}/openai/v1", api_key="none", max_retries=0)
    return client.completions.create(model="sums", prompt=prompt, **settings).choices[0].text


def test_once_it_is_ready_it_answers(predicting):
    assert predicting.first == 200
    assert set(predicting.before_ready) <= {0, 503}
    assert predicting.client.get("/v2/health/ready").json() == {"ready": True}


def test_the_likeliest_words_are_the_same_by_every_protocol(predicting):
    expected = drawn(predicting, "1 + 2 =", max_tokens=4, temperature=0)
    assert expected
    asked = {"prompt": "1 + 2 =", "max_tokens": 4, "temperature": 0}
    code, said = predicting.post("/v1/models/sums:predict", {"instances": [asked]})
    assert (code, said) == (200, {"predictions": [{"text": expected, "finish_reason": "length"}]})
    tensor = {"name": "prompt", "datatype": "BYTES", "shape": [2], "data": ["1 + 2 =", "1 + 2 ="]}
    body = {"id": "a-request", "inputs": [tensor], "parameters": {"max_tokens": 4, "temperature": 0.0}}
    code, said = predicting.post("/v2/models/sums/infer", body)
    assert (code, said["id"]) == (200, "a-request")
    assert {each["name"]: each["data"] for each in said["outputs"]} == {
        "text": [expected, expected],
        "finish_reason": ["length", "length"],
    }


def test_a_seed_draws_the_same_again_and_a_stop_ends_a_text(predicting):
    def answer(**more: object) -> dict:
        asked = {"prompt": "1 + 2 =", "max_tokens": 12, **more}
        return predicting.post("/v1/models/sums:predict", {"instances": [asked]})[1]["predictions"][0]

    assert answer(seed=5) == answer(seed=5) != answer(seed=6)
    assert answer() != answer()
    text = answer(seed=5)["text"]
    place = len(text) // 2
    stopped = answer(seed=5, stop=[text[place]])
    assert stopped == {"text": text[: text.index(text[place])], "finish_reason": "stop"}


def test_chats_are_streamed(predicting):
    client = OpenAI(base_url=f"{predicting.url}/openai/v1", api_key="none", max_retries=0)
    pieces = client.chat.completions.create(
        model="sums", messages=[{"role": "user", "content": "1 + 2 ="}], max_tokens=6, stream=True
    )
    reasons = [piece.choices[0].finish_reason for piece in pieces]
    assert len(reasons) > 1
    assert reasons[-1] in ("length", "stop")


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/models/sums:predict", {"instances": []}, "instances is missing"),
        ("/v1/models/sums:predict", {"instances": [{"prompt": "1", "max_token": 3}]}, "instances[0].max_token: extra"),
        ("/v1/models/sums:predict", {"instances": [{"prompt": "1 " * 600}]}, "context of 256"),
        ("/v2/models/sums/infer", {"inputs": []}, "inputs are none: give one, prompt"),
        (
            "/v2/models/sums/infer",
            {"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["1"]}], "parameters": {"n": 2}},
            "prompt[0].n: extra",
        ),
        ("/openai/v1/completions", {"model": "sums", "prompt": "1", "best_of": 3}, "best_of is not supported"),
    ],
)
def test_what_cannot_be_answered_says_why(predicting, path, body, said):
    code, answer = predicting.post(path, body)
    error = answer["error"]
    assert code == 400
    assert said in (error if isinstance(error, str) else error["message"])


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_page_is_right_about_it(predicting):
    asked = [line for line in PAGE.splitlines() if line.startswith("curl ")]
    answers = [
        json.loads(subprocess.check_output(shlex.split(line.replace("localhost:8080", predicting.url))))
        for line in asked
    ]
    shown = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)]
    assert [formed(answer) for answer in answers] == [formed(each) for each in shown]


def formed(answer: object) -> object:
    """An answer's form: its names, and what kind of thing each holds."""
    if isinstance(answer, dict):
        return {name: formed(each) for name, each in answer.items()}
    return [formed(each) for each in answer] if isinstance(answer, list) else type(answer)


def test_it_ends_with_what_is_under_way_answered(predicting):
    """Last, since nobody answers afterwards."""
    body = {"model": "sums", "prompt": "1 + 2 =", "max_tokens": 60, "n": 32}
    with predicting.client.stream("POST", "/openai/v1/completions", json={**body, "stream": True}) as answer:
        lines = answer.iter_lines()
        next(lines)
        os.kill(predicting.process, signal.SIGTERM)
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert predicting.ended(wait=True) == 0
    assert "Finished server process" in predicting.log.read_text()
