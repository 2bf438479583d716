"""Conformance, lines 53 to 66: sessions end, servers end and begin again, and everything can be managed."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import tinker
from tinker import types

from fettle.config import Scheduling
from fettle.service.faces.tinker import control
from tests.service.faces.tinker.programs import (
    PATIENCE_S,
    adam,
    batch,
    http_of,
    made,
    prompt,
    rest_of,
    retrieved,
    sdk_of,
    sent,
    session,
)
from tests.service.served import serving


def test_53_a_session_that_is_silent_comes_to_its_end(tmp_path, tiny_model):
    with serving(tmp_path, tiny_model, session_timeout_s=2.0) as server, http_of(server) as http:
        silent, heard = session(http), session(http)
        lost, kept = made(http, owner=silent), made(http, owner=heard)
        assert http.post("/session_heartbeat", json={"session_id": silent}).status_code == 200
        for _ in range(10):
            for _ in range(10):
                time.sleep(0.3)
                assert http.post("/session_heartbeat", json={"session_id": heard}).status_code == 200
            if http.post("/get_info", json={"model_id": lost}).status_code == 404:  # asking is a sign of life too
                break
        assert http.post("/session_heartbeat", json={"session_id": silent}).status_code == 410
        assert sent(http, lost, 1, batch()).status_code == 404
        assert sent(http, kept, 1, batch()).status_code == 200


def test_54_a_session_is_finished_once_and_for_itself(http):
    ended, going_on = session(http), session(http)
    lost, kept = made(http, owner=ended), made(http, owner=going_on)
    for _ in range(2):
        reason = {"reason": {"type": "success"}, "detail": None}
        assert http.post(f"/sessions/{ended}/finish", json=reason).status_code == 204
    assert sent(http, lost, 1, batch()).status_code == 404
    assert retrieved(http, sent(http, kept, 1, batch()).json()["request_id"])["metrics"]["loss:sum"] > 0


def test_55_too_many_samples_are_put_off_and_all_are_drawn(tmp_path, tiny_model):
    scheduling = Scheduling(waiting_draws=4, gather="free")
    served = serving(tmp_path, tiny_model, scheduling=scheduling)
    with served as server, http_of(server) as http, sdk_of(server) as sdk:
        sampler = sdk.create_sampling_client(base_model="tiny").result()
        body = {"session_id": session(http), "sampling_session_seq_id": 0, "base_model": "tiny"}
        by_hand = http.post("/create_sampling_session", json=body).json()["sampling_session_id"]
        ask = {"sampling_session_id": by_hand, "prompt": {"chunks": [{"type": "encoded_text", "tokens": [65]}]}}
        with server.held():
            answers = [http.post("/asample", json={**ask, "seq_id": seq}) for seq in range(5)]
            assert [answer.status_code for answer in answers] == [200] * 4 + [429]
            assert float(answers[-1].headers["retry-after"]) > 0
            assert sent(http, made_later(http, server), 1, batch()).status_code == 200
        promised = [sampler.sample(prompt(65 + i), 1, types.SamplingParams(max_tokens=2)) for i in range(12)]
        assert all(one.result().sequences for one in promised)


def made_later(http, server):
    """The id of a model that is not there yet, since everything waits."""
    body = {"session_id": session(http), "model_seq_id": 0, "base_model": "tiny", "lora_config": {"rank": 4}}
    return http.post("/create_model", json=body).json()["model_id"]


def test_56_a_full_house_says_so(tmp_path, tiny_model):
    with serving(tmp_path, tiny_model, max_policies=2) as server, http_of(server) as http:
        owner = session(http)
        for number in range(2):
            made(http, number=number, owner=owner)
        body = {"session_id": owner, "model_seq_id": 2, "base_model": "tiny", "lora_config": {"rank": 4}}
        answer = http.post("/create_model", json=body)
        assert answer.status_code == 400
        assert "2" in answer.json()["detail"]


def test_57_runs_and_checkpoints_are_listed_and_deleted(sdk, training, shared):
    rest = rest_of(shared)
    run = training.get_info().model_id
    state, drawn = training.save_state("0001").result().path, training.save_weights_for_sampler("0002").result().path
    sampler = sdk.create_sampling_client(model_path=drawn).result()
    runs = rest.list_training_runs(limit=1).result()
    assert runs.training_runs[0].training_run_id == run
    assert runs.cursor.total_count >= 1
    shown = rest.get_training_run(run).result()
    assert (shown.base_model, shown.is_lora, shown.lora_rank) == ("tiny", True, 4)
    assert shown.last_checkpoint.tinker_path == state
    listed = {one.checkpoint_id: one for one in rest.list_checkpoints(run).result().checkpoints}
    assert set(listed) == {"weights/0001", "sampler_weights/0002"}
    assert listed["weights/0001"].checkpoint_type == "training"
    assert {one.tinker_path for one in rest.list_user_checkpoints().result().checkpoints} >= {state, drawn}
    rest.delete_checkpoint(run, "weights/0001").result()
    with pytest.raises(tinker.NotFoundError):
        rest.delete_checkpoint(run, "weights/0001").result()
    rest.delete_checkpoint_from_tinker_path(drawn).result()
    assert sampler.sample(prompt(), 1, types.SamplingParams(max_tokens=2)).result().sequences


def test_58_what_a_user_notes_is_kept_over_a_restart(tmp_path, tiny_model):
    noted = {"renderer_name": "plain"}
    with serving(tmp_path, tiny_model) as server, sdk_of(server) as sdk:
        training = sdk.create_lora_training_client("tiny", rank=4, user_metadata=noted).result()
        training.save_state("kept", user_metadata={"step": "7"}).result()
        run, key = training.get_info().model_id, server.key
    with serving(tmp_path, tiny_model) as server:
        rest = rest_of(server, key)
        assert rest.get_training_run(run).result().user_metadata == noted
        assert rest.list_checkpoints(run).result().checkpoints[0].user_metadata == {"step": "7"}


def test_59_checkpoints_have_their_time(training, http, shared):
    rest = rest_of(shared)
    path = training.save_state("brief", ttl_seconds=1).result().path
    kept = training.save_state("longer", ttl_seconds=7200).result().path
    shown = {one.tinker_path: one for one in rest.list_user_checkpoints().result().checkpoints}
    assert shown[kept].expires_at is not None
    deadline = time.monotonic() + PATIENCE_S
    while http.post("/weights_info", json={"tinker_path": path}).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for seconds in (60, 11 * 365 * 86400):
        with pytest.raises(tinker.BadRequestError, match="3600"):
            rest.set_checkpoint_ttl_from_tinker_path(kept, seconds).result()
    rest.set_checkpoint_ttl_from_tinker_path(kept, None).result()
    assert not {o.tinker_path: o for o in rest.list_user_checkpoints().result().checkpoints}[kept].expires_at


def test_60_weights_say_what_they_are(training, shared):
    rest = rest_of(shared)
    paths = [training.save_state("a").result().path, training.save_weights_for_sampler("a").result().path]
    for path in paths:
        info = rest.get_weights_info_by_tinker_path(path).result()
        assert (info.base_model, info.is_lora, info.lora_rank) == ("tiny", True, 4)


def test_61_what_is_not_known_is_passed_over(http):
    assert http.post("/telemetry", json={"events": [{"x": 1}]}).json() == {"status": "accepted"}
    assert http.post("/create_session", json={"new_in_0_39": {"a": [1]}}).status_code == 200
    unknown = http.get("/no/such/thing")
    assert unknown.status_code == 404
    assert unknown.json()["detail"]


def test_64_refusals_have_a_body_and_successes_no_error(http):
    for answer in (http.post("/get_info", json={"model_id": "x"}), http.post("/get_info"), http.get("/samplers/x")):
        assert answer.content
        assert answer.json()["detail"]
    done = retrieved(http, sent(http, made(http), 1, batch()).json()["request_id"])
    assert "error" not in done


def test_65_a_hundred_connections_and_clients_that_leave(shared, http):
    model = made(http)
    waiting = http.post("/optim_step", json={"model_id": model, "seq_id": 1, "adam_params": {}}).json()["request_id"]
    with socket.create_connection((shared.url.split("/")[-1].split(":")[0], int(shared.url.split(":")[-1]))) as leaving:
        body = f'{{"request_id": "{waiting}"}}'.encode()
        head = f"POST /api/v1/retrieve_future HTTP/1.1\r\nHost: x\r\nX-API-Key: {shared.key}\r\n"
        leaving.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    with httpx.Client(limits=limits, timeout=PATIENCE_S, headers=http.headers) as many, ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: many.get(f"{shared.url}/api/v1/healthz"), range(300)))
    assert all(answer.json() == {"status": "ok"} for answer in answers)
    parts = http.post("/get_info", content=iter([b'{"model', f'_id": "{model}"}}'.encode()]), headers=JSON)
    assert parts.json()["model_id"] == model
    assert retrieved(http, waiting)


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("transport", [True, False])
def test_66_both_transports_of_the_sdk(shared, monkeypatch, transport):
    monkeypatch.setitem(control.CLIENT, "use_pyqwest_transport", transport)
    with sdk_of(shared) as sdk:
        training = sdk.create_lora_training_client("tiny", rank=4).result()
        done = training.forward_backward(batch(), "cross_entropy")
        assert training.optim_step(adam()).result().metrics["policy_version"] == 1
        assert done.result().metrics["loss:sum"] > 0
