"""Conformance, lines 41 to 52: what cannot be is refused at once, in words, and never so that a client asks again."""

import copy
import json
import re
from pathlib import Path

import pytest
import tinker
import zstandard
from tinker import types

from fettle.service.faces.tinker import tinker_wire_pb2 as wire
from tests.service.faces.tinker.programs import (
    PROTOBUF,
    batch,
    datum,
    http_of,
    made,
    packed,
    prompt,
    retrieved,
    sdk_of,
    sent,
    session,
)
from tests.service.matrix import TINKER_BATCH


@pytest.fixture(scope="module")
def owner(shared):
    with http_of(shared) as http:
        return session(http)


@pytest.fixture(scope="module")
def model(shared, owner):
    with http_of(shared) as http:
        return made(http, owner=owner)


def refused(answer, *words, status=(400, 404, 413, 422)):
    assert answer.status_code in status, answer.text
    detail = answer.json()["detail"]
    assert detail
    for word in words:
        assert word in str(detail)


def failed(http, answer, *words):
    """Refused at once, or told as a failure of the user's."""
    if answer.status_code != 200:
        refused(answer, *words)
        return
    told = retrieved(http, answer.json()["request_id"])
    assert told["category"] == "user"
    for word in words:
        assert word in told["error"]


@pytest.mark.parametrize("key", ["tml-wrong", "tml-", "nonsense", ""])
def test_41_a_wrong_key_is_told_so(shared, key):
    with http_of(shared, "x") as http:
        answer = http.post("/create_session", json={}, headers={"X-API-Key": key})
        assert answer.status_code == 401
        assert answer.json()["detail"]


def test_41_the_sdk_says_so_at_once(shared):
    with sdk_of(shared, "tml-nobody") as nobody, pytest.raises(tinker.AuthenticationError):
        nobody.create_lora_training_client("tiny").result()


def test_42_an_unknown_model_is_answered_with_the_known_ones(sdk, http, owner):
    with pytest.raises(tinker.BadRequestError, match="tiny"):
        sdk.create_lora_training_client("tinny").result()
    with pytest.raises(tinker.BadRequestError, match="tiny"):
        sdk.create_sampling_client(base_model="tinny").result()
    body = {"session_id": owner, "model_seq_id": 99, "base_model": "../etc"}
    refused(http.post("/create_model", json=body), "tiny", status=(400,))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/get_info", {}),
        ("/optim_step", {"seq_id": 1, "adam_params": {}}),
        ("/save_weights", {"seq_id": 1, "path": "x"}),
        ("/save_weights_for_sampler", {"seq_id": 1, "sampling_session_seq_id": 0}),
    ],
)
@pytest.mark.parametrize("name", ["nobody:train:0", "", "a/../b"])
def test_43_an_unknown_model_is_not_there(http, path, body, name):
    refused(http.post(path, json={"model_id": name, **body}), status=(404, 422))


def test_43_what_is_another_tenants_is_not_there_either(shared, http, model):
    with http_of(shared, shared.other_key) as other:
        theirs, unknown = sent(other, model, 1, batch()), sent(other, "session-0:train:0", 1, batch())
        refused(theirs, status=(404,))
        assert theirs.json()["detail"].replace(model, "session-0:train:0") == unknown.json()["detail"]


def test_44_bytes_that_are_no_request(http, model):
    whole = packed(model, 5, batch())
    for body in (b"", b"\xff" * 40, whole[:-7], b"{}"):
        refused(http.post("/forward_backward", content=body, headers={"Content-Type": PROTOBUF}))
    bad = {"Content-Type": PROTOBUF, "Content-Encoding": "zstd"}
    refused(http.post("/forward_backward", content=whole, headers=bad))


def test_44_a_bomb_is_not_unpacked(http):
    bomb = zstandard.compress(b"\0" * (200 << 20))
    headers = {"Content-Type": PROTOBUF, "Content-Encoding": "zstd"}
    refused(http.post("/forward_backward", content=bomb, headers=headers), status=(400, 413))


