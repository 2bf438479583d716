"""Bodies in JSON that are nearly right: whatever is wrong with one, it is refused and nothing breaks."""

import json
from random import Random
from typing import Any

import pytest

from tests.service.faces.native.test_bad_input import ODD, changed, places
from tests.service.faces.tinker.programs import http_of, made, session
from tests.service.matrix import TINKER_BATCH, TINKER_PROMPT

ROUNDS = 25
"""Of every body."""


@pytest.fixture(scope="module")
def bodies(shared) -> dict[str, dict[str, Any]]:
    """Sound ones, by the request that they are of."""
    with http_of(shared) as http:
        owner = session(http)
        model = made(http, owner=owner)
        opening = {"session_id": owner, "sampling_session_seq_id": 3, "base_model": "tiny"}
        sampler = http.post("/create_sampling_session", json=opening).json()["sampling_session_id"]
    config = {"clip_low_threshold": 0.8}
    batch = {**TINKER_BATCH, "loss_fn_config": {}}
    return {
        "/forward_backward": {"model_id": model, "seq_id": 1, "forward_backward_input": batch},
        "/forward": {"model_id": model, "forward_input": {**batch, "loss_fn": "ppo", "loss_fn_config": config}},
        "/optim_step": {"model_id": model, "seq_id": 2, "adam_params": {"learning_rate": 1e-3}},
        "/asample": {
            "sampling_session_id": sampler,
            "seq_id": 1,
            "num_samples": 1,
            "prompt": TINKER_PROMPT,
            "sampling_params": {"max_tokens": 1, "temperature": 1.0, "stop": ["a"]},
            "target_prompt_logprobs": {"data": [1] * 5, "dtype": "int64", "shape": [5, 1]},
        },
        "/create_sampling_session": {**opening, "sampling_session_seq_id": 4},
        "/create_model": {"session_id": owner, "model_seq_id": 5, "base_model": "tiny", "lora_config": {"rank": 2}},
        "/retrieve_futures": {"target": {"sampling_session_id": sampler}, "timeout": 0, "prev_cursor": 0},
        "/retrieve_future": {"request_id": "nobody"},
        "/cancel_future": {"request_id": "nobody"},
        "/create_session": {"tags": ["a"], "sdk_version": "0.38.0", "user_metadata": {"a": "b"}},
    }


def test_bodies_with_something_odd_in_them_are_answered_as_somebody_foresaw(http, bodies):
    rng, broken = Random("odd"), []
    for path, sound in bodies.items():
        everywhere = list(places(sound))
        for _ in range(ROUNDS):
            body = sound
            for _ in range(rng.choice([1, 1, 2])):
                at = rng.choice(everywhere)
                if at in set(places(body)):
                    body = changed(body, at, rng.choice(ODD))
            answer = http.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
            if answer.status_code >= 500:
                broken.append((path, answer.status_code, json.dumps(body)[:500]))
    assert broken == []
