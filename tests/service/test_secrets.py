"""Secrets that callers send are found nowhere afterwards, but in the answer that first showed them."""

import base64
import stat

import httpx
import pytest

from fettle.cli import serving as serving_verb
from fettle.errors import ConfigError
from fettle.service.artifacts import Artifacts
from tests.service.matrix import NATIVE_BATCH, TINKER_BATCH
from tests.service.served import Client, Spawned, serving

MARKS = [f"CANARY{number}aVerySecretThing" for number in range(8)]
PASSWORD = "CANARYpasswordOfTheDatabase"


def use_everything(server: Spawned) -> tuple[list[str], str]:
    """The answers to requests of every kind, all made with keys; and a further secret that one of them showed."""
    answers: list[httpx.Response] = []
    with server.client() as client:
        client.event_hooks["response"].append(answers.append)
        made = client.request("POST", "/v1/keys", json={"tenant": "second", "name": "for the night"}).json()["secret"]
        answers.clear()
        run = client.new_run(lora={"rank": 2})
        client.said("POST", f"/v1/runs/{run}/forward_backward?wait=60", NATIVE_BATCH)
        client.said("POST", f"/v1/runs/{run}/optim_step?wait=60", {"learning_rate": 1e-3})
        client.said("POST", f"/v1/runs/{run}/save_state?wait=60", {"name": "one"})
        client.request("POST", f"/v1/runs/{run}/forward", json={"data": [], "loss": {"type": "nosuch"}})
        client.said("POST", "/v1/completions", {"model": "tiny", "prompt": "one", "max_tokens": 2})
        client.request("POST", "/api/v1/forward", json={"model_id": "nosuch", "forward_input": TINKER_BATCH})
        for path in ("/v1/keys", "/v1/audit", "/v1/usage?tenant=*", "/metrics", "/openapi.json", "/v1/capabilities"):
            client.get(path)
        client.request("POST", "/sign-in", data={"key": server.key})
        client.get("/keys")
    with server.client(made) as second:
        second.event_hooks["response"].append(answers.append)
        second.get("/v1/runs")
        second.get(f"/v1/runs/{run}")
    return [said(answer) for answer in answers], made


def send_what_is_no_key(server: Spawned) -> list[str]:
    """The answers to secrets that were meant for somebody else."""
    known = server.key.rsplit("-", 1)[0]
    basic = base64.b64encode(f"me:{MARKS[0]}".encode()).decode()
    with Client(base_url=server.url, trust_env=False) as client:
        answers = [
            client.get("/v1/runs", headers={"Authorization": f"Basic {basic}"}),
            client.get("/v1/runs", headers={"Authorization": f"Bearer {MARKS[1]}"}),
            client.get("/v1/runs", headers={"X-API-Key": f"tml-{MARKS[2]}"}),
            client.get("/v1/runs", headers={"X-API-Key": f"{known}-{MARKS[3]}"}),
            client.get("/v1/runs", params={"api_key": MARKS[4]}),
            client.get("/v1/runs", headers={"Cookie": f"fettle_console={MARKS[5]}"}),
            client.post("/sign-in", data={"key": f"tml-abcdefghjk-{MARKS[6]}"}),
            client.post("/v1/keys", json={"tenant": "x"}, headers={"Authorization": MARKS[7]}),
        ]
    return [said(answer) for answer in answers]


def said(answer: httpx.Response) -> str:
    return "\n".join([answer.text, *(f"{name}: {value}" for name, value in answer.headers.items())])


def test_no_secret_is_found_in_answers_logs_or_files(spawned):
    server = spawned()
    answers, made = use_everything(server)
    answers += send_what_is_no_key(server)
    server.kill()
    places = {f"answer {number}": text.encode() for number, text in enumerate(answers)}
    places |= {str(path): path.read_bytes() for path in server.state.rglob("*") if path.is_file()}
    places["the log"] = server.log().encode()
    places["what was printed"] = server.said.encode()
    assert any(b"run_made" in contents for contents in places.values())
    secrets = [*MARKS, *(key.split("-", 2)[2] for key in (server.key, made))]
    found = [(place, secret[:6]) for place, held in places.items() for secret in secrets if secret.encode() in held]
    assert found == []


def test_the_databases_password_is_found_nowhere(tmp_path, tiny_model, postgres, caplog):
    caplog.set_level("DEBUG")
    url = postgres.new_database().replace("fettle@", f"fettle:{PASSWORD}@")
    state = tmp_path / "state"
    with serving(state, tiny_model, database_url=url) as served, served.client() as client:
        client.new_run(lora={"rank": 2})
        told = client.said("GET", "/v1/capabilities")
    held = [path.read_bytes() for path in state.rglob("*") if path.is_file()]
    assert held
    assert not any(PASSWORD.encode() in contents for contents in held)
    assert PASSWORD not in caplog.text + str(told)


def test_what_others_must_not_read_they_cannot(spawned):
    server = spawned()
    assert "the first key" in server.said
    assert stat.S_IMODE(server.state.stat().st_mode) == 0o700


def test_the_first_key_is_in_a_file_that_only_its_owner_can_read(tmp_path):
    path = tmp_path / "first-key"
    path.touch(mode=0o666)
    serving_verb._write_secret(path, "tml-x")
    assert path.read_text() == "tml-x\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_address_of_a_store_with_a_password_in_it_is_refused_and_not_quoted():
    for url in (f"s3://me:{PASSWORD}@bucket/prefix", f"nosuch://me:{PASSWORD}@host/prefix", f"s3://{PASSWORD}@bucket"):
        with pytest.raises(ConfigError) as caught:
            Artifacts(url)
        assert "artifacts_url" in caught.value.message
        assert PASSWORD not in caught.value.message


def test_who_has_no_good_key_is_not_told_where_the_database_is(tmp_path, tiny_model, postgres):
    url = postgres.new_database()
    with (
        serving(tmp_path / "state", tiny_model, database_url=url) as served,
        served.client("tml-abcdefghjk-x") as nobody,
    ):
        postgres.stop()
        try:
            answer = nobody.get("/v1/runs")
        finally:
            postgres.start()
    assert answer.status_code == 503
    assert not any(word in answer.text for word in ("127.0.0.1", "localhost", "fettle@", "postgresql", "port"))
