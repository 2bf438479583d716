"""Samplers: those that count though nobody draws from them, and those that a restart takes up without loading them."""

import shutil

from tests.service.served import Client, serving


def drawn(client: Client, sampler: str) -> list[list[int]]:
    asked = {"requests": [{"prompt": "one two", "params": {"max_tokens": 4, "temperature": 0}}]}
    told = client.said("POST", f"/v1/samplers/{sampler}/sample?wait=30", asked)
    return list(told["result"]["token_ids"])


def test_pins_that_nobody_drew_from_count_against_the_limit_after_a_restart_too(tmp_path, tiny_model):
    with serving(tmp_path / "state", tiny_model, max_samplers=3) as served, served.client() as client:
        run = client.new_run(lora={"rank": 2})
        pins = [client.said("POST", f"/v1/runs/{run}/sampler?wait=30")["id"] for _ in range(5)]
        assert served.service.counts()["pins"] == 3
        named = client.said("POST", "/v1/samplers", {"pin": pins[-1]})["id"]
        assert served.service.counts()["samplers"] == 3
        assert drawn(client, named)
    with serving(tmp_path / "state", tiny_model, max_samplers=3) as served, served.client() as client:
        assert served.service.counts()["samplers"] == 3
        for _ in range(2):
            client.said("POST", f"/v1/runs/{run}/sampler?wait=30")
        assert served.service.counts()["pins"] == 3
        client.said("DELETE", f"/v1/samplers/{named}")
        assert pins[-1] not in served.service.broker.pins()


def test_a_checkpoints_sampler_is_loaded_when_it_is_first_drawn_from(tmp_path, tiny_model):
    with serving(tmp_path / "state", tiny_model) as served, served.client() as client:
        run = client.new_run(lora={"rank": 2})
        samplers = []
        for name in ("kept", "gone"):
            client.said("POST", f"/v1/runs/{run}/save_state?wait=30", {"name": name, "optimizer": False})
            said = {"checkpoint": f"{run}/sampler_weights/{name}"}
            samplers.append(client.said("POST", "/v1/samplers", said)["id"])
        before, version = (drawn(client, samplers[0]), client.said("GET", f"/v1/samplers/{samplers[0]}")["version"])
        client.said("DELETE", f"/v1/checkpoints/{run}/sampler_weights/gone")
    folder = next((tmp_path / "state" / "checkpoints").rglob("kept"))
    aside = shutil.move(folder, tmp_path / "aside")
    with serving(tmp_path / "state", tiny_model) as served, served.client() as client:
        assert client.said("GET", f"/v1/samplers/{samplers[0]}")["version"] == version
        client.said("GET", f"/v1/samplers/{samplers[1]}", status=404)
        shutil.move(aside, folder)
        assert drawn(client, samplers[0]) == before