BAD_DATA = {
    "no data": [],
    "one beyond the vocabulary": [datum([65, 9999, 66])],
    "a target beyond it": [datum([65, 66], targets=[1, 9999])],
    "below 0": [datum([65, 66], targets=[1, -1])],
    "longer than the context": [datum([65] * 300)],
    "not a number": [datum([65, 66, 67], weights=[1.0, float("nan")])],
    "too few weights": [datum([65, 66, 67], weights=[1.0])],
    "an unknown input": [datum([65, 66, 67], weight=[1.0, 1.0])],
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_45_data_that_cannot_be(http, model, case):
    failed(http, sent(http, model, 100 + list(BAD_DATA).index(case), BAD_DATA[case]))


def test_45_one_token_is_enough(http, model):
    told = retrieved(http, sent(http, model, 150, [datum([65], targets=[66])]).json()["request_id"])
    assert len(told["loss_fn_outputs"][0]["logprobs"]["data"]) == 1


def test_45_pictures_are_named(http, model):
    request = wire.ForwardBackwardRequest.FromString(packed(model, 160, batch(1)))
    request.data[0].model_input[0].image.data = b"png"
    body = request.SerializeToString()
    refused(http.post("/forward_backward", content=body, headers={"Content-Type": PROTOBUF}), "image")


@pytest.mark.parametrize(
    "lora",
    [{"rank": 0}, {"rank": -1}, {"rank": 10_000}, {"train_mlp": False, "train_attn": False, "train_unembed": False}],
    ids=str,
)
def test_46_adapters_that_cannot_be(http, owner, lora):
    body = {"session_id": owner, "model_seq_id": 50, "base_model": "tiny", "lora_config": lora}
    refused(http.post("/create_model", json=body), status=(400,))


def test_46_other_optimizers_are_refused(http, owner, model):
    body = {"session_id": owner, "model_seq_id": 51, "base_model": "tiny", "optimizer_config": {"type": "dimuon"}}
    refused(http.post("/create_model", json=body), "dimuon", status=(400,))
    step = {"model_id": model, "seq_id": 170, "optimizer_params": {"type": "dimuon"}}
    refused(http.post("/optim_step", json=step), "dimuon", status=(400,))


@pytest.mark.parametrize(
    "settings", ['"learning_rate": -1', '"learning_rate": NaN', '"beta1": 1.0', '"beta2": 2', '"eps": 0']
)
def test_47_steps_that_cannot_be(http, model, settings):
    body = f'{{"model_id": "{model}", "seq_id": 180, "adam_params": {{{settings}}}}}'
    headers = {"Content-Type": "application/json"}
    refused(http.post("/optim_step", content=body, headers=headers), status=(400, 422))


def test_47_a_step_without_gradients_is_taken(http, owner):
    fresh = made(http, number=60, owner=owner)
    step = http.post("/optim_step", json={"model_id": fresh, "seq_id": 1, "adam_params": {"learning_rate": 0}}).json()
    assert retrieved(http, step["request_id"])["metrics"]["grad_norm"] == 0


NAMES = ["../out", "..", ".", "a/b", "/abs", "a\\b", "nul\0", "%2e%2e", "a%2fb", "", "x" * 500, "a b", "é"]

OWN = {"audit.jsonl", "catalogue.sqlite3-wal", "catalogue.sqlite3-shm", "metrics.jsonl"}
"""Names of files that a service makes once it has something for them."""


def beside(shared) -> set[Path]:
    """All there is, but for checkpoints and what the journal makes when it likes: snapshots and segments."""
    folder = Path(shared.service.settings.state).parent
    found = {path for path in folder.rglob("*") if not {"checkpoints", "snapshots"} & set(path.parts)}
    return {path for path in found if not re.fullmatch(r"journal/\d{8}\.log", "/".join(path.parts[-2:]))}


@pytest.mark.parametrize("name", NAMES)
def test_48_names_that_leave_the_store(shared, http, model, name):
    before = beside(shared)
    body = {"model_id": model, "seq_id": 200 + NAMES.index(name), "path": name}
    refused(http.post("/save_weights", json=body), status=(400, 422))
    refused(http.post("/save_weights_for_sampler", json=body), status=(400, 422))
    refused(
        http.post("/weights_info", json={"tinker_path": f"tinker://{model}/weights/{name}"}), status=(400, 404, 422)
    )
    assert {path.name for path in beside(shared) - before} <= OWN


@pytest.mark.parametrize("path", ["", "tinker://", "tinker://a/b", "file:///etc/passwd", "tinker://../../x/weights/y"])
def test_48_paths_that_lead_nowhere(http, owner, path):
    body = {"session_id": owner, "model_seq_id": 61, "path": path, "optimizer": True}
    refused(http.post("/load_weights", json=body), status=(400, 404, 422))
    body = {"session_id": owner, "sampling_session_seq_id": 61, "model_path": path}
    refused(http.post("/create_sampling_session", json=body), status=(400, 404, 422))


def test_48_checkpoints_of_another_kind(sdk, training):
    missing = f"tinker://{training.get_info().model_id}/weights/none"
    with pytest.raises(tinker.NotFoundError):
        sdk.create_training_client_from_state(missing).result()
    path = training.save_weights_for_sampler("drawn").result().path
    with pytest.raises(tinker.BadRequestError, match="sampler"):
        sdk.create_training_client_from_state(path).result()


def test_49_a_name_is_used_once_unless_it_is_overwritten(training):
    training.save_state("kept").result()
    with pytest.raises(tinker.BadRequestError, match="already"):
        training.save_state("kept").result()
    assert training.save_state("kept", overwrite=True).result().path.endswith("/weights/kept")


SAMPLES = {
    "none": {"num_samples": 0},
    "no tokens": {"sampling_params": {"max_tokens": 0}},
    "fewer": {"sampling_params": {"max_tokens": -1}},
    "colder than 0": {"sampling_params": {"temperature": -1}},
    "top_p above 1": {"sampling_params": {"top_p": 1.5}},
    "top_p 0": {"sampling_params": {"top_p": 0}},
    "top_k 0": {"sampling_params": {"top_k": 0}},
    "no prompt": {"prompt": {"chunks": []}},
    "a long prompt": {"prompt": {"chunks": [{"type": "encoded_text", "tokens": [65] * 300}]}},
    "a stop beyond": {"sampling_params": {"stop": [99999]}},
    "a prompt beyond": {"prompt": {"chunks": [{"type": "encoded_text", "tokens": [99999]}]}},
    "a picture": {"prompt": {"chunks": [{"type": "image", "data": "", "format": "png"}]}},
    "words": {"prompt": {"chunks": [{"type": "encoded_text", "tokens": ["a"]}]}},
}


@pytest.mark.parametrize("case", SAMPLES)
def test_50_samples_that_cannot_be(http, owner, case):
    body = {"session_id": owner, "sampling_session_seq_id": 9, "base_model": "tiny"}
    sampler = http.post("/create_sampling_session", json=body).json()["sampling_session_id"]
    ask = {
        "sampling_session_id": sampler,
        "seq_id": list(SAMPLES).index(case),
        "num_samples": 1,
        "prompt": {"chunks": [{"type": "encoded_text", "tokens": [65, 66]}]},
        "sampling_params": {"max_tokens": 4},
    }
    refused(http.post("/asample", json={**ask, **SAMPLES[case]}), status=(400, 422))


def test_50_the_sdk_says_so_at_once(sdk):
    sampler = sdk.create_sampling_client(base_model="tiny").result()
    with pytest.raises(tinker.APIStatusError):
        sampler.sample(prompt(), 1, types.SamplingParams(top_p=2.0)).result()


def test_51_answers_that_nobody_promised(http):
    assert http.post("/retrieve_future", json={"request_id": "nobody"}).status_code == 410
    assert http.post("/retrieve_future", json={"request_id": "a:sample:0:3"}).status_code == 410
    assert http.post("/retrieve_future", json={"request": 1}).status_code == 422
    assert http.post("/retrieve_future", content=b"{", headers={"Content-Type": "application/json"}).status_code == 422


def test_52_a_number_is_not_used_for_something_else(http, owner):
    fresh = made(http, number=70, owner=owner)
    assert sent(http, fresh, 1, batch()).status_code == 200
    refused(sent(http, fresh, 1, batch(seed=1)), "different contents", status=(400,))
    assert sent(http, fresh, 2, batch(seed=1)).status_code == 200


def test_a_target_that_is_no_token_is_refused_and_never_taken_for_another(shared):
    with http_of(shared) as http:
        owner = session(http)
        sampler = {"session_id": owner, "sampling_session_seq_id": 0, "base_model": "tiny"}
        id = http.post("/create_sampling_session", json=sampler).json()["sampling_session_id"]
        for wrong in (2**32 + 5, -2, 10_000):
            body = {
                "sampling_session_id": id,
                "seq_id": 1,
                "num_samples": 1,
                "prompt": {"chunks": [{"type": "encoded_text", "tokens": [5, 9]}]},
                "sampling_params": {"max_tokens": 1},
                "target_prompt_logprobs": {"data": [wrong], "dtype": "int64", "shape": [1, 1]},
            }
            refused(http.post("/asample", json=body), "target_prompt_logprobs", "-1 asks nothing")


@pytest.mark.parametrize("seq", [0, -1, 2**53, 10**40, True, "1"])
def test_52_a_number_that_cannot_be_counted_from_1_is_refused(http, model, seq):
    form = {"forward_backward_input": TINKER_BATCH, "model_id": model, "seq_id": seq}
    refused(http.post("/forward_backward", json=form))
    refused(http.post("/optim_step", json={"model_id": model, "seq_id": seq, "adam_params": {}}))


@pytest.mark.parametrize("value", [10**400, [1.0], {}, None, "1"])
def test_46_a_setting_of_a_loss_that_is_no_number_is_refused(http, model, value):
    form = {**TINKER_BATCH, "loss_fn": "cispo", "loss_fn_config": {"clip_high_threshold": value}}
    refused(http.post("/forward", json={"forward_input": form, "model_id": model}))


@pytest.mark.parametrize("shape", [[True, 2], [0, 10**30], [2.0]])
def test_44_a_shape_that_is_none_is_refused(http, model, shape):
    form = copy.deepcopy(TINKER_BATCH)
    form["data"][0]["loss_fn_inputs"]["target_tokens"]["shape"] = shape
    refused(http.post("/forward", json={"forward_input": form, "model_id": model}))


@pytest.mark.parametrize("place", ["a field that is not read", "stop", "the name of a session"])
def test_50_half_a_character_is_refused_or_not_read(http, owner, place):
    body = {"session_id": owner, "sampling_session_seq_id": 11, "base_model": "tiny"}
    ask = {
        "sampling_session_id": http.post("/create_sampling_session", json=body).json()["sampling_session_id"],
        "seq_id": 1,
        "prompt": {"chunks": [{"type": "encoded_text", "tokens": [65, 66]}]},
        "sampling_params": {"max_tokens": 4},
    }
    if place == "stop":
        ask["sampling_params"]["stop"] = ["HALF"]
    elif place == "the name of a session":
        ask["sampling_session_id"] = "HALF"
    else:
        ask["prompt"]["chunks"][0]["what"] = "HALF"
    text = json.dumps(ask).replace("HALF", "\\ud800")
    answer = http.post("/asample", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 422), answer.text
